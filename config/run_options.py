"""What a call of run.py asks for: every flag, checked and typed."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from config.config_regression import DATASETS, TYPE_NAMES, Config, Dataset, make_config
from config.tuned import Tuned
from utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Named as the flags are, in this order."""

    # what to train
    model_name: str
    dataset_name: str | None  # None: mosi, or what a checkpoint says
    preset: str | None
    params: Path | None
    tuned: Tuned | None  # what --params or --preset tuned names
    hyper_parameters: dict[str, object]  # what the flags change of the table
    seeds: tuple[int, ...]
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
    gpu_ids: tuple[int, ...] | None
    threads: int | None
    num_workers: int
    deterministic: bool
    as_job: bool  # started by --jobs
    argv: tuple[str, ...]  # the command line, for jobs of the same run

    @property
    def dataset(self) -> Dataset:
        return DATASETS[self.dataset_name or "mosi"]

    def config(self, **overrides: object) -> Config:
        """The hyper-parameters, but for the overrides. Raises UserError for those that don't exist or fit."""
        preset = None if self.tuned is not None else self.preset
        return make_config(self.dataset.name, preset, **(self.hyper_parameters | overrides))


def parse_setting(text: str) -> tuple[str, object]:
    """KEY=VALUE of the command line -> the key and its typed value. Raises UserError where VALUE isn't of KEY's type."""
    key, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"--set {text}: expected KEY=VALUE, for example --set batch_size=16")
    key, value = key.strip(), value.strip()
    types = {field.name: field.type for field in dataclasses.fields(Config)}
    kind = types.get(key, str)  # an unknown key is named by make_config
    try:
        if kind is bool:
            return key, {"true": True, "1": True, "false": False, "0": False}[value.lower()]
        return key, kind(value)
    except (ValueError, KeyError):
        raise UserError(f"--set {text}: {key} takes {TYPE_NAMES[kind]}") from None
