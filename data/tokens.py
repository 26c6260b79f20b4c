"""Token ids and the vocabulary of the text encoder: making ids, and checking that ids and encoder fit together."""

import hashlib
import json
import re
from itertools import chain

import numpy as np
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from data.ragged import Split
from data.store import FeatureStore, Tokenizer
from utils.errors import UserError

SAMPLE = 200  # clips whose script is checked
CHINESE = re.compile("[\u4e00-\u9fff]")


def make_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Long texts are cut so that [SEP] stays the last token."""

    def encode(texts: list[str], length: int) -> list[list[int]]:
        return tokenizer(texts, truncation=True, max_length=length)["input_ids"]

    rules = {"vocabulary": tokenizer.get_vocab()}
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        # Arguments of the last call, not properties of the tokenizer.
        del rules["truncation"], rules["padding"]
    return Tokenizer(encode, _hash(rules))


def vocabulary_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Ten hex digits that change with any word or id."""
    return _hash(tokenizer.get_vocab())


def _hash(content: dict) -> str:
    return hashlib.sha1(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def check_tokens(
    store: FeatureStore, encoder: PretrainedConfig, tokenizer: PreTrainedTokenizerBase | None, source: str
) -> None:
    """Raises UserError if the token ids cannot have been made for this encoder.

    tokenizer: None if the encoder has no vocabulary; the ids are then only compared with its size. source: the value of --bert.
    """
    limits = (encoder.vocab_size, encoder.type_vocab_size, encoder.max_position_embeddings)
    for name, split in store.splits.items():
        largest = [*split.text.values.amax(dim=0).tolist(), split.text.lengths.max() - 1]
        for what, value, limit in zip(("token id", "segment id", "position"), largest, limits, strict=True):
            if value >= limit:
                raise UserError(
                    f"{name}: {what} {value} is beyond the {limit} of the text encoder {source}; name the encoder that the token "
                    "ids were made for with --bert"
                )
    if tokenizer is not None and store.splits["train"].raw_text is not None:
        _check_script(store.splits["train"], tokenizer, source)


def _check_script(split: Split, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Raises UserError if the texts are Chinese and the tokens are not, or the other way round.

    The ids alone do not show it: the English vocabulary is larger than the Chinese one. Training would finish with poor scores.
    """
    ids = [split.text[clip][1:-1, 0].tolist() for clip in range(min(SAMPLE, len(split)))]
    tokens = tokenizer.convert_ids_to_tokens(list(chain(*ids)))
    letters = filter(str.isalnum, "".join(split.raw_text[:SAMPLE]))
    in_texts = np.mean([bool(CHINESE.match(letter)) for letter in letters] or [0])
    in_tokens = np.mean([bool(CHINESE.search(token)) for token in tokens] or [0])
    if (in_texts > 0.5 and in_tokens < 0.5 * in_texts) or (in_texts < 0.05 and in_tokens > 0.5):
        raise UserError(
            f"the text encoder {source} doesn't fit the data: the text of clip {split.ids[0]} is {split.raw_text[0][:30]!r}, but in "
            f"this vocabulary its token ids are {' '.join(tokens[: len(ids[0])][:8])!r}; name an encoder of this language with --bert "
            "(English: google-bert/bert-base-uncased, Chinese: google-bert/bert-base-chinese)"
        )
