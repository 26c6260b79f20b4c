"""Feature extractors: one clip -> one sequence of features. text.py, audio.py and vision.py serve DataPre.py and predict.py.

An extractor is a frozen dataclass: its fields are its settings. Fields marked LOCAL are paths on this machine, which do not
change the features. `describe` returns its name, version, width and settings as plain values. Feature files and
checkpoints carry them, since a model only understands the kind of features it was trained on.
"""

import dataclasses
import importlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Protocol

import numpy as np

from utils.errors import UserError, first_line

MODALITIES = ("text", "audio", "vision")
LOCAL = {"local": True}
REQUIREMENTS = "requirements/features.txt"


class ClipError(Exception):
    """Why a clip cannot be used, in one line. Other clips are unaffected."""

    def __init__(self, reason: str):
        super().__init__(first_line(reason))


@dataclass(frozen=True)
class Clip:
    """The files that extractors may read."""

    file: Path  # video or audio, in any format FFmpeg knows
    openface_csv: Path | None = None  # OpenFace's table of the clip, if it was made before


@dataclass
class Extracted:
    """The features of one modality of a clip."""

    frames: np.ndarray  # (L, width) float32, L >= 1
    video_frames: int = 0  # number of video frames searched for a face
    frames_with_face: int = 0
    missing: str = ""  # why there are no features; `frames` is then one frame of zeros

    @classmethod
    def nothing(cls, width: int, reason: str, video_frames: int = 0) -> "Extracted":
        return cls(np.zeros((1, width), np.float32), video_frames, missing=reason)


class Extractor(Protocol):
    name: ClassVar[str]
    width: ClassVar[int]

    @property
    def version(self) -> str: ...

    def __call__(self, clip: Clip) -> Extracted: ...


def describe(extractor: Extractor) -> dict[str, object]:
    """Returns an extractor's name, version, width and settings as plain values."""
    fields = [field.name for field in dataclasses.fields(extractor) if not field.metadata.get("local")]
    settings = {name: getattr(extractor, name) for name in fields}
    return {"name": extractor.name, "version": extractor.version, "width": extractor.width, "settings": settings}


def difference(expected: dict, actual: dict) -> str | None:
    """Returns in words how the features of two described extractors differ; None if they are of one kind."""
    if expected.get("name") != actual.get("name"):
        return f"{expected.get('name')}, not {actual.get('name')}"
    for key in ("settings", "version", "width"):
        if expected.get(key) != actual.get(key):
            return f"{expected.get('name')} {key} {expected.get(key)}, not {actual.get(key)}"
    return None


def import_optional(package: str) -> ModuleType:
    """Imports a package that only feature extraction needs. Raises UserError if it is not installed."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        hint = " (MediaPipe needs Python before 3.13)" if package == "mediapipe" else ""
        raise UserError(
            f"{package} cannot be imported ({first_line(error)}); install it with pip install -r {REQUIREMENTS}{hint}"
        ) from None


def version_of(package: str) -> str:
    """Raises UserError if the package is not installed."""
    import_optional(package)
    return importlib.metadata.version(package)
