"""Decodes the audio and the video frames of a clip with FFmpeg (PyAV)."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data.extractors import Clip, ClipError, import_optional
from utils.errors import first_line

MICROSECONDS = 1_000_000  # FFmpeg's unit for the times of a file
ESTIMATED = ("mp3", "aac", "ac3", "eac3", "amr")  # formats whose length FFmpeg guesses from the bit rate
UNINDEXED = (*ESTIMATED, "mpegts", "mpeg", "asf")  # seeking is inexact, or loses video up to the next key frame
HOLE = 1.0  # seconds without sound that count as lost; a track may begin a little later than its file
BEFORE = 0.2  # seconds to decode before the first sample that is used: audio codecs blend successive frames


@dataclass(frozen=True)
class Facts:
    """What a clip's file says about itself. 0: it does not say."""

    seconds: float = 0.0
    part: float = 0.0  # seconds from clip.start to clip.end
    fps: float = 0.0  # video frames per second, on average
    video_frames: int = 0


@contextlib.contextmanager
def open_media(path: Path, content: str) -> Iterator:
    """Yields PyAV's container. Raises ClipError if FFmpeg cannot open the file, or decode its content inside the block."""
    av = import_optional("av")
    try:
        # FFmpeg takes a name such as tcp:HOST:PORT for an address, and a playlist's content for names. Here it gets an open
        # file, and may open nothing by itself.
        with open(path, "rb") as file, av.open(file, options={"protocol_whitelist": "none"}) as container:
            yield container
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error if os.path.getsize(path) else "the file is empty"
        raise ClipError(f"{content} cannot be decoded: damaged, cut off or not a clip ({first_line(reason)})") from None


def read_facts(clip: Clip) -> Facts:
    """Raises ClipError if the file cannot be opened."""
    with open_media(clip.file, "video") as container:
        video = _first_track(container, "video")
        seconds = (container.duration or 0) / MICROSECONDS
        part = max(0.0, min(seconds, clip.end or seconds) - clip.start)
        return Facts(seconds, part, float(video.average_rate or 0), video.frames) if video else Facts(seconds, part)


def read_sound(clip: Clip) -> tuple[np.ndarray, int]:
    """The first audio track: (channels, samples) float32 in [-1, 1], its rate in Hz; 0: no audio. Raises ClipError."""
    chunks, rate, begin = [], 0, 0.0
    for frame, seconds in _decode(clip, "audio"):
        if not chunks:
            rate, begin = frame.sample_rate, seconds
            # As the released code, which converts clips to wav files.
            to_16_bits = import_optional("av").AudioResampler(format="s16p", rate=rate)
        chunks += [chunk.to_ndarray() for chunk in to_16_bits.resample(frame)]
    if not chunks:
        return np.zeros((0, 0), np.float32), 0
    chunks += [chunk.to_ndarray() for chunk in to_16_bits.resample(None)]
    first = max(0, round((clip.start - begin) * rate))
    last = None if clip.end is None else first + round((clip.end - clip.start) * rate)
    return np.concatenate(chunks, axis=1)[:, first:last].astype(np.float32) / 2**15, rate


def read_video_frames(clip: Clip, fps: float | None = None) -> Iterator[np.ndarray]:
    """Yields upright video frames, (height, width, 3) uint8 RGB; with fps, one for each 1 / fps s. Raises ClipError."""
    last_slot = None
    for frame, seconds in _decode(clip, "video"):
        slot = time_slot(seconds - clip.start, fps) if fps else None
        if seconds > clip.start - 1e-6 and (slot is None or slot != last_slot):
            last_slot = slot
            yield _upright(frame)


def time_slot(seconds: np.ndarray | float, fps: float) -> np.ndarray:
    """Returns the index of the 1 / fps seconds that a time falls into."""
    return np.floor(np.asarray(seconds) * fps + 1e-6).astype(np.int64)


def _decode(clip: Clip, kind: str) -> Iterator[tuple]:
    """Yields frames up to the end of the clip's part, and their times in the file in seconds. kind: audio or video.

    Begins at or before the part. Raises ClipError, also after the last frame if much of the part is absent or damaged.
    """
    with open_media(clip.file, kind) as container:
        if (stream := _first_track(container, kind)) is None:
            return
        stream.thread_type = "AUTO"
        origin = max(0, container.start_time or 0) / MICROSECONDS
        if clip.start > BEFORE and container.format.name not in UNINDEXED:
            container.seek(int((origin + clip.start - BEFORE) * MICROSECONDS))
        limit = np.inf if clip.end is None else clip.end
        # A late track is whole if the file states it. Matroska does not, so there a hole looks the same.
        late = float((stream.start_time or 0) * stream.time_base) - origin if stream.duration else 0.0
        begin = max(clip.start, late)
        good, reached = 0.0, begin  # seconds
        for frame in container.decode(stream):
            seconds = reached if frame.time is None else frame.time - origin
            if seconds >= limit - 1e-6:
                break
            yield frame, seconds
            end = seconds + (frame.samples / frame.sample_rate if kind == "audio" else 1 / (stream.average_rate or 25))
            if not frame.is_corrupt and (kind == "video" or seconds - reached <= HOLE):  # pictures may stand still
                good += max(0.0, end - reached)
            reached = max(reached, end)  # around damage, frames can be out of order
        stated = min(_stated_end(container, stream, origin) or reached, limit) - begin
        if good < 0.95 * stated - 0.3:
            raise ClipError(f"only {good:.1f} of {stated:.1f} s of {kind} can be decoded: damaged; download it again")


def _first_track(container, kind: str):
    """Returns the first audio or video stream that is not cover art, or None."""
    cover_art = import_optional("av").stream.Disposition.attached_pic
    return next((stream for stream in getattr(container.streams, kind) if not stream.disposition & cover_art), None)


def _stated_end(container, stream, origin: float) -> float:
    """Returns where the file says that a stream ends, in seconds; 0 or nan if it does not say. origin: its first time."""
    if container.format.name in ESTIMATED:
        return 0.0
    if stream.duration:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base) - origin
    if tag := stream.metadata.get("DURATION"):  # Matroska
        return pd.to_timedelta(tag, errors="coerce").total_seconds()
    return (container.duration or 0) / MICROSECONDS


def _upright(frame) -> np.ndarray:
    """Returns the pixels as a player shows them: phones record sideways or mirrored, and store a matrix."""
    pixels = frame.to_ndarray(format="rgb24")
    if (stored := frame.side_data.get("DISPLAYMATRIX")) is not None:
        # Two columns of its 3 x 3 fixed-point numbers say how x and y on the screen follow from those in the frame.
        matrix = np.frombuffer(stored, np.int32).reshape(3, 3)[:2, :2].astype(np.int64)
        if abs(matrix[0, 1]) > abs(matrix[0, 0]):  # x on the screen follows from y
            pixels, matrix = pixels.swapaxes(0, 1), matrix[::-1]
        pixels = pixels[:: 1 if matrix[1, 1] >= 0 else -1, :: 1 if matrix[0, 0] >= 0 else -1]
    return np.ascontiguousarray(pixels)
