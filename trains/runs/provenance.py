"""What a result was computed from, and how: recorded in every row, checkpoint and log."""

import hashlib
import importlib.metadata
import json
import platform
import subprocess
from dataclasses import asdict, dataclass

import torch

from config.config_regression import REPOSITORY, Config

DATA_AND_ENCODER = ("model", "dataset", "aligned", "features_sha1", "bert")
MACHINE = ("device", "threads", "ranks", "max_clips_per_pass", "deterministic")


@dataclass(frozen=True)
class Provenance:
    """The fields are columns of the seeds CSV, in this order."""

    model: str
    dataset: str
    aligned: bool
    features_sha1: str
    bert: str  # a hash of the pretrained weights
    config_hash: str  # identifies an experiment: the summary averages over the seeds that share it
    versions: str
    commit: str
    device: str
    threads: int
    ranks: int
    max_clips_per_pass: int
    deterministic: bool

    def data_and_encoder(self) -> dict[str, object]:
        """Shared by all trials of a sweep."""
        return {key: getattr(self, key) for key in DATA_AND_ENCODER}

    def metadata(self) -> dict[str, object]:
        """For the checkpoint: everything that does not depend on the machine."""
        return {key: value for key, value in asdict(self).items() if key not in MACHINE}


def make_provenance(data_and_encoder: dict, config: Config, device: torch.device, ranks: int) -> Provenance:
    """The provenance of a run by this process."""
    identity = json.dumps([data_and_encoder, config.identity()])
    packages = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "numpy")]
    on_gpu = device.type == "cuda"
    return Provenance(
        **data_and_encoder,
        config_hash=hashlib.sha1(identity.encode()).hexdigest()[:10],
        versions=" ".join([f"python {platform.python_version()}", *packages]),
        commit=commit(),
        # CPUs round differently depending on the instruction set that PyTorch uses.
        device=torch.cuda.get_device_name(device) if on_gpu else f"cpu {torch.backends.cpu.get_cpu_capability()}",
        threads=torch.get_num_threads(),
        ranks=ranks,
        max_clips_per_pass=config.max_clips_per_pass,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )


def commit() -> str:
    """The commit of this repository, with '+' if tracked files differ from it; '' outside a git checkout."""
    command = "git --git-dir=.git --work-tree=. describe --always --exclude=* --abbrev=10 --dirty=+".split()
    try:
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
    except OSError:  # git is not installed
        return ""
