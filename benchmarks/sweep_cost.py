"""The cost of a sweep besides training, and the gain from a second worker.

    python -m benchmarks.sweep_cost storage --workers 1 4 16 [--storage URL]
    python -m benchmarks.sweep_cost trials --jobs 1 2 -- --datasetName demo --tune_times 8

storage: workers whose trials train nothing but report as many epochs as a real one, so that only the storage and Optuna take
time. trials: whole sweeps of run.py, each a new study; the flags after the two dashes go to run.py.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from benchmarks.tables import markdown
from config.command_line import RunOptions, parse_arguments
from config.config_regression import REPOSITORY

EPOCHS = 25  # reported by a trial
SECONDS = 8  # of each measurement


def time_storage(url: str | None, counts: list[int]) -> list[list[str]]:
    """A row for each number of workers: trials per second of all, and seconds per trial of each."""
    from trains.sweep import study as sweep
    from utils.log import make_log

    def report_only(self, trial, config) -> tuple:
        for epoch in range(1, EPOCHS + 1):
            trial.report(1 / epoch, epoch)
            trial.should_prune()
        names = ("best_epoch", "epochs", "seconds", "seed", "worker", "device", "threads", "note")
        return 1 / EPOCHS, {
            "state": "complete",
            "valid": {"Loss": 1.0},
            "config": vars(config),
            **dict.fromkeys(names, 0),
        }

    lines = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder, patch.object(sweep.Sweep, "_train", report_only):
            flags = ["--datasetName", "demo", "--is_tune", "--res_save_dir", folder, "--tune_times", "1000000"]
            # A new seed makes a new study.
            args = parse_arguments(
                [*flags, "--seeds", str(time.time_ns() % 2**32), *(["--storage", url] if url else [])]
            )
            make_sweep(args).storage.engine.dispose()
            workers = []
            for _ in range(count):
                process = os.fork()
                if process == 0:
                    sweep_of_worker = make_sweep(args)
                    log = make_log(Path(os.devnull))
                    log.disabled = True
                    end = time.monotonic() + SECONDS
                    try:
                        sweep_of_worker.work(log, after_each=lambda end=end: _stop_after(end))
                    finally:
                        os._exit(0)
                workers.append(process)
            for process in workers:
                os.waitpid(process, 0)
            study = make_sweep(args).study
            took = [trial.duration.total_seconds() for trial in study.trials if trial.duration]
            begin = min(trial.datetime_start for trial in study.trials)
            end = max(trial.datetime_complete for trial in study.trials if trial.datetime_complete)
            rate = len(took) / (end - begin).total_seconds()
            lines.append(
                [study._storage._backend.engine.dialect.name, str(count), f"{rate:.1f}", f"{count / rate:.3f}"]
            )
    return lines


def make_sweep(options: RunOptions):
    """Opens a sweep, or joins it."""
    import torch

    from trains.runs.open import open_experiment
    from trains.sweep.study import Sweep

    return Sweep(open_experiment(options, torch.device("cpu"), ("train", "valid")), options)


def _stop_after(end: float) -> None:
    if time.monotonic() > end:
        raise SystemExit


def time_trials(flags: list[str], counts: list[int]) -> list[list[str]]:
    """A row for each number of workers: trials per hour of a whole sweep, start and end included."""
    lines = []
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            saved = ["--res_save_dir", folder, "--jobs", str(count)]
            command = [sys.executable, str(REPOSITORY / "run.py"), "--is_tune", *flags, *saved]
            begin = time.perf_counter()
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - begin
        times = parse_arguments(["--is_tune", *flags]).tune_times
        lines.append([str(count), str(times), f"{seconds:.1f}", f"{3600 * times / seconds:.0f}"])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweep_cost", description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["storage", "trials"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16], help="side by side, for storage (1 4 16)")
    parser.add_argument("--storage", metavar="URL", help="as in run.py; default: SQLite")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2], help="workers side by side, for trials (1 2)")
    parser.add_argument("flags", nargs="*", help="for run.py, after --")
    args, unknown = parser.parse_known_args()
    args.flags = [word for word in [*args.flags, *unknown] if word != "--"]
    if args.what == "storage":
        header = ["storage", "workers", "trials per second", f"s per trial of {EPOCHS} epochs"]
        print(markdown(header, time_storage(args.storage, args.workers)))
    else:
        print(markdown(["workers", "trials", "s", "trials per hour"], time_trials(args.flags, args.jobs)))


if __name__ == "__main__":
    main()
