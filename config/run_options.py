"""What a call of run.py asks for: every flag, checked and typed."""

from dataclasses import dataclass
from pathlib import Path

from config.config_regression import DATASETS, TYPE_NAMES, Config, Dataset, make_config
from config.tuned import Tuned
from utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The flags, in the order of --help. None: not given."""

    # what to train
    model_name: str
    dataset_name: str | None
    preset: str | None  # released or mmsa
    tuned: Tuned | None  # the file that --params or --preset tuned names
    hyper_parameters: dict[str, object]  # keys of Config that the flags or the tuned file set
    seeds: list[int]
    test_only: Path | None
    resume: bool

    # sweep
    is_tune: bool
    tune_times: int
    storage: str | None
    sampler: str
    pruner: str
    heartbeat: int  # seconds

    # files
    data_path: Path | None
    bert: str | None
    aligned: bool
    cache_dir: Path | None
    model_save_dir: Path
    res_save_dir: Path
    save_every: float  # minutes

    # machine
    jobs: int
    gpu_ids: list[int] | None  # -1: the CPU
    threads: int | None
    num_workers: int
    deterministic: bool
    as_job: bool  # whether --jobs started this process
    argv: list[str]  # the command line, repeated to jobs

    @property
    def dataset(self) -> Dataset:
        return DATASETS[self.dataset_name or "mosi"]

    @property
    def features(self) -> dict[str, object]:
        """Where and how to open the features, as keyword arguments for trains/runs/open.py."""
        where = {"features": self.data_path, "cache_dir": self.cache_dir}
        return where | {"aligned": self.aligned, "num_workers": self.num_workers}

    def config(self, **overrides: object) -> Config:
        """The hyper-parameters, with overrides. Raises UserError for an unknown key or a bad value."""
        return make_config(self.dataset.name, self.preset, **(self.hyper_parameters | overrides))


def parse_setting(text: str) -> tuple[str, object]:
    """Splits "KEY=VALUE" into the key and its typed value. Raises UserError if VALUE does not have KEY's type."""
    key, separator, value = (part.strip() for part in text.partition("="))
    if not separator:
        raise UserError(f"--set {text}: expected KEY=VALUE, for example --set batch_size=16")
    kind = Config.__annotations__.get(key, str)  # make_config reports an unknown key
    try:
        return key, true_or_false(value) if kind is bool else kind(value)
    except ValueError:
        raise UserError(f"--set {text}: {key} takes {TYPE_NAMES[kind]}") from None


def true_or_false(text: str) -> bool:
    """Raises ValueError, which argparse reports."""
    if text.lower() not in ("true", "1", "false", "0"):
        raise ValueError(text)
    return text.lower() in ("true", "1")
