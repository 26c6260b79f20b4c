"""The state of an unfinished training, in a safetensors file; resuming is bit-identical. Reading it runs no code."""

import json
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trains.training import Training
from utils.errors import UserError, first_line
from utils.files import replacing

State = tuple[dict[str, Tensor], dict]  # CPU tensors; JSON values
PROGRESS = ("epochs", "best_epoch", "best_score", "windows", "microbatches", "seconds")


def capture(training: Training) -> State:
    """Returns everything that `restore` needs. Raises DivergedError for non-finite numbers: see FiniteCheck."""
    training.check.raise_if_broken()
    parts = {"model": training.model.state_dict(), "ulgm": training.ulgm.state_dict()}
    parts["random"] = {"torch": torch.get_rng_state()}  # training draws from no other generator
    if training.loss.device.type == "cuda":
        parts["random"]["cuda"] = torch.cuda.get_rng_state(training.loss.device)
    moments = training.optimizer.state_dict()["state"]
    parts |= {f"optimizer.{number}": of_parameter for number, of_parameter in moments.items()}
    named = {f"{part}.{name}": tensor for part, tensors in parts.items() for name, tensor in tensors.items()}
    values = {name: getattr(training, name) for name in PROGRESS} | {"loss": float(training.loss)}
    return {name: tensor.cpu().contiguous() for name, tensor in named.items()}, values


def restore(training: Training, tensors: dict[str, Tensor], values: dict) -> None:
    """Puts a new training of the same config, and the random streams, into a captured state."""

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in part("optimizer.").items():
        number, key = name.split(".")
        # Cloned, because the optimizer updates it in place and the tensor may be mapped from the file.
        moments.setdefault(int(number), {})[key] = tensor.clone()
    training.model.load_state_dict(part("model."))
    training.ulgm.load_state_dict(part("ulgm."))
    training.optimizer.load_state_dict(training.optimizer.state_dict() | {"state": moments})
    training.loss.fill_(values["loss"])
    for name in PROGRESS:
        setattr(training, name, values[name])
    streams, device = part("random."), training.loss.device
    torch.set_rng_state(streams["torch"])
    if device.type == "cuda" and "cuda" in streams:
        torch.cuda.set_rng_state(streams["cuda"], device)


def save_state(path: Path, tensors: dict[str, Tensor], values: dict) -> None:
    """Replaces the state on the disk in one step. Raises UserError if the disk is full."""
    text = json.dumps(values)
    with replacing(path) as work:
        save_file(tensors, work, {"values": text, "checksum": _checksum(tensors, text)})


def load_state(path: Path) -> State:
    """Reads what `save_state` wrote. Raises UserError if it is damaged."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if metadata["checksum"] != _checksum(tensors, metadata["values"]):
            raise ValueError("wrong checksum")
        return tensors, json.loads(metadata["values"])
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise UserError(f"{path}: damaged ({first_line(error)}); remove it to train the seed from the start") from None


def _checksum(tensors: dict[str, Tensor], text: str) -> str:
    """CRC-32 of everything in the file."""
    value = zlib.crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), value)
    return str(value)
