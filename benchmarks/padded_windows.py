"""Windows padded to a few sizes, and training on them by CUDA graphs.

A CUDA graph repeats a series of kernels with a single launch, but its tensors keep their places and shapes. So a window is padded
to the smallest of a few sizes that holds it. This changes no result: dummy tokens are where attention's mask hides them, and an
LSTM's state is read at each sequence's last real frame.
"""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from benchmarks.implementations import EPOCH, Ours
from data.load_data import ClipDataset
from data.ragged import Split
from models.batch import Frames, Group, PackedText, Window
from trains import self_mm

WARM_UP = 3  # passes before a capture, as PyTorch's documentation advises


class Size(NamedTuple):
    """How large a window of a number of clips is."""

    tokens: int
    length: int  # of the longest sentence
    audio: int  # frames of the longest sequence
    vision: int

    @classmethod
    def of(cls, window: Window) -> "Size":
        """Of a window in one pass."""
        batch = window.passes[0]
        frames = batch.audio.values.shape[1], batch.vision.values.shape[1]
        return cls(len(batch.text.tokens), batch.text.groups[0].length, *frames)

    def holds(self, other: "Size") -> bool:
        return all(own >= part for own, part in zip(self, other, strict=True))


STEPS = Size(128, 16, 16, 16)  # sizes are multiples of these; attention's kernels like lengths that are multiples of 16


def choose_sizes(split: Split, windows: list[Tensor], count: int) -> list[Size]:
    """At most `count` sizes, ascending, that each hold as many more of the windows; the last one holds all.

    windows: the clips of each, (B,).
    """
    clips = torch.stack(windows).numpy()  # (W, B)
    text, audio, vision = (part.lengths[clips] for part in (split.text, split.audio, split.vision))
    needed = np.stack([text.sum(axis=1), text.max(axis=1), audio.max(axis=1), vision.max(axis=1)])  # (4, W)
    levels = np.quantile(needed, np.arange(1, count + 1) / count, axis=1, method="higher")  # (count, 4)
    sizes = {Size(*map(int, level)) for level in np.ceil(levels / STEPS) * STEPS}
    return sorted(size._replace(tokens=min(size.tokens, clips.shape[1] * size.length)) for size in sizes)


def pad_window(window: Window, size: Size) -> Window:
    """A window in one pass, with its text's lengths on the CPU, padded to a size that holds it."""
    (batch,) = window.passes
    frames = {name: pad_frames(getattr(batch, name), getattr(size, name)) for name in ("audio", "vision")}
    return window._replace(passes=[batch._replace(text=pad_text(batch.text, size), **frames)])


def pad_text(text: PackedText, size: Size) -> PackedText:
    """Adds dummy tokens, and one group of padded sentences. The dummies have padding's places there."""
    count, extra = len(text.tokens), size.tokens - len(text.tokens)
    lengths = torch.diff(text.first, append=torch.tensor([count]))
    mask = torch.arange(size.length) < lengths[:, None]  # (B, length)
    slots = torch.cat([mask.flatten().nonzero()[:, 0], (~mask).flatten().nonzero()[:extra, 0]])
    group = Group(len(lengths), size.length, size.tokens, slots, mask[:, None, None])
    tokens, segments, positions = (pad(part, (0, extra)) for part in (text.tokens, text.segments, text.positions))
    return text._replace(tokens=tokens, segments=segments, positions=positions, groups=[group])


def pad_frames(frames: Frames, length: int) -> Frames:
    """Adds frames of zeros. All are one stretch."""
    values = pad(frames.values, (0, 0, 0, length - frames.values.shape[1]))
    return frames._replace(values=values, stretches={length: 0})


class Padding:
    """Pads the windows of training as they are made."""

    def __init__(self, sizes: list[Size]):
        self.sizes = sizes
        self.real, self.padded = np.zeros(4), np.zeros(4)  # sums of Size

    def __call__(self, window: Window) -> Window:
        needed = Size.of(window)
        for size in self.sizes:
            if size.holds(needed):
                self.real, self.padded = self.real + needed, self.padded + size
                return pad_window(window, size)
        return window

    @contextmanager
    def applied(self) -> Iterator[None]:
        load = ClipDataset.__getitem__
        with patch.object(ClipDataset, "__getitem__", lambda clips, window: self(load(clips, window))):
            yield

    def __str__(self) -> str:
        shares = 1 - self.real / np.maximum(self.padded, 1)
        named = ", ".join(f"{name} {share:.0%}" for name, share in zip(Size._fields, shares, strict=True))
        return f"{len(self.sizes)} sizes; added: {named}"


class Graphs:
    """Replaces the training loop's forward_backward by CUDA graphs, one per size; on a CPU, runs what they would capture.

    A graph writes to the same gradients each time, so these are kept, and it begins by clearing them. It may also make the
    optimizer's step and generate the labels, which the loop then leaves out. The first window runs without a graph: it makes
    the gradients and the optimizer's state, which must exist before a capture. For full windows of EPOCH only.
    """

    def __init__(self, ours: Ours, sizes: list[Size], step: bool = False, labels: bool = False):
        self._sizes, self._device = sizes, ours.train.device
        self._model, self._ulgm, self._optimizer = ours.model, ours.ulgm, ours.optimizer
        self._gradients: list[Tensor] = []
        self.captured: dict[Size, tuple[Window, torch.cuda.CUDAGraph, tuple]] = {}
        self._step = self._update = None
        self.seconds = 0.0  # of all captures
        self._optimizer.zero_grad = lambda: None
        if step:
            for group in self._optimizer.param_groups:
                group["capturable"] = self._device.type == "cuda"
            self._step, self._optimizer.step = self._optimizer.step, lambda: None
        if labels:
            self._update, self._ulgm.update = self._ulgm.update, lambda *_: None

    @contextmanager
    def applied(self) -> Iterator[None]:
        self._eager = self_mm.forward_backward
        with patch.object(self_mm, "forward_backward", lambda model, ulgm, window: self(window)):
            yield

    def __call__(self, window: Window) -> tuple[dict[str, Tensor], Tensor]:
        size = Size.of(window)
        if not self._gradients or self._device.type == "cpu" or size not in self._sizes:
            return self._work(window)
        if size not in self.captured:
            start = time.perf_counter()
            self.captured[size] = self._capture(window)
            self.seconds += time.perf_counter() - start
        static, graph, (features, losses) = self.captured[size]
        torch._foreach_copy_(_tensors(static), _tensors(window))
        graph.replay()
        return features, losses.clone()  # the check of the losses reads them one window later

    def _work(self, window: Window) -> tuple[dict[str, Tensor], Tensor]:
        """What a graph captures."""
        features, losses = self._forward_backward(window)
        if self._step:
            self._step()
        if self._update:
            self._update(window.clips, window.microbatches, features, EPOCH)
        return features, losses

    def _forward_backward(self, window: Window) -> tuple[dict[str, Tensor], Tensor]:
        if self._gradients:
            torch._foreach_zero_(self._gradients)
        features, losses = self._eager(self._model, self._ulgm, window)
        if not self._gradients:
            parameters = self._model.parameters()
            self._gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # Detached: else the next capture would meet nodes of this backward pass, which belong to another stream.
        return {task: values.detach() for task, values in features.items()}, losses

    def _capture(self, window: Window) -> tuple[Window, torch.cuda.CUDAGraph, tuple]:
        """A window's copy, from which the graph reads; the graph; and its results, features and losses."""
        static, side = copy.deepcopy(window), torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._forward_backward(static)
        torch.cuda.current_stream(self._device).wait_stream(side)
        # Graphs run one after another, so all may use the same memory. Capturing registers the generator of dropout's numbers.
        pool = next((graph.pool() for _, graph, _ in self.captured.values()), None)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            results = self._work(static)
        return static, graph, results

    def __str__(self) -> str:
        return f"{len(self.captured)} graphs, captured in {self.seconds:.2f} s"


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in a window or a part of one, in order."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, list | tuple) else []
