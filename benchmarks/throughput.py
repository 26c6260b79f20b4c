"""Times our training step against the released code's, side by side on this machine.

    python -m benchmarks.throughput                     # MOSI, MOSEI and SIMS, as in docs/speed.md
    python -m benchmarks.throughput --quick             # MOSI once, in less than two minutes

Uses BERT-base with random weights, and random features of the published sizes. Both implementations get the same weights and
clips, and must first produce the same scores, losses and labels. Then they take turns, so that changes in the machine's speed
affect them alike. A ratio is the median over turns.
"""

import argparse
import dataclasses
import json
import pickle
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import BertConfig

from benchmarks.corpora import SHAPES, Shape, make_features
from benchmarks.implementations import Ours, Released, make_implementations
from benchmarks.machine import describe, matrix_rates, needed_flops, peak_memory, seconds
from benchmarks.tables import RELEASED, as_table
from config.config_regression import DATASETS, make_config
from data.store import open_store
from models.cpu_kernels import set_up_cpu
from utils.device import make_deterministic, pick_device

EVALUATED = 229  # validation clips: MOSI's number, for all datasets
TURN = 3  # windows per turn; the baseline, several times slower, gets one


def measure(
    shape: Shape, bert: BertConfig, device: torch.device, repeats: int, quick: bool = False, **settings
) -> dict:
    """Measures one dataset. quick: skips the times of a step's parts. settings: hyper-parameters to change.

    Returns the content of --json for this dataset. Raises SystemExit if the implementations disagree.
    """
    valid = min(EVALUATED // 8 if quick else EVALUATED, shape.clips["valid"])
    shape = dataclasses.replace(shape, clips=shape.clips | {"valid": valid, "test": 2})
    features = make_features(shape, bert.vocab_size)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{shape.dataset}.pkl"
        with open(path, "wb") as file:
            pickle.dump(features, file)
        store = open_store(path, DATASETS[shape.dataset], False, None, None)
        config = make_config(shape.dataset, **settings)
        implementations = make_implementations(features, store, bert, config, device)
        draw = WindowSampler(len(features["train"]["id"]))
        window_sizes = [config.batch_size] * config.update_epochs
        figures: dict[str, dict] = {name: defaultdict(list) for name in implementations}

        agreement = compare(implementations[RELEASED], implementations["float32"], draw([4] * config.update_epochs))
        implementations["bf16"].scores()  # warm-up; the comparison has run the others
        for _ in range(repeats):
            for name, implementation in implementations.items():
                figures[name]["evaluation_seconds"].append(seconds(implementation.scores, device))

        tokens = []
        for turn in range(repeats):
            # The first window is not timed: it settles the memory that the previous implementation freed.
            first, *windows = (draw(window_sizes) for _ in range(1 + TURN))
            lengths = [store.splits["train"].text.lengths[torch.cat(window)] for window in windows]
            tokens += [int(window_lengths.sum()) for window_lengths in lengths]
            for name, implementation in implementations.items():
                warm_up = partial(implementation.run, [first])
                warm_up()
                if turn == 0:
                    implementation.optimizer.zero_grad()
                    figures[name]["memory"] = peak_memory(warm_up, device)
                timed = windows[:1] if name == RELEASED else windows
                time_turn(implementation, timed, lengths, bert, device, figures[name])
                if not quick:
                    for part, part_seconds in time_parts(implementation, windows[0], device).items():
                        figures[name][f"part: {part}"].append(part_seconds)
    return {
        "clips": sum(window_sizes),
        "tokens": tokens,
        "padded_tokens": sum(window_sizes) * shape.tokens,
        "evaluated_clips": shape.clips["valid"],
        "evaluation_flops": needed_flops(store.splits["valid"].text.lengths, bert) / 3,  # no backward pass
        "agreement": agreement,
        "ways": {name: dict(values) for name, values in figures.items()},
    }


class WindowSampler:
    """Draws windows of random clips."""

    def __init__(self, clips: int):
        self.clips, self.rng = clips, torch.Generator().manual_seed(0)

    def __call__(self, sizes: list[int]) -> list[Tensor]:
        """Micro-batch sizes -> the micro-batches of a window."""
        return list(torch.randperm(self.clips, generator=self.rng)[: sum(sizes)].split(sizes))


def time_turn(
    implementation: Released | Ours,
    windows: list[list[Tensor]],
    lengths: list[np.ndarray],
    bert: BertConfig,
    device: torch.device,
    figures: dict,
) -> None:
    """Measures the machine's matrix products and then training on consecutive windows; appends to the figures.

    lengths: (B,) tokens per clip, for each window and possibly more.
    """
    dtype = torch.bfloat16 if implementation.config.precision == "bf16" else torch.float32
    rates = matrix_rates(dtype, int(lengths[0].sum()), bert, device)
    implementation.run(windows[:1])  # the first window after another implementation takes longer
    duration = seconds(lambda: implementation.run(windows), device)
    flops = sum(needed_flops(window_lengths, bert) for window_lengths in lengths[: len(windows)])
    figures["seconds"].append(duration / len(windows))
    for library, rate in {**rates, "fastest": max(rates.values())}.items():
        figures[f"rate: {library}"].append(rate)
        figures[f"share: {library}"].append(flops / rate / duration)


def compare(released: Released, ours: Ours, window: list[Tensor]) -> dict[str, float]:
    """Returns the largest differences in validation scores, and in loss and labels over three epochs of one small window.

    Dropout is off because the implementations draw different random numbers, and TF32 because its rounding would hide a
    mistake. Raises SystemExit if the implementations disagree.
    """
    with without_tf32(), without_dropout(released.model), without_dropout(ours.model):
        scores = float(np.abs(released.scores() - ours.scores()).max())
        loss = max(abs(released.run([window], epoch) - ours.run([window], epoch)) for epoch in (1, 2, 3))
    clips = torch.cat(window)
    our_labels, their_labels = ours.labels(), released.labels()
    human = their_labels["fusion"]
    labels = max(float((values - our_labels[task])[clips].abs().mean()) for task, values in their_labels.items())
    shift = max(float((values - human).abs().max()) for values in their_labels.values())
    if loss > 1e-3 or labels > 1e-2 or shift == 0:
        sys.exit(
            f"the implementations disagree: by {loss:.0e} in loss and {labels:.0e} in labels, which moved by {shift:.0e}"
        )
    return {"scores": scores, "loss": loss, "labels": labels}


@contextmanager
def without_tf32() -> Iterator[None]:
    precision, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = cudnn


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    rates = {module: module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    for module in rates:
        module.p = 0.0
    yield
    for module, rate in rates.items():
        module.p = rate


def time_parts(implementation: Released | Ours, window: list[Tensor], device: torch.device) -> dict[str, float]:
    """Seconds of each part of a training step, run separately."""
    times: dict[str, float] = defaultdict(float)

    def run(part: str, function: Callable) -> object:
        results = []
        times[part] += seconds(lambda: results.append(function()), device)
        return results[0]

    batches = run("data", partial(implementation.batches, window))
    implementation.model.train()
    for batch in batches:
        vectors = run("text forward", partial(implementation.text, batch))
        run("text backward", partial(vectors.backward, torch.ones_like(vectors)))
        run("LSTMs", lambda batch=batch: sum(output.sum() for output in implementation.sequences(batch)).backward())
    sizes = {task: implementation.config.head_sizes[task][0] for task in implementation.config.task_names}
    clips = sum(len(microbatch) for microbatch in window)
    features = {task: torch.rand(clips, size, device=device) for task, size in sizes.items()}
    run("ULGM", partial(implementation.relabel, window, features))
    run("optimizer", implementation.optimizer.step)
    implementation.optimizer.zero_grad()
    return dict(times)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput", description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=list(SHAPES), default=list(SHAPES), help="default: all")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="turns of each implementation; default 5")
    parser.add_argument("--quick", action="store_true", help="MOSI once")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: one per core")
    parser.add_argument(
        "--gpu_ids",
        type=int,
        nargs="+",
        metavar="N",
        help="as in run.py: -1 is the CPU; default: a GPU if available",
    )
    parser.add_argument("--deterministic", action="store_true", help="as in run.py, for all implementations")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    set_up_cpu()
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
