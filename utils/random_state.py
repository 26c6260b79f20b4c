"""The random number generators that training draws from."""

import random

import numpy as np
import torch
from torch import Tensor


def set_seed(seed: int) -> None:
    """Seeds every generator that training draws from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # all GPUs too


def random_streams(device: torch.device) -> tuple[dict[str, Tensor], dict]:
    """The state of every generator: tensors, and JSON values."""
    streams = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        streams["cuda"] = torch.cuda.get_rng_state(device)
    kind, key, *rest = np.random.get_state()
    return streams, {"python": random.getstate(), "numpy": [kind, key.tolist(), *rest]}


def set_random_streams(streams: dict[str, Tensor], values: dict, device: torch.device) -> None:
    """Restores the result of `random_streams`."""
    version, key, gauss = values["python"]
    random.setstate((version, tuple(key), gauss))
    np.random.set_state(tuple(values["numpy"]))
    torch.set_rng_state(streams["torch"])
    if device.type == "cuda" and "cuda" in streams:
        torch.cuda.set_rng_state(streams["cuda"], device)
