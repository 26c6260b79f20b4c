"""Finds predict.py's clips, and reads their transcripts: plain text, subtitles (.srt, .vtt) or Whisper's .json."""

import html
import json
import math
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from data.builders.label_table import SOUNDS, VIDEOS, read_text, with_suffixes, words_of
from data.extractors import Clip, ClipError
from data.extractors.media import read_facts
from utils.errors import UserError, first_line, warn

TRANSCRIPTS = (".txt", ".srt", ".vtt", ".json")
OTHERS = (*TRANSCRIPTS, ".csv", ".tsv", ".pkl")  # not clips, but expected beside them
LATEST = 86400  # seconds: --segments splits clips of at most a day

_CLOCK = r"(?:\d+:)?\d+:\d\d(?:[.,]\d+)?"
_SETTINGS = r"(?:[ \t]+(?:align|line|position|region|size|vertical|[XY][12]):\S+)*"
# Also as Whisper's programs write it: [00:00.000 --> 00:02.500] text.
_TIMES = re.compile(rf"\[?({_CLOCK})[ \t]*-->[ \t]*({_CLOCK})\]?{_SETTINGS}(.*)")
_TIMED_LINE = re.compile(rf"\W*{_CLOCK}")
_TAG = re.compile(r"</?(?:[a-zA-Z]|\d+:)[^<>]*>|\{\\[^{}]*\}")  # <i>, <v Name>, <00:01.000>, {\an8}


@dataclass
class Cue:
    text: str
    start: float | None = None  # seconds
    end: float | None = None


def find_clips(paths: list[Path]) -> list[Path]:
    """The given files, and the videos, else sounds, below the given folders. Warns of other files. Raises UserError."""
    clips = []
    for path in paths:
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        files = [file for file in files if "/." not in f"/{file.relative_to(path).as_posix()}"]  # nor in hidden folders
        videos, sounds = ([file for file in files if file.suffix.lower() in kinds] for kinds in (VIDEOS, SOUNDS))
        found = [path] if path.is_file() else videos or sounds
        if not found:
            raise UserError(f"{path}: no such file, and no folder with clips ({', '.join(VIDEOS + SOUNDS)})")
        clips += found
        names = {file.with_suffix("") for file in found}
        skipped = [file for file in files if file.with_suffix("") not in names and file.suffix.lower() not in OTHERS]
        if skipped:
            warn(f"{path}: {len(skipped)} other files are not scored: {', '.join(file.name for file in skipped[:5])}")
    return clips


def beside(clip: Path, timed: bool = False) -> list[Cue] | None:
    """The transcript beside a clip, if `timed` rather one with times; None if there is none. Raises UserError."""
    files = with_suffixes(clip.with_suffix(""), TRANSCRIPTS[::-1] if timed else TRANSCRIPTS)
    return read_cues(files[0]) if files else None


def read_cues(path: Path | str) -> list[Cue]:
    """The parts of a transcript; one without times if it has none. Raises UserError if it cannot be read for certain."""
    kind = "" if isinstance(path, str) else path.suffix.lower()  # a str: the words themselves
    if kind not in ("", *TRANSCRIPTS):
        raise UserError(f"{path}: a transcript must be one of {', '.join(TRANSCRIPTS)}")
    text, source = (path, "text") if isinstance(path, str) else (read_text(path), path)
    try:
        cues = _parse_whisper(text) if kind == ".json" else _parse_subtitles(text) or _parse_plain(text)
        return [replace(cue, text=words_of(cue.text, may_be_silent=True)) for cue in cues]
    except ValueError as error:
        raise UserError(f"{source}: {first_line(error)}") from None


def join(cues: list[Cue]) -> str:
    return " ".join(cue.text for cue in cues if cue.text)


def split(clip: Clip, cues: list[Cue], seconds: float | None, keep_silent: bool) -> list[tuple[Clip, str]]:
    """The parts of a clip, with their words: one for each cue; if seconds > 0, for each window of that length; None: the clip.

    The words of a cue belong to the window that its middle lies in. keep_silent: also parts without words. Raises ClipError.
    """
    if seconds is None:
        return [(clip, join(cues))]
    if not cues or not all(cue.end is not None and 0 <= cue.start < cue.end <= LATEST for cue in cues):
        raise ClipError("--segments needs lines with times, within a day: .srt, .vtt or Whisper's .json")
    if seconds:
        windows: dict[int, list[Cue]] = defaultdict(list)
        for cue in cues:
            windows[int((cue.start + cue.end) / 2 / seconds)].append(cue)
        length = max(min(read_facts(clip).seconds, LATEST), *(cue.end for cue in cues))
        numbers = range(math.ceil(length / seconds))
        cues = [Cue(join(windows[n]), n * seconds, min((n + 1) * seconds, length)) for n in numbers]
    kept = [cue for cue in cues if cue.text or keep_silent]
    if len(kept) < len(cues):
        warn(f"{clip.file}: {len(cues) - len(kept)} of {len(cues)} segments have no words; --allow_missing scores them")
    return [(replace(clip, start=cue.start, end=cue.end), cue.text) for cue in kept]


def _parse_whisper(text: str) -> list[Cue]:
    """Raises ValueError unless the text is JSON as Whisper writes it."""
    try:
        content = json.loads(text)
        if parts := content.get("segments"):
            return [Cue(str.strip(part["text"]), float(part["start"]), float(part["end"])) for part in parts]
        return [Cue(str.strip(content["text"]))]
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError, OverflowError):
        layout = '{"text": ..., "segments": [{"start": ..., "end": ..., "text": ...}, ...]}'
        raise ValueError(f"is not Whisper's JSON, {layout}") from None


def _parse_subtitles(text: str) -> list[Cue]:
    """The cues of .srt and .vtt, and of the lines that Whisper prints; none if the text has no times."""
    cues: list[tuple[float, float, list[str]]] = []  # start, end, lines
    rolls, last = "<c>" in text, ""  # YouTube's own captions repeat each line in the next cue
    lines = ["", *map(str.strip, text.splitlines()), ""]
    is_remark = False
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        if times := _TIMES.match(line):
            start, end, line = times.groups()
            cues.append((_seconds(start), _seconds(end), []))
            is_remark = False
        elif not before:
            is_remark = line.startswith(("NOTE", "STYLE", "REGION"))
        is_name = not times and (not before or line.isdigit()) and _TIMES.match(after)
        words = html.unescape(_TAG.sub("", line)).strip()
        if words and cues and not is_remark and not is_name and not (rolls and words == last):
            cues[-1][2].append(words)
            last = words
    return [Cue(" ".join(lines), start, end) for start, end, lines in cues]


def _parse_plain(text: str) -> list[Cue]:
    """Raises ValueError if times are among the words: of .lrc, .sbv, YouTube's copied transcripts."""
    lines = [line for line in text.splitlines() if line.strip()]
    timed = sum(bool(_TIMED_LINE.match(line)) for line in lines)
    if timed and 3 * timed >= len(lines):
        mend = "save it as .srt, .vtt or Whisper's .json, or remove the times"
        raise ValueError(f"{timed} of {len(lines)} lines begin with a clock time: {mend}")
    return [Cue(text)]


def _seconds(clock: str) -> float:
    """The seconds of 01:02:03,456, 02:03.456 or 02:03."""
    return sum(float(part) * 60**place for place, part in enumerate(reversed(clock.replace(",", ".").split(":"))))
