"""Several processes of this program side by side on one machine: seeds, or the workers of a sweep."""

import contextlib
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from utils.errors import UserError, first_line

PROGRAM = Path(__file__).resolve().parents[2] / "run.py"


class Job:
    """A process of run.py whose words come out here, as they are said; but for the last one, if that tells why it ended."""

    def __init__(self, name: str, words: list[str], slot: int, ended: queue.Queue):
        self.name, self.slot = name, slot
        self.reason = ""
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *words],
            stdin=subprocess.PIPE,  # never written to: it closes when this process ends, however it does
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C reaches it through this process only, and once
        )
        threading.Thread(target=self._attend, args=(ended,), daemon=True).start()

    def _attend(self, ended: queue.Queue) -> None:
        complaints = threading.Thread(target=self._relay, args=(self.process.stderr, sys.stderr), daemon=True)
        complaints.start()
        self._relay(self.process.stdout, sys.stdout)
        complaints.join()
        self.process.wait()
        ended.put(self)

    def _relay(self, words: TextIO, out: TextIO) -> None:
        for line in words:
            if line.startswith("error: "):
                self.reason = line.strip().removeprefix("error: ")
            elif line.startswith("stopped by "):
                self.reason = line.split(";")[0]
            else:
                with contextlib.suppress(
                    OSError, ValueError
                ):  # nobody reads it any more: no reason for the job to wait
                    out.write(line)
                    out.flush()

    def __str__(self) -> str:
        """Why it ended."""
        status = self.process.returncode
        reason = self.reason or f"ended with status {status}"
        if status < 0:
            reason = f"was killed ({signal.Signals(-status).name}); if it was for want of memory, lower --jobs"
        return f"{self.name}: {first_line(reason)}"


def run_side_by_side(jobs: dict[str, list[str]], at_once: int, gpus: list[int]) -> list[Job]:
    """Runs processes of run.py, so many at once, each slot on the next of the GPUs ([]: as their words say).

    jobs: name -> words of the command line. Returns those that failed; after the first, none is started any more.
    Where this process is told to stop, so are they, and all is over when they have saved what they must.
    """
    waiting = list(jobs.items())
    ended: queue.Queue[Job] = queue.Queue()
    free = list(range(at_once))[::-1]
    running: list[Job] = []
    failed: list[Job] = []
    try:
        while running or (waiting and not failed):
            while waiting and free and not failed:
                (name, words), slot = waiting.pop(0), free.pop()
                on_gpu = ["--gpu_ids", str(gpus[slot % len(gpus)])] if gpus else []
                running.append(Job(name, [*words, *on_gpu], slot, ended))
            job = ended.get()
            running.remove(job)
            free.append(job.slot)
            if job.process.returncode != 0:
                failed.append(job)
    finally:
        _stop(running)
    return failed


def run_seeds(
    seeds: Sequence[int], words: Sequence[str], at_once: int, gpu_ids: Sequence[int] | None, threads: int | None
) -> None:
    """Trains seeds, several at once. words: this run's command line; threads: of each job; None: its share of the cores.

    Raises UserError where one failed; those under way are finished first.
    """
    shared = job_words(words, at_once, threads)
    jobs = {f"seed {seed}": [*shared, "--seeds", str(seed)] for seed in seeds}
    if failed := run_side_by_side(jobs, at_once, _known_gpus(gpu_ids)):
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise UserError(f"{failed[0]}{more}; --resume goes on with what is unfinished")


def run_workers(
    words: Sequence[str], count: int, gpu_ids: Sequence[int] | None, threads: int | None, log: logging.Logger
) -> None:
    """Starts workers of a sweep, and waits for them. Raises UserError where none of them came to the end."""
    jobs = {f"worker {number}": job_words(words, count, threads) for number in range(1, count + 1)}
    failed = run_side_by_side(jobs, count, _known_gpus(gpu_ids))
    if len(failed) == count:
        raise UserError(str(failed[0]))
    for job in failed:
        log.info(f"{job}; the others went on")


def job_words(words: Sequence[str], at_once: int, threads: int | None) -> list[str]:
    """A run's words, for one of its jobs, with its share of the threads."""
    import torch  # what only starts and stops processes needn't wait for it

    threads = threads or max(1, torch.get_num_threads() // at_once)
    return [*words, "--jobs", "1", "--threads", str(threads), "--as_job"]


def _known_gpus(gpu_ids: Sequence[int] | None) -> list[int]:
    from utils.device import known_gpus  # which loads torch, too

    return known_gpus(gpu_ids)


def _stop(jobs: list[Job]) -> None:
    try:
        for job in jobs:
            job.process.terminate()
        for job in jobs:
            job.process.wait()
    except BaseException:  # asked again: at once, then
        for job in jobs:
            job.process.kill()
        raise


def stop_with_parent() -> None:
    """For a job: lets it stop, as by SIGTERM, when the process that started it is gone."""

    def watch() -> None:
        os.read(0, 1)  # comes back when the other end of the pipe is closed
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
