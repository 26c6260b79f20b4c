"""Times a window's label generation for corpora of several sizes: python -m benchmarks.ulgm_cost

The released code takes the class centres anew over all clips at each micro-batch; ours moves 32 clips between running sums.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median

import torch

from benchmarks.machine import describe, seconds
from benchmarks.tables import markdown
from config.config_regression import make_config
from models.ulgm import ULGM
from utils.device import pick_device

CORPORA = (1_000, 16_000, 1_000_000)  # clips
CONFIG = make_config("mosi")


def measure(device: torch.device, corpora: tuple[int, ...] = CORPORA, repeats: int = 200) -> dict[int, list[float]]:
    """Clips of a corpus -> seconds of each window's update; the corpora take turns."""
    sizes = {task: CONFIG.head_sizes[task][0] for task in CONFIG.task_names}
    random = torch.Generator().manual_seed(0)
    microbatches = [CONFIG.batch_size] * CONFIG.update_epochs
    window = sum(microbatches)
    features = {task: torch.rand(window, size, generator=random).to(device) for task, size in sizes.items()}
    ulgms = {clips: ULGM(torch.rand(clips, generator=random) * 2 - 1, sizes, CONFIG.H).to(device) for clips in corpora}
    for ulgm in ulgms.values():
        for state in ulgm.tasks.values():
            state.features.zero_()  # else the system gives each page only when it is first written
    took: dict[int, list[float]] = {clips: [] for clips in corpora}
    for repeat in range(-5, repeats):
        for clips, ulgm in ulgms.items():
            chosen = torch.randperm(clips, generator=random)[:window].to(device)
            took_now = seconds(
                lambda ulgm=ulgm, chosen=chosen: ulgm.update(chosen, microbatches, features, epoch=3),
                device,
            )
            if repeat >= 0:
                took[clips].append(took_now)
    return took


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ulgm_cost", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--gpu_ids",
        type=int,
        nargs="+",
        metavar="N",
        help="as in run.py: -1 is the CPU; default: a GPU if there is one",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    args = parser.parse_args(argv)
    device = pick_device(args.gpu_ids)
    took = measure(device)
    least = median(took[CORPORA[0]])
    rows = [
        [f"{clips:,}", f"{median(times) * 1e3:.2f}", f"{median(times) / least:.2f}"] for clips, times in took.items()
    ]
    print(markdown(["clips in the corpus", "ms for a window's labels", "against the smallest"], rows))
    print(", ".join(f"{key} {value}" for key, value in describe(device).items() if value))
    if args.json:
        args.json.write_text(json.dumps({"machine": describe(device), "seconds": took}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
