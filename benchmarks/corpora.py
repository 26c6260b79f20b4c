"""Synthetic feature files for measuring: the published sizes and realistic lengths, with random values.

    python -m benchmarks.corpora mosi FOLDER

writes FOLDER/mosi.pkl and FOLDER/bert (BERT-base with random weights), which time a full-size run without real data:

    python run.py --datasetName mosi --dataPath FOLDER/mosi.pkl --bert FOLDER/bert
"""

import argparse
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import BertConfig, BertModel

from utils.files import replacing

CLS, SEP, FIRST_WORD = 101, 102, 1000  # token ids in BERT's English vocabulary
DURATION_SIGMA = 0.5  # standard deviation of a clip's log duration, typical of speech


@dataclass(frozen=True)
class Shape:
    """A dataset's sizes."""

    dataset: str
    clips: dict[str, int]  # split -> clips
    tokens: int  # padded text length
    mean_tokens: float  # real tokens per clip
    audio: tuple[int, int]  # padded frames, frame width
    vision: tuple[int, int]


SHAPES = {
    shape.dataset: shape
    for shape in (
        Shape("mosi", {"train": 1284, "valid": 229, "test": 686}, 50, 15, (375, 5), (500, 20)),
        Shape("mosei", {"train": 16326, "valid": 1871, "test": 4659}, 50, 25, (500, 74), (375, 35)),
        Shape("sims", {"train": 1368, "valid": 456, "test": 457}, 39, 18, (400, 33), (55, 709)),
    )
}


def make_features(shape: Shape, vocabulary: int, seed: int = 0, with_text_vectors: bool = False) -> dict:
    """Returns a feature file's content in the official layout.

    vocabulary: number of token ids. with_text_vectors: includes the published files' 768-wide `text`, which is not read.
    """
    rng = np.random.default_rng(seed)
    return {name: _make_split(shape, clips, vocabulary, rng, with_text_vectors) for name, clips in shape.clips.items()}


def _make_split(shape: Shape, clips: int, vocabulary: int, rng: np.random.Generator, with_text_vectors: bool) -> dict:
    # Log-normal with mean 1. A longer clip has more of everything, so the three lengths share this factor.
    duration = rng.lognormal(-(DURATION_SIGMA**2) / 2, DURATION_SIGMA, size=clips)

    def draw_lengths(longest: int, shortest: int) -> np.ndarray:
        share = duration * rng.lognormal(0, 0.1, size=clips) * shape.mean_tokens / shape.tokens
        return np.clip(np.round(share * longest), shortest, longest).astype(np.int64)

    def draw_frames(longest: int, width: int, lengths: np.ndarray) -> np.ndarray:
        values = rng.standard_normal((clips, longest, width), dtype=np.float32)
        values[np.arange(longest) >= lengths[:, None]] = 0
        return values

    text_lengths = draw_lengths(shape.tokens, shortest=3)
    mask = np.arange(shape.tokens) < text_lengths[:, None]
    ids = np.where(mask, rng.integers(min(FIRST_WORD, vocabulary // 2), vocabulary, size=mask.shape), 0)
    ids[:, 0] = min(CLS, vocabulary - 1)
    ids[np.arange(clips), text_lengths - 1] = min(SEP, vocabulary - 1)
    split = {
        "id": [f"video{clip // 10}$_${clip}" for clip in range(clips)],
        "text_bert": np.stack([ids, mask, np.zeros_like(ids)], axis=1).astype(np.float32),
        "regression_labels": rng.uniform(-1, 1, size=clips).astype(np.float32),
    }
    for key, (longest, width) in (("audio", shape.audio), ("vision", shape.vision)):
        lengths = draw_lengths(longest, shortest=1)
        split |= {key: draw_frames(longest, width, lengths), f"{key}_lengths": lengths.tolist()}
    if with_text_vectors:
        split["text"] = rng.standard_normal((clips, shape.tokens, 768), dtype=np.float32)
    return split


def write(shape: Shape, bert: BertConfig, folder: Path) -> None:
    """Writes the files of a run to a folder: features, as DATASET.pkl, and a BERT with random weights, as bert."""
    BertModel(bert, add_pooling_layer=False).save_pretrained(folder / "bert")
    with replacing(folder / f"{shape.dataset}.pkl") as path, open(path, "wb") as file:
        pickle.dump(make_features(shape, bert.vocab_size), file)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpora", description=__doc__.split("\n")[0])
    parser.add_argument("dataset", choices=list(SHAPES))
    parser.add_argument("folder", type=Path)
    args = parser.parse_args(argv)
    write(SHAPES[args.dataset], BertConfig(), args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
