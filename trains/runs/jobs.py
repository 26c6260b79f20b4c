"""Runs several processes of run.py side by side on one machine: seeds, or the workers of a sweep."""

import _thread
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from utils.errors import complain, first_line

PROGRAM = Path(__file__).resolve().parents[2] / "run.py"


class Job:
    """A child process. It writes to our stdout; its stderr is collected and passed on when it ends."""

    def __init__(self, name: str, argv: list[str]):
        self.name = name
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *argv],
            stdin=subprocess.PIPE,  # never written to; closing it stops the child: see stop_with_parent
            stderr=self._stderr,
            env=os.environ | ({"PYTHONUTF8": "1"} if os.name == "nt" else {}),  # for its very first lines, too
            start_new_session=True,  # so that Ctrl-C reaches the child once, through this process; on Windows:
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )

    def close(self) -> str | None:
        """Waits for the child's end, and passes on its stderr, except the line that says why it failed, which is returned."""
        status = self.process.wait()
        reason = f"exited with status {status}"
        self._stderr.seek(0)
        for line in self._stderr:
            if line.startswith("error: "):
                reason = line.removeprefix("error: ")
            elif line.startswith("stopped by "):
                reason = line.split(";")[0]  # without the child's advice on how to continue
            else:
                complain(line.rstrip("\n"))
        self._stderr.close()
        if status < 0:
            reason = f"was killed ({signal.Signals(-status).name}); if memory ran out, lower --jobs"
        return f"{self.name}: {first_line(reason)}" if status else None


def run_side_by_side(jobs: dict[str, list[str]], at_once: int, gpus: list[int]) -> list[str]:
    """Runs jobs, at most `at_once` at a time. Returns the failures, one line each.

    jobs: name -> command line. gpus: assigned in turn; []: the command lines say where to run. After a failure no job
    starts. A signal is passed on to the running jobs: they save their state, then this function raises Stopped.
    """
    waiting = list(jobs.items())
    running: dict[int, Job] = {}  # slot -> job; the slot decides the GPU
    failures: list[str] = []
    try:
        while running or (waiting and not failures):
            for slot in range(at_once):
                if slot in running and running[slot].process.poll() is not None:
                    failures += filter(None, [running.pop(slot).close()])
                if slot not in running and waiting and not failures:
                    name, argv = waiting.pop(0)
                    gpu = ["--gpu_ids", str(gpus[slot % len(gpus)])] if gpus else []
                    running[slot] = Job(name, [*argv, *gpu])
            time.sleep(0.1)
    finally:
        for job in running.values():
            job.process.stdin.close()
        for job in running.values():
            job.close()
    return failures


def stop_with_parent() -> None:
    """Called in a job: stops it, as SIGTERM does, when the process that started it closes its pipe or ends, even by SIGKILL."""
    sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")  # as Job reads it; Windows has another default

    def watch() -> None:
        os.read(0, 1)  # returns when the parent's end of the pipe closes
        if os.name == "nt":  # there os.kill would end the process at once
            _thread.interrupt_main(signal.SIGTERM)
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
