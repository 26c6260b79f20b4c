"""Faces -> features: OpenFace 2 (the released recipe), MediaPipe's face landmarks (installable with pip), or none at all."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from data.extractors import LOCAL, Clip, Extracted, needs, undecodable, version_of
from data.extractors.openface import read_table, run_openface

NO_FACE = ("keep", "zero", "skip")


@dataclass(frozen=True)
class _FaceExtractor:
    pool: int = 3  # frames whose mean is one feature frame
    fps: float | None = None  # pictures a second that are used; None: all
    no_face: str = (
        "keep"  # what stands for a picture without a face: the last values (keep), zeros (zero), nothing (skip)
    )

    def _pooled(self, values: np.ndarray, has_face: np.ndarray) -> Extracted:
        """values: (pictures, width). has_face: (pictures,) bool. Returns what is made of them by the settings."""
        pictures, faces = len(values), int(has_face.sum())
        if not faces:
            return Extracted.nothing(self.width, f"no face in any of {pictures} pictures", pictures)
        if self.no_face == "zero":
            values = np.where(has_face[:, None], values, 0)
        elif self.no_face == "skip":
            values = values[has_face]
        starts = np.arange(0, len(values), self.pool)  # the last frames, fewer than `pool`, have a mean of their own
        counts = np.diff(starts, append=len(values))
        means = np.add.reduceat(values.astype(np.float64), starts) / counts[:, None]
        return Extracted(means.astype(np.float32), pictures, faces)

    def _chosen(self, times: np.ndarray) -> np.ndarray:
        """times: (pictures,) seconds, rising. Returns which to use: the first of each 1 / fps seconds."""
        if self.fps is None:
            return np.arange(len(times))
        return np.unique(slot(times, self.fps), return_index=True)[1]


def slot(time: np.ndarray | float, fps: float) -> np.ndarray:
    """The number of the 1 / fps seconds that a time lies in."""
    return np.floor(np.asarray(time) * fps + 1e-6).astype(np.int64)


@dataclass(frozen=True)
class OpenFace(_FaceExtractor):
    """(L, 709): gaze, eyes, head pose, landmarks, shape parameters and action units of OpenFace 2.

    A row without a face has stale values; the released code averages them in (no_face="keep").
    """

    program: Path | None = field(default=None, metadata=LOCAL)  # FeatureExtraction; None: tables that were made before

    name: ClassVar[str] = "openface"
    width: ClassVar[int] = 709

    @property
    def version(self) -> str:
        return "2"  # its tables don't say more

    def __call__(self, clip: Clip) -> Extracted:
        """Raises ClipError where OpenFace gives no table, or one of another program."""
        if self.program is None:
            table = read_table(clip.openface_csv)
        else:
            with run_openface(self.program, clip.file) as csv:
                table = read_table(csv)
        rows = self._chosen(table.times)
        return self._pooled(table.values[rows], table.has_face[rows])


@dataclass(frozen=True)
class MediapipeFaces(_FaceExtractor):
    """(L, 1434): 478 landmarks; x and y as a share of the picture's width and height, z in the scale of x."""

    name: ClassVar[str] = "mediapipe"
    width: ClassVar[int] = 478 * 3

    @property
    def version(self) -> str:
        return version_of("mediapipe")

    def __call__(self, clip: Clip) -> Extracted:
        """Raises ClipError for a file that can't be decoded."""
        values, has_face = [], []
        found = np.zeros(self.width, np.float32)
        # It follows a face from picture to picture, so each clip gets a new one.
        with _silence(), needs("mediapipe").solutions.face_mesh.FaceMesh(refine_landmarks=True) as landmarks:
            for picture in read_pictures(clip.file, self.fps):
                faces = landmarks.process(picture).multi_face_landmarks
                if faces:
                    found = np.array([[mark.x, mark.y, mark.z] for mark in faces[0].landmark], np.float32).ravel()
                values.append(found)
                has_face.append(bool(faces))
        if not values:
            return Extracted.nothing(self.width, "no pictures")
        return self._pooled(np.stack(values), np.array(has_face))


@dataclass(frozen=True)
class NoFaces:
    """(1, 1): a zero. For learning from text and sound alone."""

    name: ClassVar[str] = "none"
    width: ClassVar[int] = 1
    version: ClassVar[str] = ""

    def __call__(self, clip: Clip) -> Extracted:
        return Extracted(np.zeros((1, self.width), np.float32))


def read_pictures(path: Path, fps: float | None = None) -> Iterator[np.ndarray]:
    """The pictures of a video, upright: (height, width, 3) uint8, red, green, blue. Raises ClipError.

    fps: only the first of each 1 / fps seconds; None: all.
    """
    av = needs("av")
    try:
        with av.open(str(path)) as container:
            cover = av.stream.Disposition.attached_pic  # the picture of a sound file
            films = [stream for stream in container.streams.video if not stream.disposition & cover]
            if not films:
                return
            films[0].thread_type = "AUTO"
            last = None
            for frame in container.decode(films[0]):
                if fps is not None and frame.time is not None:
                    now = int(slot(frame.time, fps))
                    if now == last:
                        continue
                    last = now
                # A phone held upright films sideways, and notes by how much to turn it back.
                turns = round(frame.rotation / 90)
                yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise undecodable("video_frames", path, error) from None


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps what MediaPipe's C++ tells of itself from the screen."""
    screen = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(screen, 2)
        os.close(screen)
