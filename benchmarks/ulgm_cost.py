"""Times label generation for one window in corpora of several sizes.

    python -m benchmarks.ulgm_cost

The released code recomputes the class centres over all clips at each micro-batch. Ours updates running sums with the
micro-batch's clips, so that its cost should not depend on the size of the corpus.
"""

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from statistics import median

import torch

from benchmarks.machine import describe, seconds
from benchmarks.tables import markdown
from config.config_regression import make_config
from models.ulgm import ULGM
from utils.device import pick_device

CORPORA = (1_000, 16_000, 1_000_000)  # clips
WARM_UP = 5  # windows that are not counted
CONFIG = make_config("mosi")


def measure(device: torch.device, corpora: tuple[int, ...] = CORPORA, repeats: int = 200) -> dict[int, list[float]]:
    """Size of the corpus, in clips -> seconds per window, for each of the repeats. The corpora take turns."""
    sizes = {task: CONFIG.head_sizes[task][0] for task in CONFIG.task_names}
    rng = torch.Generator().manual_seed(0)
    microbatches = [CONFIG.batch_size] * CONFIG.update_epochs
    window = sum(microbatches)
    features = {task: torch.rand(window, size, generator=rng).to(device) for task, size in sizes.items()}
    ulgms = {clips: ULGM(torch.rand(clips, generator=rng) * 2 - 1, sizes, CONFIG.H).to(device) for clips in corpora}
    for ulgm in ulgms.values():
        for state in ulgm.tasks.values():
            state.features.zero_()  # writes each memory page, so that no page fault is timed
    times: dict[int, list[float]] = {clips: [] for clips in corpora}
    for _ in range(WARM_UP + repeats):
        for clips, ulgm in ulgms.items():
            chosen = torch.randperm(clips, generator=rng)[:window].to(device)
            times[clips].append(seconds(partial(ulgm.update, chosen, microbatches, features, epoch=3), device))
    return {clips: values[WARM_UP:] for clips, values in times.items()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ulgm_cost", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--gpu_ids",
        type=int,
        nargs="+",
        metavar="N",
        help="as in run.py: -1 is the CPU; default: a GPU if available",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    args = parser.parse_args(argv)
    device = pick_device(args.gpu_ids)
    times = measure(device)
    medians = {clips: median(values) for clips, values in times.items()}
    smallest = medians[CORPORA[0]]
    rows = [[f"{clips:,}", f"{value * 1e3:.2f}", f"{value / smallest:.2f}"] for clips, value in medians.items()]
    print(markdown(["clips in the corpus", "ms to relabel a window", "relative to the smallest"], rows))
    print(", ".join(f"{key} {value}" for key, value in describe(device).items() if value))
    if args.json:
        args.json.write_text(json.dumps({"machine": describe(device), "seconds": times}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
