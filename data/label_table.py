"""The table of own clips, label.csv: which there are, what is said in them, their labels and splits."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from config.config_regression import Dataset
from data.feature_file import SPLITS, UNIMODAL_LABELS
from utils.functions import UserError, brief

COLUMNS = ("video_id", "clip_id", "text", "label", "mode")
UNIMODAL_COLUMNS = {"label_T": "text", "label_A": "audio", "label_V": "vision"}
ANNOTATIONS = ("Negative", "Neutral", "Positive")  # by the label's sign
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".flv", ".wmv")


@dataclass(frozen=True)
class LabelledClip:
    video_id: str  # as written: leading zeros count
    clip_id: str
    text: str
    label: float
    split: str
    annotation: str
    unimodal: dict[str, float] = field(default_factory=dict)  # task -> label, where the table has one

    @property
    def id(self) -> str:
        return f"{self.video_id}$_${self.clip_id}" if self.clip_id else self.video_id

    def find_video(self, root: Path) -> Path:
        """Its file below Raw/: an mp4, else one of the other kinds; the mp4's name where there is none."""
        candidates = [root / self.video_id / f"{self.clip_id}{kind}" for kind in VIDEOS]
        return next((file for file in candidates if file.is_file()), candidates[0])


def read_label_table(path: Path, dataset: Dataset) -> tuple[list[LabelledClip], dict[str, str]]:
    """The clips of a label table, and for each row that can't be used, by its id, why.

    dataset: whose range the labels lie in. Raises UserError for a file that is no such table, or that has no clip for one of the splits.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except OSError as error:
        raise UserError(
            f"{path}: can't be read ({error.strerror}); it must list the clips: {', '.join(COLUMNS)}"
        ) from None
    except ValueError as error:  # pandas' errors are ValueErrors
        raise UserError(f"{path}: no CSV file in UTF-8 ({brief(error)})") from None
    table.columns = table.columns.str.strip()
    lacking = [name for name in COLUMNS if name not in table.columns]
    if lacking:
        raise UserError(f"{path}: has no column {', '.join(lacking)}; it has {brief(', '.join(table.columns))}")
    clips: dict[str, LabelledClip] = {}
    refused: dict[str, str] = {}
    for number, row in enumerate(table.to_dict("records"), 2):
        clip_id = f"{row['video_id']}$_${row['clip_id']}"
        try:
            clip = _read_row(row, dataset)
            if clip_id in clips:
                raise ValueError(f"line {number}: the id stands in the table twice; the first is used")
            clips[clip_id] = clip
        except ValueError as error:
            refused[clip_id if clip_id not in clips else f"{clip_id} (line {number})"] = str(error)
    for split in SPLITS:
        if not any(clip.split == split for clip in clips.values()):
            raise UserError(
                f"{path}: has no usable clip whose mode is {split}; training needs all of {', '.join(SPLITS)}"
            )
    return list(clips.values()), refused


def _read_row(row: dict[str, str], dataset: Dataset) -> LabelledClip:
    """Raises ValueError for what can't be used, in words."""
    if not row["video_id"].strip() or not row["clip_id"].strip():
        raise ValueError("video_id or clip_id is empty")
    split = row["mode"].strip().lower()
    if split not in SPLITS:
        raise ValueError(f"mode is {row['mode']!r}; expected one of {', '.join(SPLITS)}")
    label = _read_label("label", row["label"], dataset)
    annotation = row.get("annotation", "").strip() or ANNOTATIONS[int(np.sign(label)) + 1]
    unimodal = {
        task: _read_label(column, row[column], dataset)
        for column, task in UNIMODAL_COLUMNS.items()
        if row.get(column, "").strip()
    }
    return LabelledClip(row["video_id"], row["clip_id"], row["text"].strip(), label, split, annotation, unimodal)


def _read_label(column: str, written: str, dataset: Dataset) -> float:
    try:
        value = float(written)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ValueError(f"{column} is {written!r}; expected a number")
    if abs(value) > (bound := dataset.label_bound):
        raise ValueError(
            f"{column} {value:g} is outside [-{bound:g}, {bound:g}], the range of {dataset.name} (--datasetName)"
        )
    return value


def common_unimodal_labels(clips: list[LabelledClip]) -> list[str]:
    """The tasks that every clip has a label of its own for."""
    return [task for task in UNIMODAL_LABELS if all(task in clip.unimodal for clip in clips)]
