"""Sound -> 33 values a frame, by the released recipe: librosa's zero-crossing rate, MFCCs and chroma."""

import contextlib
import functools
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from filelock import FileLock

from data.extractors import Clip, ClipError, Extracted, needs, undecodable, version_of
from utils.errors import first_line

LOCK = Path(tempfile.gettempdir()) / f"self-mm-librosa-{getattr(os, 'getuid', int)()}.lock"  # one for each user


@dataclass(frozen=True)
class LibrosaAudio:
    """(L, 33): zero-crossing rate (1), MFCC (20), chroma (12), one frame for each `hop_length` samples."""

    sample_rate: int = 22050  # Hz, to which the sound is resampled
    hop_length: int = 512  # samples; 512 are 23 ms

    name: ClassVar[str] = "librosa"
    width: ClassVar[int] = 33

    @property
    def version(self) -> str:
        return version_of("librosa")

    def __call__(self, clip: Clip) -> Extracted:
        """Raises ClipError for a file that can't be decoded."""
        sound, rate = read_sound(clip.file)
        if not sound.size:
            return Extracted.nothing(self.width, "no sound")
        compile_librosa()
        librosa = needs("librosa")
        mono = librosa.to_mono(sound)
        return Extracted(self.features(librosa.resample(mono, orig_sr=rate, target_sr=self.sample_rate)))

    def features(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) at `sample_rate` -> (L, 33) float32. They depend on the whole clip: not to be fed in parts."""
        librosa = needs("librosa")
        feature = librosa.feature
        hop = {"hop_length": self.hop_length}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # librosa remarks on silence, and on sound shorter than its windows
            try:
                parts = [
                    feature.zero_crossing_rate(samples, **hop),  # (1, L)
                    feature.mfcc(y=samples, sr=self.sample_rate, htk=True, **hop),  # (20, L)
                    feature.chroma_cqt(y=samples, sr=self.sample_rate, **hop),  # (12, L)
                ]
            except librosa.ParameterError as error:
                raise ClipError(f"librosa can't work on the sound with {self}: {first_line(error)}") from None
        return np.concatenate(parts).T.astype(np.float32)


@functools.cache
def compile_librosa() -> None:
    """Lets librosa compile itself, at its first use after an install, in one process; the others take what it has stored.

    Processes that compile at once take longer, and may store what crashes all that load it later (numba's cache).
    """
    with contextlib.suppress(OSError), FileLock(LOCK):
        LibrosaAudio().features(np.sin(np.arange(22050, dtype=np.float32) / 10))


def read_sound(path: Path) -> tuple[np.ndarray, int]:
    """The first sound track: (channels, samples) float32 in [-1, 1], and its rate in Hz; (0, 0) and 0 where there is none.

    The released code went by a wav file, so samples are rounded to 16 bits. Raises ClipError.
    """
    av = needs("av")
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                return np.zeros((0, 0), np.float32), 0
            rate = container.streams.audio[0].rate
            to_16_bits = av.AudioResampler(format="s16p", rate=rate)
            pieces = []
            for frame in container.decode(audio=0):
                pieces += [part.to_ndarray() for part in to_16_bits.resample(frame)]
            if pieces:
                pieces += [part.to_ndarray() for part in to_16_bits.resample(None)]
    except (av.FFmpegError, OSError, ValueError) as error:
        raise undecodable("sound", path, error) from None
    if not pieces:
        return np.zeros((0, 0), np.float32), 0
    return np.concatenate(pieces, axis=1).astype(np.float32) / 2**15, rate
