"""Made-up feature files with the shapes of the published ones, for measuring: real sizes and lengths, random values.

    python -m benchmarks.corpora mosi FOLDER

writes FOLDER/mosi.pkl and FOLDER/bert, a BERT-base with random weights, so that run.py can be timed at full size without any
data: python run.py --datasetName mosi --dataPath FOLDER/mosi.pkl --bert FOLDER/bert
"""

import argparse
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CLS, SEP, FIRST_WORD = 101, 102, 1000  # ids of BERT's English vocabulary
SPREAD = 0.5  # of the logarithm of a clip's duration, as in speech


@dataclass(frozen=True)
class Shape:
    """A dataset's sizes."""

    dataset: str
    clips: dict[str, int]  # of each split
    tokens: int  # of the longest text
    mean_tokens: float
    audio: tuple[int, int]  # frames of the longest clip, values in a frame
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
    """A feature file's content in the official layout. with_text_vectors: also its `text`, 768 wide, which nobody reads."""
    random = np.random.default_rng(seed)
    return {
        name: _make_split(shape, clips, vocabulary, random, with_text_vectors) for name, clips in shape.clips.items()
    }


def _make_split(
    shape: Shape, clips: int, vocabulary: int, random: np.random.Generator, with_text_vectors: bool
) -> dict:
    # Log-normal, of mean 1. Who talks long says more words and is seen for longer, so that the lengths go together.
    duration = random.lognormal(-(SPREAD**2) / 2, SPREAD, size=clips)

    def lengths(longest: int, shortest: int) -> np.ndarray:
        share = duration * random.lognormal(0, 0.1, size=clips) * shape.mean_tokens / shape.tokens
        return np.clip(np.round(share * longest), shortest, longest).astype(np.int64)

    def sequences(longest: int, width: int, real: np.ndarray) -> np.ndarray:
        values = random.standard_normal((clips, longest, width), dtype=np.float32)
        values[np.arange(longest) >= real[:, None]] = 0
        return values

    text_lengths = lengths(shape.tokens, shortest=3)
    mask = np.arange(shape.tokens) < text_lengths[:, None]
    ids = np.where(mask, random.integers(min(FIRST_WORD, vocabulary // 2), vocabulary, size=mask.shape), 0)
    ids[:, 0] = min(CLS, vocabulary - 1)
    ids[np.arange(clips), text_lengths - 1] = min(SEP, vocabulary - 1)
    split = {
        "id": [f"video{clip // 10}$_${clip}" for clip in range(clips)],
        "text_bert": np.stack([ids, mask, np.zeros_like(ids)], axis=1).astype(np.float32),
        "regression_labels": random.uniform(-1, 1, size=clips).astype(np.float32),
    }
    for key, (longest, width) in (("audio", shape.audio), ("vision", shape.vision)):
        real = lengths(longest, shortest=1)
        split |= {key: sequences(longest, width, real), f"{key}_lengths": real.tolist()}
    if with_text_vectors:
        split["text"] = random.standard_normal((clips, shape.tokens, 768), dtype=np.float32)
    return split


def main(argv: list[str] | None = None) -> int:
    from transformers import BertConfig, BertModel

    from utils.files import replacing

    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpora", description=__doc__.split("\n")[0])
    parser.add_argument("dataset", choices=list(SHAPES))
    parser.add_argument("folder", type=Path)
    args = parser.parse_args(argv)
    encoder = BertConfig()
    BertModel(encoder, add_pooling_layer=False).save_pretrained(args.folder / "bert")
    with replacing(args.folder / f"{args.dataset}.pkl") as work, open(work, "wb") as file:
        pickle.dump(make_features(SHAPES[args.dataset], encoder.vocab_size), file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
