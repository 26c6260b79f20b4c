"""What a run's numbers come from: said in every row, checkpoint and log."""

import hashlib
import importlib.metadata
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from config.config_regression import Config

DATA_AND_ENCODER = ("model", "dataset", "aligned", "features_sha1", "bert")
MACHINE = ("device", "threads", "ranks", "max_clips_per_pass", "deterministic")


@dataclass(frozen=True)
class Provenance:
    """In the order of the seeds CSV's columns."""

    model: str
    dataset: str
    aligned: bool
    features_sha1: str
    bert: str  # a hash of the pretrained weights
    config_hash: str  # runs that agree in it are one experiment: their seeds go into one line of the summary
    versions: str
    commit: str
    device: str
    threads: int
    ranks: int
    max_clips_per_pass: int
    deterministic: bool

    def row(self) -> dict[str, object]:
        return asdict(self)

    def data_and_encoder(self) -> dict[str, object]:
        """What all trials of a sweep share."""
        return {key: getattr(self, key) for key in DATA_AND_ENCODER}

    def metadata(self) -> dict[str, object]:
        """What a checkpoint says of itself, on whichever machine it was made."""
        return {key: value for key, value in self.row().items() if key not in MACHINE}

    def conditions(self) -> dict[str, object]:
        """What a repeated or resumed run needs besides the same settings, to come to the same numbers to the bit."""
        return {key: getattr(self, key) for key in (*MACHINE, "versions", "commit")}

    def __str__(self) -> str:
        return "; ".join(f"{key} {value}" for key, value in self.row().items())


def make_provenance(
    data_and_encoder: dict[str, object], config: Config, device: torch.device, ranks: int
) -> Provenance:
    """The provenance of a run of this process."""
    identity = json.dumps([data_and_encoder, config.identity()])
    return Provenance(
        **data_and_encoder,
        config_hash=hashlib.sha1(identity.encode()).hexdigest()[:10],
        versions=versions(),
        commit=commit(),
        # A CPU with the instructions that PyTorch uses: others round differently.
        device=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu {torch.backends.cpu.get_cpu_capability()}",
        threads=torch.get_num_threads(),
        ranks=ranks,
        max_clips_per_pass=config.max_clips_per_pass,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )


def versions() -> str:
    """Versions of Python and of the packages that the numbers depend on, as one line."""
    packages = ("torch", "transformers", "numpy")
    found = [f"python {sys.version.split()[0]}"]
    return " ".join(found + [f"{name} {importlib.metadata.version(name)}" for name in packages])


def commit() -> str:
    """The commit of this repository, with '+' where files differ from it; '' outside a git checkout."""

    def git(*words: str) -> str:
        here = Path(__file__).resolve().parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
