"""Decodes the audio and the video frames of a clip with FFmpeg (PyAV)."""

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data.extractors import ClipError, import_optional
from utils.errors import first_line


@contextlib.contextmanager
def open_media(path: Path, content: str) -> Iterator:
    """Yields PyAV's container. Raises ClipError if FFmpeg cannot open the file, or decode its content inside the block."""
    av = import_optional("av")
    try:
        with av.open(str(path)) as container:
            yield container
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error if os.path.getsize(path) else "the file is empty"
        raise ClipError(
            f"{content} cannot be decoded, the file is damaged or not a clip: {first_line(reason)}"
        ) from None


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """Returns the first audio track, (channels, samples) float32 in [-1, 1], and its rate in Hz; (0, 0) and 0 without audio.

    The released code converts clips to wav files, so samples are rounded to 16 bits. Raises ClipError.
    """
    chunks, rate = [], 0
    with open_media(path, "audio") as container:
        if container.streams.audio:
            rate = container.streams.audio[0].rate
            to_16_bits = import_optional("av").AudioResampler(format="s16p", rate=rate)
            for frame in itertools.chain(container.decode(audio=0), [None]):  # None flushes the resampler
                chunks += [chunk.to_ndarray() for chunk in to_16_bits.resample(frame)]
    if not chunks:
        return np.zeros((0, 0), np.float32), 0
    return np.concatenate(chunks, axis=1).astype(np.float32) / 2**15, rate


def read_video_frames(path: Path, fps: float | None = None) -> Iterator[np.ndarray]:
    """Yields the upright video frames: (height, width, 3) uint8, RGB. Raises ClipError.

    fps: yields only the first frame of each 1 / fps seconds; None: all frames.
    """
    cover_art = import_optional("av").stream.Disposition.attached_pic
    with open_media(path, "video") as container:
        streams = [stream for stream in container.streams.video if not stream.disposition & cover_art]
        if not streams:
            return
        streams[0].thread_type = "AUTO"
        last_slot = None
        for frame in container.decode(streams[0]):
            if fps is not None and frame.time is not None:
                slot = int(time_slot(frame.time, fps))
                if slot == last_slot:
                    continue
                last_slot = slot
            # Phones held upright record sideways and store the rotation.
            yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))


def time_slot(seconds: np.ndarray | float, fps: float) -> np.ndarray:
    """Returns the index of the 1 / fps seconds that a time falls into."""
    return np.floor(np.asarray(seconds) * fps + 1e-6).astype(np.int64)
