"""Measures time and memory from a feature file to the first training window.

    python -m benchmarks.start

Writes a file of MOSEI's size (8 GB; --shape mosi for a small one). Then, each in a new process: converts it to a store and opens
that; opens the existing store; reads the file as the released code does, completely and once per split.
"""

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.tables import GIB, RELEASED, markdown

REPOSITORY = Path(__file__).resolve().parent.parent
CASES = {"first": "first use, with the conversion", "again": "every later start", "released": RELEASED}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__.split("\n")[0])
    parser.add_argument("--shape", default="mosei", help="mosi, mosei (default) or sims")
    parser.add_argument(
        "--folder", type=Path, help="folder for the temporary feature file; default: the system's temporary folder"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    # For the subprocesses that measure one case each.
    parser.add_argument("--case", choices=list(CASES), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.case:
        print(json.dumps(measure(args.case, args.shape, args.file)))
        return 0

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path = Path(folder) / f"{args.shape}.pkl"
        run_python("-c", f"from benchmarks.start import write; write({args.shape!r}, {str(path)!r})")
        size = path.stat().st_size
        figures = {}
        for case in CASES:
            argv = ["-m", "benchmarks.start", "--shape", args.shape, "--case", case, "--file", str(path)]
            figures[case] = json.loads(run_python(*argv).splitlines()[-1])
    start = time.perf_counter()
    run_python("run.py", "--help")
    figures["help_seconds"] = time.perf_counter() - start

    rows = [
        [
            title,
            f"{figures[case]['seconds']:.2f}",
            f"{figures[case]['peak'] / GIB:.2f}",
            f"{figures[case]['peak'] / size:.2f}",
            f"{figures[case]['growth'] / GIB:.2f}",
        ]
        for case, title in CASES.items()
    ]
    header = ["", "seconds to the first window", "peak memory, GiB", "over the file's size", "memory it keeps, GiB"]
    print(f"A file of {size / GIB:.2f} GiB, the size of {args.shape.upper()}; times exclude importing PyTorch\n")
    print(markdown(header, rows))
    print(f"\npython run.py --help: {figures['help_seconds']:.2f} s")
    if args.json:
        args.json.write_text(json.dumps({"file": size, **figures}, indent=1))
    return 0


def run_python(*argv: str) -> str:
    """Runs Python in the repository's root. Returns its stdout."""
    return subprocess.run(
        [sys.executable, *argv], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, encoding="utf-8"
    ).stdout


def write(shape: str, path: str) -> None:
    from benchmarks.corpora import SHAPES, make_features

    with open(path, "wb") as file:
        pickle.dump(make_features(SHAPES[shape], vocabulary=30522, with_text_vectors=True), file, protocol=4)


def measure(case: str, shape: str, path: Path) -> dict[str, float]:
    """Seconds until the first training window is ready; bytes of peak memory, and of memory still in use then."""
    # Imported here so that the parent process starts without PyTorch.
    import torch

    from benchmarks.machine import resident
    from config.config_regression import DATASETS, make_config
    from data.load_data import ClipDataset, training_windows
    from data.store import open_store

    config = make_config(shape)
    before, start = resident(), time.perf_counter()
    if case == "released":
        splits = read_as_released(path)
        order = torch.randperm(len(splits["train"]["id"]))[: config.batch_size]
        window = {key: torch.tensor(splits["train"][key][order.numpy()]) for key in ("text_bert", "audio", "vision")}
    else:
        store = open_store(path, DATASETS[shape], False, None, None)
        splits = {name: ClipDataset(split) for name, split in store.splits.items()}
        window = next(training_windows(splits["train"], config, seed=1111).of_epoch(1))
    duration = time.perf_counter() - start
    figures = {"seconds": duration, "peak": resident("VmHWM"), "growth": resident() - before}
    del splits, window  # in use until memory has been read
    return figures


def read_as_released(path: Path) -> dict[str, dict]:
    """Loads the complete file once per split, and keeps that split's arrays as float32."""
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
