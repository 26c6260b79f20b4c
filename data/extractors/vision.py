"""Faces -> features: OpenFace 2 (the released recipe), MediaPipe's face landmarks (installed with pip), or none."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from data.extractors import LOCAL, Clip, ClipError, Extracted, import_optional
from data.extractors.media import Facts, read_facts, read_video_frames, time_slot
from data.extractors.openface import read_table, run_openface

NO_FACE = ("keep", "zero", "skip", "released")


@dataclass(frozen=True)
class _FaceExtractor:
    pool: int = 3  # video frames averaged into one feature frame
    fps: float | None = None  # video frames used per second; None: all
    # A video frame without a face keeps the last face's values (zeros before the first face), becomes zeros, or is skipped.
    # released: it counts as it is in OpenFace's table, stale or garbage.
    no_face: str = "keep"

    def _pool(self, values: np.ndarray, has_face: np.ndarray, facts: Facts, faces: int = 1, face="face") -> Extracted:
        """values: (video frames, width). has_face: (video frames,) bool. face: its name in the reason for no features."""
        video_frames = len(values)
        if not has_face.any():
            return Extracted.nothing(self.width, f"no {face} in any of {video_frames} video frames", video_frames)
        if self.no_face == "keep":
            last = np.maximum.accumulate(np.where(has_face, np.arange(video_frames), -1))
            values = np.where(last[:, None] >= 0, values[last], 0)
        elif self.no_face == "zero":
            values = np.where(has_face[:, None], values, 0)
        elif self.no_face == "skip":
            values = values[has_face]
        starts = np.arange(0, len(values), self.pool)  # the last group may be smaller
        means = np.add.reduceat(values.astype(np.float64), starts) / np.diff(starts, append=len(values))[:, None]
        return Extracted(means.astype(np.float32), video_frames, int(has_face.sum()), "", facts.part, facts.fps, faces)


@dataclass(frozen=True)
class OpenFace(_FaceExtractor):
    """(L, 709): gaze, eyes, head pose, landmarks, shape parameters and action units of OpenFace 2."""

    program: Path | None = field(default=None, metadata=LOCAL)  # FeatureExtraction; None: read existing tables
    face: int | None = field(default=None, metadata=LOCAL)  # face_id; None: in each video frame the most confident face
    name: ClassVar[str] = "openface"
    width: ClassVar[int] = 709
    version: ClassVar[str] = "2.1"  # OpenFace 2, in our second way of choosing rows

    def __call__(self, clip: Clip, longest: int | None = None) -> Extracted:
        """Raises ClipError if OpenFace writes no table, or the table cannot be read or is not of this clip."""
        facts = read_facts(clip)  # refuses playlists, which OpenFace would follow
        table = run_openface(self.program, clip.file, self.face) if self.program else None
        values, times, has_face, faces = table or read_table(clip.openface_csv, self.face)
        fps = facts.fps or (len(times) - 1) / (times[-1] or 1)  # a file without video
        expected = [count for count in (facts.video_frames, round(facts.seconds * fps)) if count]
        # Both differ: an edit list makes one wrong.
        if expected and all(abs(len(times) - count) > 2 + 0.05 * count for count in expected):
            found = f"rows for {len(times)} of the clip's {max(expected)} video frames: it is not this clip's"
            raise ClipError(f"the OpenFace table has {found}; run FeatureExtraction on this file")
        first, last = np.searchsorted(times, [clip.start - 1e-6, (clip.end or np.inf) - 1e-6])
        rows = np.arange(first, last)
        if self.fps is not None:
            rows = rows[np.unique(time_slot(times[rows] - clip.start, self.fps), return_index=True)[1]]
        if longest is not None:
            used = np.cumsum(has_face[rows] | (self.no_face != "skip"))
            rows = rows[: np.searchsorted(used, longest * self.pool) + 1]
        face = "face" if self.face is None else f"face {self.face}"
        return self._pool(values[rows], has_face[rows], facts, faces, face)


@dataclass(frozen=True)
class MediapipeFaces(_FaceExtractor):
    """(L, 1434): 478 landmarks; x and y as a fraction of the video frame's width and height, z in the scale of x."""

    name: ClassVar[str] = "mediapipe"
    width: ClassVar[int] = 478 * 3

    @property
    def version(self) -> str:
        return import_optional("mediapipe").__version__

    def __call__(self, clip: Clip, longest: int | None = None) -> Extracted:
        values, has_face, used = [], [], 0
        landmarks = np.zeros(self.width, np.float32)
        # FaceMesh tracks a face from frame to frame, so each clip gets a new one.
        face_mesh = import_optional("mediapipe").solutions.face_mesh
        with _silence_stderr(), face_mesh.FaceMesh(refine_landmarks=True) as mesh:
            for video_frame in read_video_frames(clip, self.fps):
                if faces := mesh.process(video_frame).multi_face_landmarks:
                    landmarks = np.array([[mark.x, mark.y, mark.z] for mark in faces[0].landmark], np.float32).ravel()
                values.append(landmarks)
                has_face.append(bool(faces))
                used += bool(faces) or self.no_face != "skip"
                if longest is not None and used >= longest * self.pool:
                    break
        if not values:
            return Extracted.nothing(self.width, "no video frames")
        return self._pool(np.stack(values), np.array(has_face), read_facts(clip))


@dataclass(frozen=True)
class NoFaces:
    """(1, 1): a zero, for learning from text and audio alone."""

    name: ClassVar[str] = "none"
    width: ClassVar[int] = 1
    version: ClassVar[str] = ""

    def __call__(self, clip: Clip, longest: int | None = None) -> Extracted:
        return Extracted(np.zeros((1, self.width), np.float32))


@contextlib.contextmanager
def _silence_stderr() -> Iterator[None]:
    """Discards what MediaPipe's C++ code logs."""
    with open(os.devnull, "wb") as devnull, os.fdopen(os.dup(2), "wb") as stderr:
        os.dup2(devnull.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr.fileno(), 2)
