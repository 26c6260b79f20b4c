"""Times epochs on a real feature file: the released code's way (benchmarks/plain_baseline.py) against ours, in turns.

    python -m benchmarks.epoch datasets/MOSI/Processed/unaligned_50.pkl --datasetName mosi --bert pretrained_model/bert_en

Real texts fill their padding otherwise than synthetic ones, and encoders differ in size. An epoch trains on all clips of the
training split and scores the validation split. The first epoch is not timed.
"""

import sys
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from transformers import BertConfig

from benchmarks.implementations import make_implementations
from benchmarks.machine import describe, seconds
from benchmarks.tables import RELEASED, markdown, ratio
from config.config_regression import DATASETS, Dataset, make_config
from data.ragged import Ragged, Split
from data.store import FeatureStore, open_store
from models.cpu_kernels import set_up_cpu
from models.pretrained_bert import load_pretrained
from utils.errors import Parser, at_least, run_program

CPU = torch.device("cpu")


def padded(split: Split, tokens: int) -> dict[str, object]:
    """A split as a feature file in the official layout has it. tokens: of each text, with padding."""
    text = fill(split.text, tokens)
    mask = np.arange(text.shape[1]) < split.text.lengths[:, None]
    result = {"text_bert": np.stack([text[..., 0], mask, text[..., 1]], axis=1).astype(np.float32)}
    result["regression_labels"] = split.labels["fusion"]
    for key, sequences in (("audio", split.audio), ("vision", split.vision)):
        result |= {key: fill(sequences, 1), f"{key}_lengths": sequences.lengths.tolist()}
    return result


def fill(sequences: Ragged, least: int) -> np.ndarray:
    """(N, length, width), zero-padded; length: of the longest sequence, and not below `least`."""
    lengths = sequences.lengths
    array = np.zeros((len(lengths), max(least, int(lengths.max())), sequences.width), np.float32)
    array[np.arange(array.shape[1]) < lengths[:, None]] = sequences.values.numpy()
    return array


def measure(store: FeatureStore, bert: BertConfig, dataset: Dataset, epochs: int) -> dict[str, list[float]]:
    """Way -> seconds of each epoch."""
    config = make_config(dataset.name)
    features = {name: padded(store.splits[name], dataset.text_length) for name in ("train", "valid")}
    ways = make_implementations(features, store, bert, config, CPU)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for epoch in range(1, epochs + 2):
        shuffled = torch.randperm(len(store.splits["train"]), generator=torch.Generator().manual_seed(epoch))
        windows = [
            list(part.split(config.batch_size)) for part in shuffled.split(config.batch_size * config.update_epochs)
        ]
        for name, way in ways.items():
            duration = seconds(partial(way.run, windows, epoch), CPU) + seconds(way.scores, CPU)
            if epoch > 1:
                times[name].append(duration)
    return times


def as_table(times: dict[str, list[float]]) -> str:
    rows = [[name, f"{median(own):.1f}", f"{ratio(times[RELEASED], own):.1f}"] for name, own in times.items()]
    return markdown(["", "seconds for an epoch", "times as fast"], rows)


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.epoch", description=__doc__.split("\n")[0])
    parser.add_argument("features", type=Path, metavar="FILE")
    parser.add_argument("--datasetName", choices=list(DATASETS), default="mosi", help="default: mosi")
    parser.add_argument("--bert", required=True, metavar="DIR", help="as in run.py")
    parser.add_argument("--epochs", type=at_least(1), default=3, metavar="N", help="default: 3")

    def work() -> None:
        args = parser.parse_args(argv)
        set_up_cpu()
        encoder, dataset = load_pretrained(args.bert), DATASETS[args.datasetName]
        store = open_store(args.features, dataset, False, encoder.tokenizer, None)
        print(as_table(measure(store, encoder.bert.config, dataset, args.epochs)))
        print(", ".join(f"{key} {value}" for key, value in describe(CPU).items() if value))

    return run_program(work)


if __name__ == "__main__":
    sys.exit(main())
