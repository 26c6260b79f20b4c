"""What is said in a clip, for predict.py: given on the command line, or in a .txt or .srt file beside the clip."""

import os
import re
from pathlib import Path

from data.builders.label_table import SOUNDS, VIDEOS
from data.extractors import ClipError
from utils.errors import UserError

TRANSCRIPTS = (".txt", ".srt")
_TIMES = re.compile(r"\s*\d+:\d\d:\d\d[,.]\d+\s*-->")
_TAGS = re.compile(r"<[^>]*>|\{\\[^}]*\}")  # <i>, {\an8}


def find_clips(paths: list[Path]) -> list[Path]:
    """The clips that the paths name: files, and those in folders. Raises UserError where there is none."""
    clips = []
    for path in paths:
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if os.path.isfile(file)]
            inside = [file for file in files if file.suffix.lower() in VIDEOS]
            inside = inside or [file for file in files if file.suffix.lower() in SOUNDS]
            if not inside:
                raise UserError(f"{path}: no clips in this folder ({', '.join(VIDEOS + SOUNDS)})")
            clips += inside
        elif path.is_file():
            clips.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return clips


def beside(clip: Path) -> str | None:
    """The words in the transcript beside a clip; None where there is none. Raises ClipError where it can't be read."""
    for kind in TRANSCRIPTS:
        if (transcript := clip.with_suffix(kind)).is_file():
            try:
                return read_transcript(transcript)
            except UserError as error:
                raise ClipError(str(error)) from None
    return None


def read_transcript(path: Path) -> str:
    """The words of a text file, or of subtitles (.srt): one line. Raises UserError where it isn't UTF-8."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror})") from None
    except ValueError:
        raise UserError(f"{path}: isn't in UTF-8; save it so") from None
    if path.suffix.lower() == ".srt":
        text = _TAGS.sub("", " ".join(_spoken_lines(text)))
    return " ".join(text.split())


def _spoken_lines(subtitles: str) -> list[str]:
    """The lines of subtitles but for each one's number, times and the line between."""
    lines = subtitles.splitlines()
    return [
        line
        for number, line in enumerate(lines)
        if not _TIMES.match(line)
        and not (line.strip().isdigit() and _TIMES.match("".join(lines[number + 1 : number + 2])))
    ]
