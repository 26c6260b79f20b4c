"""Faster CPU versions of operations that PyTorch runs below the hardware's speed.

Results differ in rounding, those of dropout in the random numbers. What each saves depends on the processor: see `python -m
benchmarks.kernels`. The percentages below are by how much longer a training step takes without it: BERT-base, MOSI's clips,
float32, two cores of an Intel Xeon with AVX-512, without AMX.
"""

import ctypes
import functools
import math
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from models.batch import Group

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's numbers for these settings


def set_up_cpu() -> None:
    """Changes two defaults of the process. Call before the first computation, whose threads inherit the first change.

    Denormal numbers become 0: a gradient fades on its way back through a long sequence, and an LSTM's backward pass on
    numbers below 1e-38 took the Xeon four times as long (4%).
    And glibc keeps what a step frees. By default it returns blocks of 32 MB and more, and every page faults again (5%).
    """
    torch.set_flush_denormal(True)
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        if libc.mallopt(M_MMAP_THRESHOLD, 1 << 28):  # old versions refuse and keep their own threshold
            libc.mallopt(M_TRIM_THRESHOLD, -1)  # never: a step of MOSEI's frees 3 GiB


@functools.cache
def is_intel() -> bool:
    cpuinfo = Path("/proc/cpuinfo")  # Linux, where `platform` knows the architecture only
    return "GenuineIntel" in (cpuinfo.read_text() if cpuinfo.exists() else platform.processor())


def ready(rows: Tensor) -> Tensor:
    """Prepares rows for `linear`.

    For float32 on an x86 CPU, PyTorch multiplies with MKL, which runs at half the speed of oneDNN on some AMD processors.
    Tensors in oneDNN's layout are multiplied by oneDNN: the same arithmetic, summed in another order. On Intel's processors
    MKL is faster (27%). The vendor decides and not a measurement: a resumed run must use the same library.
    """
    x86 = rows.device.type == "cpu" and torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    in_float32 = rows.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return rows.to_mkldnn() if x86 and in_float32 and not is_intel() else rows


def linear(layer: nn.Linear, rows: Tensor) -> Tensor:
    return functional.linear(rows, layer.weight, layer.bias).to_dense() if rows.is_mkldnn else layer(rows)


def dropout(layer: nn.Dropout, rows: Tensor) -> Tensor:
    """layer(rows), with a mask from `draw_mask` (6%)."""
    if not layer.training or not 0 < layer.p < 1 or rows.device.type != "cpu":
        return layer(rows)
    return rows * draw_mask(rows.shape, layer.p, rows.dtype)


def draw_mask(shape: tuple[int, ...], probability: float, dtype: torch.dtype) -> Tensor:
    """Draws each value's factor in a dropout: 0, or the one that keeps the mean. (Products with a bool mask are slow.)

    PyTorch draws a number for each value. Here four values share a 64-bit number from NumPy's fastest generator, which
    PyTorch's own seeds. The probability is rounded to a multiple of 1/65536, at most 65535/65536.
    """
    dropped, count = min(round(probability * 65536), 65535), math.prod(shape)
    drawn = np.random.SFC64(int(torch.randint(2**63 - 1, ()))).random_raw(-(-count // 4))
    kept = torch.from_numpy(drawn).view(torch.int16)[:count].view(shape) >= dropped - 32768
    return kept.to(dtype).mul_(65536 / (65536 - dropped))


def can_attend(queries: Tensor, groups: list[Group], probability: float) -> bool:
    """Whether `attend` is faster than PyTorch's attention and exact: it needs dropout, and no padding."""
    return queries.device.type == "cpu" and 0 < probability < 1 and all(group.mask is None for group in groups)


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, queried: list[Group], groups: list[Group], heads: int, probability: float
) -> Tensor:  # fmt: skip
    """(Q, width), (T, width), (T, width) -> (Q, width), as PyTorch's scaled_dot_product_attention of each pair of groups.

    With dropout, PyTorch has a general version only: for each group some thirty operations, which autograd records one by
    one. Here a group takes ten, unrecorded, and a layer draws its random numbers at once (4%). Both compute in float32 or better.
    """
    with torch.autocast("cpu", enabled=False):
        return _Attention.apply(queries, keys, values, (queried, groups, groups), heads, probability)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, layout: tuple[list[Group], ...], heads: int, probability: float
    ) -> Tensor:  # fmt: skip
        parts = [_by_head(rows, groups, heads) for rows, groups in zip((queries, keys, values), layout, strict=True)]
        counts = [q.shape[0] * q.shape[1] * k.shape[1] for q, k in zip(*parts[:2], strict=True)]
        masks = draw_mask((sum(counts),), probability, parts[0][0].dtype)
        ctx.layout, ctx.heads, ctx.scale = layout, heads, (queries.shape[1] // heads) ** -0.5
        saved, contexts = [], []
        for q, k, v, mask in zip(*parts, masks.split(counts), strict=True):
            weights = torch.softmax(torch.bmm(q, k.transpose(1, 2)).mul_(ctx.scale), dim=-1)
            dropped = weights * mask.view(weights.shape)
            contexts.append(torch.bmm(dropped, v))
            saved += q, k, v, mask, weights, dropped
        ctx.save_for_backward(*saved)
        return _by_token(tuple(contexts), layout[0], queries)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        saved, gradients = zip(*[iter(ctx.saved_tensors)] * 6, strict=True), []  # of queries, keys, values
        by_head = _by_head(gradient, ctx.layout[0], ctx.heads)
        for g, (q, k, v, mask, weights, dropped) in zip(by_head, saved, strict=True):
            inner = torch.bmm(g, v.transpose(1, 2)).mul_(mask.view(weights.shape)).mul_(ctx.scale)
            inner = torch._softmax_backward_data(inner, weights, -1, weights.dtype)
            dq, dk = torch.bmm(inner, k), torch.bmm(inner.transpose(1, 2), q)
            gradients.append((dq, dk, torch.bmm(dropped.transpose(1, 2), g)))
        return *map(_by_token, zip(*gradients, strict=True), ctx.layout, [gradient] * 3), None, None, None


def _by_head(rows: Tensor, groups: list[Group], heads: int) -> list[Tensor]:
    """(tokens, width) -> for each group, (sentences * heads, length, width / heads), in float32 or better."""
    parts = rows.to(torch.promote_types(rows.dtype, torch.float32)).split([group.tokens for group in groups])
    return [group.pad(part, heads).flatten(0, 1) for part, group in zip(parts, groups, strict=True)]


def _by_token(parts: tuple[Tensor, ...], groups: list[Group], like: Tensor) -> Tensor:
    """The inverse of `_by_head`, without padding. like: has the result's width and dtype."""
    sizes = [group.tokens for group in groups]
    rows = like.new_empty(sum(sizes), like.shape[1])
    for out, part, group in zip(rows.split(sizes), parts, groups, strict=True):
        by_head = part.view(group.sentences, -1, *part.shape[1:])
        out.view(group.sentences, group.length, -1, part.shape[2]).copy_(by_head.transpose(1, 2))
    return rows
