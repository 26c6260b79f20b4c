"""Extracts audio and vision features and caches them, so that a stopped run resumes and nothing is extracted twice.

Each cache file holds one modality of one clip. Its name is a hash of everything the features depend on, so changed clips
and settings are extracted again.
"""

import contextlib
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from data.builders.label_table import SOUNDS, VIDEOS, LabelledClip
from data.extractors import Clip, ClipError, Extractor
from utils.errors import UserError
from utils.files import temp_path

CACHE_FORMAT = 2  # part of every name: increase it when the arrays in the files change


@dataclass
class CachedClip:
    """One clip's audio and vision features; each dictionary is by modality."""

    files: dict[str, Path] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)  # frames
    seconds: dict[str, float] = field(default_factory=dict)  # extraction time; only of what was not in the cache
    missing: list[str] = field(default_factory=list)  # why some features are zeros

    def frames(self, modality: str) -> np.ndarray:
        return load_arrays(self.files[modality])["frames"]


@dataclass(frozen=True)
class ClipWork:
    """Extracts a clip's audio and vision features, in a worker process."""

    extractors: dict[str, Extractor]
    descriptions: dict[str, dict]
    videos: Path
    openface_tables: Path | None
    cache: Path
    allow_missing: bool

    def __call__(self, clip: LabelledClip) -> CachedClip | ClipError:
        try:
            return self.extract(clip)
        except ClipError as error:
            return error

    def extract(self, clip: LabelledClip) -> CachedClip:
        file, table = clip.find_video(self.videos), None
        if not os.path.isfile(file):
            raise ClipError(f"no file {file} (nor another type: {', '.join(VIDEOS[1:] + SOUNDS)})")
        if self.openface_tables is not None:
            table = self.openface_tables / clip.video_id / f"{clip.clip_id}.csv"
        result = CachedClip()
        for modality, extractor in self.extractors.items():
            inputs = [file, table, getattr(extractor, "program", None)] if modality == "vision" else [file]
            origin = [CACHE_FORMAT, self.descriptions[modality], clip.id, *map(_state, inputs)]
            cached = self.cache / f"{hashlib.sha1(json.dumps(origin).encode()).hexdigest()}.npz"
            arrays = None
            with contextlib.suppress(Exception):  # damaged archives raise more types than numpy documents
                arrays = load_arrays(cached)
            if arrays is None:
                start = time.perf_counter()
                arrays = asdict(extractor(Clip(file, table)))
                result.seconds[modality] = time.perf_counter() - start
                _store(cached, arrays)
            if missing := str(arrays["missing"]):
                if not self.allow_missing:
                    raise ClipError(f"{missing}; --allow_missing uses one frame of zeros instead")
                result.missing.append(missing)
            result.files[modality], result.lengths[modality] = cached, len(arrays["frames"])
        return result


def load_arrays(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        return dict(arrays)


def _store(file: Path, arrays: dict[str, np.ndarray]) -> None:
    try:
        with open(work := temp_path(file), "wb") as stream:
            np.savez(stream, **arrays)
        os.replace(work, file)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror}); make room and repeat the command") from None


def _state(file: Path | None) -> list[int] | None:
    """Returns values that change when the file does."""
    if file is None or not os.path.isfile(file):
        return None
    return [file.stat().st_size, file.stat().st_mtime_ns]
