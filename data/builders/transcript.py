"""Finds predict.py's clips, and reads their transcripts: plain text, subtitles (.srt, .vtt) or Whisper's .json."""

import html
import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from data.builders.label_table import SOUNDS, VIDEOS, read_text, with_suffixes, words_of
from data.extractors import Clip, ClipError
from data.extractors.media import open_media
from utils.errors import UserError, first_line, warn

TRANSCRIPTS = (".txt", ".srt", ".vtt", ".json")
OTHERS = (*TRANSCRIPTS, ".csv", ".tsv", ".pkl")  # not clips, but expected beside them
SHOWN = 5  # names in a warning

_CLOCK = r"(?:\d+:)?\d+:\d\d(?:[.,]\d+)?"
# Also as Whisper's programs write it: [00:00.000 --> 00:02.500] text.
_TIMES = re.compile(rf"[ \t]*(\[?)({_CLOCK})[ \t]*-->[ \t]*({_CLOCK})\]?(.*)")
# Between cues: a blank line, or none before a number and times.
_GAP = re.compile(rf"\n[ \t]*\n|\n(?=[ \t]*\d+[ \t]*\n[ \t]*{_CLOCK}[ \t]*-->)")
_TIMED_LINE = re.compile(rf"\W*{_CLOCK}")
_TAG = re.compile(r"</?(?:[a-zA-Z]|\d+:)[^<>]*>|\{\\[^{}]*\}")  # <i>, <v Name>, <00:01.000>, {\an8}


@dataclass
class Cue:
    """A part of a transcript."""

    text: str
    start: float | None = None  # seconds
    end: float | None = None


def find_clips(paths: list[Path]) -> list[Path]:
    """The given files, and the videos, else sounds, below the given folders. Warns of other files. Raises UserError."""
    clips = []
    for path in paths:
        files = [file for file in sorted(path.rglob("[!.]*")) if file.is_file()]
        videos, sounds = ([file for file in files if file.suffix.lower() in kinds] for kinds in (VIDEOS, SOUNDS))
        matches = [path] if path.is_file() else videos or sounds
        if not matches:
            raise UserError(f"{path}: no such file, and no folder with clips ({', '.join(VIDEOS + SOUNDS)})")
        clips += matches
        stems = {file.with_suffix("") for file in matches}  # the sound beside a video is its own
        expected = {*matches, *(sound for sound in sounds if sound.with_suffix("") in stems)}
        skipped = [file.name for file in files if file not in expected and file.suffix.lower() not in OTHERS]
        if skipped:
            warn(f"{path}: {len(skipped)} other files are not scored: {', '.join(skipped[:SHOWN])}")
    return clips


def beside(clip: Path, timed: bool = False) -> list[Cue] | None:
    """The transcript beside a clip, if `timed` rather one with times; None if there is none. Raises ClipError."""
    files = with_suffixes(clip.with_suffix(""), TRANSCRIPTS[::-1] if timed else TRANSCRIPTS)
    try:
        return read_cues(files[0]) if files else None
    except UserError as error:
        raise ClipError(str(error)) from None


def read_cues(path: Path) -> list[Cue]:
    """The parts of a transcript; one without times if it has none. Raises UserError if it cannot be read for certain."""
    suffix = path.suffix.lower()
    if suffix not in ("", *TRANSCRIPTS):
        raise UserError(f"{path}: a transcript must be one of {', '.join(TRANSCRIPTS)}")
    return parse_cues(read_text(path), str(path), suffix == ".json")


def parse_cues(text: str, source: str, is_json: bool = False) -> list[Cue]:
    """source: for the error. Raises UserError."""
    try:
        cues = _parse_whisper(text) if is_json else _parse_subtitles(text) or _parse_plain(text)
        return [Cue(words_of(cue.text), cue.start, cue.end) for cue in cues]
    except ValueError as error:
        raise UserError(f"{source}: {first_line(error)}") from None


def join(cues: list[Cue]) -> str:
    return " ".join(cue.text for cue in cues if cue.text)


def split(clip: Clip, cues: list[Cue], seconds: float, keep_silent: bool) -> list[tuple[Clip, str]]:
    """The parts of a clip that belong to its cues or, if seconds > 0, its windows of that length, with their words.

    The words of a cue belong to the window that its middle lies in. keep_silent: also parts without words. Raises ClipError.
    """
    if not cues or not all(cue.end is not None and 0 <= cue.start < cue.end < math.inf for cue in cues):
        raise ClipError("--segments needs a transcript with the times of its lines: .srt, .vtt or Whisper's .json")
    if seconds:
        with open_media(clip.file, "the clip") as container:
            length = max((container.duration or 0) / 1e6, *(cue.end for cue in cues))
        starts = [number * seconds for number in range(math.ceil(length / seconds))]
        windows = [Cue("", start, min(start + seconds, length)) for start in starts]
        for cue in cues:
            window = windows[min(int((cue.start + cue.end) / 2 / seconds), len(windows) - 1)]
            window.text = join([window, cue])
        cues = windows
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
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        layout = '{"text": ..., "segments": [{"start": ..., "end": ..., "text": ...}, ...]}'
        raise ValueError(f"is not Whisper's JSON, {layout}") from None


def _parse_subtitles(text: str) -> list[Cue]:
    """The cues of .srt and .vtt, and of the lines that Whisper prints; none if the text has no times."""
    cues: list[tuple[list[str], float, float]] = []
    rolls, last = "<c>" in text, ""  # YouTube's own captions repeat each line in the next cue
    for block in _GAP.split(text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip().split("\n")
        if "-->" not in block and lines[0].startswith(("WEBVTT", "NOTE", "STYLE", "REGION")):
            continue
        if len(lines) > 1 and _TIMES.match(lines[1]) and not _TIMES.match(lines[0]):
            del lines[0]  # the number or name of a cue
        for line in lines:
            if times := _TIMES.match(line):
                bracket, start, end, line = times.groups()
                cues.append(([], _seconds(start), _seconds(end)))
                if not bracket and all(":" in word for word in line.split()):
                    continue  # align:start position:0%
            words = html.unescape(_TAG.sub("", line)).strip()
            if cues and not (rolls and words == last):
                cues[-1][0].append(words)
                last = words
    return [Cue(" ".join(lines), start, end) for lines, start, end in cues]


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
    parts = reversed(clock.replace(",", ".").split(":"))
    return sum(float(part) * 60**place for place, part in enumerate(parts))
