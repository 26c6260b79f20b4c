"""Loads the pretrained text encoder and its tokenizer, from a folder or from the hub."""

import hashlib
import json
import re
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from transformers import BertModel, BertTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.tokenization_auto import get_tokenizer_config

from models.hub import from_disk_or_hub
from models.weights_file import check_finite
from utils.bert_config import bert_config, is_cased
from utils.errors import UserError, first_line

ADVICE = (
    "on a machine with internet download config.json, model.safetensors and vocab.txt, and put them into "
    "pretrained_model/bert_en/ (Chinese: bert_cn/), or name their folder with --bert"
)
# Of the weights that are no part of the encoder (the pooler, heads), and of old constants, a file may hold any.
ENCODER_TENSOR = re.compile(r"(^|\.)(encoder|embeddings)\.(?!position_ids$)")


class Pretrained(NamedTuple):
    bert: BertModel
    tokenizer: PreTrainedTokenizerBase | None  # None if its folder has no vocabulary
    source: str  # folder or hub name


def load_pretrained(source: str) -> Pretrained:
    """The encoder of a folder or hub name. Raises UserError if it cannot be loaded."""
    return Pretrained(load_bert(source), load_tokenizer(source), source)


def load_bert(source: str) -> BertModel:
    """BERT with its pretrained weights, in float32, without the pooler. Raises UserError if it cannot be loaded."""

    def load(**where: bool) -> BertModel:
        if not where:
            print(f"{source} is not on this disk: downloading it")
        for index in Path(source).glob("*.index.json"):
            parts = json.loads(index.read_text(encoding="utf-8")).get("weight_map", {})
            if outside := [name for name in parts.values() if Path(name).name != name]:
                raise UserError(f"--bert {index}: names {first_line(outside[0])}, which is not a file beside it")
        stored, _ = transformers.PretrainedConfig.get_config_dict(source, **where)
        if (kind := stored.get("model_type", "bert")) != "bert":  # Google's bert_config.json has none
            raise UserError(f'--bert {source}: config.json: model_type is {first_line(kind)}, expected "bert"')
        settings = {"add_pooling_layer": False, "dtype": torch.float32, "trust_remote_code": False, **where}
        bert, report = BertModel.from_pretrained(
            source, config=bert_config(stored), output_loading_info=True, **settings
        )
        if missing := sorted(report["missing_keys"]):
            raise UserError(f"--bert {source}: the weights lack {len(missing)} of BERT's tensors, such as {missing[0]}")
        if unknown := sorted(filter(ENCODER_TENSOR.search, report["unexpected_keys"])):
            what = f"the weights have {len(unknown)} tensors that config.json doesn't describe, such as {unknown[0]}"
            raise UserError(f"--bert {source}: {what}; take both from the same download")
        check_finite(bert.state_dict(), f"--bert {source}")
        return bert

    return from_disk_or_hub(source, load, "--bert", ADVICE)


def load_tokenizer(source: str) -> PreTrainedTokenizerBase | None:
    """The encoder's tokenizer; None for a folder without a vocabulary, which suffices for features with text_bert."""
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).exists() for name in ("vocab.txt", "tokenizer.json")):
        return None

    def load(**where: bool) -> BertTokenizer:
        stored, settings = get_tokenizer_config(source, **where), {}
        # They would replace BERT's steps by a file's own, which can turn a letter into a million, or read another folder.
        bad = [key for key in ("trust_remote_code", "fast_tokenizer_files", "gguf_file", "vocab") if stored.get(key)]
        bad += ["model_max_length"] * (not isinstance(stored.get("model_max_length") or 0, int | float))
        if bad:
            raise UserError(f"--bert {source}: tokenizer_config.json: remove {bad[0]}, which BERT does not need")
        if "do_lower_case" not in stored:
            settings["do_lower_case"] = not is_cased([*BertTokenizer.from_pretrained(source, **where).get_vocab()])
        return BertTokenizer.from_pretrained(source, **settings, **where)

    return from_disk_or_hub(source, load, "--bert", ADVICE)


def fingerprint(bert: BertModel) -> str:
    """Ten hex digits that identify the weights: a hash of each tensor's name, shape and first values."""
    digest = hashlib.sha1()
    for name, tensor in sorted(bert.state_dict().items()):
        digest.update(json.dumps([name, list(tensor.shape), tensor.flatten()[:8].tolist()]).encode())
    return digest.hexdigest()[:10]
