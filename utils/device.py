"""Which processor a run computes on, and how."""

import ctypes
import os
import platform
from collections.abc import Sequence

import torch

from utils.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's numbers of its settings


def known_gpus(gpu_ids: Sequence[int] | None) -> list[int]:
    """The GPUs that --gpu_ids names; where it names none, all; [] where it names the CPU, or there is none.

    Raises UserError for a GPU that isn't there.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for gpu in gpu_ids or []:
        if not -1 <= gpu < count:
            there = f"0 to {count - 1}" if count else "none: leave the flag out to run on the CPU"
            raise UserError(f"--gpu_ids {gpu}: no such GPU; PyTorch sees {there}")
    return [gpu for gpu in (range(count) if gpu_ids is None else gpu_ids) if gpu != -1]


def pick_device(gpu_ids: Sequence[int] | None) -> torch.device:
    """The device to run on: of the GPUs that --gpu_ids names, the one with most free memory; where there is none, the CPU.

    Raises UserError for a GPU that isn't there.
    """
    gpus = known_gpus(gpu_ids)
    if not gpus:
        return torch.device("cpu")
    # Asking for its free memory starts a GPU up, so the only one isn't asked.
    gpu = gpus[0] if len(gpus) == 1 else max(gpus, key=lambda gpu: torch.cuda.mem_get_info(gpu)[0])
    torch.cuda.set_device(gpu)  # what names no GPU, such as pinning memory, then doesn't wake another one
    # In bfloat16 PyTorch would choose cuDNN's attention, which plans anew for every length of sentence: on an H200 a window
    # took 0.7 s of planning for 0.05 s of work.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.set_float32_matmul_precision("high")  # TF32: float32 products with 10 bits of mantissa, sums in float32
    return torch.device("cuda", gpu)


def make_deterministic() -> None:
    """Makes a GPU compute the same to the bit each time. Must be called before it is first used."""
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # NVIDIA's condition for its libraries to repeat themselves
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # all memory is written before it is read


def keep_freed_memory() -> None:
    """Lets the C library keep what a training step frees, for the next step.

    glibc returns blocks of 32 MB and more to the system at once, as BERT's larger activations are, and each of their pages
    must be got anew in the next step.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        if libc.mallopt(M_MMAP_THRESHOLD, 1 << 28):  # refused by old versions, which keep their own rule then
            libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
