"""Helpers for the tests of sweeps."""

import functools
from pathlib import Path

import alembic.util.pyfiles
import optuna
import pandas as pd

import run
from config.config_tune import Range

# Otherwise Alembic compiles Optuna's migrations, which none of these tests change, several times for each database.
alembic.util.pyfiles.load_module_py = functools.cache(alembic.util.pyfiles.load_module_py)

TUNES = Path("results/results/tunes")
CSV = TUNES / "mosi-self_mm-regression-tune.csv"
BEST = TUNES / "mosi-self_mm-regression-best.json"
DATABASE = f"sqlite:///{TUNES}/mosi-self_mm-regression-tune.db"
SPACE = {
    "batch_size": [4, 8],
    "learning_rate_other": Range(1e-4, 1e-2, log=True),
    "post_fusion_dim": Range(8, 16),
    "post_text_dropout": [0.0, 0.1],
}


def tune(place, *argv: str, times: int = 4) -> int:
    flags = ["--is_tune", "--tune_times", str(times), "--heartbeat", "1", "--threads", "1", "--set", "update_epochs=2"]
    return run.main(place.command("--datasetName", "mosi", "--seeds", "1111", *flags, *argv))


def rows(csv: Path = CSV) -> pd.DataFrame:
    return pd.read_csv(csv)


def trials(database: str = DATABASE) -> list[optuna.trial.FrozenTrial]:
    """The trials of a database's only study."""
    return optuna.load_study(study_name=None, storage=database).trials
