"""Measures what each part of models/cpu_kernels.py saves on this machine.

    python -m benchmarks.kernels                        # --precision bf16; --dataset mosei

Trains on windows of BERT-base's and MOSI's sizes, with all kernels and with one at a time replaced by what PyTorch does, in turns
on the same windows, and computes the linear layers alone. Takes up to 16 GB of memory: the settings of a process are measured in
two processes of their own.
"""

import argparse
import pickle
import platform
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
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
from config.config_regression import DATASETS, make_config
from data.store import open_store
from models import bert_text_encoder, cpu_kernels
from models.self_mm import SelfMM
from utils.errors import at_least

CPU = torch.device("cpu")
EVERYTHING, DENORMALS, FREED = "all kernels", "denormal numbers", "freed memory returned"


def plain_dropout(layer: nn.Dropout, rows: Tensor) -> Tensor:
    return layer(rows)


def make_variants() -> dict[str, Callable]:
    """What is measured in this process -> a context that takes one kernel away."""
    other, by = ("oneDNN", False) if cpu_kernels.is_intel() else ("MKL", True)
    encoder = partial(patch.object, bert_text_encoder)
    return {
        EVERYTHING: nullcontext,
        "PyTorch's dropout": partial(encoder, "dropout", plain_dropout),
        "PyTorch's attention": partial(encoder, "can_attend", lambda *_: False),
        f"{other}'s float32 products": partial(patch.object, cpu_kernels, "is_intel", lambda: by),
    }


def set_up_without(setting: str) -> None:
    """`set_up_cpu` but for one of its two settings."""
    if setting == DENORMALS:
        cpu_kernels.set_up_cpu()
    torch.set_flush_denormal(setting != DENORMALS)


class Trainer:
    """Trains a model of its own on windows of synthetic clips."""

    def __init__(self, shape: Shape, bert: BertConfig, settings: dict):
        features = make_features(shape, bert.vocab_size)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{shape.dataset}.pkl"
            path.write_bytes(pickle.dumps(features))
            store = open_store(path, DATASETS[shape.dataset], False, None, None)
        self.config = make_config(shape.dataset, **settings)
        torch.manual_seed(0)
        model = SelfMM(self.config, bert.to_dict(), store.audio_width, store.vision_width)
        self.ours, self.clips = Ours(model, store, CPU), len(features["train"]["id"])

    def time(self, window: list[Tensor]) -> float:
        """Seconds for a window. Trains on it once before, which settles the memory."""
        self.ours.run([window])
        return seconds(partial(self.ours.run, [window]), CPU)


class LinearLayers:
    """BERT's linear layers alone, forward and backward with nothing between them: what remains is the kernels' to save."""

    def __init__(self, trainer: Trainer):
        model, self.lengths = trainer.ours.model, trainer.ours.train.split.text.lengths
        *layers, last = model.text_encoder.bert.encoder.layer
        self.layers = [part for layer in layers for part in layer.modules() if isinstance(part, nn.Linear)]
        self.layers += [last.attention.self.key, last.attention.self.value]
        self.last = [part for part in last.modules() if isinstance(part, nn.Linear) and part not in self.layers]
        self.in_bf16 = trainer.config.precision == "bf16"

    def time(self, window: list[Tensor]) -> float:
        """Seconds for a window. As in training, the last layer has all tokens' keys and values and the first tokens' rest."""
        clips = torch.cat(window)
        parts = [(self.layers, int(self.lengths[clips].sum())), (self.last, len(clips))]
        widths = {width for part in self.layers for width in (part.in_features, part.out_features)}
        dtype = torch.bfloat16 if self.in_bf16 else torch.float32
        values = {(rows, width): torch.randn(rows, width).to(dtype) for _, rows in parts for width in widths}

        def run() -> None:
            for layers, rows in parts:
                for layer in layers:
                    entering = values[rows, layer.in_features].requires_grad_()
                    with torch.autocast("cpu", torch.bfloat16, enabled=self.in_bf16):
                        leaving = cpu_kernels.linear(layer, cpu_kernels.ready(entering))
                    gradient = values[rows, layer.out_features].detach()
                    torch.autograd.grad(leaving, [entering, layer.weight, layer.bias], gradient)

        run()
        return seconds(run, CPU)


class OtherProcess:
    """A Trainer in a process of its own, for a setting that holds for a whole process."""

    def __init__(self, setting: str, *args):
        self.pool = ProcessPoolExecutor(1, get_context("spawn"), _start, (setting, *args))
        self.pool.submit(int)  # starts now, while this process makes its own model

    def time(self, window: list[Tensor]) -> float:
        return self.pool.submit(_time, window).result()


def _start(setting: str, *args) -> None:
    global _trainer  # of the other process
    set_up_without(setting)
    _trainer = Trainer(*args)


def _time(window: list[Tensor]) -> float:
    return _trainer.time(window)


def measure(shape: Shape, bert: BertConfig, turns: int, **settings) -> dict[str, list[float]]:
    """What is measured -> seconds for a window, one for each turn."""
    process_wide = (DENORMALS, FREED) if platform.libc_ver()[0] == "glibc" else (DENORMALS,)
    processes = {name: OtherProcess(name, shape, bert, settings) for name in process_wide}
    trainer, variants = Trainer(shape, bert, settings), make_variants()
    others = {**processes, "its linear layers alone": LinearLayers(trainer)}
    draw = WindowSampler(trainer.clips)
    sizes = [trainer.config.batch_size] * trainer.config.update_epochs
    for each in (trainer, *others.values()):
        each.time(draw(sizes))  # warm-up
    names = [*variants, *others]
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(turns):
        window = draw(sizes)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:  # each is first once, and last
            with variants.get(name, nullcontext)():
                times[name].append(others.get(name, trainer).time(window))
    for process in processes.values():
        process.pool.shutdown()
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
    parser.add_argument("--precision", choices=["float32", "bf16"], default="float32", help="default: float32")
    parser.add_argument("--turns", type=at_least(1), default=7, metavar="N", help="windows; default: 7")
    args = parser.parse_args(argv)
    cpu_kernels.set_up_cpu()
    print(as_table(measure(SHAPES[args.dataset], BertConfig(), args.turns, precision=args.precision)))
    print(", ".join(f"{key} {value}" for key, value in describe(CPU).items() if value))
    return 0


if __name__ == "__main__":
    sys.exit(main())
