"""Starts the ranks of a run under torchrun or, faster, as forks of this process."""

import faulthandler
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore

from config.config_regression import REPOSITORY

TIMEOUT = 100  # seconds


def fork_ranks(size: int, each: Callable[[int], int | None]) -> list[int]:
    """Calls a function with the rank's number in every rank. Returns the results by rank (None: 0).

    A rank has one CPU thread. Idle OpenMP threads spin, and those of several ranks keep each other off the cores: seconds of work
    take minutes. And a fork of a process that has used several threads inherits its pool without them, and waits for them forever.
    """
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    store, port = _start_store()
    place = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    place["TORCHELASTIC_USE_AGENT_STORE"] = True
    processes = []
    for rank in range(size):
        process = os.fork()
        if process == 0:
            variables = place | {"RANK": rank, "LOCAL_RANK": rank}
            os.environ.update({name: str(value) for name, value in variables.items()})
            signal.alarm(TIMEOUT)  # a rank waits long for ranks that never join
            # Before the alarm, one after the other, the ranks say where they are. sys.stderr may lack a file descriptor.
            faulthandler.dump_traceback_later(TIMEOUT - 10 + rank, file=2)
            torch.set_num_threads(1)  # see above
            status = 99
            try:
                status = each(rank) or 0
            except SystemExit as exit_:
                status = exit_.code
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        processes.append(process)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    os.kill(store, signal.SIGKILL)
    os.waitpid(store, 0)
    return statuses


def _start_store() -> tuple[int, int]:
    """Starts a process with the ranks' store, as torchrun does. Returns its id, and the store's port.

    The store's thread resolves addresses under a lock of the C library. A fork of its own process could inherit the lock
    in the locked state, and would deadlock.
    """
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        signal.alarm(2 * TIMEOUT)
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        os.write(writer, f"{store.port}\n".encode())
        while True:
            signal.pause()
    os.close(writer)
    with open(reader, "rb") as pipe:
        return process, int(pipe.readline())


def start_torchrun(size: int, *argv: str, cwd: Path) -> subprocess.Popen:
    """run.py under torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(size)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*launcher, str(REPOSITORY / "run.py"), *argv], cwd=cwd, stdout=pipe, stderr=pipe, text=True
    )
