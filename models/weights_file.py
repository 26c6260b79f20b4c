"""Reads a file of torch.save from an untrusted source: a dict of tensors, never code."""

import tarfile
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from utils.errors import UserError, first_line


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a .pth, on the CPU. Raises UserError for anything but a dict of tensors."""
    try:
        if tarfile.is_tarfile(path):  # as torch wrote before 0.1.10; torch.load unpacks it to a temporary folder
            raise ValueError("a tar file")
        with warnings.catch_warnings(action="ignore"):  # about old pickle protocols
            # Files of torch before 1.6 are not zip archives, and cannot be mapped.
            weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        # A dict may come with attributes that hide its methods.
        weights = dict(dict.items(weights))
        if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()):
            raise TypeError("holds values that are not named tensors")
        return weights
    except Exception as error:  # a damaged file can fail in any way
        reason = f"not a file of weights, or damaged ({type(error).__name__}: {first_line(error)})"
        raise UserError(f"{path}: {reason}; expected one that torch.save(model.state_dict(), path) wrote") from None
