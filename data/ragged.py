"""Sequences of different lengths, stored end to end without padding, and memory-mapped."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.batch import positions_within, send
from utils.progress import progress


class Ragged:
    """N sequences in two files of a folder: NAME.npy (total frames, width) and NAME_offsets.npy (N + 1,)."""

    def __init__(self, folder: Path, name: str, device: torch.device | str = "cpu"):
        """device: where the values are kept. Raises an exception of some type if the files do not fit together."""
        self._folder, self._name = folder, name
        files = folder / f"{name}.npy", folder / f"{name}_offsets.npy"
        if not all(map(Path.is_file, files)):  # opening a pipe would wait for its writer
            raise FileNotFoundError(f"no file {files[0]}, or no offsets")
        # PyTorch has no read-only tensors, so the mapping is copy-on-write; nothing writes to it.
        self.values = torch.from_numpy(np.load(files[0], mmap_mode="c")).to(device)
        frames, self.width = self.values.shape
        offsets = np.load(files[1])
        self._starts = offsets[:-1]
        self.lengths = np.diff(offsets)  # (N,) int64
        fits = offsets.dtype == np.int64 and (offsets[0], offsets[-1]) == (0, frames)
        if not fits or (offsets[1:] <= offsets[:-1]).any():
            raise ValueError(f"{files[1]}: not the offsets of {files[0].name}")

    def __getitem__(self, clip: int) -> np.ndarray:
        """One sequence, (length, width)."""
        return self.values[self._starts[clip] : self._starts[clip] + self.lengths[clip]].numpy()

    def gather(self, clips: np.ndarray) -> Tensor:
        """The sequences of the clips end to end, (frames, width), on the device of the values."""
        lengths = self.lengths[clips]
        rows = np.repeat(self._starts[clips], lengths) + positions_within(lengths)
        return self.values.index_select(0, send(torch.from_numpy(rows), self.values.device))

    def to(self, device: torch.device) -> "Ragged":
        """A copy with its values in the memory of a device."""
        return Ragged(self._folder, self._name, device)

    def __reduce__(self):
        """Worker processes map the files themselves; pickling would copy them."""
        return Ragged, (self._folder, self._name)

    @staticmethod
    def write(folder: Path, name: str, sequences: Iterable, lengths: np.ndarray, width: int, dtype: type) -> None:
        """Writes the sequences one by one, so that only one at a time is in memory twice."""
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
        with open(folder / f"{name}.npy", "wb") as file:
            np.lib.format.write_array_header_1_0(file, header | {"shape": (int(lengths.sum()), width)})
            for sequence in progress(sequences, f"writing {folder.name} {name}", len(lengths), unit="clip"):
                file.write(np.ascontiguousarray(sequence, dtype=dtype).tobytes())
        np.save(folder / f"{name}_offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


@dataclass
class Split:
    """One split of a feature store."""

    ids: list[str]
    raw_text: list[str] | None
    labels: dict[str, np.ndarray]  # task -> (N,) float32; "fusion" always, the other tasks if the file has them
    text: Ragged  # (tokens, 2) token id and segment id
    audio: Ragged  # (frames, width)
    vision: Ragged

    def __len__(self) -> int:
        return len(self.ids)
