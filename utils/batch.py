"""What passes between the data and the model: the clips of one window, without their padding where that pays."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor


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
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self):
        return self._map(lambda tensor: tensor.pin_memory())


@dataclass
class PackedText(_Movable):
    """The real tokens of B sentences, end to end: T tokens in all, the longest sentence L tokens long."""

    tokens: Tensor  # (T,) int64, vocabulary ids
    segments: Tensor  # (T,) int64, BERT's token types
    positions: Tensor  # (T,) int64, place in the own sentence, from 0
    slots: Tensor  # (T,) int64, place in the flattened (B * L) padded layout
    first: Tensor  # (B,) int64, where each sentence's first token stands among the T
    mask: Tensor  # (B, L) bool, True where the padded layout holds a token

    @classmethod
    def from_lengths(cls, tokens: Tensor, segments: Tensor, lengths: Tensor) -> PackedText:
        """tokens, segments: (T,). lengths: (B,) int64, each at least 1, T in all."""
        longest = int(lengths.max())
        ends = lengths.cumsum(0)
        first = ends - lengths
        clip = torch.repeat_interleave(torch.arange(len(lengths)), lengths)  # (T,)
        positions = torch.arange(len(tokens)) - first[clip]
        mask = torch.arange(longest) < lengths[:, None]
        return cls(tokens, segments, positions, clip * longest + positions, first, mask)


@dataclass
class Frames(_Movable):
    """B sequences of frames, zero-padded at the end to the longest of them."""

    values: Tensor  # (B, L, width) float32
    lengths: Tensor  # (B,) int64, real frames of each


@dataclass
class Batch(_Movable):
    """B clips that go through the network together."""

    clips: Tensor  # (B,) int64, the clips' numbers in their split
    weights: Tensor  # (B,) float32, 1 / size of the clip's micro-batch
    text: PackedText | Tensor  # or (B, width) float32, text vectors that were computed before
    audio: Frames
    vision: Frames


@dataclass
class Window(_Movable):
    """What one optimizer step learns from: micro-batches, in order, in one pass or several."""

    clips: Tensor  # (B,) int64, of all passes
    microbatches: list[int]  # their sizes; they add up to B
    passes: list[Batch]
