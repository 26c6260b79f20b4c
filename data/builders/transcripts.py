"""Reads the transcripts of CMU's corpora, and finds a clip's transcript by any of the ids that CMU's pickles use."""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.builders.label_table import parse_number, read_table
from utils.errors import UserError

COLUMNS = ("video_id", "clip_id", "text")
TOLERANCE = 0.1  # seconds: distance of a clip's start and end from its transcript's

# The lines of CMU's files: MOSI's, in one file for each video, and MOSEI's, in which a video's name may end in "_".
LINES = {
    ".annotprocessed": re.compile(r"(?P<clip_id>\d+)\s*_DELIM_\s*(?P<text>.*)"),
    ".txt": re.compile(r"(?P<video_id>.+?)___(?P<clip_id>\d+)___(?P<start>[^_]+)___(?P<end>[^_]+)___\s*(?P<text>.*)"),
}
ID = re.compile(r"(.+?)(?:\$_\$(.+)|\[(\d{1,9})\]|_(\d+))")


@dataclass(frozen=True)
class ClipName:
    """The id of a clip in a pickle: `video$_$7`, `video[7]`, `video_7`, (video, 7), or (any of these or a video, start, end)."""

    written: str  # the whole id, as one string
    whole: str  # without start and end; can be the name of a video even if it ends in _7
    video: str
    clip: str  # "" if the id names none
    is_index: bool = False  # video[7], which CMU-MultimodalSDK counts from 0
    times: tuple[float, ...] = ()  # start and end in seconds; NaN if unreadable

    @classmethod
    def read(cls, item: object) -> "ClipName":
        """item: a str or bytes, or a sequence of these and of numbers."""
        values = np.array(item, dtype=object).ravel()
        parts = [(v.decode(errors="replace") if isinstance(v, bytes) else str(v)).strip() for v in values] or [""]
        whole = "$_$".join(parts) if len(parts) == 2 else parts[0]
        match = ID.fullmatch(whole)
        video, number, index, tail = match.groups() if match else (whole, "", None, "")
        times = tuple(map(parse_number, parts[1:3])) if len(parts) > 2 else ()
        return cls("_".join(parts), whole, video, number or index or tail, index is not None, times)

    def video_and_clip(self) -> tuple[str, str]:
        """For clips without transcripts; (written, "") if the id names no clip, or names it by its times."""
        return (self.video, self.clip) if self.clip and not self.times else (self.written, "")


class Transcripts:
    def __init__(self, path: Path):
        """path: a CSV table with COLUMNS, one of CMU's files, or a folder with these anywhere below it. Raises UserError."""
        self.videos: dict[str, dict[str, dict[str, str]]] = {}  # video -> clip -> row of the table
        self.first_index = 0  # the number of the clip that the ids call video[0]
        for row in _read_rows(path):
            # CMU ships some files in two folders.
            first = self.videos.setdefault(row["video_id"], {}).setdefault(row["clip_id"], row)
            if row["text"].split() != first["text"].split():
                first["other text"] = row["text"]
        if not self.videos:
            expected = f"CMU's *.annotprocessed or *.txt below a folder, or a CSV table with {', '.join(COLUMNS)}"
            raise UserError(f"--transcripts {path}: no transcripts found; expected {expected}")

    def align_indices(self, names: Iterable[ClipName]) -> None:
        """Makes `find` treat video[0] as clip 1 if the ids count from 0 but the transcripts, like MOSI's, from 1."""
        from_0 = any(name.is_index and int(name.clip) == 0 for name in names)
        self.first_index = int(from_0 and all("0" not in clips for clips in self.videos.values()))

    def find(self, name: ClipName) -> tuple[str, str, str]:
        """Returns a clip's video, clip number and text. Raises ValueError, with the reason, if it has no transcript."""
        video, clip = name.video, str(int(name.clip) + self.first_index) if name.is_index else name.clip
        if name.times and name.whole in self.videos:
            video, clip = name.whole, _find_by_times(self.videos[name.whole], name.times)
        if (row := self.videos.get(video, {}).get(clip)) is None:
            raise ValueError(f"no transcript of the video {video!r}, clip {clip!r}")
        if "other text" in row:
            both = f"{row['text'][:60]!r} and {row['other text'][:60]!r}"
            raise ValueError(f"two transcripts of the video {video!r}, clip {clip!r}: {both}")
        return video, clip, row["text"]


def _read_rows(path: Path) -> Iterator[dict[str, str]]:
    """A table's rows, or lines of CMU's files, under the names of the table's columns."""
    if path.is_file() and path.suffix.lower() not in LINES:
        for line, row in read_table(path, COLUMNS):
            # A text whose comma has no quotes moves the columns after it.
            if wrong := [key for key in ("start", "end") if row.get(key) and math.isnan(parse_number(row[key]))]:
                raise UserError(f"{path}: line {line}: {wrong[0]} is {row[wrong[0]]!r}; expected seconds")
            yield row
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        pattern = LINES.get(file.suffix.lower())
        if pattern is not None and file.is_file():
            content = file.read_bytes()
            try:
                text = content.decode("utf-8-sig")
            except UnicodeDecodeError:  # some of MOSEI's files have Windows quotation marks
                text = content.decode("cp1252", errors="replace")
            for match in filter(None, map(pattern.fullmatch, map(str.strip, text.split("\n")))):
                yield {"video_id": file.stem} | match.groupdict()


def _find_by_times(clips: dict[str, dict[str, str]], times: tuple[float, ...]) -> str:
    """The clip whose start and end are nearest."""
    spans = {clip: [parse_number(row.get(key, "")) for key in ("start", "end")] for clip, row in clips.items()}
    # The distance from NaN is NaN: not near.
    near = {clip: distance for clip, span in spans.items() if (distance := math.dist(span, times)) <= TOLERANCE}
    if not near:
        hint = "MOSI's files have no times: pass a CSV table with start and end in seconds"
        raise ValueError(f"no transcript within {TOLERANCE} s of {times[0]:g} to {times[1]:g} s; {hint}")
    return min(near, key=near.get)
