"""Work in processes of their own: what happens to one is no harm to the others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.isolated import CrashedError, run_isolated


def begin():
    """What a process does first."""
    state = {"done": 0}

    def work(item: object) -> object:
        state["done"] += 1
        if isinstance(item, Path) and not item.exists():  # crashes once
            item.touch()
            os._exit(1)
        if item == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "exit":
            os._exit(3)
        if item == "user":
            raise UserError("the disk is full")
        if item == "bug":
            raise KeyError("oh")
        if item == "slow":
            time.sleep(60)
        return item, state["done"], os.getpid()

    return work


def test_every_item_comes_back_and_processes_are_kept():
    results = dict(run_isolated(begin, range(6), 2))
    assert [results[number][0] for number in range(6)] == list(range(6))
    assert len({process for _, _, process in results.values()}) == 2
    assert os.getpid() not in {process for _, _, process in results.values()}


def test_a_process_that_dies_costs_its_item_alone():
    results = dict(run_isolated(begin, [1, "die", 2, "exit", 3], 1))
    assert [results[number][0] for number in (1, 2, 3)] == [1, 2, 3]
    assert isinstance(results["die"], CrashedError) and "SIGKILL" in str(results["die"])
    assert isinstance(results["exit"], CrashedError) and "status 3" in str(results["exit"])


def test_what_crashed_once_gets_a_second_try(tmp_path):
    results = dict(run_isolated(begin, [tmp_path / "a", tmp_path / "b", 1], 2))
    assert {result[0] for result in results.values()} == {tmp_path / "a", tmp_path / "b", 1}


def test_an_error_that_nobody_foresaw_costs_its_item_alone():
    results = dict(run_isolated(begin, ["bug", 1], 1))
    assert isinstance(results["bug"], CrashedError) and str(results["bug"]) == "KeyError: 'oh'"
    assert results[1][:2] == (1, 1)  # in a new process: what went wrong may have left something behind


def test_what_is_no_fault_of_an_item_ends_it_all():
    began = time.monotonic()
    with pytest.raises(UserError, match="the disk is full"):
        list(run_isolated(begin, ["slow", "user"], 2))
    assert time.monotonic() - began < 30  # it doesn't wait for the slow one


def test_who_stops_listening_leaves_no_process_behind():
    results = run_isolated(begin, [1, "slow", 2], 2)
    _, (_, _, process) = next(results)
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


PARENT = """
import os, sys
sys.path[:0] = sys.argv[1:]
from test_isolated import begin
from utils.isolated import run_isolated

if __name__ == "__main__":
    results = run_isolated(begin, [1, "slow", "slow"], 2)
    print(next(results)[1][2], flush=True)
    next(results)
"""


def test_when_the_main_process_is_killed_the_others_end(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    here = Path(__file__).resolve().parent
    words = [sys.executable, tmp_path / "parent.py", here, here.parent]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    worker = int(process.stdout.readline())
    process.kill()
    process.wait()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").exists() and Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z":
            return  # nobody in this container collects orphans
        time.sleep(0.1)
    pytest.fail("it still runs")
