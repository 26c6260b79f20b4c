"""Selects and sets up the processor."""

import os
import platform
from collections.abc import Sequence

import torch

from utils.errors import UserError


def known_gpus(gpu_ids: Sequence[int] | None) -> list[int]:
    """The GPUs in --gpu_ids, or all GPUs if None; [] for the CPU. Raises UserError for a GPU that doesn't exist."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for gpu in gpu_ids or []:
        if not -1 <= gpu < count:
            available = f"0 to {count - 1}" if count else "none: leave the flag out to run on the CPU"
            raise UserError(f"--gpu_ids {gpu}: no such GPU; PyTorch sees {available}")
    return [gpu for gpu in (range(count) if gpu_ids is None else gpu_ids) if gpu != -1]


def pick_device(gpu_ids: Sequence[int] | None) -> torch.device:
    """The GPU with the most free memory among `known_gpus`, or the CPU. Raises UserError for a GPU that doesn't exist."""
    if not (gpus := known_gpus(gpu_ids)):
        return torch.device("cpu")
    # Querying a GPU's free memory initializes it, so a single one isn't queried.
    gpu = gpus[0] if len(gpus) == 1 else max(gpus, key=lambda gpu: torch.cuda.mem_get_info(gpu)[0])
    torch.cuda.set_device(gpu)  # otherwise pinning memory would initialize GPU 0
    # In bfloat16 PyTorch would choose cuDNN's attention, which makes a new plan for every sentence length: on an H200 a
    # window spent 0.7 s on planning and 0.05 s on work.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.set_float32_matmul_precision("high")  # TF32: float32 products with 10 bits of mantissa, sums in float32
    return torch.device("cuda", gpu)


def describe_device(device: torch.device) -> str:
    """Where a run computes and, if a GPU might be expected, why not there."""
    if device.type == "cuda":
        return f"on {torch.cuda.get_device_name(device)}"
    if torch.cuda.is_available() or platform.system() == "Darwin":  # by choice; macOS has no CUDA
        return "on the CPU"
    can_use_gpus = torch.version.cuda or torch.version.hip  # HIP: AMD's GPUs, which PyTorch calls CUDA, too
    return f"on the CPU: {'PyTorch sees no GPU' if can_use_gpus else 'this PyTorch is a build without CUDA'}"


def make_deterministic() -> None:
    """Makes a GPU reproduce its results to the bit. Call before its first use."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS's condition for determinism
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # all memory is written before it is read
