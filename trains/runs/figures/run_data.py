"""The files of a run, which trains.runs.record writes: in --res_save_dir, one folder for all seeds of an experiment.

run.json              settings, hyper-parameters, versions, hashes; scores: published, and of guessing the mean
SEED-history.csv      a row per epoch: losses, validation metrics; with human unimodal labels, the generated ones' quality
SEED-predictions.csv  scores and labels: of the test clips, and of the training clips whose labels disagree most
SEED-labels.npz       --save_labels: id (N,), epoch (E,), fusion (N,); text, audio, vision (E, N), after each epoch
SEED-features.npz     --save_predictions, which adds the other clips to the table: SPLIT_id (N,), SPLIT_TASK (N, D)
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from config.config_regression import DATASETS, Config, Dataset
from trains.runs.results import RUN, read_rows
from utils.errors import UserError, first_line

FACTS, HISTORY, PREDICTIONS = "run.json", "history.csv", "predictions.csv"
EPOCH_LABELS, FEATURES = "labels.npz", "features.npz"
CASES = 20  # training clips whose labels disagree most
# Columns that are numbers, of the seeds CSV and of the predictions.
SEED_NUMBERS, CLIP_NUMBERS = r"MAE|Corr|acc_|F1_|Loss|^(seed|best_epoch|epochs|seconds)$", r"(score|label|human)$"


@dataclass
class RunData:
    folder: Path
    facts: dict  # run.json
    dataset: Dataset
    tasks: list[str]
    rows: pd.DataFrame  # of the seeds CSV, one for each finished seed, which is the index
    histories: dict[int, pd.DataFrame]  # finished seed -> its history, by epoch
    seed: int  # the one that is shown clip by clip
    clips: pd.DataFrame  # its predictions
    labels: dict[str, np.ndarray] | None  # its labels after each epoch; None without --save_labels


def read_run_data(folder: Path, seed: int | None = None) -> RunData:
    """Reads a run. seed: the one to show; None: the first. Raises UserError if a file is missing or damaged."""
    facts, histories = read_run(folder), {}
    seeds_csv = folder.parent / "normals" / f"{facts['dataset']}-regression-seeds.csv"
    rows = read_rows(seeds_csv, [*RUN, "best_epoch"])
    rows = rows[(rows["config_hash"] == facts["config_hash"]) & (rows["model"] == facts["model"])]
    rows = _with_numbers(rows, seeds_csv, SEED_NUMBERS).dropna(subset=["seed", "best_epoch"])
    rows = rows.astype({"seed": int}).drop_duplicates("seed", keep="last").set_index("seed").sort_index()
    for number, best in rows["best_epoch"].items():
        if (path := folder / f"{number}-{HISTORY}").exists():
            history = read_rows(path, ["epoch", "train_loss", "valid_Loss", "valid_Corr"])
            history = _with_numbers(history, path, ".").set_index("epoch")
            if best in history.index:  # while a spreadsheet has the file open, no epochs are added
                histories[number] = history
    files = {number: folder / f"{number}-{PREDICTIONS}" for number in histories if seed in (None, number)}
    if (shown := next((number for number, path in files.items() if path.exists()), None)) is None:
        which = "any seed" if seed is None else f"seed {seed}"
        raise UserError(f"{folder}: no files of {which}, or no row in {seeds_csv}")
    dataset, tasks = DATASETS[facts["dataset"]], list(Config(**facts["hyper_parameters"]).task_names)
    columns = [f"{task}_{name}" for task in tasks[1:] for name in ("score", "label")]
    clips = read_rows(files[shown], ["split", "id", "text", "score", "label", *columns])
    clips = clips.replace(r"^'(?=[=+@-])", "", regex=True)  # the quote is for spreadsheets
    clips = _with_numbers(clips, files[shown], CLIP_NUMBERS)
    labels = read_labels(path) if (path := folder / f"{shown}-{EPOCH_LABELS}").exists() else None
    return RunData(folder, facts, dataset, tasks, rows, histories, shown, clips, labels)


def read_run(folder: Path) -> dict:
    """The content of run.json. Raises UserError if it is missing or damaged."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        Config(**facts["hyper_parameters"]), DATASETS[facts["dataset"]]  # raise unless they are right
        return facts
    except (OSError, KeyError, TypeError, ValueError, UserError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        mend = "name the folder of a run, such as results/results/self_mm-mosi-regression"
        raise UserError(f"{folder / FACTS}: cannot be read ({reason}); {mend}") from None


def read_labels(path: Path, epochs: int | None = None) -> dict[str, np.ndarray]:
    """The arrays of SEED-labels.npz, to an epoch. Raises UserError if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        kept = arrays["epoch"] <= (np.inf if epochs is None else epochs)
        return {name: values if name in ("id", "fusion") else values[kept] for name, values in arrays.items()}
    except (OSError, EOFError, KeyError, IndexError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: damaged ({type(error).__name__}); remove it") from None


def _with_numbers(rows: pd.DataFrame, path: Path, columns: str) -> pd.DataFrame:
    """The rows of a CSV with some columns (a regular expression) as numbers; "" is nan. Raises UserError for a text there."""
    try:
        return rows.assign(**{name: rows[name].replace("", "nan").astype(float) for name in rows.filter(regex=columns)})
    except ValueError as error:
        raise UserError(f"{path}: damaged row ({first_line(error)}); repair the file, or move it away") from None


def disagreement(values: pd.DataFrame) -> pd.Series:
    """(N,) from the lowest to the highest modality; to fusion, if there is but one. values: a column a task, fusion first."""
    values = values.iloc[:, 1:] if values.shape[1] > 2 else values
    return values.max(axis=1) - values.min(axis=1)
