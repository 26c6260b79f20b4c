"""The table of own clips, label.csv: which there are, what is said in them, their labels and splits."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from config.config_regression import Dataset
from data.schema import SPLITS, UNIMODAL_LABELS
from utils.errors import UserError, first_line

COLUMNS = ("video_id", "clip_id", "text", "label", "mode")
UNIMODAL_COLUMNS = {"label_T": "text", "label_A": "audio", "label_V": "vision"}
ANNOTATIONS = ("Negative", "Neutral", "Positive")  # by the label's sign
SOUNDS = (".wav", ".mp3", ".flac", ".m4a", ".ogg")  # enough for a model without faces
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
        """Its file below Raw/: an mp4, else another kind of video, else of sound; the mp4's name where there is none."""
        kinds = [spelt for kind in VIDEOS + SOUNDS for spelt in (kind, kind.upper())]
        candidates = [root / self.video_id / f"{self.clip_id}{kind}" for kind in kinds]
        # os.path's is False, too, for a name longer than files may have.
        return next((file for file in candidates if os.path.isfile(file)), candidates[0])


def read_label_table(
    path: Path, dataset: Dataset, may_be_silent: bool = False
) -> tuple[list[LabelledClip], dict[str, str]]:
    """The clips of a label table, and for each row that can't be used, by its id, why.

    dataset: whose range the labels lie in. may_be_silent: clips without a text are used too. Raises UserError for a file that is
    no such table, or that a training could do nothing with.
    """
    clips: dict[str, LabelledClip] = {}
    refused: dict[str, str] = {}
    for line, row in read_table(path, COLUMNS):
        clip_id = f"{row['video_id']}$_${row['clip_id']}"
        try:
            clip = _read_row(row, dataset)
            if clip_id in clips:
                raise ValueError("the id stands in the table twice; the first is used")
            if not clip.text and not may_be_silent:
                raise ValueError("the text is empty")
            clips[clip_id] = clip
        except ValueError as error:
            known = clip_id in clips or clip_id in refused
            refused[f"{clip_id} (line {line})" if known else clip_id] = f"line {line}: {error}"
    for split in SPLITS:
        if not any(clip.split == split for clip in clips.values()):
            others = f"; of those left out, {first_line(next(iter(refused.values())))}" if refused else ""
            raise UserError(
                f"{path}: has no usable clip whose mode is {split}; training needs {', '.join(SPLITS)}{others}"
            )
    signs = {clip.label >= 0 for clip in clips.values() if clip.split == "train"}
    if len(signs) == 1:
        raise UserError(
            f"{path}: all labels of train have one sign; Self-MM compares positive clips with negative ones"
        )
    return list(clips.values()), refused


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Line and columns of each row. Raises UserError, with the line, where a row hasn't the header's columns."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise UserError(
            f"{path}: can't be read ({error.strerror}); it must have the columns {', '.join(columns)}"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: isn't in UTF-8; save it so") from None
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: no row of a CSV file ({first_line(error)})") from None
    lacking = [name for name in columns if header.count(name) != 1]
    if lacking:
        hint = "; separate the columns by commas" if len(header) == 1 else ""
        raise UserError(
            f"{path}: {', '.join(lacking)}: expected one such column; it has {first_line(', '.join(header)) or 'none'}{hint}"
        )
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{path}: line {line} has {len(row)} values, and the header {len(header)}; a text with commas needs quotes"
            )
    return [(line, dict(zip(header, map(str.strip, row), strict=True))) for line, row in rows]


def _read_row(row: dict[str, str], dataset: Dataset) -> LabelledClip:
    """Raises ValueError for what can't be used, in words."""
    if not row["video_id"] or not row["clip_id"]:
        raise ValueError("video_id or clip_id is empty")
    split = row["mode"].lower()
    if split not in SPLITS:
        raise ValueError(f"mode is {row['mode']!r}; expected one of {', '.join(SPLITS)}")
    label = _read_label("label", row["label"], dataset)
    annotation = row.get("annotation") or ANNOTATIONS[int(np.sign(label)) + 1]
    unimodal = {
        task: _read_label(column, row[column], dataset) for column, task in UNIMODAL_COLUMNS.items() if row.get(column)
    }
    return LabelledClip(row["video_id"], row["clip_id"], row["text"], label, split, annotation, unimodal)


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
