"""Token ids and the text encoder's vocabulary: making the ones, and checking that the two belong together."""

import hashlib
import json

import numpy as np
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from data.ragged import Split
from data.store import FeatureStore, Tokenizer
from utils.errors import UserError

SAMPLE = 200  # clips whose words are looked at


def make_tokenizer(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """Cuts long texts so that [SEP] stays the last token."""

    def encode(texts: list[str], length: int) -> list[list[int]]:
        return tokenizer(texts, truncation=True, max_length=length)["input_ids"]

    rules = {"vocabulary": tokenizer.get_vocab()}
    if tokenizer.is_fast:
        rules = json.loads(tokenizer.backend_tokenizer.to_str())
        del rules["truncation"], rules["padding"]  # what the last call asked for, not what the tokenizer is
    return Tokenizer(encode, hashlib.sha1(json.dumps(rules, sort_keys=True).encode()).hexdigest()[:10])


def vocabulary_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Ten hex digits that differ for other words or ids."""
    words = json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha1(words.encode()).hexdigest()[:10]


def check_tokens(
    store: FeatureStore, encoder: PretrainedConfig, tokenizer: PreTrainedTokenizerBase | None, source: str
) -> None:
    """Raises UserError where the token ids can't have been made for this encoder.

    encoder: its config. tokenizer: None where it has no vocabulary; ids can then only be compared with its size.
    source: what --bert names.
    """
    limits = (encoder.vocab_size, encoder.type_vocab_size)
    for name, split in store.splits.items():
        for value, limit, what in zip(
            split.text.values.amax(dim=0).tolist(), limits, ("token id", "segment id"), strict=True
        ):
            if value >= limit:
                raise UserError(
                    f"{name}: text_bert has the {what} {value}, and the text encoder {source} knows only {limit} of them; "
                    "the ids were made for another one: name it with --bert"
                )
        longest = int(split.text.lengths.max())
        if longest > encoder.max_position_embeddings:
            raise UserError(
                f"{name}: the longest text has {longest} tokens, and the text encoder {source} takes "
                f"{encoder.max_position_embeddings}; give another one with --bert"
            )
    if tokenizer is not None and store.splits["train"].raw_text is not None:
        _check_script(store.splits["train"], tokenizer, source)


def _check_script(split: Split, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    """Raises where texts are Chinese and the tokens aren't, or the other way round.

    An English vocabulary is larger than the Chinese one, so that its ids alone don't betray a mistake, and the training
    runs through, to poor scores.
    """
    clips = range(min(SAMPLE, len(split)))
    read_back = [tokenizer.convert_ids_to_tokens(split.text[clip][1:-1, 0].tolist()) for clip in clips]
    in_texts = _share_of_chinese(
        [character for clip in clips for character in split.raw_text[clip] if character.isalnum()]
    )
    in_tokens = _share_of_chinese([token.removeprefix("##") for tokens in read_back for token in tokens])
    chinese_without_tokens = in_texts > 0.5 and in_tokens < 0.5 * in_texts
    tokens_without_chinese = in_texts < 0.05 and in_tokens > 0.5
    if chinese_without_tokens or tokens_without_chinese:
        raise UserError(
            f"the text encoder {source} doesn't fit the data: clip {split.ids[0]} says {split.raw_text[0][:30]!r}, and in "
            f"this vocabulary its token ids read {' '.join(read_back[0][:8])!r}; give the encoder of this language with "
            "--bert (English: google-bert/bert-base-uncased, Chinese: google-bert/bert-base-chinese)"
        )


def _share_of_chinese(pieces: list[str]) -> float:
    return float(np.mean([any("\u4e00" <= character <= "\u9fff" for character in piece) for piece in pieces] or [0]))
