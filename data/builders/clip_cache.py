"""Extracts audio and vision features and caches them, so that a stopped run resumes and nothing is extracted twice.

Each file holds one modality of one clip. Its name is a hash of all that the features depend on, also clip and settings.
"""

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data.builders.label_table import SOUNDS, VIDEOS, LabelledClip
from data.extractors import Clip, ClipError
from utils.files import replacing

CACHE_FORMAT = 4  # part of every name: increase it when the names or the arrays in the files change


@dataclass
class CachedFeatures:
    """One modality of one clip. The last fields are those of data.extractors.Extracted."""

    file: Path
    length: int  # frames
    extraction_seconds: float | None  # None if they were in the cache
    missing: str
    seconds: float
    fps: float
    faces: int

    def load(self) -> np.ndarray:
        """Returns the frames, (length, width) float32."""
        return _load(self.file)["frames"]


def extract_clip(
    extractors: dict, videos: Path, openface_tables: Path | None, cache: Path, allow_missing: bool, clip: LabelledClip
) -> dict[str, CachedFeatures]:
    """A clip's features by modality. Runs in a worker process. Raises ClipError; UserError if the disk is full."""
    file = clip.find_video(videos)
    table = openface_tables and openface_tables / clip.video_id / f"{clip.clip_id}.csv"
    if not os.path.isfile(file):
        raise ClipError(f"no file {file} (nor another type: {', '.join(VIDEOS[1:] + SOUNDS)})")
    features = {}
    for modality, extractor in extractors.items():
        inputs = [file] if modality == "audio" else [file, table, getattr(extractor, "program", None)]
        origin = [CACHE_FORMAT, repr(extractor), extractor.version, clip.id, *map(_hash, inputs)]
        cached = cache / f"{hashlib.sha1(json.dumps(origin).encode()).hexdigest()}.npz"
        extraction_seconds = None
        try:
            arrays = _load(cached)
        except Exception:  # damaged archives raise more types than numpy documents
            start = time.perf_counter()
            arrays = asdict(extractor(Clip(file, table)))
            extraction_seconds = time.perf_counter() - start
            with replacing(cached) as work, open(work, "wb") as stream:
                np.savez(stream, **arrays)
        missing, *facts = (np.asarray(arrays[name]).item() for name in ("missing", "seconds", "fps", "faces"))
        if missing and not allow_missing:
            raise ClipError(f"{missing}; --allow_missing uses one frame of zeros instead")
        features[modality] = CachedFeatures(cached, len(arrays["frames"]), extraction_seconds, missing, *facts)
    return features


def _hash(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


def _load(file: Path) -> dict[str, np.ndarray]:
    with np.load(file) as arrays:
        if sum(array.file_size for array in arrays.zip.infolist()) > file.stat().st_size:
            raise ValueError(f"{file} is compressed, so it was not written here")  # a small file can unpack to anything
        return dict(arrays)
