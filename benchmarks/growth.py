"""What a corpus of any size needs: bytes of its store and of ULGM's state, planning an epoch, and time at a given rate.

    python -m benchmarks.growth --clips 10000000 --rate 24.1

Bytes for a clip are measured on a small corpus with MOSEI's lengths and widths; --rate is what benchmarks.throughput calls
clips a second, of one process. The rest is multiplication, and assumes that processes add up.
"""

import argparse
import pickle
import tempfile
import time
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

SAMPLE = 1000  # clips


class OnlyCounted(ClipDataset):
    """A number of clips without content."""

    def __init__(self, clips: int):
        self.home = self.device = torch.device("cpu")
        self.ranks, self.split = ALONE, Split([], None, {}, None, None, None)
        self._clips = clips

    def __len__(self) -> int:
        return self._clips


def bytes_of_store() -> float:
    """For a clip, all files of the store together."""
    shape = SHAPES["mosei"]
    shape = type(shape)(**vars(shape) | {"clips": {"train": SAMPLE, "valid": 100, "test": 100}})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mosei.pkl"
        path.write_bytes(pickle.dumps(make_features(shape, BertConfig().vocab_size)))
        open_store(path, DATASETS["mosei"], False, None, None)
        files = [file for file in (path.parent / f"{path.name}.store").rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files) / sum(shape.clips.values())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, nargs="+", default=[16_326, 1_000_000, 10_000_000])
    parser.add_argument("--rate", type=float, default=24.1, help="clips a second of one process (24.1)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 8, 64])
    args = parser.parse_args()
    config = make_config("mosei")
    store = bytes_of_store()
    sizes = {task: config.head_sizes[task][0] for task in config.task_names}
    labels = torch.from_numpy(np.resize(np.float32([1, -1]), SAMPLE))
    state = sum(buffer.nbytes for buffer in ULGM(labels, sizes, config.H).buffers()) / SAMPLE
    with torch.device("meta"):
        model = SelfMM(config, BertConfig().to_dict(), 74, 35)
    weights = sum(parameter.numel() for parameter in model.parameters())
    rows = []
    for clips in args.clips:
        windows = training_windows(OnlyCounted(clips), config, seed=1)
        start = time.perf_counter()
        windows.of_epoch(1)
        planning = time.perf_counter() - start
        hours = [f"{clips / args.rate / processes / 3600:.1f}" for processes in args.processes]
        cells = [f"{store * clips / GIB:.1f}", f"{state * clips / GIB:.2f}", f"{planning:.2f}"]
        rows.append([f"{clips:,}", *cells, *hours])
    header = ["clips", "store, GiB", "ULGM's state, GiB", "planning an epoch, s"]
    header += [f"h an epoch, {processes} process{'es' * (processes > 1)}" for processes in args.processes]
    print(markdown(header, rows))
    print(f"A clip takes {store / 1024:.1f} KiB of the store, and {state:.0f} bytes of ULGM's state on every rank.")
    print(
        f"BERT-base's model has {weights / 1e6:.0f} million weights: a step sums {4 * weights / GIB:.2f} GiB of gradients."
    )


if __name__ == "__main__":
    main()
