"""Token ids and the vocabulary of the text encoder: making ids, and checking that ids and encoder fit together."""

import hashlib
import json

import numpy as np
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from data.ragged import Split
from data.store import FeatureStore, Tokenizer
from utils.errors import UserError

SAMPLE = 200  # clips whose script is checked


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

    encoder: its config. tokenizer: None if it has no vocabulary; ids are then only compared with its size.
    source: the value of --bert.
    """
    for name, split in store.splits.items():
        token_id, segment_id = split.text.values.amax(dim=0).tolist()
        for what, value, limit in (
            ("token id", token_id, encoder.vocab_size),
            ("segment id", segment_id, encoder.type_vocab_size),
            ("position", int(split.text.lengths.max()) - 1, encoder.max_position_embeddings),
        ):
            if value >= limit:
                raise UserError(
                    f"{name}: the texts have the {what} {value}, but the text encoder {source} has only {limit} (counted from 0); "
                    "name the encoder that the token ids were made for with --bert"
                )
    if tokenizer is not None and store.splits["train"].raw_text is not None:
        _check_script(store.splits["train"], tokenizer, source)


def _check_script(split: Split, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Raises UserError if the texts are Chinese and the tokens are not, or the other way round.

    The ids alone do not show it: the English vocabulary is larger than the Chinese one. Training would finish with poor scores.
    """
    clips = range(min(SAMPLE, len(split)))
    tokens = [tokenizer.convert_ids_to_tokens(split.text[clip][1:-1, 0].tolist()) for clip in clips]
    in_texts = _share_of_chinese([letter for clip in clips for letter in split.raw_text[clip] if letter.isalnum()])
    in_tokens = _share_of_chinese([token for of_clip in tokens for token in of_clip])
    if (in_texts > 0.5 and in_tokens < 0.5 * in_texts) or (in_texts < 0.05 and in_tokens > 0.5):
        raise UserError(
            f"the text encoder {source} doesn't fit the data: the text of clip {split.ids[0]} is {split.raw_text[0][:30]!r}, but in "
            f"this vocabulary its token ids are {' '.join(tokens[0][:8])!r}; name an encoder of this language with --bert "
            "(English: google-bert/bert-base-uncased, Chinese: google-bert/bert-base-chinese)"
        )


def _share_of_chinese(pieces: list[str]) -> float:
    return float(np.mean([any("\u4e00" <= character <= "\u9fff" for character in piece) for piece in pieces] or [0]))
