"""Token ids and the vocabulary of the text encoder: making ids, and checking that ids and encoder fit together."""

import hashlib
import json
import re
from collections.abc import Iterator
from itertools import chain

import numpy as np
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from data.ragged import Split
from data.store import FeatureStore, Tokenizer
from utils.errors import UserError

SAMPLE = 200  # clips whose ids are checked
WORD = re.compile("[^\\W\\d_\u3040-\u30ff\u4e00-\u9fff]+")  # letters; Chinese and Japanese signs are words


def make_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    def encode(texts: list[str]) -> list[list[int]]:
        return tokenizer(texts, verbose=False)["input_ids"]

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
) -> list[str]:
    """What is doubtful about the token ids. Raises UserError if they cannot have been made for this encoder.

    tokenizer: None if the encoder has no vocabulary; the ids are then only compared with its size. source: the value of --bert.
    """
    limits = (encoder.vocab_size, encoder.type_vocab_size, encoder.max_position_embeddings)
    doubts = []
    for name, split in store.splits.items():
        largest = [*split.text.values.amax(dim=0).tolist(), split.text.lengths.max() - 1]
        for what, value, limit in zip(("token id", "segment id", "position"), largest, limits, strict=True):
            if value >= limit:
                raise UserError(
                    f"{name}: {what} {value} is beyond the {limit} of the text encoder {source}; name the encoder that the token "
                    "ids were made for with --bert"
                )
        if tokenizer is not None:
            doubts += [f"{name}: {doubt}" for doubt in _compare_with_vocabulary(name, split, tokenizer, source)]
    return doubts


def _compare_with_vocabulary(name: str, split: Split, tokenizer: PreTrainedTokenizerBase, source: str) -> Iterator[str]:
    """Yields what is doubtful about a sample of the ids: the vocabulary of another language, or of another encoder.

    Raises UserError where training would finish with poor scores, since valid ids show nothing.
    """
    sample = np.linspace(0, len(split) - 1, min(SAMPLE, len(split)), dtype=int).tolist()
    ids = [split.text[clip][1:-1, 0].tolist() for clip in sample]
    tokens = tokenizer.convert_ids_to_tokens(list(chain(*ids))) or [""]
    unknown = np.mean([token == tokenizer.unk_token for token in tokens])
    letters = [len(word) for word in (token.removeprefix("##") for token in tokens) if WORD.fullmatch(word)]
    differing, known = 0.0, 1.0  # share of texts with other ids; share of ids that are in their text
    if split.raw_text is not None:
        made = tokenizer([split.raw_text[clip] for clip in sample], verbose=False)["input_ids"]
        made = [new[1:-1][: len(old)] for new, old in zip(made, ids, strict=True)]
        differing = np.mean([new != old for new, old in zip(made, ids, strict=True)])
        known = np.mean([np.isin(old, new).mean() for new, old in zip(made, ids, strict=True) if old] or [1])
    text = split.raw_text[sample[0]] if split.raw_text is not None else ""
    example = f"clip {split.ids[sample[0]]}: {text[:30]!r} is {' '.join(tokens[: len(ids[0])][:8])!r}"
    advice = "name the right encoder with --bert (English: google-bert/bert-base-uncased, Chinese: google-bert/bert-base-chinese)"
    if max(unknown, 1 - known) > 0.5:
        raise UserError(
            f"{name}: the text encoder {source} doesn't fit the data: {unknown:.0%} of the words are unknown to its vocabulary, "
            f"and {1 - known:.0%} of the token ids are not those of their text; {example}; {advice}"
        )
    if unknown > 0.2:
        yield f"{unknown:.0%} of the words are unknown to the vocabulary of {source}; {example}; {advice}"
    if letters and np.mean(letters) < 1.5:
        yield f"the vocabulary of {source} spells words letter by letter; {example}; {advice}"
    if differing > 0.5:
        yield f"{differing:.0%} of the texts have other token ids in the vocabulary of {source}; {example}; {advice}"
