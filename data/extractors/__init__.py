"""One clip -> sequences of features: text.py, audio.py and vision.py, the same for training and for prediction.

An extractor is a frozen dataclass whose fields are its settings (those marked LOCAL say where something lies on this machine,
and change no feature), with a `name`, a `version` and a `width`. Called with a Clip, it returns what it Extracted. `describe`
says all this as plain values: a feature file carries them, and so does a checkpoint trained on it, since a model knows only the
kind of features that it was trained on.
"""

import dataclasses
import importlib
import importlib.metadata
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Protocol

import numpy as np

from utils.errors import UserError, first_line

MODALITIES = ("text", "audio", "vision")
LOCAL = {"local": True}
REQUIREMENTS = "requirements-features.txt"


class ClipError(Exception):
    """Why a clip can't be used, in one line. The others go on."""

    def __init__(self, reason: str):
        super().__init__(first_line(reason))


@dataclass(frozen=True)
class Clip:
    """What the extractors may read of one clip."""

    file: Path  # pictures and sound, of any kind that FFmpeg knows
    openface_csv: Path | None = None  # OpenFace's table of it, where that was made before


@dataclass
class Extracted:
    """What one modality of a clip is for the network."""

    frames: np.ndarray  # (L, width) float32, L >= 1
    video_frames: int = 0  # searched for a face
    frames_with_face: int = 0
    missing: str = ""  # why there is nothing; the frames are then one frame of zeros

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
    """An extractor in plain values."""
    fields = [field for field in dataclasses.fields(extractor) if not field.metadata.get("local")]
    settings = {field.name: getattr(extractor, field.name) for field in fields}
    return {"name": extractor.name, "version": extractor.version, "width": extractor.width, "settings": settings}


def difference(expected: dict, found: dict) -> str | None:
    """In words, how one extractor's features differ from another's; None where they are of one kind."""
    for key in ("name", "settings", "version", "width"):
        if expected.get(key) != found.get(key):
            return f"{_said(key, expected)}, not {_said(key, found)}"
    return None


def _said(key: str, described: dict) -> str:
    if key == "settings":
        settings = described.get(key) or {}
        return f"{described.get('name')} with " + " ".join(f"{name}={value}" for name, value in settings.items())
    return f"{described.get('name')} {key} {described.get(key)}" if key != "name" else str(described.get(key))


def version_of(package: str) -> str:
    """Raises UserError where it isn't installed."""
    needs(package)
    return importlib.metadata.version(package)


def undecodable(what: str, path: Path, error: Exception) -> ClipError:
    """Why FFmpeg can't read a file."""
    reason = "it is empty" if not os.path.getsize(path) else getattr(error, "strerror", None) or error
    return ClipError(f"the {what} can't be decoded, as the file is damaged or no clip: {reason}")


def needs(module: str) -> ModuleType:
    """A package that only extraction needs. Raises UserError where it isn't installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.split(".")[0]
        raise UserError(
            f"{name} can't be imported ({first_line(error)}); install what extraction needs: pip install -r {REQUIREMENTS}"
            + (" (MediaPipe needs Python before 3.13)" if name == "mediapipe" else "")
        ) from None
