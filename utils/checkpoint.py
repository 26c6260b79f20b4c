"""Checkpoints: a folder with config.json and model.safetensors, which SelfMM.from_pretrained reads too."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

from torch import nn
from transformers import PreTrainedTokenizerBase

from utils.functions import UserError, unfinished

FACTS = "trained_on"  # the key of config.json for what isn't the model's own: dataset, seed, epoch, files, versions


def checkpoint_folder(root: Path, model: str, dataset: str, seed: int) -> Path:
    return root / f"{model}-{dataset}-regression-{seed}"


def save_checkpoint(model: nn.Module, folder: Path, facts: dict, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Writes a checkpoint beside its place, then moves it there file by file: a kill leaves no half file.

    tokenizer: kept in tokenizer/, so that the checkpoint can score new texts without the pretrained encoder's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    work = unfinished(folder)
    try:
        model.save_pretrained(work, config={**model._hub_mixin_config, FACTS: facts})
        if tokenizer is None:
            shutil.rmtree(folder / "tokenizer", ignore_errors=True)  # an earlier run's
        else:
            tokenizer.save_pretrained(work / "tokenizer")
            (folder / "tokenizer").mkdir(exist_ok=True)
        for file in [path for path in work.rglob("*") if path.is_file()]:
            os.replace(file, folder / file.relative_to(work))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def read_facts(folder: Path) -> dict:
    """What a checkpoint says of its training; {} where it says nothing. Raises UserError where there is no checkpoint."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return dict(config.get(FACTS, {}))
    except OSError as error:
        raise UserError(f"{folder}: no checkpoint there: config.json can't be read ({error.strerror})") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{folder}/config.json: damaged ({error})") from None


def load_checkpoint(folder: Path, model_class: type[nn.Module]) -> nn.Module:
    """The model of a checkpoint, in evaluation mode. Raises UserError where it is incomplete or of another model."""
    read_facts(folder)
    if not (folder / "model.safetensors").exists():
        raise UserError(f"{folder}: has no model.safetensors; a checkpoint is config.json and model.safetensors")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the hub's mixin prints that it loads
            return model_class.from_pretrained(folder, strict=True)
    except UserError as error:
        raise UserError(f"{folder}/config.json: {error}") from None
    except Exception as error:  # damaged files fail in many ways
        reason = str(error).strip().split("\n")[0][:200]
        raise UserError(f"{folder}: can't be loaded as {model_class.__name__} ({reason})") from None
