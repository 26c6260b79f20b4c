"""Starts the ranks of a run under torchrun or, faster, as forks of this process; on one host or on two."""

import contextlib
import ctypes
import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore

from config.config_regression import REPOSITORY

TIMEOUT = 100  # seconds
INTERFACE, FIRST_HOST = "eth0", "10.99.0.1"  # of two_hosts()


def fork_ranks(size: int, each: Callable[[int], int | None], hosts: Sequence[str] = ()) -> list[int]:
    """Calls a function with the rank's number in every rank. Returns the results by rank (None: 0).

    hosts: those of two_hosts(), for one rank each.

    A rank has one CPU thread. Idle OpenMP threads spin, and those of several ranks keep each other off the cores: seconds of work
    take minutes. And a fork of a process that has used several threads inherits its pool without them, and waits for them forever.
    """
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    address = FIRST_HOST if hosts else "127.0.0.1"
    store, port = _start_store(address, *hosts[:1])
    place = {"WORLD_SIZE": size, "MASTER_ADDR": address, "MASTER_PORT": port}
    place["TORCHELASTIC_USE_AGENT_STORE"] = True
    processes = []
    for rank in range(size):
        process = os.fork()
        if process == 0:
            variables = place | {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0}
            if hosts:
                variables |= {"LOCAL_RANK": 0, "GROUP_RANK": rank}
            os.environ.update({name: str(value) for name, value in variables.items()})
            signal.alarm(TIMEOUT)  # a rank waits long for ranks that never join
            # Before the alarm, one after the other, the ranks say where they are. sys.stderr may lack a file descriptor.
            faulthandler.dump_traceback_later(TIMEOUT - 10 + rank, file=2)
            torch.set_num_threads(1)  # see above
            status = 99
            try:
                if hosts:
                    _enter(hosts[rank])
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


def _start_store(address: str, host: str | None = None) -> tuple[int, int]:
    """Starts a process with the ranks' store, as torchrun does. Returns its id, and the store's port.

    The store's thread resolves addresses under a lock of the C library. A fork of its own process could inherit the lock
    in the locked state, and would deadlock.
    """
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        signal.alarm(2 * TIMEOUT)
        if host:
            _enter(host)
        store = TCPStore(address, 0, is_master=True, wait_for_workers=False)
        os.write(writer, f"{store.port}\n".encode())
        while True:
            signal.pause()
    os.close(writer)
    with open(reader, "rb") as pipe:
        return process, int(pipe.readline())


def start_torchrun(size: int, *argv: str, cwd: Path) -> subprocess.Popen:
    """run.py under torchrun."""
    return _start(["--standalone", "--nproc_per_node", str(size), str(REPOSITORY / "run.py"), *argv], cwd=cwd)


def start_torchrun_on(hosts: Sequence[str], *argv: str, folders: Sequence[Path]) -> list[subprocess.Popen]:
    """run.py under torchrun on both hosts, with one rank each."""
    flags = ["--nnodes", "2", "--master_addr", FIRST_HOST, "--master_port", "29500", "--nproc_per_node", "1"]
    return [
        _start(
            [*flags, "--node_rank", str(number), str(REPOSITORY / "run.py"), *argv],
            *("ip", "netns", "exec", host, "env", f"GLOO_SOCKET_IFNAME={INTERFACE}"),
            cwd=folder,
        )
        for number, (host, folder) in enumerate(zip(hosts, folders, strict=True))
    ]


def _start(argv: Sequence[str], *within: str, cwd: Path) -> subprocess.Popen:
    pipe = subprocess.PIPE
    command = [*within, sys.executable, "-m", "torch.distributed.run", *argv]
    return subprocess.Popen(command, cwd=cwd, stdout=pipe, stderr=pipe, text=True)


@contextlib.contextmanager
def two_hosts() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them, which nothing else can reach. Skips the test without root's rights.

    As on Debian, the name of either host leads to its loopback.
    """
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("two hosts need Linux, root, and the command ip (Debian: iproute2)")
    hosts = [f"self-mm-{os.getpid()}-{number}" for number in (1, 2)]
    try:
        for host in hosts:
            if subprocess.run(["ip", "netns", "add", host], stderr=subprocess.DEVNULL).returncode != 0:
                pytest.skip("this root may not create network namespaces")
        ends = [["name", INTERFACE, "netns", host] for host in hosts]
        _ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for number, host in enumerate(hosts, start=1):
            _ip("-n", host, "address", "add", f"10.99.0.{number}/24", "dev", INTERFACE)
            for interface in ("lo", INTERFACE):
                _ip("-n", host, "link", "set", interface, "up")
            # Seconds, not a quarter of an hour, until the system gives up what isn't acknowledged.
            _ip("netns", "exec", host, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/tcp_retries2")
        yield hosts
    finally:
        for host in hosts:
            for process in subprocess.run(["ip", "netns", "pids", host], capture_output=True).stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", host], stderr=subprocess.DEVNULL)


def vanish() -> None:
    """Cuts this host off, and kills this process: the other host receives nothing more, not even the connection's end."""
    _ip("link", "set", INTERFACE, "down")
    os.kill(os.getpid(), signal.SIGKILL)


def _ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True)


def _enter(host: str) -> None:
    """Moves this process to a host. (os.setns needs Python 3.12.)"""
    with open(f"/run/netns/{host}") as namespace:
        assert ctypes.CDLL(None).setns(namespace.fileno(), 0x40000000) == 0  # CLONE_NEWNET
