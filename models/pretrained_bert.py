"""Finds and loads the pretrained text encoder and its vocabulary, from a folder or from the hub."""

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers import AutoTokenizer, BertModel, PreTrainedTokenizerBase

from config.config_regression import Dataset
from utils.functions import UserError

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
    with _quiet():
        try:
            kind = transformers.AutoConfig.from_pretrained(source).model_type
            if kind != "bert":
                raise UserError(f"--bert {source}: is a {kind} model; Self-MM's text encoder takes BERT models")
            bert, report = BertModel.from_pretrained(
                source, add_pooling_layer=False, dtype=torch.float32, output_loading_info=True
            )
        except UserError:
            raise
        except Exception as error:  # damaged files fail in many ways, and so does a hub out of reach
            raise _unloadable(source, error) from None
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(f"--bert {source}: the weights lack {len(missing)} of BERT's tensors, {missing[0]} among them")
    return bert


def load_tokenizer(source: str) -> PreTrainedTokenizerBase | None:
    """The encoder's own tokenizer; None for a folder without a vocabulary, which is enough where text_bert is there."""
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).exists() for name in VOCABULARY):
        return None
    with _quiet():
        try:
            return AutoTokenizer.from_pretrained(source)
        except Exception as error:  # as above
            raise _unloadable(source, error) from None


def fingerprint(bert: BertModel) -> str:
    """Ten hex digits that differ for other weights: of each tensor's name, shape and first values."""
    digest = hashlib.sha1()
    for name, tensor in sorted(bert.state_dict().items()):
        digest.update(json.dumps([name, list(tensor.shape), tensor.flatten()[:8].tolist()]).encode())
    return digest.hexdigest()[:10]


def _unloadable(source: str, error: Exception) -> UserError:
    reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
    if Path(source).is_dir():
        return UserError(f"--bert {source}: can't be loaded ({reason}); download the folder anew")
    language = next((language for language, name in HUB.items() if name == source), "en")
    return UserError(
        f"BERT {source!r}: not on this disk, and the hub can't be reached or doesn't have it; on a machine with internet "
        f"download config.json, model.safetensors and vocab.txt of {source}, put them into pretrained_model/bert_{language}/ "
        "here, or name their folder with --bert"
    )


class _quiet:  # noqa: N801 - read as a word of the with statement
    """Holds back transformers' loading reports and bars: what matters of them is checked here."""

    def __enter__(self):
        self._level = transformers.logging.get_verbosity()
        self._bars = transformers.logging.is_progress_bar_enabled()
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.simplefilter("ignore")

    def __exit__(self, *exception):
        self._warnings.__exit__(*exception)
        transformers.logging.set_verbosity(self._level)
        if self._bars:
            transformers.logging.enable_progress_bar()
