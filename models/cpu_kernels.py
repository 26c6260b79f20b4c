"""Faster CPU versions of operations that PyTorch runs below the hardware's speed; they differ in rounding only."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def ready(rows: Tensor) -> Tensor:
    """Prepares rows for `linear`.

    For float32 on an x86 CPU, PyTorch multiplies with MKL, which runs at half the speed of oneDNN on some AMD processors.
    Tensors in oneDNN's layout are multiplied by oneDNN: the same arithmetic, summed in another order.
    """
    x86 = rows.device.type == "cpu" and torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    in_float32 = rows.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return rows.to_mkldnn() if x86 and in_float32 else rows


def linear(layer: nn.Linear, rows: Tensor) -> Tensor:
    return functional.linear(rows, layer.weight, layer.bias).to_dense() if rows.is_mkldnn else layer(rows)


def dropout(layer: nn.Dropout, rows: Tensor) -> Tensor:
    """layer(rows). PyTorch draws Bernoulli numbers, which is slower on a CPU than drawing uniform ones."""
    if not layer.training or not 0 < layer.p < 1 or rows.device.type != "cpu":
        return layer(rows)
    kept = torch.rand(rows.shape) >= layer.p
    return rows * kept * (1 / (1 - layer.p))
