"""The random number generators. Training draws from PyTorch's alone, so only their state is saved and restored."""

import random

import numpy as np
import torch
from torch import Tensor


def set_seed(seed: int) -> None:
    """Seeds every generator: PyTorch's on all devices, Python's and numpy's."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_streams(device: torch.device) -> dict[str, Tensor]:
    """The state of PyTorch's generators."""
    streams = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        streams["cuda"] = torch.cuda.get_rng_state(device)
    return streams


def set_random_streams(streams: dict[str, Tensor], device: torch.device) -> None:
    """Restores the result of `random_streams`."""
    torch.set_rng_state(streams["torch"])
    if device.type == "cuda" and "cuda" in streams:
        torch.cuda.set_rng_state(streams["cuda"], device)
