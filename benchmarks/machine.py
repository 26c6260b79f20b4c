"""Measures a machine's arithmetic rate, and the time and memory of a call."""

import ctypes
import gc
import json
import os
import platform
import re
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import linear
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig

STATUS = Path("/proc/self/status")  # Linux only
# The categories of a GPU's work in a trace of PyTorch's profiler, those of calls of CUDA, and the calls that start work.
WORK, CALLS = ("kernel", "gpu_memcpy", "gpu_memset"), ("cuda_runtime", "cuda_driver")
LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")


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


def gpu_work(function: Callable[[], object], device: torch.device) -> dict[str, float]:
    """What a call does on a GPU, by PyTorch's profiler; on a CPU, or if the profiler sees no GPU's work, {}.

    kernels: those that ran, copies included. launches: the calls that started them. busy: seconds in which one or more ran.
    """
    if device.type == "cpu":
        return {}
    # As PyTorch does for its own CUDA graphs: the profiler's library fails with them once taken down and set up again.
    os.environ.update({"DISABLE_CUPTI_LAZY_REINIT": "1", "TEARDOWN_CUPTI": "0"})
    with tempfile.TemporaryDirectory() as folder:
        with profile(activities=[ProfilerActivity.CUDA]) as profiler:
            function()
            _synchronise(device)
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        return summarise_trace(json.loads(path.read_text())["traceEvents"])


def summarise_trace(events: list[dict]) -> dict[str, float]:
    """gpu_work of a trace's events."""
    work = sorted((event["ts"], event["ts"] + event["dur"]) for event in events if event.get("cat") in WORK)
    if not work:
        return {}
    busy, end = 0.0, 0.0
    for begin, finish in work:  # microseconds
        busy += max(0.0, finish - max(begin, end))
        end = max(end, finish)
    launches = [event for event in events if event.get("cat") in CALLS and event["name"].startswith(LAUNCHES)]
    return {"kernels": len(work), "launches": len(launches), "busy": busy / 1e6}


def host_waits(function: Callable[[], object], device: torch.device) -> int | None:
    """How often a call makes the host wait for the GPU, as far as PyTorch notices; None on a CPU."""
    if device.type == "cpu":
        return None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(warning.message) for warning in caught)


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
