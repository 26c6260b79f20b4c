"""Extracts audio and vision features and caches them, so that a stopped run resumes and nothing is extracted twice.

Each cache file holds one modality of one clip. Its name is a hash of everything the features depend on, so changed clips
and settings are extracted again.
"""

import contextlib
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data.builders.label_table import SOUNDS, VIDEOS, LabelledClip
from data.extractors import Clip, ClipError, Extractor
from utils.files import replacing

CACHE_FORMAT = 4  # part of every name: increase it when the names or the arrays in the files change


@dataclass
class CachedFeatures:
    """One modality of one clip."""

    file: Path
    length: int  # frames
    missing: str  # why the features are zeros, if they are
    extraction_seconds: float | None  # None if they were in the cache
    seconds: float  # of the clip; see data.extractors.Extracted
    fps: float
    faces: float

    def load(self) -> np.ndarray:
        """Returns the frames, (length, width) float32."""
        return _load(self.file)["frames"]


def extract_clip(
    extractors: dict[str, Extractor],
    descriptions: dict[str, dict],
    videos: Path,
    openface_tables: Path | None,
    cache: Path,
    allow_missing: bool,
    clip: LabelledClip,
) -> dict[str, CachedFeatures]:
    """Returns a clip's features by modality. Runs in a worker process. Raises ClipError; UserError if the disk is full."""
    file, table = clip.find_video(videos), None
    if not os.path.isfile(file):
        raise ClipError(f"no file {file} (nor another type: {', '.join(VIDEOS[1:] + SOUNDS)})")
    if openface_tables is not None:
        table = openface_tables / clip.video_id / f"{clip.clip_id}.csv"
    inputs = [_hash(path) for path in (file, table) if path is not None and os.path.isfile(path)]
    features = {}
    for modality, extractor in extractors.items():
        origin = [CACHE_FORMAT, descriptions[modality], clip.id, *(inputs[:1] if modality == "audio" else inputs)]
        origin += [getattr(extractor, "face", None)]
        if program := getattr(extractor, "program", None):
            origin += [os.stat(program).st_size, os.stat(program).st_mtime_ns]
        cached = cache / f"{hashlib.sha1(json.dumps(origin).encode()).hexdigest()}.npz"
        arrays = extraction_seconds = None
        with contextlib.suppress(Exception):  # damaged archives raise more types than numpy documents
            arrays = _load(cached)
        if arrays is None:
            start = time.perf_counter()
            arrays = asdict(extractor(Clip(file, table)))
            extraction_seconds = time.perf_counter() - start
            with replacing(cached) as work, open(work, "wb") as stream:
                np.savez(stream, **arrays)
        missing = str(arrays["missing"])
        if missing and not allow_missing:
            raise ClipError(f"{missing}; --allow_missing uses one frame of zeros instead")
        facts = [float(arrays[name]) for name in ("seconds", "fps", "faces")]
        features[modality] = CachedFeatures(cached, len(arrays["frames"]), missing, extraction_seconds, *facts)
    return features


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


def _load(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        return dict(arrays)
