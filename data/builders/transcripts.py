"""What is said in the clips of CMU's corpora: their transcripts, and the several ways in which clips are named."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.builders.label_table import read_table
from utils.errors import UserError, first_line

TABLE_COLUMNS = ("video_id", "clip_id", "text")
TOLERANCE = 0.1  # seconds between a clip's times and those of its transcript, at either end

TIME = r"(-?\d+\.?\d*(?:[eE][-+]?\d+)?)"
MOSI_LINE = re.compile(r"\s*(\d+)\s*_DELIM_(.*)")  # of <video>.annotprocessed
MOSEI_LINE = re.compile(rf"(.+?)___(\d+)___{TIME}___{TIME}___(.*)")  # the video's name may end in _ itself
SUFFIXES = (".annotprocessed", ".txt")

# How an id names a video and a clip. The second is CMU-MultimodalSDK's: it counts a video's clips from 0.
NUMBER, PLACE, TAIL = (re.compile(form) for form in (r"(.+)\$_\$(.+)", r"(.+)\[(\d{1,9})\]", r"(.+)_(\d+)"))


@dataclass(frozen=True)
class Line:
    """What is said in one clip."""

    text: str
    times: tuple[float, float] | None = None  # its start and end in the video, in seconds


@dataclass(frozen=True)
class ClipName:
    """A clip as a feature file names it: `video$_$7`, `video[7]`, `video_7`; or one of them or a video, start, end."""

    written: str  # all of it, in one piece
    whole: str  # without the times; it may be the video's name, even where it ends in _7
    video: str
    clip: str  # "" where none is named
    form: re.Pattern | None  # NUMBER, PLACE or TAIL, whichever it has
    times: tuple[float, float] | None

    @classmethod
    def read(cls, item: object) -> "ClipName":
        """item: a text, bytes, or a row of them and of numbers, as the file has it."""
        parts = _texts(item) or [""]
        whole, written = parts[0], "_".join(parts)
        if len(parts) == 2 and parts[1].isdecimal():
            return cls(written, whole, whole, parts[1], NUMBER, None)
        found = NUMBER.fullmatch(whole) or PLACE.fullmatch(whole) or TAIL.fullmatch(whole)
        video, clip = found.groups() if found else (whole, "")
        times = _times(*parts[1:3]) if len(parts) > 2 else None
        return cls(written, whole, video, clip, found.re if found else None, times)

    def read_alone(self) -> tuple[str, str]:
        """The video and clip that it names, as far as can be told without transcripts; "" for a clip not named."""
        is_video = self.form is None or (self.form is TAIL and self.times is not None)
        return (self.written, "") if is_video else (self.video, self.clip)


class Transcripts:
    """The lines of a corpus, by video and clip."""

    def __init__(self, path: Path):
        """path: a table with TABLE_COLUMNS, or a folder with CMU's files anywhere below it. Raises UserError."""
        self.videos: dict[str, dict[str, Line]] = {}
        try:
            if path.is_file() and path.suffix.lower() not in SUFFIXES:
                self._read_table(path)
            else:
                for file in [path] if path.is_file() else sorted(path.rglob("*")):
                    if file.suffix.lower() in SUFFIXES and file.is_file():
                        self._read_lines(file)
        except OSError as error:
            raise UserError(f"--transcripts {error.filename}: can't be read ({error.strerror})") from None
        if not self.videos:
            raise UserError(
                f"--transcripts {path}: no transcript there; expected CMU's files, *.annotprocessed of MOSI or *.txt "
                f"of MOSEI, anywhere below a folder, or a CSV file with {', '.join(TABLE_COLUMNS)}"
            )
        self.places_moved = False  # see count_places

    def _read_lines(self, file: Path) -> None:
        for written in _decode(file).split("\n"):
            if file.suffix.lower() == SUFFIXES[0]:
                if found := MOSI_LINE.fullmatch(written):
                    self._add(file.stem, found[1], Line(found[2].strip()))
            elif found := MOSEI_LINE.fullmatch(written.strip()):
                self._add(found[1], found[2], Line(found[5].strip(), (float(found[3]), float(found[4]))))

    def _read_table(self, path: Path) -> None:
        for _, row in read_table(path, TABLE_COLUMNS):
            line = Line(row["text"].strip(), _times(row.get("start", ""), row.get("end", "")))
            self._add(row["video_id"].strip(), row["clip_id"].strip(), line)

    def _add(self, video: str, clip: str, line: Line) -> None:
        self.videos.setdefault(video, {}).setdefault(clip, line)  # CMU ships some files in two folders

    def count_places(self, names: Iterable[ClipName]) -> None:
        """From now on takes video[0] for clip 1 if the names count from 0 and the transcripts, as MOSI's do, from 1."""
        from_0 = any(name.form is PLACE and int(name.clip) == 0 for name in names)
        self.places_moved = from_0 and not any("0" in clips for clips in self.videos.values())

    def find(self, name: ClipName) -> tuple[str, str, str]:
        """A clip's video, number and text. Raises ValueError, in words, where there are no words of it."""
        if name.times is not None and name.whole in self.videos:
            return name.whole, *self._find_by_times(self.videos[name.whole], name.times)
        if name.video not in self.videos:
            raise ValueError(f"no transcript of the video {first_line(name.video)}")
        if not name.clip:
            raise ValueError("the id names no clip of the video, neither by a number nor by start and end")
        clip = name.clip
        if name.form is PLACE and self.places_moved:
            clip = str(int(clip) + 1)
        if clip not in self.videos[name.video]:
            raise ValueError(f"no transcript of clip {first_line(clip)} of the video {first_line(name.video)}")
        return name.video, clip, self.videos[name.video][clip].text

    def _find_by_times(self, clips: dict[str, Line], times: tuple[float, float]) -> tuple[str, str]:
        timed = {clip: line for clip, line in clips.items() if line.times is not None}
        if not timed:
            raise ValueError("the id names the clip by start and end, and the transcripts of the video say no times")
        distances = {clip: np.abs(np.subtract(line.times, times)).max() for clip, line in timed.items()}
        nearest = min(distances.values())
        found = [clip for clip, distance in distances.items() if distance == nearest <= TOLERANCE]
        if len(found) != 1:
            count = f"{len(found)} transcripts" if found else "no transcript"
            raise ValueError(f"{count} of the video from {times[0]:g} to {times[1]:g} s, give or take {TOLERANCE} s")
        return found[0], timed[found[0]].text


def _texts(item: object) -> list[str]:
    """The parts of an id."""
    if isinstance(item, np.ndarray | np.generic):
        item = item.tolist()
    if isinstance(item, list | tuple):
        return [text for part in item for text in _texts(part)]
    return [(item.decode(errors="replace") if isinstance(item, bytes) else str(item)).strip()]


def _times(start: str, end: str) -> tuple[float, float] | None:
    """Seconds; None for what are no two numbers."""
    try:
        times = float(start), float(end)
    except ValueError:
        return None
    return times if math.isfinite(sum(times)) else None


def _decode(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")  # some of MOSEI's quotation marks
