"""Projects the cost of a large corpus: disk for the store, memory for ULGM's state, time to plan and run an epoch.

    python -m benchmarks.growth --clips 10000000 --rate 24.1

Bytes per clip are measured on a small corpus with MOSEI's lengths and widths. --rate is one process's "clips a second" in
benchmarks.throughput. The hours assume that speed is proportional to the number of processes.
"""

import argparse
import pickle
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig

from benchmarks.corpora import SHAPES, make_features
from benchmarks.tables import GIB, markdown
from config.config_regression import DATASETS, make_config
from data.load_data import ClipDataset, training_windows
from data.ragged import Split
from data.store import open_store
from models.self_mm import SelfMM
from models.ulgm import ULGM
from utils.ranks import ALONE

SAMPLE = 1000  # training clips from which bytes per clip are measured


class EmptyDataset(ClipDataset):
    """A split with a number of clips but no features: enough to plan epochs."""

    def __init__(self, clips: int):
        self.home = self.device = torch.device("cpu")
        self.ranks, self.split = ALONE, Split([], None, {}, None, None, None)
        self._clips = clips

    def __len__(self) -> int:
        return self._clips


def store_bytes_per_clip() -> float:
    shape = replace(SHAPES["mosei"], clips={"train": SAMPLE, "valid": 100, "test": 100})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mosei.pkl"
        path.write_bytes(pickle.dumps(make_features(shape, BertConfig().vocab_size)))
        open_store(path, DATASETS["mosei"], False, None, None)
        files = [file for file in (path.parent / f"{path.name}.store").rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files) / sum(shape.clips.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[16_326, 1_000_000, 10_000_000], help="corpus sizes")
    parser.add_argument("--rate", type=float, default=24.1, help="clips per second and process (24.1)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8, 64], help="numbers of processes (1 8 64)")
    args = parser.parse_args()
    config = make_config("mosei")
    store_bytes = store_bytes_per_clip()
    sizes = {task: config.head_sizes[task][0] for task in config.task_names}
    labels = torch.from_numpy(np.resize(np.float32([1, -1]), SAMPLE))
    state_bytes = sum(buffer.nbytes for buffer in ULGM(labels, sizes, config.H).buffers()) / SAMPLE
    with torch.device("meta"):
        model = SelfMM(config, BertConfig().to_dict(), 74, 35)
    weights = sum(parameter.numel() for parameter in model.parameters())
    rows = []
    for clips in args.clips:
        windows = training_windows(EmptyDataset(clips), config, seed=1)
        start = time.perf_counter()
        windows._order(1)  # not of_epoch, a generator that would not run
        planning = time.perf_counter() - start
        hours = [f"{clips / args.rate / processes / 3600:.1f}" for processes in args.processes]
        cells = [f"{store_bytes * clips / GIB:.1f}", f"{state_bytes * clips / GIB:.2f}", f"{planning:.2f}"]
        rows.append([f"{clips:,}", *cells, *hours])
    header = ["clips", "store, GiB", "ULGM's state, GiB", "planning an epoch, s"]
    header += [f"h an epoch, {processes} process{'es' * (processes > 1)}" for processes in args.processes]
    print(markdown(header, rows))
    print(
        f"Each clip takes {store_bytes / 1024:.1f} KiB in the store and {state_bytes:.0f} bytes of ULGM state per rank."
    )
    print(
        f"With BERT-base, a step sums {4 * weights / GIB:.2f} GiB of gradients ({weights / 1e6:.0f} million weights)."
    )


if __name__ == "__main__":
    main()
