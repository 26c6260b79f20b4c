"""Measures memory and time from a feature file to the first window: python -m benchmarks.start

Makes a file of MOSEI's size (8 GB; --shape mosi for a small one), and in processes of their own: converts it on first use;
opens it again; reads it as the released code does, whole, once for each split.
"""

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.tables import GIB, markdown

REPOSITORY = Path(__file__).resolve().parent.parent
WAYS = {"first": "first use, with the conversion", "again": "every later start", "released": "released way"}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__.split("\n")[0])
    parser.add_argument("--shape", default="mosei", help="mosi, mosei (default) or sims")
    parser.add_argument(
        "--folder", type=Path, help="where the file is made, and removed again; default: a temporary folder"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures there")
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)  # what a process of its own runs
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.way:
        print(json.dumps(run_way(args.way, args.shape, args.file)))
        return 0

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / f"{args.shape}.pkl"
        in_own_process("-c", f"from benchmarks.start import write; write({args.shape!r}, {str(path)!r})")
        size = path.stat().st_size
        figures = {}
        for way in WAYS:
            command = ["-m", "benchmarks.start", "--shape", args.shape, "--way", way, "--file", str(path)]
            figures[way] = json.loads(in_own_process(*command).splitlines()[-1])
    start = time.perf_counter()
    in_own_process("run.py", "--help")
    figures["help_seconds"] = time.perf_counter() - start

    rows = [
        [
            what,
            f"{figures[way]['seconds']:.2f}",
            f"{figures[way]['peak'] / GIB:.2f}",
            f"{figures[way]['peak'] / size:.2f}",
            f"{figures[way]['growth'] / GIB:.2f}",
        ]
        for way, what in WAYS.items()
    ]
    header = ["", "seconds to the first window", "peak memory, GiB", "over the file's size", "memory it keeps, GiB"]
    print(f"A file of {size / GIB:.2f} GiB, {args.shape.upper()}'s size; seconds beyond importing PyTorch\n")
    print(markdown(header, rows))
    print(f"\npython run.py --help: {figures['help_seconds']:.2f} s")
    if args.json:
        args.json.write_text(json.dumps({"file": size, **figures}, indent=1))
    return 0


def in_own_process(*words: str) -> str:
    """Runs Python from the repository's root; its errors and bars go to the terminal."""
    return subprocess.run(
        [sys.executable, *words], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def write(shape: str, path: str) -> None:
    from benchmarks.corpora import SHAPES, make_features

    with open(path, "wb") as file:
        pickle.dump(make_features(SHAPES[shape], vocabulary=30522, with_text_vectors=True), file, protocol=4)


def run_way(way: str, shape: str, path: Path) -> dict[str, float]:
    """Seconds to the first window of the training split; resident memory at most, and how much of it was added and stays."""
    import torch

    from benchmarks.machine import resident
    from config.config_regression import DATASETS, make_config
    from data.load_data import ClipDataset, training_windows
    from data.store import open_store

    config = make_config(shape)
    before, start = resident(), time.perf_counter()
    if way == "released":
        kept = read_three_times(path)
        order = torch.randperm(len(kept["train"]["id"]))[: config.batch_size]
        window = {key: torch.tensor(kept["train"][key][order.numpy()]) for key in ("text_bert", "audio", "vision")}
    else:
        store = open_store(path, DATASETS[shape], False, None, None)
        kept = {name: ClipDataset(split) for name, split in store.splits.items()}
        window = next(training_windows(kept["train"], config, seed=1111).of_epoch(1))
    took = time.perf_counter() - start
    assert window and kept  # both are there while memory is read
    return {"seconds": took, "peak": resident("VmHWM"), "growth": resident() - before}


def read_three_times(path: Path) -> dict[str, dict]:
    """As the released code does: each split's dataset reads the file whole, and keeps its own part, in float32."""
    splits = {}
    for name in ("train", "valid", "test"):
        with open(path, "rb") as file:
            content = pickle.load(file)[name]
        arrays = {key: content[key].astype("float32") for key in ("text_bert", "audio", "vision")}
        splits[name] = {"id": content["id"], **arrays}
        del content
    return splits


if __name__ == "__main__":
    sys.exit(main())
