"""What passes between the data and the model: the clips of one window, without their padding where that pays.

Within a batch, sentences and sequences stand in the order of their lengths, the longest first; `inverse_order` leads back to the
order of the clips. So those of like length can be worked on together, and what the longest of all needs isn't computed for
everyone. How finely they are parted is chosen where a batch is made: a CPU gains by many small parts, a GPU by one large.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device; to a GPU from pinned memory, so that nobody waits for the copy."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def positions_within(lengths: np.ndarray) -> np.ndarray:
    """(N,) lengths -> (sum of lengths,): 0 ... length - 1 of each sequence, one after the other."""
    first = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(first, lengths)


class _Movable:
    """Gives a dataclass of tensors (or of further such dataclasses) `to` and `pin_memory`."""

    def _map(self, function):
        def moved(value):
            if isinstance(value, Tensor):
                return function(value)
            if isinstance(value, _Movable):
                return value._map(function)
            return [moved(item) for item in value] if isinstance(value, list) else value

        return type(self)(*(moved(getattr(self, field.name)) for field in dataclasses.fields(self)))

    def to(self, device: torch.device):
        return self._map(lambda tensor: send(tensor, device))

    def pin_memory(self):
        return self._map(lambda tensor: tensor.pin_memory())


@dataclass
class Group(_Movable):
    """Sentences that go through attention together: `sentences` rows of `length` positions."""

    sentences: int
    length: int
    tokens: int  # real ones
    slots: Tensor | None  # (tokens,) int64, positions in the flattened rows; None: the tokens fill them
    mask: Tensor | None  # (sentences, length) bool, True where a token stands; None: everywhere

    @classmethod
    def from_lengths(cls, lengths: np.ndarray) -> Group:
        """lengths: (sentences,) in descending order."""
        length = int(lengths[0])
        if lengths[-1] == length:
            return cls(len(lengths), length, int(lengths.sum()), None, None)
        mask = np.arange(length) < lengths[:, None]
        slots = np.flatnonzero(mask)
        return cls(len(lengths), length, len(slots), torch.from_numpy(slots), torch.from_numpy(mask))

    def first_tokens(self) -> Group:
        """The same sentences, of which only the first token goes through."""
        return Group(self.sentences, 1, self.sentences, None, None)

    def pad(self, rows: Tensor, heads: int) -> Tensor:
        """(tokens, width) -> (sentences, heads, length, width / heads), zero where no token stands."""
        if self.slots is not None:
            padded = rows.new_zeros(self.sentences * self.length, rows.shape[1])
            rows = padded.index_copy(0, self.slots, rows)
        return rows.view(self.sentences, self.length, heads, -1).transpose(1, 2)

    def unpad(self, padded: Tensor) -> Tensor:
        """The inverse of `pad`."""
        rows = padded.transpose(1, 2).flatten(0, 1).flatten(1)
        return rows if self.slots is None else rows.index_select(0, self.slots)


@dataclass
class PackedText(_Movable):
    """The real tokens of B sentences, end to end, the longest sentence first: T tokens in all."""

    tokens: Tensor  # (T,) int64, vocabulary ids
    segments: Tensor  # (T,) int64, BERT's token types
    positions: Tensor  # (T,) int64, position in its sentence, from 0
    first: Tensor  # (B,) int64, where each sentence's first token stands among the T
    groups: list[Group]
    inverse_order: Tensor  # (B,) int64, the position of each clip's sentence

    @classmethod
    def pack(cls, tokens: Tensor, lengths: np.ndarray, inverse_order: np.ndarray, by_length: bool) -> PackedText:
        """tokens: (T, 2) ids and segments, sentence after sentence. lengths: (B,) in descending order, T in all. inverse_order: (B,).

        by_length: sentences of one length form a group, so that nothing is padded; else all of them do.
        """
        starts = np.flatnonzero(np.diff(lengths, prepend=-1)) if by_length else [0]
        groups = [Group.from_lengths(part) for part in np.split(lengths, starts[1:])]
        ids, segments = tokens.long().T.contiguous().unbind(0)
        positions, first = torch.from_numpy(positions_within(lengths)), torch.from_numpy(np.cumsum(lengths) - lengths)
        return cls(ids, segments, positions, first, groups, torch.from_numpy(inverse_order))


class Stretch(NamedTuple):
    """Frames `start` to `end` of those sequences that reach beyond `start`."""

    start: int
    end: int
    sequences: int  # so many, the longest
    going_on: int  # so many of them reach beyond `end`


@dataclass
class Frames(_Movable):
    """B sequences of frames, the longest first, zero-padded at the end to its length."""

    values: Tensor  # (B, L, width) float32
    lengths: Tensor  # (B,) int64, real frames of each
    stretches: list[Stretch]  # one after the other, to the longest sequence's end
    inverse_order: Tensor  # (B,) int64, the position of each clip's sequence

    @classmethod
    def pack(cls, frames: Tensor, lengths: np.ndarray, inverse_order: np.ndarray, stretches: int) -> Frames:
        """frames: (F, width), sequence after sequence. lengths: (B,) in descending order, F in all. inverse_order: (B,).

        stretches: so many at most; about as many sequences end in each.
        """
        count, longest = len(lengths), int(lengths[0])
        real = np.flatnonzero(np.arange(longest) < lengths[:, None])
        values = frames.new_zeros(count * longest, frames.shape[1])
        values.index_copy_(0, send(torch.from_numpy(real), frames.device), frames)
        ends = sorted({int(lengths[number * count // stretches]) for number in range(stretches)})
        parts = [
            Stretch(start, end, int((lengths > start).sum()), int((lengths > end).sum()))
            for start, end in zip([0, *ends], ends, strict=False)
        ]
        return cls(values.view(count, longest, -1), torch.from_numpy(lengths), parts, torch.from_numpy(inverse_order))


@dataclass
class Batch(_Movable):
    """B clips that go through the network together."""

    clips: Tensor  # (B,) int64, the clips' numbers in their split
    shares: Tensor  # (B,) float32, 1 / size of the clip's micro-batch: its share of the mean loss there
    text: PackedText | Tensor  # or (B, width) float32, text vectors that were computed before
    audio: Frames
    vision: Frames


@dataclass
class Window(_Movable):
    """What one optimizer step learns from: micro-batches, in order, in one pass or several."""

    clips: Tensor  # (B,) int64
    microbatches: list[int]  # their sizes; they add up to B
    passes: list[Batch]  # all of the clips; with several ranks, this one's share of them
