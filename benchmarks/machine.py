"""What a machine can do, and what a call costs it."""

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

STATUS = Path("/proc/self/status")  # Linux only, as are the figures of memory


def describe(device: torch.device) -> dict[str, object]:
    """The machine and the versions that a figure belongs to."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = re.findall(r"model name\s*: (.*)", cpuinfo) or [platform.processor()]
    return {
        "cpu": names[0],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """How long a call takes, until the device is done with it."""
    _wait(device)
    start = time.perf_counter()
    function()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def resident(field: str = "VmRSS") -> int:
    """This process's memory in bytes, as Linux counts it: VmRSS, now; VmHWM, at most; RssAnon, now, without mapped files."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def peak_memory(function: Callable[[], object], device: torch.device) -> int | None:
    """Bytes that a call needs at most, beyond what is there before it; None where the system doesn't tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before
    if not STATUS.exists():
        function()
        return None
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before goes back to the system, else it would hide what is needed
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark falls to what is there now
    before = resident()
    function()
    return resident("VmHWM") - before


def matrix_rates(dtype: torch.dtype, rows: int, config: BertConfig, device: torch.device) -> dict[str, float]:
    """FLOP/s of this machine's matrix products of the shapes that a text encoder multiplies, by each library that has them.

    rows: tokens. The best of several tries and of two shapes: a limit, not a mean.
    """
    rates = {"torch.mm": 0.0}
    batch = 1 if device.type == "cpu" else 50  # a single one would measure a GPU's start
    width, inner = config.hidden_size, config.intermediate_size
    for inside, outside in ((width, inner), (inner, width)):
        left = torch.randn(rows, inside, device=device).to(dtype)
        right = torch.randn(outside, inside, device=device).to(dtype)
        products = {"torch.mm": partial(torch.mm, left, right.T)}
        if device.type == "cpu" and dtype == torch.float32 and torch.backends.mkldnn.is_available():
            products["oneDNN"] = partial(linear, left.to_mkldnn(), right)
        for library, product in products.items():
            with torch.no_grad():
                several = partial(_repeat, product, batch)
                several()
                fastest = min(seconds(several, device) for _ in range(5)) / batch
            rates[library] = max(rates.get(library, 0.0), 2 * rows * inside * outside / fastest)
    return rates


def _repeat(function: Callable[[], object], times: int) -> None:
    for _ in range(times):
        function()


def needed_flops(lengths: np.ndarray, config: BertConfig) -> float:
    """Floating-point operations in the matrix products of one step's text encoder, for real tokens and what is read of them.

    lengths: (B,) tokens of each sentence. The backward pass has two products for each of the forward pass.
    """
    width, inner = config.hidden_size, config.intermediate_size
    tokens, sentences = int(lengths.sum()), len(lengths)
    key_and_value, all_others = 2 * 2 * width**2, 2 * (2 * width**2 + 2 * width * inner)
    layer = tokens * (key_and_value + all_others) + 4 * width * int((lengths**2).sum())
    last_layer = tokens * key_and_value + sentences * all_others + 4 * width * tokens
    return 3.0 * ((config.num_hidden_layers - 1) * layer + last_layer)
