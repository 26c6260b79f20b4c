"""Token ids and the vocabulary of the text encoder: making ids, and checking that ids and encoder fit together."""

import hashlib
import json
import re

import numpy as np
from transformers import BertConfig, BertTokenizer

from data.ragged import Split
from utils.errors import UserError

SAMPLE = 200  # clips whose ids are checked
WORD = re.compile("[^\\W\\d_\u3040-\u30ff\u4e00-\u9fff]+")  # letters; Chinese and Japanese signs are words


def encode(tokenizer: BertTokenizer, texts: list[str]) -> list[list[int]]:
    """The token ids of each text, with [CLS] and [SEP]."""
    return tokenizer(texts, verbose=False)["input_ids"]


def rules_hash(tokenizer: BertTokenizer) -> str:
    """Ten hex digits that change with whatever can change token ids."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    # Arguments of the last call, not properties of the tokenizer.
    del rules["truncation"], rules["padding"]
    return _hash(rules)


def vocabulary_hash(tokenizer: BertTokenizer) -> str:
    """Ten hex digits that change with any word or id."""
    return _hash(tokenizer.get_vocab())


def _hash(content: dict) -> str:
    return hashlib.sha1(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def check_tokens(splits: dict[str, Split], bert: BertConfig, tokenizer: BertTokenizer | None, source: str) -> list[str]:
    """Doubts about the token ids. Raises UserError if they are another encoder's. source: --bert, for messages."""
    limits = (bert.vocab_size, bert.type_vocab_size, bert.max_position_embeddings)
    doubts = []
    for name, split in splits.items():
        largest = [*split.text.values.amax(dim=0).tolist(), split.text.lengths.max() - 1]
        for what, value, limit in zip(("token id", "segment id", "position"), largest, limits, strict=True):
            if value >= limit:
                problem = f"{what} {value} is beyond the {limit} of the text encoder {source}"
                raise UserError(f"{name}: {problem}; name the encoder that the ids were made for with --bert")
        if tokenizer is not None:
            doubts += _compare_with_texts(name, split, tokenizer, source)
    return doubts


def _compare_with_texts(name: str, split: Split, tokenizer: BertTokenizer, source: str) -> list[str]:
    """What shows that a sample of the ids was made for another language or encoder, though all of them are valid.

    Raises UserError if most of the ids are nonsense: training would finish with poor scores.
    """
    sample = np.linspace(0, len(split) - 1, min(SAMPLE, len(split)), dtype=int).tolist()
    ids = [split.text[clip][1:-1, 0].tolist() for clip in sample]
    tokens = tokenizer.convert_ids_to_tokens([token for clip in ids for token in clip])
    pieces = [token.removeprefix("##") for token in tokens]
    texts, expected = [""], ids
    if split.raw_text is not None:
        texts = [split.raw_text[clip] for clip in sample]
        expected = [new[1:-1] for new in encode(tokenizer, texts)]
    pairs = [(old, new[: len(old)]) for old, new in zip(ids, expected, strict=True) if old]
    unknown = np.mean([token == tokenizer.unk_token for token in tokens] or [0])
    foreign = np.mean([not np.isin(old, new).mean() > 0.5 for old, new in pairs] or [0])
    spelt = np.mean([len(piece) == 1 for piece in pieces if WORD.fullmatch(piece)] or [0])
    differing = np.mean([old != new for old, new in pairs] or [0])
    findings = [
        (unknown, 0.2, "of the words are unknown to its vocabulary"),
        (spelt, 0.5, "of the words are spelt by letters"),
        (differing, 0.5, "of the texts have other token ids in its vocabulary"),
    ]
    found = ", ".join(f"{share:.0%} {what}" for share, most, what in findings if share > most)
    first = f"clip {split.ids[sample[0]]} is {texts[0][:30]!r}, its tokens {' '.join(tokens[: len(ids[0])][:8])!r}"
    advice = "name another with --bert (English: google-bert/bert-base-uncased, Chinese: google-bert/bert-base-chinese)"
    message = f"{name}: the text encoder {source} doesn't fit the data: {found}; {first}; {advice}"
    if max(unknown, foreign) > 0.5:
        raise UserError(message)
    return [message] if found else []
