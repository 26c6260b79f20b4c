"""Tiny corpora and text encoders for the tests."""

import pickle
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel

TEXT_LENGTH = 12
WORDS = [f"word{number}" for number in range(40)]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
CLS, SEP = 2, 3
SIZES = {"train": 21, "valid": 8, "test": 9}


def make_split(clips: int, seed: int, bound: float = 3.0, audio_width: int = 5, vision_width: int = 4) -> dict:
    """One split in the official layout: sentences of known words, random frames, labels of both signs."""
    random = np.random.default_rng(seed)
    text_bert = np.zeros((clips, 3, TEXT_LENGTH), dtype=np.int64)
    raw_text = []
    for clip in range(clips):
        words = random.integers(0, len(WORDS), size=random.integers(1, TEXT_LENGTH - 1))
        ids = [CLS, *(words + 5), SEP]
        text_bert[clip, 0, : len(ids)] = ids
        text_bert[clip, 1, : len(ids)] = 1
        raw_text.append(" ".join(WORDS[word] for word in words))
    labels = np.round(random.uniform(-bound, bound, size=clips) * 5) / 5
    labels[: min(clips, 2)] = [-bound, bound][: min(clips, 2)]
    split = {
        "id": np.array([f"video{seed or ''}{clip // 3}$_${clip}" for clip in range(clips)]),
        "raw_text": np.array(raw_text),
        "text_bert": text_bert,
        "regression_labels": labels.astype(np.float32),
        "annotations": np.array(["Positive" if label > 0 else "Negative" for label in labels]),
    }
    for key, frames, width in (("audio", 15, audio_width), ("vision", 11, vision_width)):
        lengths = random.integers(1, frames + 1, size=clips)
        values = random.normal(size=(clips, frames, width)).astype(np.float32)
        values[np.arange(frames) >= lengths[:, None]] = 0
        split[key] = values
        split[f"{key}_lengths"] = lengths.tolist()
    return split


def make_features(seed: int = 0, **settings) -> dict:
    return {name: make_split(clips, seed + number, **settings) for number, (name, clips) in enumerate(SIZES.items())}


def write_features(path: Path, features: object | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(make_features() if features is None else features))
    return path


def make_bert_config(**settings) -> BertConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertConfig(**{"vocab_size": len(VOCABULARY), "max_position_embeddings": 64, **sizes, **settings})


def make_bert(seed: int = 0, **settings) -> BertModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        bert = BertModel(make_bert_config(**settings), add_pooling_layer=False)
        for parameter in bert.parameters():  # zero biases and unit gains would hide bugs
            parameter.data += 0.1 * torch.randn_like(parameter)
        return bert


def write_bert(folder: Path, **settings) -> Path:
    """A folder as on the hub: config, weights, vocabulary."""
    make_bert(**settings).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return folder
