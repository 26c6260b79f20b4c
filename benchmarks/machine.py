"""Measures a machine's arithmetic rate, and the time and memory of a call."""

import ctypes
import gc
import os
import platform
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import linear
from transformers import BertConfig

STATUS = Path("/proc/self/status")  # Linux only


def describe(device: torch.device) -> dict[str, object]:
    """Returns the hardware and software versions to print beside a figure."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes, including the kernels it launches on a GPU."""
    _synchronise(device)
    start = time.perf_counter()
    function()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process's memory, from a field of /proc/self/status: VmRSS is the current value, VmHWM the peak."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def peak_memory(function: Callable[[], object], device: torch.device) -> int | None:
    """Peak memory of a call in bytes, above the memory in use before it; None if the system does not report it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    if not STATUS.exists():
        function()
        return None
    gc.collect()
    # Returns freed memory to the system; the call could otherwise reuse it unnoticed.
    ctypes.CDLL(None).malloc_trim(0)
    # Resets VmHWM to the current value.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident()
    function()
    return resident("VmHWM") - before


def matrix_rates(dtype: torch.dtype, rows: int, config: BertConfig, device: torch.device) -> dict[str, float]:
    """Library -> FLOP/s of matrix products with the shapes of a text encoder's feed-forward layers.

    rows: tokens. Each rate is the best of several tries and both shapes: an upper limit, not a mean.
    """
    rates = {"torch.mm": 0.0}
    # A single product on a GPU would mostly measure its launch.
    batch = 1 if device.type == "cpu" else 50
    width, inner = config.hidden_size, config.intermediate_size
    for inside, outside in ((width, inner), (inner, width)):
        left = torch.randn(rows, inside, device=device).to(dtype)
        right = torch.randn(outside, inside, device=device).to(dtype)
        products = {"torch.mm": partial(torch.mm, left, right.T)}
        if device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available():
            products["oneDNN"] = partial(linear, left.to_mkldnn(), right)
        for library, product in products.items():
            with torch.no_grad():
                call = partial(_repeat, product, batch)
                call()  # warm-up
                fastest = min(seconds(call, device) for _ in range(5)) / batch
            rates[library] = max(rates.get(library, 0.0), 2 * rows * inside * outside / fastest)
    return rates


def _repeat(function: Callable[[], object], times: int) -> None:
    for _ in range(times):
        function()


def needed_flops(lengths: np.ndarray, config: BertConfig) -> float:
    """Floating-point operations in the text encoder's matrix products during one training step, without any padding.

    lengths: (B,) real tokens per sentence. In the last layer only the first token's output is needed, so the other tokens
    contribute keys and values alone. The backward pass has two products for each of the forward pass.
    """
    width, inner = config.hidden_size, config.intermediate_size
    tokens, sentences = int(lengths.sum()), len(lengths)
    key_and_value, all_others = 2 * 2 * width**2, 2 * (2 * width**2 + 2 * width * inner)
    layer = tokens * (key_and_value + all_others) + 4 * width * int((lengths**2).sum())
    last_layer = tokens * key_and_value + sentences * all_others + 4 * width * tokens
    return 3.0 * ((config.num_hidden_layers - 1) * layer + last_layer)
