"""Worker processes: a crash costs one item, and none outlives the main process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from config.config_regression import REPOSITORY
from data.builders.isolated import CrashedError, run_isolated
from utils.errors import UserError


def work(item: object) -> tuple[object, int]:
    """Returns the item and the worker's process id."""
    if isinstance(item, Path):
        child = subprocess.Popen(["sleep", "60"])  # as a worker that runs OpenFace
        (work_file := item.with_suffix(".new")).write_text(f"{os.getpid()} {child.pid}")
        work_file.rename(item)
        child.wait()
    if item == "killed":
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "exit":
        time.sleep(0.2)
        os._exit(3)
    if isinstance(item, UserError):
        time.sleep(0.5)  # the other worker starts meanwhile
        raise item
    if item == "bug":
        raise KeyError("oh")
    return item, os.getpid()


def await_processes(file: Path) -> list[int]:
    """Returns the ids of the worker and its child, once both run."""
    while not file.exists():
        time.sleep(0.05)
    return [int(process) for process in file.read_text().split()]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"  # a container may not reap orphans
    except OSError:
        return False


def assert_ended(processes: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(map(is_running, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, processes))


def test_every_item_has_its_result_from_one_of_the_workers():
    results = dict(run_isolated(work, range(6), 2))
    assert {item: result[0] for item, result in results.items()} == {item: item for item in range(6)}
    processes = {process for _, process in results.values()}
    assert len(processes) <= 2 and os.getpid() not in processes


def test_a_crash_or_a_bug_costs_only_its_item():
    results = dict(run_isolated(work, [1, "killed", 2, "exit", "bug", 3], 1))
    assert [results[item][0] for item in (1, 2, 3)] == [1, 2, 3]
    assert isinstance(results["killed"], CrashedError) and "exit code -9" in str(results["killed"])
    assert isinstance(results["exit"], CrashedError) and "exit code 3" in str(results["exit"])
    assert isinstance(results["bug"], CrashedError) and str(results["bug"]) == "KeyError: 'oh'"


def test_an_item_that_hangs_is_killed_with_its_child(tmp_path):
    results = dict(run_isolated(work, [tmp_path / "hangs", 1], 1, time_limit=2))
    assert results[1][0] == 1
    assert isinstance(results[tmp_path / "hangs"], CrashedError) and "2 seconds" in str(results[tmp_path / "hangs"])
    assert_ended(await_processes(tmp_path / "hangs"))


def test_a_user_error_ends_the_run_at_once(tmp_path):
    with pytest.raises(UserError, match="the disk is full"):
        list(run_isolated(work, [tmp_path / "hangs", UserError("the disk is full")], 2))
    if (tmp_path / "hangs").exists():
        assert_ended(await_processes(tmp_path / "hangs"))


def test_no_worker_survives_the_iterator(tmp_path):
    results = run_isolated(work, [1, tmp_path / "hangs"], 2)
    next(results)
    processes = await_processes(tmp_path / "hangs")
    results.close()
    assert_ended(processes)


PARENT = """
import sys
from pathlib import Path
from features.test_isolated import work
from data.builders.isolated import run_isolated

if __name__ == "__main__":
    list(run_isolated(work, [Path(sys.argv[1])], 1))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_survives_the_main_process(tmp_path, number):
    (tmp_path / "parent.py").write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, REPOSITORY / "tests")))}
    command = [sys.executable, tmp_path / "parent.py", tmp_path / "hangs"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    processes = await_processes(tmp_path / "hangs")
    process.send_signal(number)
    process.communicate()
    assert_ended(processes)
