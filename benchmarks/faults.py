"""Kills and stops demo runs at random moments, resumes each, and compares what they leave with an undisturbed run's.

    python -m benchmarks.faults --kills 50 --stops 50

Then 16 processes write 50 rows each to one CSV. A run is a process of its own, forked from this one, which has loaded the
libraries already; it trains two seeds, and saves at almost every epoch. For Linux and macOS.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

import run
import trains.runs.open  # noqa: F401 (loaded once, before the forks)
import trains.runs.seed_run  # noqa: F401 (loaded once, before the forks)
from trains.runs.results import add_seed_row

FLAGS = "--datasetName demo --seeds 1 2 --max_epochs 6 --threads 1 --gpu_ids -1 --save_every 0.01".split()
WRITERS, ROWS = 16, 50
TIMES = ["seconds", "seconds_per_epoch"]


def outcome(folder: Path) -> dict[str, bytes]:
    """Every file below the results that a run leaves, by its path; but lock files, and the seeds CSV's seconds."""
    files = {}
    for path in sorted(path for path in (folder / "results").rglob("*") if path.is_file() and path.suffix != ".lock"):
        files[str(path.relative_to(folder))] = path.read_bytes()
        if path.name.endswith("-seeds.csv"):
            table = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=TIMES)
            files[str(path.relative_to(folder))] = table.to_csv(index=False).encode()
    return files


def start(folder: Path, *flags: str) -> int:
    """Starts run.py in a folder, its words going to a file there. Returns the process's number."""
    folder.mkdir(exist_ok=True)
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.chdir(folder)
            words = os.open("words.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(words, 1)
            os.dup2(words, 2)
            status = run.main([*FLAGS, *flags])
        finally:
            sys.stdout.flush()
            os._exit(status)
    return process


def finish(process: int) -> int:
    """Waits for a process. Returns its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def disturbed(folder: Path, number: int, moment: float) -> int:
    """A run that gets a signal after so many seconds, earlier if it was over by then, and is resumed.

    Returns the exit status that the signal gave it.
    """
    while True:
        process = start(folder)
        time.sleep(moment)
        os.kill(process, number)
        if status := finish(process):
            break
        shutil.rmtree(folder)
        moment *= 0.8
    if finish(start(folder, "--resume")) != 0:
        raise RuntimeError(f"{folder}: the resumed run failed; see words.txt")
    return status


def kill_and_resume(work: Path, kills: int, stops: int, jobs: int) -> bool:
    """Returns whether all outcomes were equal."""
    begin = time.perf_counter()
    if finish(start(work / "undisturbed")) != 0:
        raise RuntimeError(f"{work}/undisturbed: failed; see words.txt")
    took = time.perf_counter() - begin
    expected = outcome(work / "undisturbed")
    print(f"an undisturbed run: {took:.1f} s, {len(expected)} files", flush=True)

    signals = [signal.SIGKILL] * kills + [signal.SIGTERM] * stops
    moments = [random.uniform(0, took) for _ in signals]
    folders = [work / f"{signals[number].name}-{number}" for number in range(len(signals))]
    with ThreadPoolExecutor(jobs) as pool:
        statuses = list(pool.map(disturbed, folders, signals, moments))
    equal = [outcome(folder) == expected for folder in folders]
    for kind, name in ((signal.SIGKILL, "killed with SIGKILL"), (signal.SIGTERM, "stopped with SIGTERM")):
        mine = [number for number, sent in enumerate(signals) if sent == kind]
        ends = Counter(statuses[number] for number in mine)
        print(f"{name}: {len(mine)} runs, exit statuses {dict(ends)}; resumed: {sum(equal[n] for n in mine)} equal")
    for folder in [folder for folder, same in zip(folders, equal, strict=True) if not same]:
        other = {
            name for name in expected.keys() | outcome(folder).keys() if outcome(folder).get(name) != expected.get(name)
        }
        print(f"{folder.name} differs in {', '.join(sorted(other))}")
    return all(equal)


def write_rows_at_once(path: Path) -> bool:
    """Returns whether all rows of all processes are there."""
    begin = time.perf_counter()
    writers = []
    for writer in range(WRITERS):
        process = os.fork()
        if process == 0:
            for seed in range(ROWS):
                add_seed_row(path, {"model": "self_mm", "config_hash": f"writer{writer}", "seed": seed, "MAE": 0.7})
            os._exit(0)
        writers.append(process)
    ended = [finish(process) for process in writers]
    rows = pd.read_csv(path)
    there = set(zip(rows["config_hash"], rows["seed"], strict=True))
    expected = {(f"writer{writer}", seed) for writer in range(WRITERS) for seed in range(ROWS)}
    print(
        f"{WRITERS} processes with {ROWS} rows each: {len(rows)} rows, {len(there & expected)} of {len(expected)} there, in "
        f"{time.perf_counter() - begin:.1f} s"
    )
    return not any(ended) and len(rows) == len(expected) and there == expected


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="runs that get SIGKILL (50)")
    parser.add_argument("--stops", type=int, default=50, help="runs that get SIGTERM (50)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once (2)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        os.environ.setdefault("SELF_MM_DATA", str(Path(work) / "data"))
        finish(start(Path(work) / "first", "--seeds", "1", "--max_epochs", "1"))  # makes the corpus and its store
        sound = kill_and_resume(Path(work), args.kills, args.stops, args.jobs)
        sound &= write_rows_at_once(Path(work) / "rows.csv")
    print("nothing was lost" if sound else "SOMETHING WAS LOST")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
