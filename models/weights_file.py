"""Reads a file of torch.save from an untrusted source: a dict of tensors, never code."""

import re
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from utils.errors import UserError, first_line

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys below which training scripts save weights


def check_finite(weights: Mapping[str, Tensor], source: str | Path) -> None:
    """Raises UserError, which begins with the source, if a tensor holds a non-finite value."""
    if broken := [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]:
        what = f"{len(broken)} of {len(weights)} tensors hold non-finite values, such as {first_line(broken[0])}"
        raise UserError(f"{source}: {what}; its training diverged, or the file is damaged")


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
        for name in WRAPPERS:
            weights = dict(dict.items(weights.get(name, weights)))
        if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()):
            raise TypeError("holds values that are not named tensors")
        # DataParallel adds a part to each name.
        return {re.sub(r"(^|\.)module\.", r"\1", name): tensor for name, tensor in weights.items()}
    except Exception as error:  # a damaged file can fail in any way
        reason = f"not a file of weights, or damaged ({type(error).__name__}: {first_line(error)})"
        raise UserError(f"{path}: {reason}; expected one that torch.save(model.state_dict(), path) wrote") from None
