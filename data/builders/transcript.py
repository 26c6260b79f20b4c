"""Transcripts for predict.py, in .txt or .srt files beside the clips."""

import re
from pathlib import Path

from data.builders.label_table import SOUNDS, VIDEOS
from data.extractors import ClipError
from utils.errors import UserError

TRANSCRIPTS = (".txt", ".srt")
# A subtitle's number, if it has one, and the line with its times.
_CUE = re.compile(r"^(?:[ \t]*\d+[ \t]*\n)?[ \t]*\d+:\d\d:\d\d[,.]\d+[ \t]*-->.*$", re.MULTILINE)
_TAG = re.compile(r"<[^>]*>|\{\\[^}]*\}")  # <i>, {\an8}


def find_clips(paths: list[Path]) -> list[Path]:
    """The given files, and the videos, else audio files, below the given folders. Raises UserError if a path has none."""
    clips = []
    for path in paths:
        files = sorted(filter(Path.is_file, path.rglob("*")))
        videos, sounds = ([file for file in files if file.suffix.lower() in kinds] for kinds in (VIDEOS, SOUNDS))
        matches = [path] if path.is_file() else videos or sounds
        if not matches:
            raise UserError(f"{path}: no such file, and no folder with clips ({', '.join(VIDEOS + SOUNDS)})")
        clips += matches
    return clips


def beside(clip: Path) -> str | None:
    """The transcript beside a clip; None if there is none. Raises ClipError if it cannot be read."""
    for suffix in TRANSCRIPTS:
        if (transcript := clip.with_suffix(suffix)).is_file():
            try:
                return read_transcript(transcript)
            except UserError as error:
                raise ClipError(str(error)) from None
    return None


def read_transcript(path: Path) -> str:
    """The text of a text file or of subtitles (.srt), in one line. Raises UserError if it cannot be read as UTF-8."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    if path.suffix.lower() == ".srt":
        text = _TAG.sub("", _CUE.sub("", text))
    return " ".join(text.split())
