"""What a training leaves in a folder: the best checkpoint, and, until it is over, the state to go on from.

A checkpoint is config.json and model.safetensors, which SelfMM.from_pretrained reads too, with the labels that were generated
by then, and the tokenizer. A state is state.json and state.safetensors. Both are read without running anything in them.
"""

import contextlib
import io
import json
from pathlib import Path

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from config.config_regression import Config
from utils.errors import UserError, brief
from utils.files import checksum, read_json, replacing, whole, write_json

FACTS = "trained_on"  # the key of config.json for what isn't the model's own: dataset, seed, epoch, files, versions
WEIGHTS = "model.safetensors"


def checkpoint_folder(root: Path, model: str, dataset: str, seed: int) -> Path:
    return root / f"{model}-{dataset}-regression-{seed}"


def state_folder(checkpoint: Path) -> Path:
    """Where the state of the training that writes this checkpoint lies, until it is over."""
    return checkpoint.with_name(f"{checkpoint.name}-training")


def save_checkpoint(
    model: nn.Module, folder: Path, facts: dict, tokenizer: PreTrainedTokenizerBase | None, labels: pd.DataFrame
) -> None:
    """Writes a checkpoint; until all of it is on the disk, the one that was there stays. Raises UserError on a full disk.

    tokenizer: kept in tokenizer/, so that the checkpoint can score new texts without the pretrained encoder's folder.
    labels: a row for each training clip, with its label for each task.
    """
    with replacing(folder) as work:
        model.save_pretrained(work, config=model._hub_mixin_config)
        settings = json.loads((work / "config.json").read_text(encoding="utf-8"))
        settings[FACTS] = facts | {"checksum": checksum(work / WEIGHTS)}
        (work / "config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
        labels.to_csv(work / "labels.csv", index=False)
        if tokenizer is not None:
            tokenizer.save_pretrained(work / "tokenizer")


def read_facts(folder: Path) -> dict:
    """What a checkpoint says of its training; {} where it says nothing. Raises UserError where there is no checkpoint."""
    facts = _settings(folder).get(FACTS, {})
    if not isinstance(facts, dict):
        raise UserError(f"{folder}/config.json: {FACTS} is no table of facts")
    return facts


def load_checkpoint(folder: Path, model_class: type[nn.Module]) -> nn.Module:
    """The model of a checkpoint, in evaluation mode. Raises UserError where it is incomplete, damaged or of another model."""
    facts = read_facts(folder)
    there = whole(folder)
    if not (there / WEIGHTS).exists():
        raise UserError(f"{folder}: has no {WEIGHTS}; a checkpoint is config.json and {WEIGHTS}")
    try:
        if "checksum" in facts and facts["checksum"] != checksum(there / WEIGHTS):
            raise ValueError(f"{WEIGHTS} is not what config.json says it is: its checksum differs")
        _check_shapes(_settings(folder), there / WEIGHTS, model_class)
        with contextlib.redirect_stdout(io.StringIO()):  # the hub's mixin prints that it loads
            return model_class.from_pretrained(there, strict=True)
    except UserError as error:
        raise UserError(f"{folder}/config.json: {error}") from None
    except Exception as error:  # damaged files fail in many ways
        raise UserError(f"{folder}: can't be loaded as {model_class.__name__} ({brief(error)})") from None


def _settings(folder: Path) -> dict:
    """A checkpoint's config.json, which may be of any origin. Raises UserError where it is no JSON object."""
    try:
        settings = json.loads((whole(folder) / "config.json").read_text(encoding="utf-8"))
        if isinstance(settings, dict):
            return settings
        raise ValueError("no JSON object")
    except OSError as error:
        raise UserError(f"{folder}: no checkpoint there: config.json can't be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{folder}/config.json: damaged ({brief(error)})") from None


def _check_shapes(settings: dict, weights: Path, model_class: type[nn.Module]) -> None:
    """Raises where config.json describes other tensors than there are, before it can ask for any amount of memory."""
    with torch.device("meta"):
        sizes = (settings["bert_config"], settings["audio_width"], settings["vision_width"])
        expected = model_class(Config(**settings["hyper_parameters"]), *sizes).state_dict()
    with safe_open(weights, "pt") as file:
        found = {name: file.get_slice(name).get_shape() for name in file.keys()}
    for name in sorted(expected.keys() | found.keys()):
        shapes = [list(expected[name].shape) if name in expected else "none", found.get(name, "none")]
        if shapes[0] != shapes[1]:
            raise ValueError(f"by config.json {name} is {shapes[0]}, and in {WEIGHTS} {shapes[1]}")


def save_state(folder: Path, tensors: dict[str, Tensor], values: dict) -> None:
    """Writes a training's state; until all of it is on the disk, the one before stays. Raises UserError on a full disk.

    values: what JSON can hold.
    """
    with replacing(folder) as work:
        work.mkdir()
        save_file(tensors, work / "state.safetensors")
        write_json(work / "state.json", values | {"tensors": checksum(work / "state.safetensors")})


def has_state(folder: Path) -> bool:
    return whole(folder).is_dir()


def read_state(folder: Path) -> dict:
    """The plain values of a state. Raises UserError where they are damaged."""
    try:
        return read_json(whole(folder) / "state.json")
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from None


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict]:
    """What `save_state` wrote. Raises UserError where it is damaged."""
    values = read_state(folder)
    file = whole(folder) / "state.safetensors"
    try:
        if values["tensors"] != checksum(file):
            raise ValueError(f"{file.name} is damaged: its checksum differs")
        return load_file(file), values
    except (OSError, KeyError, ValueError, SafetensorError) as error:
        raise _damaged(folder, error) from None


def _damaged(folder: Path, error: Exception) -> UserError:
    return UserError(f"{folder}: can't go on from there ({brief(error)}); remove it, to train the seed anew")
