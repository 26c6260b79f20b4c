"""Feature extractors for DataPre.py and predict.py: one clip -> one sequence of features.

An extractor is a frozen dataclass: its fields are its settings, except those marked LOCAL, which do not change the features.
Feature files and checkpoints store its description, since a model only understands features like those it was trained on.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType

import numpy as np

from utils.errors import UserError, first_line

LOCAL = {"local": True}


class ClipError(UserError):
    """A clip that cannot be used. Other clips are unaffected."""


@dataclass(frozen=True)
class Clip:
    file: Path  # video or audio, in any format FFmpeg knows
    openface_csv: Path | None = None  # existing OpenFace table
    start: float = 0.0  # seconds: the part of the file to read
    end: float | None = None  # None: up to the end of the file


@dataclass
class Extracted:
    frames: np.ndarray  # (L, width) float32, L >= 1, of one modality of a clip
    video_frames: int = 0  # number of video frames searched for a face
    frames_with_face: int = 0
    missing: str = ""  # why there are no features; `frames` is then one frame of zeros
    seconds: float = 0.0  # length of the clip, even if only a part of it was decoded; 0: unknown
    fps: float = 0.0  # video frames per second; 0: unknown, or no video
    faces: int = 0  # different faces that were tracked

    @classmethod
    def nothing(cls, width: int, reason: str, video_frames: int = 0) -> "Extracted":
        return cls(np.zeros((1, width), np.float32), video_frames, missing=reason)


# extractor(clip, longest=None), with attributes name, version and width. longest: the most frames that the caller will use;
# decoding stops when they are safe. None: all. Raises ClipError if the file cannot be decoded.
Extractor = Callable[..., Extracted]


def extract(extractors: dict[str, Extractor], longest: dict[str, int | None], clip: Clip) -> dict[str, Extracted]:
    """Returns the clip's features by modality. Raises ClipError."""
    return {modality: extractor(clip, longest[modality]) for modality, extractor in extractors.items()}


def describe(extractor: Extractor) -> dict[str, object]:
    """Returns an extractor's name, version, width and settings as plain values."""
    settings = {field.name: getattr(extractor, field.name) for field in fields(extractor) if field.metadata != LOCAL}
    return {"name": extractor.name, "version": extractor.version, "width": extractor.width, "settings": settings}


def difference(expected: dict, actual: dict) -> str | None:
    """Returns how two extractor descriptions differ, as "expected, not actual"; None if they agree."""
    for key in ("name", "settings", "version", "width"):
        if expected.get(key) != actual.get(key):
            subject = "" if key == "name" else f"{expected.get('name')} {key} "
            return f"{subject}{expected.get(key)}, not {actual.get(key)}"
    return None


def is_too_long_for(tokens: int, seconds: float) -> bool:
    """Whether a text has more tokens than can be spoken in this time. seconds: 0 if unknown."""
    return 0 < seconds and tokens > 10 + 10 * seconds  # 4 per second are usual


def import_optional(package: str) -> ModuleType:
    """Imports a package that only feature extraction needs. Raises UserError if it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        hint = " (MediaPipe needs Python before 3.13)" if package == "mediapipe" else ""
        mend = f"pip install -r requirements/features.txt{hint}"
        raise UserError(f"{package} is unusable ({first_line(error)}); {mend}") from None
