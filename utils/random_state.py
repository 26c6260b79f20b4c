"""The random number generators."""

import random

import numpy as np
import torch


def set_seed(seed: int) -> None:
    """Seeds PyTorch's generators, from which alone training draws, and Python's and numpy's."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # all GPUs too
