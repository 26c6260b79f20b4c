"""Reads label.csv, which lists the user's clips: texts, labels and splits."""

import csv
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from config.config_regression import Dataset
from data.schema import SPLITS
from utils.errors import UserError, first_line

COLUMNS = ("video_id", "clip_id", "text", "label", "mode")
UNIMODAL_COLUMNS = {"label_T": "text", "label_A": "audio", "label_V": "vision"}
SOUNDS = (".wav", ".mp3", ".flac", ".m4a", ".ogg")  # enough for a model without vision
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".flv", ".wmv")
ROUNDING = 1e-5  # by which a label may exceed the dataset's range


@dataclass(frozen=True)
class LabelledClip:
    video_id: str  # as written: leading zeros count
    clip_id: str
    text: str
    label: float
    split: str
    annotation: str = ""  # if empty, the feature file has the label's sign: Negative, Neutral or Positive
    unimodal: dict[str, float] = field(default_factory=dict)  # task -> label, where the table has one

    @property
    def id(self) -> str:
        return f"{self.video_id}$_${self.clip_id}" if self.clip_id else self.video_id

    def find_file(self, root: Path, suffixes: Iterable[str]) -> Path:
        """The first of root/video_id/clip_id<suffix> that exists; the one with the first suffix if none does."""
        candidates = [root / self.video_id / f"{self.clip_id}{suffix}" for suffix in suffixes]
        # Path.is_file raises OSError if a name is too long; os.path.isfile returns False.
        return next(filter(os.path.isfile, candidates), candidates[0])

    def find_video(self, root: Path) -> Path:
        """The clip's video below Raw/, else its audio file; the path of the expected mp4 if there is neither."""
        return self.find_file(root, [case for suffix in VIDEOS + SOUNDS for case in (suffix, suffix.upper())])


def read_label_table(
    path: Path, dataset: Dataset, may_be_silent: bool = False
) -> tuple[list[LabelledClip], dict[str, str]]:
    """Reads the clips of a label table. Also returns the unusable rows: clip id -> reason.

    may_be_silent: accepts clips without text. Raises UserError unless the file is a label table that can be trained on.
    """
    clips: dict[str, LabelledClip] = {}
    refused: dict[str, str] = {}
    for line, row in read_table(path, COLUMNS):
        clip_id = f"{row['video_id']}$_${row['clip_id']}"
        split, text, annotation = row["mode"].lower(), row["text"], row.get("annotation", "")
        columns = {task: column for column, task in UNIMODAL_COLUMNS.items() if row.get(column)}
        try:
            if not row["video_id"] or not row["clip_id"]:
                raise ValueError("video_id or clip_id is empty")
            if not text and not may_be_silent:
                raise ValueError("the text is empty")
            if split not in SPLITS:
                raise ValueError(f"mode is {row['mode']!r}; expected one of {', '.join(SPLITS)}")
            label = parse_label("label", row["label"], dataset)
            unimodal = {task: parse_label(column, row[column], dataset) for task, column in columns.items()}
            clip = LabelledClip(row["video_id"], row["clip_id"], text, label, split, annotation, unimodal)
            if clips.setdefault(clip_id, clip) is not clip:
                raise ValueError("duplicate id; the first row is used")
        except ValueError as error:
            repeated = clip_id in clips or clip_id in refused
            refused[f"{clip_id} (line {line})" if repeated else clip_id] = f"line {line}: {error}"
    if missing := [split for split in SPLITS if all(clip.split != split for clip in clips.values())]:
        example = f"; first unusable row: {next(iter(refused.values()))}" if refused else ""
        raise UserError(f"{path}: no usable clip with mode {', '.join(missing)}; training needs all splits{example}")
    if len({clip.label >= 0 for clip in clips.values() if clip.split == "train"}) == 1:
        raise UserError(f"{path}: all train labels have the same sign; Self-MM needs positive and negative clips")
    return list(clips.values()), refused


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Reads a user's CSV table: the line number and the stripped values of each row.

    columns: required; the table may have others. Raises UserError unless the file is such a table.
    """
    rows: list[tuple[int, dict[str, str]]] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True, skipinitialspace=True)
            filled = filter(None, reader)
            header = [name.strip() for name in next(filled, [])]
            if wrong := [name for name in columns if header.count(name) != 1]:
                raise ValueError(f"{', '.join(wrong)} missing or repeated in the header {header}")
            for values in filled:
                if len(values) != len(header):
                    raise ValueError(f"line {reader.line_num} has {len(values)} values, the header {len(header)}")
                rows.append((reader.line_num, dict(zip(header, map(str.strip, values), strict=True))))
    except (OSError, ValueError, csv.Error) as error:
        place = f"after line {rows[-1][0] if rows else 1}: " if isinstance(error, csv.Error) else ""
        expected = f"UTF-8, the columns {', '.join(columns)}, separated by commas, and quotes around texts with commas"
        raise UserError(f"{path}: cannot be read ({place}{first_line(error)}); expected {expected}") from None
    return rows


def parse_label(column: str, value: str | float, dataset: Dataset) -> float:
    """Raises ValueError, with the reason, if the value is not a number in the dataset's range."""
    try:
        label = float(value)
    except ValueError:
        label = math.nan
    bound = dataset.label_bound
    # Also for NaN.
    if not abs(label) <= bound + ROUNDING:
        limits = f"[{-bound:g}, {bound:g}], the range of --datasetName {dataset.name}"
        raise ValueError(f"{column} is {value!r}; expected a number in {limits}")
    return label
