"""Kills and stops demo runs at random moments, resumes each, and compares its files with an uninterrupted run's.

    python -m benchmarks.faults --kills 50 --stops 50

Then 16 processes append 50 rows each to one CSV. Each run trains two seeds, saves after almost every epoch, and is forked from
this process to save the import time; so this needs Linux or macOS.
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

# Imported before the forks, so that a run does not spend its time on imports.
import trains.runs.keeper  # noqa: F401
import trains.runs.open  # noqa: F401
from trains.runs.results import add_seed_row

FLAGS = "--datasetName demo --seeds 1 2 --max_epochs 6 --threads 1 --gpu_ids -1 --save_every 0.01".split()
FLAGS += ["--save_labels", "--no_figures"]  # the report has the seconds, which differ
WRITERS, ROWS = 16, 50
TIME_COLUMNS = ["seconds", "seconds_per_epoch"]


def outcome(folder: Path) -> dict[str, bytes]:
    """Returns the contents of a run's result files by path, without lock files and the CSVs' time columns."""
    contents = {}
    for path in sorted(path for path in (folder / "results").rglob("*") if path.is_file() and path.suffix != ".lock"):
        content = path.read_bytes()
        if path.name.endswith(("-seeds.csv", "-history.csv")):
            table = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=TIME_COLUMNS, errors="ignore")
            content = table.to_csv(index=False).encode()
        contents[str(path.relative_to(folder))] = content
    return contents


def start(folder: Path, *flags: str) -> int:
    """Forks a run of run.py in a folder, which logs to output.txt there. Returns its process id."""
    folder.mkdir(exist_ok=True)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.chdir(folder)
            output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            status = run.main([*FLAGS, *flags])
        finally:
            sys.stdout.flush()
            os._exit(status)
    return pid


def finish(pid: int) -> int:
    """Waits for a child process. Returns its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def interrupt_and_resume(folder: Path, signal_number: int, delay: float) -> int:
    """Starts a run, signals it after `delay` seconds (retrying earlier if it has finished by then), and resumes it.

    Returns the interrupted run's exit status. Raises RuntimeError if the resumed run fails.
    """
    while True:
        pid = start(folder)
        time.sleep(delay)
        os.kill(pid, signal_number)
        if status := finish(pid):
            break
        shutil.rmtree(folder)
        delay *= 0.8
    if finish(start(folder, "--resume")) != 0:
        raise RuntimeError(f"{folder}: the resumed run failed; see output.txt")
    return status


def check_resume(work: Path, kills: int, stops: int, jobs: int) -> bool:
    """Returns whether every interrupted and resumed run left the same files as an uninterrupted one."""
    begin = time.perf_counter()
    if finish(start(work / "uninterrupted")) != 0:
        raise RuntimeError(f"{work}/uninterrupted: the run failed; see output.txt")
    duration = time.perf_counter() - begin
    expected = outcome(work / "uninterrupted")
    print(f"uninterrupted run: {duration:.1f} s, {len(expected)} files", flush=True)

    signals = [signal.SIGKILL] * kills + [signal.SIGTERM] * stops
    delays = [random.uniform(0, duration) for _ in signals]
    folders = [work / f"{sent.name}-{index}" for index, sent in enumerate(signals)]
    with ThreadPoolExecutor(jobs) as pool:
        statuses = list(pool.map(interrupt_and_resume, folders, signals, delays))
    differences = [{path for path, _ in outcome(folder).items() ^ expected.items()} for folder in folders]
    for kind in (signal.SIGKILL, signal.SIGTERM):
        runs = [index for index, sent in enumerate(signals) if sent == kind]
        exits = Counter(statuses[index] for index in runs)
        equal = sum(not differences[index] for index in runs)
        print(f"{kind.name}: {len(runs)} runs, exit statuses {dict(exits)}; equal after resuming: {equal}")
    for folder, paths in zip(folders, differences, strict=True):
        if paths:
            print(f"{folder.name} differs in {', '.join(sorted(paths))}")
    return not any(differences)


def check_concurrent_rows(path: Path) -> bool:
    """Returns whether a CSV to which several processes append at once ends with each row exactly once."""
    begin = time.perf_counter()
    pids = []
    for writer in range(WRITERS):
        pid = os.fork()
        if pid == 0:
            for seed in range(ROWS):
                add_seed_row(path, {"model": "self_mm", "config_hash": f"writer{writer}", "seed": seed, "MAE": 0.7})
            os._exit(0)
        pids.append(pid)
    statuses = [finish(pid) for pid in pids]
    table = pd.read_csv(path)
    rows = sorted(zip(table["config_hash"], table["seed"], strict=True))
    expected = sorted((f"writer{writer}", seed) for writer in range(WRITERS) for seed in range(ROWS))
    duration = time.perf_counter() - begin
    print(f"{WRITERS} concurrent writers: {len(rows)} rows of {len(expected)}, in {duration:.1f} s")
    return not any(statuses) and rows == expected


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="runs to kill with SIGKILL (50)")
    parser.add_argument("--stops", type=int, default=50, help="runs to stop with SIGTERM (50)")
    parser.add_argument("--jobs", type=int, default=2, help="parallel runs (2)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        os.environ.setdefault("SELF_MM_DATA", str(Path(work) / "data"))
        # Creates the demo corpus and its store, so that no timed run does.
        finish(start(Path(work) / "first", "--seeds", "1", "--max_epochs", "1"))
        passed = check_resume(Path(work), args.kills, args.stops, args.jobs)
        passed &= check_concurrent_rows(Path(work) / "rows.csv")
    print("PASSED" if passed else "FAILED: files differ or rows are missing")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
