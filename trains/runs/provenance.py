"""What a result was computed from, and how: recorded in every row, checkpoint and log."""

import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
from dataclasses import asdict, dataclass

import torch

from config.config_regression import PRESETS, REPOSITORY, Config, presets_of

DATA_AND_ENCODER = ("model", "dataset", "aligned", "features_sha1", "bert")
LONGEST_SUFFIX = 60  # characters
MACHINE = ("device", "threads", "ranks", "max_clips_per_pass", "deterministic")  # left out of checkpoints


@dataclass(frozen=True)
class Provenance:
    """The fields are columns of the seeds CSV, in this order."""

    model: str
    dataset: str
    settings: str  # what differs from the dataset's default table, features and encoder, in words: see in_words
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

    @property
    def suffix(self) -> str:
        """Of a checkpoint's name: what differs from the default settings, which have none."""
        words = re.sub(r"(^| )(features|bert)=", r"\1", self.settings).replace(" ", "-")
        suffix = "" if self.settings == presets_of(self.dataset)[0] else f"-{words}"
        return suffix if len(suffix) <= LONGEST_SUFFIX else f"-{self.config_hash}"


def in_words(dataset: str, config: Config, others: dict[str, str]) -> str:
    """What differs from a dataset's default table: "released" if nothing does, or "mmsa MT bf16 batch_size=16 features=own".

    others: key -> value of differences outside the table; "" as the value: the key says it all.
    """
    short = {"tasks": "", "precision": "", "unimodal_labels": ""}  # come first, and without their keys
    values = short | asdict(config) | {"max_clips_per_pass": 0}
    tables = {name: vars(Config(**PRESETS[name][dataset])) for name in presets_of(dataset)}
    differing = {name: [key for key in values if values[key] != table[key]] for name, table in tables.items()}
    nearest = min(tables, key=lambda name: len(differing[name]))
    words = [] if nearest == next(iter(tables)) else [nearest]
    words += [values[key] if key in short else f"{key}={values[key]}" for key in differing[nearest]]
    words += [f"{key}={value}" if value else key for key, value in others.items()]
    return " ".join(re.sub(r"[^\w.=-]", "_", word) for word in words) or nearest


def make_provenance(source: dict, config: Config, device: torch.device, ranks: int, others: dict) -> Provenance:
    """The provenance of a run by this process. source: the values of DATA_AND_ENCODER. others: see in_words."""
    packages = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "numpy")]
    on_gpu = device.type == "cuda"
    return Provenance(
        **source,
        settings=in_words(source["dataset"], config, others),
        config_hash=hashlib.sha1(json.dumps([source, config.identity()]).encode()).hexdigest()[:10],
        versions=" ".join([f"python {platform.python_version()}", *packages]), commit=commit(),
        # CPUs round differently depending on the instruction set that PyTorch uses.
        device=torch.cuda.get_device_name(device) if on_gpu else f"cpu {torch.backends.cpu.get_cpu_capability()}",
        threads=torch.get_num_threads(), ranks=ranks, max_clips_per_pass=config.max_clips_per_pass,
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )  # fmt: skip


def commit() -> str:
    """The commit of this repository, with '+' if tracked files differ from it; '' outside a git checkout."""
    command = "git --git-dir=.git --work-tree=. describe --always --exclude=* --abbrev=10 --dirty=+".split()
    try:
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
    except OSError:  # git is not installed
        return ""
