"""Audio -> 33 values per frame, by the released recipe: librosa's zero-crossing rate, MFCC and chroma."""

import warnings
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from data.extractors import Clip, ClipError, Extracted, import_optional
from data.extractors.media import read_facts, read_sound
from utils.errors import first_line

SILENCE = 2 / 2**15  # range of the samples: two steps of 16 bits
CANCELLED = 0.05  # share of a channel's loudness that inverted channels leave in their mean


@dataclass(frozen=True)
class LibrosaAudio:
    """(L, 33): zero-crossing rate (1), MFCC (20), chroma (12), one frame per `hop_length` samples."""

    sample_rate: int = 22050  # Hz, after resampling
    hop_length: int = 512  # samples; 512 are 23 ms
    name: ClassVar[str] = "librosa"
    width: ClassVar[int] = 33

    @property
    def version(self) -> str:
        return import_optional("librosa").__version__

    def __call__(self, clip: Clip, longest: int | None = None) -> Extracted:
        # Each frame depends on all sound that is read. Twice the length keeps clips whole that training saw whole, mostly.
        part = clip
        if longest is not None:
            end = clip.start + 2 * longest * self.hop_length / self.sample_rate
            part = replace(clip, end=min(end, clip.end or end))
        sound, rate = read_sound(part)
        if not sound.size:
            return Extracted.nothing(self.width, "no sound")
        if np.ptp(sound, axis=1).max() <= SILENCE:
            return Extracted.nothing(self.width, "the sound is silent throughout")
        mono, loudness = sound.mean(axis=0), sound.std(axis=1)
        if mono.std() < CANCELLED * loudness.max():  # the channels cancel each other
            mono = sound[loudness.argmax()]
        mono = import_optional("librosa").resample(mono, orig_sr=rate, target_sr=self.sample_rate)
        return Extracted(self.features(mono), seconds=read_facts(clip).part or sound.shape[1] / rate)

    def features(self, samples: np.ndarray) -> np.ndarray:
        """(samples,) at `sample_rate` -> (L, 33) float32. Each frame depends on the whole clip: do not split it."""
        librosa, hop = import_optional("librosa"), {"hop_length": self.hop_length}
        with warnings.catch_warnings(action="ignore"):  # about silence and clips shorter than librosa's windows
            try:
                crossings = librosa.feature.zero_crossing_rate(samples, **hop)  # (1, L)
                mfcc = librosa.feature.mfcc(y=samples, sr=self.sample_rate, htk=True, **hop)  # (20, L)
                chroma = librosa.feature.chroma_cqt(y=samples, sr=self.sample_rate, **hop)  # (12, L)
            except librosa.ParameterError as error:
                raise ClipError(f"librosa cannot process the audio with {self}: {first_line(error)}") from None
        return np.concatenate([crossings, mfcc, chroma]).T.astype(np.float32)


def compile_librosa() -> None:
    """Fills numba's cache: 20 s after an install. Processes that compile at once can store code that crashes later ones."""
    LibrosaAudio().features(np.sin(np.arange(22050, dtype=np.float32) / 10))
