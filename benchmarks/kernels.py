"""Measures what each part of models/cpu_kernels.py saves on this machine.

    python -m benchmarks.kernels                        # --precision bf16; --dataset mosei

Trains on windows of BERT-base's and MOSI's sizes, with all kernels and with one at a time replaced by what PyTorch does, in turns
on the same windows.
"""

import argparse
import ctypes
import pickle
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import BertConfig

from benchmarks.corpora import SHAPES, Shape, make_features
from benchmarks.implementations import Ours
from benchmarks.machine import describe, seconds
from benchmarks.tables import markdown, ratio
from benchmarks.throughput import WindowSampler
from config.config_regression import CHOICES, DATASETS, make_config
from data.store import open_store
from models import bert_text_encoder, cpu_kernels
from models.self_mm import SelfMM
from utils.errors import at_least

CPU = torch.device("cpu")
EVERYTHING = "all kernels"


def plain_dropout(layer: nn.Dropout, rows: Tensor) -> Tensor:
    return layer(rows)


@contextmanager
def denormals() -> Iterator[None]:
    """In this thread alone; PyTorch's others keep flushing them. So this measures a part."""
    torch.set_flush_denormal(False)
    yield
    torch.set_flush_denormal(True)


@contextmanager
def freed_memory_returned() -> Iterator[None]:
    """glibc's own thresholds: 32 MB for a block of its own, 64 MB of free memory at the heap's end."""
    libc = ctypes.CDLL(None)
    libc.mallopt(cpu_kernels.M_MMAP_THRESHOLD, 32 << 20)
    libc.mallopt(cpu_kernels.M_TRIM_THRESHOLD, 64 << 20)
    yield
    cpu_kernels.set_up_cpu()


def make_variants() -> dict[str, Callable]:
    """What is measured -> a context that takes one kernel away."""
    other, by = ("oneDNN", False) if cpu_kernels.is_intel() else ("MKL", True)
    encoder = partial(patch.object, bert_text_encoder)
    variants: dict[str, Callable] = {
        EVERYTHING: nullcontext,
        "PyTorch's dropout": partial(encoder, "dropout", plain_dropout),
        "PyTorch's attention": partial(encoder, "can_attend", lambda *_: False),
        "denormal numbers": denormals,
        f"{other}'s float32 products": partial(patch.object, cpu_kernels, "is_intel", lambda: by),
    }
    if platform.libc_ver()[0] == "glibc":
        variants["freed memory returned"] = freed_memory_returned
    return variants


def measure(shape: Shape, bert: BertConfig, turns: int, **settings) -> dict[str, list[float]]:
    """What is measured -> seconds for a window, one for each turn."""
    features = make_features(shape, bert.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{shape.dataset}.pkl"
        path.write_bytes(pickle.dumps(features))
        store = open_store(path, DATASETS[shape.dataset], False, None, None)
        config = make_config(shape.dataset, **settings)
        torch.manual_seed(0)
        ours = Ours(SelfMM(config, bert.to_dict(), store.audio_width, store.vision_width), store, CPU)
        draw = WindowSampler(len(features["train"]["id"]))
        sizes = [config.batch_size] * config.update_epochs
        variants = make_variants()
        times: dict[str, list[float]] = {name: [] for name in variants}
        ours.run([draw(sizes)])  # warm-up
        for turn in range(turns):
            train = partial(ours.run, [draw(sizes)])
            names = list(variants)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:  # each is first once, and last
                with variants[name]():
                    train()  # settles the memory
                    times[name].append(seconds(train, CPU))
    return times


def as_table(times: dict[str, list[float]]) -> str:
    rows = [
        [name, f"{median(values):.2f}", f"{ratio(values, times[EVERYTHING]) - 1:+.1%}"]
        for name, values in times.items()
    ]
    return markdown(["", "seconds for a window", "longer by"], rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.split("\n")[0])
    parser.add_argument("--dataset", choices=list(SHAPES), default="mosi", help="default: mosi")
    parser.add_argument("--precision", choices=CHOICES["precision"], default="float32", help="default: float32")
    parser.add_argument("--turns", type=at_least(1), default=7, metavar="N", help="windows; default: 7")
    args = parser.parse_args(argv)
    cpu_kernels.set_up_cpu()
    print(as_table(measure(SHAPES[args.dataset], BertConfig(), args.turns, precision=args.precision)))
    print(", ".join(f"{key} {value}" for key, value in describe(CPU).items() if value))
    return 0


if __name__ == "__main__":
    sys.exit(main())
