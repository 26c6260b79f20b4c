"""The network's input: the clips of one window, packed so that little is computed for padding.

Within a batch, sentences and sequences are sorted by length, longest first, so that similar lengths are processed
together; `inverse_order` restores the clips' order. A CPU profits from many small parts, a GPU from one large one.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor


def send(value: Any, device: torch.device) -> Any:
    """A value, with all tensors in it, on a device. Copies to a GPU from pinned memory, without waiting."""
    if isinstance(value, list):
        return [send(item, device) for item in value]
    if isinstance(value, tuple):  # a NamedTuple
        return type(value)(*(send(field, device) for field in value))
    if not isinstance(value, Tensor):
        return value
    if device.type == "cuda" and value.device.type == "cpu":
        value = value.pin_memory()
    return value.to(device, non_blocking=True)


def positions_within(lengths: np.ndarray) -> np.ndarray:
    """(N,) lengths -> (sum of lengths,): 0 ... length - 1 for each sequence in turn."""
    first = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) - np.repeat(first, lengths)


class Group(NamedTuple):
    """Sentences that share one attention call: `sentences` rows of `length` positions."""

    sentences: int
    length: int
    tokens: int  # without padding
    slots: Tensor | None = None  # (tokens,) int64, positions in the flattened rows; None: no padding
    mask: Tensor | None = None  # (sentences, 1, 1, length) bool, True for real tokens; None: no padding

    @classmethod
    def from_lengths(cls, lengths: np.ndarray) -> "Group":
        """lengths: (sentences,) in descending order."""
        length = int(lengths[0])
        if lengths[-1] == length:
            return cls(len(lengths), length, int(lengths.sum()))
        mask = np.arange(length) < lengths[:, None]
        slots = np.flatnonzero(mask)
        return cls(len(lengths), length, len(slots), torch.from_numpy(slots), torch.from_numpy(mask)[:, None, None])

    def pad(self, rows: Tensor, heads: int) -> Tensor:
        """(tokens, width) -> (sentences, heads, length, width / heads), zero-padded."""
        if self.slots is not None:
            rows = rows.new_zeros(self.sentences * self.length, rows.shape[1]).index_copy(0, self.slots, rows)
        return rows.view(self.sentences, self.length, heads, -1).transpose(1, 2)

    def unpad(self, padded: Tensor) -> Tensor:
        """The inverse of `pad`."""
        rows = padded.transpose(1, 2).flatten(0, 1).flatten(1)
        return rows if self.slots is None else rows.index_select(0, self.slots)


class PackedText(NamedTuple):
    """The T real tokens of B sentences, concatenated, longest sentence first."""

    tokens: Tensor  # (T,) int64, vocabulary ids
    segments: Tensor  # (T,) int64, BERT's token types
    positions: Tensor  # (T,) int64, position in the sentence, from 0
    first: Tensor  # (B,) int64, index of each sentence's first token
    groups: list[Group]
    inverse_order: Tensor  # (B,) int64, index of each clip's sentence

    @classmethod
    def pack(cls, tokens: Tensor, lengths: np.ndarray, inverse_order: np.ndarray, by_length: bool) -> "PackedText":
        """tokens: (T, 2), ids and segments. lengths: (B,), descending. by_length: a group per length avoids padding."""
        starts = np.flatnonzero(np.diff(lengths, prepend=-1)) if by_length else [0]
        groups = [Group.from_lengths(part) for part in np.split(lengths, starts[1:])]
        ids, segments = tokens.long().T.contiguous().unbind(0)
        positions, first = torch.from_numpy(positions_within(lengths)), torch.from_numpy(np.cumsum(lengths) - lengths)
        return cls(ids, segments, positions, first, groups, torch.from_numpy(inverse_order))


class Frames(NamedTuple):
    """B sequences of frames, longest first, zero-padded at the end."""

    values: Tensor  # (B, L, width) float32
    lengths: Tensor  # (B,) int64, real frames per sequence
    stretches: dict[int, int]  # end of each stretch of time, ascending -> number of longer sequences
    inverse_order: Tensor  # (B,) int64, index of each clip's sequence

    @classmethod
    def pack(cls, frames: Tensor, lengths: np.ndarray, inverse_order: np.ndarray, stretches: int) -> "Frames":
        """frames: (F, width). lengths: (B,), descending. stretches: at most; equally many sequences end in each."""
        count, longest = len(lengths), int(lengths[0])
        real = torch.from_numpy(np.flatnonzero(np.arange(longest) < lengths[:, None]))
        values = frames.new_zeros(count * longest, frames.shape[1]).index_copy_(0, send(real, frames.device), frames)
        ends = sorted({int(lengths[number * count // stretches]) for number in range(stretches)})
        parts = {end: int((lengths > end).sum()) for end in ends}
        return cls(values.view(count, longest, -1), torch.from_numpy(lengths), parts, torch.from_numpy(inverse_order))


class Batch(NamedTuple):
    """B clips that pass through the network together."""

    clips: Tensor  # (B,) int64, indices into the split
    shares: Tensor  # (B,) float64, 1 / size of the clip's micro-batch: its share of that micro-batch's mean loss
    text: PackedText | Tensor  # or (B, width), vectors encoded beforehand
    audio: Frames
    vision: Frames


class Window(NamedTuple):
    """The input of one optimizer step: consecutive micro-batches, in one pass or several."""

    clips: Tensor  # (B,) int64
    microbatches: list[int]  # sizes, with sum B
    passes: list[Batch]  # together all clips or, with several ranks, this rank's share
