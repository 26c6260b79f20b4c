"""Finds and loads the pretrained text encoder and its vocabulary, from a folder or from the hub."""

import contextlib
import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerBase

from config.config_regression import Dataset
from models.bert_config import bert_config
from models.weights_file import check_outline
from utils.errors import UserError, first_line

HUB = {"en": "google-bert/bert-base-uncased", "cn": "google-bert/bert-base-chinese"}
WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.safetensors.index.json", "pytorch_model.bin.index.json")
VOCABULARY = ("vocab.txt", "tokenizer.json")


@dataclass(frozen=True)
class Pretrained:
    """A text encoder and what reads text for it."""

    bert: BertModel
    tokenizer: PreTrainedTokenizerBase | None  # None where its folder has no vocabulary
    source: str  # folder or hub name


def load_pretrained(source: str) -> Pretrained:
    """The encoder of a folder or hub name. Raises UserError where it can't be loaded."""
    return Pretrained(load_bert(source), load_tokenizer(source), source)


def find_bert(named: str | None, dataset: Dataset) -> str:
    """The folder or hub name to load BERT from.

    named: what --bert says; None: the dataset's folder (pretrained_model/bert_en or bert_cn) if there, else its language's
    hub name. Raises UserError for a folder that isn't there, or that lacks its config or weights.
    """
    if named is None:
        if not dataset.bert_folder.exists():
            return HUB[dataset.language]
        named = str(dataset.bert_folder)
    folder = Path(named)
    if not folder.is_dir():
        # A hub name is `name` or `owner/name`, with no dot, slash or drive in front.
        if folder.exists() or folder.is_absolute() or named.startswith((".", "~")) or len(folder.parts) > 2:
            raise UserError(f"--bert {named}: no such folder; name a folder with config.json, weights and vocab.txt")
        return named
    if not (folder / "config.json").exists():
        raise UserError(f"--bert {named}: has no config.json; download it from {HUB[dataset.language]}")
    if not any((folder / name).exists() for name in WEIGHTS):
        raise UserError(
            f"--bert {named}: has no weights ({WEIGHTS[0]} or {WEIGHTS[1]}); download them from {HUB[dataset.language]}"
        )
    return named


def load_bert(source: str) -> BertModel:
    """BERT with its pretrained weights, in float32, without the pooler. Raises UserError where that fails."""

    def load(**where: bool) -> tuple[BertModel, dict]:
        stored, _ = transformers.PretrainedConfig.get_config_dict(source, **where)
        if stored.get("model_type") != "bert":
            kind = first_line(stored.get("model_type"))
            raise UserError(f"--bert {source}: is a {kind} model; Self-MM's text encoder takes BERT models")
        config = bert_config(stored)
        _check_size(source, config)
        settings = {"add_pooling_layer": False, "dtype": torch.float32, "output_loading_info": True}
        return BertModel.from_pretrained(source, config=config, trust_remote_code=False, **settings, **where)

    bert, report = _from_disk_or_hub(source, load)
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(f"--bert {source}: the weights lack {len(missing)} of BERT's tensors, {missing[0]} among them")
    return bert


def _check_size(source: str, config: BertConfig) -> None:
    """Raises for a model that is larger than its weights: it would be built before they are looked at."""
    if not Path(source).is_dir():
        return
    pickled = list(Path(source).glob("pytorch_model*.bin"))
    weights = sum(path.stat().st_size for path in [*pickled, *Path(source).glob("model*.safetensors")])
    sizes = config.vocab_size, config.max_position_embeddings, config.type_vocab_size, config.intermediate_size
    rows = sum(sizes[:3]) + config.num_hidden_layers * (4 * config.hidden_size + 2 * config.intermediate_size)
    if min(sizes) < 1 or rows * config.hidden_size > weights:  # bytes; no weight takes less than one
        raise ValueError("config.json: another size of model than the weights are for")
    for path in pickled:
        check_outline(path)


def load_tokenizer(source: str) -> PreTrainedTokenizerBase | None:
    """The encoder's own tokenizer; None for a folder without a vocabulary, which is enough where text_bert is there."""
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).exists() for name in VOCABULARY):
        return None
    return _from_disk_or_hub(
        source, lambda **where: AutoTokenizer.from_pretrained(source, trust_remote_code=False, **where)
    )


def _from_disk_or_hub(source: str, load: Callable):
    """Loads from a folder or from what was downloaded before; only where that fails, from the hub.

    Asked at once, the hub's library would try for minutes to reach the hub from a machine without internet.
    """
    with _quiet():
        try:
            return load(local_files_only=True)
        except UserError:
            raise
        except BaseException as error:  # damaged files fail in many ways
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # of tokenizers, in Rust
                raise
            if Path(source).is_dir():
                reason = first_line(error) or type(error).__name__
                raise UserError(f"--bert {source}: can't be loaded ({reason}); download the folder anew") from None
    print(f"{source} is not on this disk: downloading it")
    with _quiet(bars=True):
        try:
            return load()
        except UserError:
            raise
        except Exception as error:  # out of reach, unknown, damaged
            reason = first_line(error) or type(error).__name__
            raise UserError(
                f"BERT {source!r} is not on this disk, and could not be downloaded ({reason}); on a machine with internet "
                "download its config.json, model.safetensors and vocab.txt, and put them into pretrained_model/bert_en/ "
                "(Chinese: bert_cn/), or name their folder with --bert"
            ) from None


def fingerprint(bert: BertModel) -> str:
    """Ten hex digits that differ for other weights: of each tensor's name, shape and first values."""
    digest = hashlib.sha1()
    for name, tensor in sorted(bert.state_dict().items()):
        digest.update(json.dumps([name, list(tensor.shape), tensor.flatten()[:8].tolist()]).encode())
    return digest.hexdigest()[:10]


@contextlib.contextmanager
def _quiet(bars: bool = False) -> Iterator[None]:
    """Holds back the loading reports, warnings and retries of transformers and the hub: what matters is checked here.

    bars: let them show how far a download is.
    """
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    had_bars = transformers.logging.is_progress_bar_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        if not bars:
            transformers.logging.disable_progress_bar()
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if had_bars:
                transformers.logging.enable_progress_bar()
