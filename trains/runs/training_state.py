"""A training's state, kept in a folder until it is over: a new process can continue from it as if there had been no stop.

A state is state.json and state.safetensors, read without running anything in them.
"""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trains.training import Training
from utils.errors import UserError, first_line
from utils.files import checksum, current_folder, read_json, replacing, write_json
from utils.random_state import random_streams, set_random_streams

State = tuple[dict[str, Tensor], dict]  # tensors on the CPU, and what JSON can hold
PROGRESS = ("epochs", "best_epoch", "best_score", "windows", "microbatches", "seconds")


def capture(training: Training) -> State:
    """All that a training is made of: `restore` makes an equal one of a new one.

    Raises UserError where the training is broken: see FiniteCheck.
    """
    training.check.raise_if_broken()
    tensors = {f"model.{name}": tensor for name, tensor in training.model.state_dict().items()}
    tensors |= {f"ulgm.{name}": tensor for name, tensor in training.ulgm.state_dict().items()}
    for number, moments in training.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
    streams, values = random_streams(training.loss.device)
    tensors |= {"loss": training.loss, **{f"random.{name}": stream for name, stream in streams.items()}}
    progress = {name: getattr(training, name) for name in PROGRESS}
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, {**progress, "random": values}


def restore(training: Training, tensors: dict[str, Tensor], values: dict) -> None:
    """Takes over what `capture` gave, and with it the random streams. The config must be the same.

    Raises KeyError, TypeError, ValueError or RuntimeError where it is the state of something else.
    """
    for name in PROGRESS:
        if type(values[name]) is not type(getattr(training, name)):
            raise TypeError(f"{name} is {values[name]!r}")
        setattr(training, name, values[name])
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ulgm": {}, "optimizer": {}, "random": {}}
    for name, tensor in tensors.items():
        if name != "loss":
            part, _, name = name.partition(".")
            parts[part][name] = tensor
    training.model.load_state_dict(parts["model"])
    training.ulgm.load_state_dict(parts["ulgm"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimizer"].items():
        number, _, name = name.partition(".")
        moments.setdefault(int(number), {})[name] = tensor.clone()  # a file's memory is no place to step in
    groups = training.optimizer.state_dict()["param_groups"]
    training.optimizer.load_state_dict({"state": moments, "param_groups": groups})
    training.loss.copy_(tensors["loss"])
    set_random_streams(parts["random"], values["random"], training.loss.device)


def state_folder(checkpoint: Path) -> Path:
    """Where the state of the training that writes this checkpoint lies, until it is over."""
    return checkpoint.with_name(f"{checkpoint.name}-training")


def save_state(folder: Path, tensors: dict[str, Tensor], values: dict) -> None:
    """Writes a training's state; until all of it is on the disk, the one before stays. Raises UserError on a full disk.

    values: what JSON can hold.
    """
    with replacing(folder) as work:
        work.mkdir()
        save_file(tensors, work / "state.safetensors")
        write_json(work / "state.json", values | {"tensors": checksum(work / "state.safetensors")})


def has_state(folder: Path) -> bool:
    return current_folder(folder).is_dir()


def read_state(folder: Path) -> dict:
    """The plain values of a state. Raises UserError where they are damaged."""
    try:
        return read_json(current_folder(folder) / "state.json")
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from None


def load_state(folder: Path) -> State:
    """What `save_state` wrote. Raises UserError where it is damaged."""
    values = read_state(folder)
    file = current_folder(folder) / "state.safetensors"
    try:
        if values["tensors"] != checksum(file):
            raise ValueError(f"{file.name} is damaged: its checksum differs")
        return load_file(file), values
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise _damaged(folder, error) from None


def _damaged(folder: Path, error: Exception) -> UserError:
    return UserError(f"{folder}: can't go on from there ({first_line(error)}); remove it, to train the seed anew")
