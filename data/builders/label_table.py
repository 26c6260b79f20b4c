"""Reads label.csv, which lists the user's clips: texts, labels and splits."""

import codecs
import csv
import io
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from config.config_regression import Dataset
from data.extractors import ClipError
from data.schema import MISSING_TEXTS, SPLITS
from utils.errors import UserError, first_line

COLUMNS = ("video_id", "clip_id", "text", "label", "mode")
UNIMODAL_COLUMNS = {"label_T": "text", "label_A": "audio", "label_V": "vision"}
VIDEOS = tuple(".mp4 .mov .mkv .webm .avi .m4v .mpg .mpeg .flv .wmv .3gp .3g2 .ts .mts .m2ts .ogv .vob .asf".split())
# Enough for a model without vision.
SOUNDS = tuple(".wav .mp3 .flac .m4a .ogg .oga .aac .opus .wma .aiff .aif .amr .mka".split())
ROUNDING = 1e-5  # by which a label may exceed the dataset's range
MOST_COLUMNS = 1000

# float() also takes 1_0, nan, inf and the digits of other scripts.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_TYPOGRAPHIC = str.maketrans({",": "."} | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"))
_TIMES_LEFT = re.compile(r"-->|\d\w?[ \t]*->|WEBVTT")
# The beginnings of rich text, of Word's and other zip files, of PDFs and of web pages.
_DOCUMENTS = ("{\\rtf", "PK\x03\x04", "%PDF", "<!DOCTYPE", "<!doctype", "<html")


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

    def find_file(self, root: Path, suffixes: Sequence[str]) -> Path:
        """root/video_id/clip_id<suffix>, with the first suffix if none exists. Raises ClipError if there are several."""
        expected = root / self.video_id / self.clip_id
        if len(files := with_suffixes(expected, suffixes)) > 1:
            raise ClipError(f"{files[0]} and {files[1].name} are both files of one clip: keep one")
        return files[0] if files else expected.with_name(expected.name + suffixes[0])

    def find_video(self, root: Path) -> Path:
        """The clip's video below Raw/, else its audio file; the path of the expected mp4 if there is neither."""
        video, sound = (self.find_file(root, suffixes) for suffixes in (VIDEOS, SOUNDS))
        return sound if os.path.isfile(sound) and not os.path.isfile(video) else video


def with_suffixes(path: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files path<suffix>, in the order of the suffixes; their names may have them in upper case."""
    try:
        names = [name for name in os.listdir(path.parent) if name.startswith(path.name)]  # folders can be large
    except OSError:  # no such folder, or a name that is too long
        return []
    return [path.with_name(name) for end in suffixes for name in names if name[len(path.name) :].lower() == end]


def read_label_table(path: Path, dataset: Dataset, may_be_silent=False) -> tuple[list[LabelledClip], dict[str, str]]:
    """The clips, and clip id -> reason for unusable rows. may_be_silent: also clips without text. Raises UserError."""
    clips, refused = {}, {}
    for line, row in read_table(path, COLUMNS):
        clip_id = f"{row['video_id']}$_${row['clip_id']}"
        split, annotation = row["mode"].lower(), row.get("annotation", "")
        columns = {task: column for column, task in UNIMODAL_COLUMNS.items() if row.get(column)}
        try:
            for column in ("video_id", "clip_id"):
                path = Path(row[column])  # a/b is an id, too; Windows ignores dots and spaces at the end of a name
                if path.anchor or not path.parts or not all(part.strip(". ") for part in path.parts):
                    raise ValueError(f"{column} is {row[column]!r}, which is empty or leaves the clips' folder")
            text = words_of(row["text"], may_be_silent)
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
    example = f"; first unusable row: {next(iter(refused.values()))}" if refused else ""
    if missing := [split for split in SPLITS if all(clip.split != split for clip in clips.values())]:
        raise UserError(f"{path}: no usable clip with mode {', '.join(missing)}; training needs all splits{example}")
    if len({clip.label >= 0 for clip in clips.values() if clip.split == "train"}) == 1:
        raise UserError(f"{path}: all train labels have the same sign; Self-MM needs both signs{example}")
    return list(clips.values()), refused


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The line number and the stripped values of each row of a CSV. columns: those that it needs. Raises UserError."""
    rows: list[tuple[int, dict[str, str]]] = []
    text = read_text(path)
    separator = max(",;\t", key=text.partition("\n")[0].count)  # Excel writes ; where the decimal point is a comma
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True, delimiter=separator)
        filled = filter(any, reader)
        header = [name.strip() for name in next(filled, [])]
        if len(header) > MOST_COLUMNS:
            raise ValueError(f"{len(header)} columns, but at most {MOST_COLUMNS} are read")
        if wrong := [name for name in dict.fromkeys([*columns, *filter(None, header)]) if header.count(name) != 1]:
            raise ValueError(f"{', '.join(wrong)} missing or repeated in the header {header}")
        for values in filled:
            if len(values) != len(header):
                raise ValueError(f"line {reader.line_num} has {len(values)} values, the header {len(header)}")
            rows.append((reader.line_num, dict(zip(header, map(str.strip, values), strict=True))))
    except (ValueError, csv.Error) as error:
        place = f"after line {rows[-1][0] if rows else 1}: " if isinstance(error, csv.Error) else ""
        expected = f"the columns {', '.join(columns)}, separated by commas, and quotes around texts with commas"
        raise UserError(f"{path}: cannot be read ({place}{first_line(error)}); expected {expected}") from None
    return rows


def read_text(path: Path) -> str:
    """The content of a table or transcript: UTF-8, or UTF-16 with a byte order mark. Raises UserError."""
    try:
        content = path.read_bytes()
        utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if utf_16 else "utf-8-sig")
        if "\0" in text or text.startswith(_DOCUMENTS):
            raise ValueError("a document or binary file")
    except (OSError, ValueError) as error:
        mend = "expected plain text in UTF-8: in Notepad `Save as`, in Excel `CSV UTF-8`"
        raise UserError(f"{path}: cannot be read ({first_line(error)}); {mend}") from None
    return text


def words_of(text: str, may_be_silent: bool = False) -> str:
    """A clip's text in one line; "" if it has no word, or says that it is missing. Raises ValueError if it is not usable."""
    words = " ".join(text.split())
    if match := _TIMES_LEFT.search(words):
        mend = "save it as .srt, .vtt or Whisper's .json for predict.py, or remove the times"
        raise ValueError(f"the text {first_line(words)[:60]!r} has times ({match[0]}): {mend}")
    if words not in MISSING_TEXTS and any(map(str.isalnum, words)):
        return words
    if not may_be_silent:
        raise ValueError(f"the text is empty: {text!r}")
    return ""


def parse_number(value: str | float) -> float:
    """A number as people write it, with a decimal point or comma, and any kind of minus sign; NaN for anything else."""
    written = str(value).strip().translate(_TYPOGRAPHIC)
    return float(written) if _NUMBER.fullmatch(written) else math.nan


def parse_label(column: str, value: str | float, dataset: Dataset) -> float:
    """Raises ValueError, with the reason, if the value is not a number in the dataset's range."""
    label, bound = parse_number(value), dataset.label_bound
    if not abs(label) <= bound + ROUNDING:  # also for NaN
        limits = f"[{-bound:g}, {bound:g}], the range of --datasetName {dataset.name}"
        raise ValueError(f"{column} is {value!r}; expected a number in {limits}")
    return label
