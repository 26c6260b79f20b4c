"""Runs several processes of run.py side by side on one machine: seeds, or the workers of a sweep."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from utils.errors import UserError, first_line

PROGRAM = Path(__file__).resolve().parents[2] / "run.py"
POLL_SECONDS = 0.1


class Job:
    """A child process. It writes to our stdout; its stderr is collected and passed on when it ends."""

    def __init__(self, name: str, argv: list[str]):
        self.name = name
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *argv],
            stdin=subprocess.PIPE,  # never written to; closes when this process ends: see stop_with_parent
            stderr=self._stderr,
            start_new_session=True,  # so that Ctrl-C reaches the child once, through this process
        )

    def close(self) -> str | None:
        """After the child has ended: returns why it failed, if it did, and passes on the rest of its stderr."""
        status = self.process.returncode
        reason = f"exited with status {status}"
        self._stderr.seek(0)
        for line in self._stderr:
            if line.startswith("error: "):
                reason = line.removeprefix("error: ")
            elif line.startswith("stopped by "):
                reason = line.split(";")[0]
            else:
                sys.stderr.write(line)
        self._stderr.close()
        if status < 0:
            reason = f"was killed ({signal.Signals(-status).name}); if memory ran out, lower --jobs"
        return f"{self.name}: {first_line(reason)}" if status else None


def run_side_by_side(jobs: dict[str, list[str]], at_once: int, gpus: Sequence[int]) -> list[str]:
    """Runs jobs, at most `at_once` at a time. Returns the failures, one line each.

    After a failure no further job is started, and the running ones finish. A signal to this process is passed on to the
    running jobs: they save their state, then this function raises Stopped.

    jobs: name -> command line. gpus: assigned to the jobs in turn; []: the command lines already say where to run.
    """
    waiting = list(jobs.items())
    running: dict[int, Job] = {}  # slot -> job; the slot decides the GPU
    failures: list[str] = []
    try:
        while running or (waiting and not failures):
            for slot in range(at_once):
                if slot in running and running[slot].process.poll() is not None:
                    if failure := running.pop(slot).close():
                        failures.append(failure)
                if slot not in running and waiting and not failures:
                    name, argv = waiting.pop(0)
                    gpu = ["--gpu_ids", str(gpus[slot % len(gpus)])] if gpus else []
                    running[slot] = Job(name, [*argv, *gpu])
            time.sleep(POLL_SECONDS)
    finally:
        for job in running.values():
            job.process.terminate()
        for job in running.values():
            job.process.wait()
            job.close()
    return failures


def run_seeds(
    seeds: Sequence[int], argv: Sequence[str], at_once: int, gpu_ids: Sequence[int] | None, threads: int | None
) -> None:
    """Trains one seed per job. argv: this run's command line. Raises UserError if a seed failed."""
    shared = job_argv(argv, at_once, threads)
    jobs = {f"seed {seed}": [*shared, "--seeds", str(seed)] for seed in seeds}
    if failures := run_side_by_side(jobs, at_once, _visible_gpus(gpu_ids)):
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise UserError(f"{failures[0]}{more}; --resume continues the unfinished seeds")


def run_workers(
    argv: Sequence[str], count: int, gpu_ids: Sequence[int] | None, threads: int | None, log: logging.Logger
) -> None:
    """Runs the workers of a sweep. argv: this run's command line. Raises UserError if all of them failed."""
    jobs = {f"worker {number}": job_argv(argv, count, threads) for number in range(1, count + 1)}
    failures = run_side_by_side(jobs, count, _visible_gpus(gpu_ids))
    if len(failures) == count:
        raise UserError(failures[0])
    for failure in failures:
        log.info(f"{failure}; the other workers continued")


def job_argv(argv: Sequence[str], at_once: int, threads: int | None) -> list[str]:
    """The command line of one job. threads: CPU threads per job; None: an equal share of the cores."""
    import torch  # here because tests start many small programs that import this file

    threads = threads or max(1, torch.get_num_threads() // at_once)
    return [*argv, "--jobs", "1", "--threads", str(threads), "--as_job"]


def _visible_gpus(gpu_ids: Sequence[int] | None) -> list[int]:
    from utils.device import known_gpus  # imports torch

    return known_gpus(gpu_ids)


def stop_with_parent() -> None:
    """Called in a job: sends it SIGTERM when the process that started it ends, even by SIGKILL."""

    def watch() -> None:
        os.read(0, 1)  # returns when the parent's end of the pipe closes
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
