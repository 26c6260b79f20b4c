"""Sequences of several lengths, end to end and without padding: on disk, and mapped into memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.batch import positions_within, send
from utils.progress import progress


class Ragged:
    """N sequences, as `NAME.npy` (all frames, width) and `NAME_offsets.npy` (N + 1,) in a folder of the store."""

    def __init__(self, folder: Path, name: str):
        self._folder, self._name = folder, name
        # Copy-on-write, as PyTorch has no read-only tensors; nobody writes.
        self.values = torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c"))
        offsets = np.load(folder / f"{name}_offsets.npy")
        self._starts = offsets[:-1]
        self.lengths = np.diff(offsets)  # (N,) int64

    @property
    def width(self) -> int:
        return self.values.shape[1]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def __getitem__(self, clip: int) -> np.ndarray:
        """One sequence, (length, width)."""
        return self.values[self._starts[clip] : self._starts[clip] + self.lengths[clip]].numpy()

    def gather(self, clips: np.ndarray) -> Tensor:
        """The clips' sequences, end to end: (frames, width), where the values lie."""
        lengths = self.lengths[clips]
        rows = np.repeat(self._starts[clips], lengths) + positions_within(lengths)
        return self.values.index_select(0, send(torch.from_numpy(rows), self.values.device))

    def to(self, device: torch.device) -> Ragged:
        """A copy whose values lie in a device's memory."""
        copy = Ragged(self._folder, self._name)
        copy.values = self.values.to(device)
        return copy

    def __reduce__(self):
        """A worker process maps the files itself, where pickling would copy them."""
        return Ragged, (self._folder, self._name)

    @staticmethod
    def write(folder: Path, name: str, sequences: Iterable, lengths: np.ndarray, width: int, dtype: type) -> None:
        """Writes the sequences one after the other: never more than one of them is in memory twice."""
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
        with open(folder / f"{name}.npy", "wb") as file:
            np.lib.format.write_array_header_1_0(file, header | {"shape": (int(lengths.sum()), width)})
            for sequence in progress(sequences, f"writing {folder.name} {name}", "clip", len(lengths)):
                file.write(np.ascontiguousarray(sequence, dtype=dtype).tobytes())
        np.save(folder / f"{name}_offsets.npy", np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


@dataclass
class Split:
    """One split of a store."""

    ids: list[str]
    raw_text: list[str] | None
    labels: dict[str, np.ndarray]  # task -> (N,) float32; "fusion" always, the others where the file has them
    text: Ragged  # (tokens, 2)
    audio: Ragged  # (frames, width)
    vision: Ragged

    def __len__(self) -> int:
        return len(self.ids)
