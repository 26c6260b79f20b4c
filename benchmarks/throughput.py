"""Times our training step against the released code's way, side by side on this machine:

    python -m benchmarks.throughput                     # MOSI, MOSEI and SIMS, for the README's table
    python -m benchmarks.throughput --quick             # MOSI once, in less than two minutes

BERT-base with random weights, features of the published sizes with random values. Both ways get the same weights and clips
and are first shown to come to the same scores, losses and labels. Then they take turns, so that a machine whose speed drifts
treats them alike; a ratio is the median over turns.
"""

import argparse
import dataclasses
import json
import pickle
import sys
import tempfile
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig

from benchmarks.corpora import SHAPES, Shape, make_features
from benchmarks.machine import describe, matrix_rates, needed_flops, peak_memory, seconds
from benchmarks.tables import as_table
from benchmarks.two_ways import RELEASED, OurWay, ReleasedWay, make_ways
from config.config_regression import DATASETS, make_config
from data.store import open_store
from utils.device import keep_freed_memory, make_deterministic, pick_device

EVALUATED = 229  # clips of the validation split, as many as MOSI has
TURN = 3  # windows that ours takes in a turn, in which the released way takes one, several times as long


def measure(
    shape: Shape, encoder: BertConfig, device: torch.device, repeats: int, quick: bool = False, **settings
) -> dict:
    """All figures of one dataset. quick: without those of the parts. settings: changes of its hyper-parameters."""
    valid = min(EVALUATED // 8 if quick else EVALUATED, shape.clips["valid"])
    shape = dataclasses.replace(shape, clips=shape.clips | {"valid": valid, "test": 2})
    features = make_features(shape, encoder.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{shape.dataset}.pkl"
        with open(path, "wb") as file:
            pickle.dump(features, file)
        store = open_store(path, DATASETS[shape.dataset], False, None, None)
        config = make_config(shape.dataset, **settings)
        ways = make_ways(features, store, encoder, config, device)
        draw = Draw(len(features["train"]["id"]))
        window_sizes = [config.batch_size] * config.update_epochs
        figures: dict[str, dict] = {name: defaultdict(list) for name in ways}

        with without_tf32():
            scores = {name: way.scores() for name, way in ways.items()}
            agreement = {"scores": float(np.abs(scores[RELEASED] - scores["float32"]).max())}
            agreement |= compare_steps(ways[RELEASED], ways["float32"], draw([4] * config.update_epochs))
        for _ in range(repeats):
            for name, way in ways.items():
                figures[name]["evaluation_seconds"].append(seconds(way.scores, device))

        tokens = []
        for turn in range(repeats):
            # Its first window isn't timed: in it the memory that the other ways left is settled anew.
            first, *windows = (draw(window_sizes) for _ in range(1 + TURN))
            lengths = [store.splits["train"].text.lengths[torch.cat(window)] for window in windows]
            tokens += [int(part.sum()) for part in lengths]
            for name, way in ways.items():
                way.run([first], epoch=3)
                if turn == 0:
                    way.optimizer.zero_grad()
                    figures[name]["memory"] = peak_memory(
                        lambda way=way, first=first: way.run([first], epoch=3), device
                    )
                time_turn(way, windows if name != RELEASED else windows[:1], lengths, encoder, device, figures[name])
                if not quick:
                    for part, took in time_parts(way, windows[0], device).items():
                        figures[name][f"part: {part}"].append(took)
    return {
        "clips": sum(window_sizes),
        "tokens": tokens,
        "padded_tokens": sum(window_sizes) * shape.tokens,
        "evaluated_clips": shape.clips["valid"],
        "agreement": agreement,
        "ways": {name: dict(values) for name, values in figures.items()},
    }


class Draw:
    """Draws windows of random clips."""

    def __init__(self, clips: int):
        self.clips, self.random = clips, torch.Generator().manual_seed(0)

    def __call__(self, sizes: list[int]) -> list[Tensor]:
        """The micro-batches of a window, of these sizes."""
        return list(torch.randperm(self.clips, generator=self.random)[: sum(sizes)].split(sizes))


def time_turn(way, windows, lengths, encoder: BertConfig, device: torch.device, figures: dict) -> None:
    """Times a way's windows, one after the other as in training, and the machine's matrix products just before."""
    dtype = torch.bfloat16 if way.config.precision == "bf16" else torch.float32
    rates = matrix_rates(dtype, int(lengths[0].sum()), encoder, device)
    took = seconds(lambda: way.run(windows, epoch=3), device)
    flops = sum(needed_flops(part, encoder) for part, _ in zip(lengths, windows, strict=False))
    figures["seconds"].append(took / len(windows))
    for library, rate in {**rates, "fastest": max(rates.values())}.items():
        figures[f"rate: {library}"].append(rate)
        figures[f"share: {library}"].append(flops / rate / took)


def compare_steps(released: ReleasedWay, ours: OurWay, window: list[Tensor]) -> dict[str, float]:
    """Three epochs of one small window without dropout, which both ways draw differently: largest differences.

    Raises SystemExit where the two don't do the same.
    """
    difference = {"loss": 0.0, "labels": 0.0}
    with without_dropout(released.model), without_dropout(ours.model):
        for epoch in (1, 2, 3):
            loss, other = released.run([window], epoch), ours.run([window], epoch)
            difference["loss"] = max(difference["loss"], abs(loss - other))
    moved = 0.0
    clips = torch.cat(window)
    for task, labels in released.labels().items():
        apart = (labels - ours.labels()[task])[clips].abs().mean()
        difference["labels"] = max(difference["labels"], float(apart))
        moved = max(moved, float((labels - released.labels()["fusion"]).abs().max()))
    if difference["loss"] > 1e-3 or difference["labels"] > 1e-2 or moved == 0:
        sys.exit(f"the two ways don't do the same: they differ by {difference}; labels moved by {moved}")
    return difference


@contextmanager
def without_tf32():
    """On a GPU float32 products are TF32, whose rounding would hide whether two ways do the same."""
    precision, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = cudnn


@contextmanager
def without_dropout(model: nn.Module):
    dropouts = {module: module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    for module in dropouts:
        module.p = 0.0
    yield
    for module, p in dropouts.items():
        module.p = p


def time_parts(way: ReleasedWay | OurWay, window: list[Tensor], device: torch.device) -> dict[str, float]:
    """Seconds of a window's parts, each run for itself."""
    took: dict[str, float] = defaultdict(float)
    made = {}

    def run(part: str, function) -> None:
        took[part] += seconds(lambda: made.update({part: function()}), device)

    run("data", lambda: way.batches(window))
    way.model.train()
    for batch in made["data"]:
        run("text forward", lambda batch=batch: way.text(batch))
        vectors = made["text forward"]
        run("text backward", lambda vectors=vectors: vectors.backward(torch.ones_like(vectors)))
        run("LSTMs", lambda batch=batch: sum(vector.sum() for vector in way.sequences(batch)).backward())
    sizes = {task: way.config.head_sizes[task][0] for task in way.config.task_names}
    clips = sum(len(part) for part in window)
    features = {task: torch.rand(clips, size, device=device) for task, size in sizes.items()}
    run("ULGM", lambda: way.relabel(window, features))
    run("optimizer", way.optimizer.step)
    way.optimizer.zero_grad()
    return dict(took)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=list(SHAPES), default=list(SHAPES), help="default: all")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="turns of each way; default 5")
    parser.add_argument("--quick", action="store_true", help="MOSI once")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: one for each core")
    parser.add_argument(
        "--gpu_ids",
        type=int,
        nargs="+",
        metavar="N",
        help="as in run.py: -1 is the CPU; default: a GPU if there is one",
    )
    parser.add_argument("--deterministic", action="store_true", help="as in run.py, for ours and for the released way")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    args = parser.parse_args(argv)
    keep_freed_memory()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    if args.deterministic:
        make_deterministic()
    device = pick_device(args.gpu_ids)
    datasets, repeats = (["mosi"], 1) if args.quick else (args.datasets, args.repeats)
    result = {"machine": describe(device) | {"deterministic": args.deterministic}, "datasets": {}}
    for name in datasets:
        result["datasets"][name] = measure(SHAPES[name], BertConfig(), device, repeats, args.quick)
        print(as_table(name, result["datasets"][name]), flush=True)
        if args.json:
            args.json.write_text(json.dumps(result, indent=1))
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items() if value))
    return 0


if __name__ == "__main__":
    sys.exit(main())
