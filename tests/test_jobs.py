"""Parallel seeds and workers leave the same files as sequential ones, and lose nothing if a process ends early."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TextIO

import pytest
from conftest import needs_fork
from sweeps import rows

import run
from benchmarks.faults import outcome
from config.config_regression import REPOSITORY
from trains.runs import jobs
from trains.runs.jobs import run_side_by_side
from trains.sweep.report import SweepReport

SEEDS_CSV = Path("results/results/normals/mosi-regression-seeds.csv")


class Forked:
    """In place of subprocess.Popen: a fork of this process, which has imported the libraries already."""

    def __init__(self, command: list[str], stderr: TextIO, **_: object):
        stdin, self._parents_end = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._parents_end)
            os.dup2(stdin, 0)
            os.dup2(stderr.fileno(), 2)
            sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
            os._exit(run.main(command[2:]))
        os.close(stdin)

    def poll(self) -> int | None:
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int | None:
        return self.returncode


@needs_fork
def test_parallel_seeds_leave_the_same_files_as_sequential_ones(workplace, capfd, monkeypatch):
    assert jobs.PROGRAM == REPOSITORY / "run.py"
    monkeypatch.setattr(jobs, "subprocess", SimpleNamespace(Popen=Forked, PIPE=None))
    flags = ("--seeds", "2", "1", "--threads", "1")
    assert workplace.run(*flags) == 0
    sequential, table = outcome(workplace.folder), capfd.readouterr().out.split("test, 2 seeds")[1]
    os.rename("results", "sequential")
    assert workplace.run(*flags, "--jobs", "2") == 0
    parallel, printed = outcome(workplace.folder), capfd.readouterr().out
    seeds = [sorted(files.pop(str(SEEDS_CSV)).splitlines()) for files in (sequential, parallel)]
    assert parallel == sequential  # weights, labels, configs and the summary, bit for bit
    assert seeds[0] == seeds[1]  # in any order
    assert printed.split("test, 2 seeds")[1] == table
    assert printed.count("seed 1  test ") == 1 and printed.count("self_mm on mosi: 21 train") == 1


@needs_fork
def test_workers_of_a_sweep_continue_without_one_that_fails(workplace, capfd, monkeypatch):
    monkeypatch.setattr(jobs, "subprocess", SimpleNamespace(Popen=Forked, PIPE=None))
    monkeypatch.setattr(SweepReport, "draw", lambda self: None)
    begin = jobs.Job

    def begin_second_badly(name: str, argv: list[str]) -> jobs.Job:
        return begin(name, [*argv, "--sampler", "unlucky"] if name == "worker 2" else argv)

    monkeypatch.setattr(jobs, "Job", begin_second_badly)
    flags = ["--is_tune", "--tune_times", "3", "--jobs", "3", "--threads", "1", "--set", "update_epochs=1"]
    assert run.main(workplace.command("--datasetName", "mosi", "--seeds", "1111", "--max_epochs", "1", *flags)) == 0
    table = rows()
    assert len(table) in (3, 4, 5) and (table["threads"] == 1).all()
    printed = capfd.readouterr().out
    assert printed.count("the best of mosi-self_mm-regression-") == 1
    assert "worker 2: argument --sampler: invalid choice: 'unlucky'" in printed


# The tests below are about processes, not about what they compute: a small program stands in for run.py.
PROGRAM = f"""
import os, sys, time
sys.path.insert(0, {str(REPOSITORY)!r})
from trains.runs.jobs import stop_with_parent
from utils.signals import Stopped, stop_signals
seed = sys.argv[::-1][sys.argv[::-1].index("--seeds") - 1]  # the last flag wins
os.name = os.environ.get("OS_NAME", os.name)
stop_with_parent()
try:
    with stop_signals():
        print("begin", seed, flush=True)
        print("no error: \u4e2d", file=sys.stderr)
        open(f"begun-{{seed}}", "w").close()
        for _ in range(600 if "--long" in sys.argv else 1):
            time.sleep(0.1)
        if seed == "7":
            print("error: seven is unlucky", file=sys.stderr)
            sys.exit(2)
        if seed == "9":
            os.kill(os.getpid(), 9)
        open(f"finished-{{seed}}", "w").close()
except Stopped as stop:
    time.sleep(0.3)
    open(f"stopped-{{seed}}", "w").close()
    print("stopped by SIGTERM; to continue: ...", file=sys.stderr)
    sys.exit(143)
"""


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    monkeypatch.setattr(jobs, "PROGRAM", path)
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")  # as on Windows
    return path


def run_seeds(*seeds: int, at_once: int = 2) -> list[str]:
    options = run.parse_arguments(["--jobs", str(at_once), "--gpu_ids", "-1"])
    return run.run_jobs(options, {f"seed {seed}": ["--seeds", str(seed)] for seed in seeds})


def files_named(what: str) -> list[str]:
    return sorted(path.name for path in Path().glob(f"{what}-*"))


@pytest.mark.parametrize(("failing", "reason"), [(7, "seven is unlucky"), (9, "was killed (SIGKILL)")])
def test_a_failed_job_is_one_line_and_running_jobs_finish(program, capfd, failing, reason):
    (failure,) = run_seeds(failing, 2, 3, 4, 5)
    assert failure.startswith(f"seed {failing}: {reason}")
    assert "finished-2" in files_named("finished") and "finished-5" not in files_named("finished")
    captured = capfd.readouterr()
    assert f"begin {failing}\n" in captured.out and captured.err == "no error: \u4e2d\n" * captured.out.count("begin")


def start_parent(program: Path) -> subprocess.Popen:
    code = f"""
import sys
sys.path.insert(0, {str(REPOSITORY)!r})
from pathlib import Path
from trains.runs import jobs
from utils.signals import Stopped, stop_signals
jobs.PROGRAM = Path({str(program)!r})
try:
    with stop_signals():
        jobs.run_side_by_side({{str(n): ["--long", "--seeds", str(n)] for n in (1, 2, 3)}}, 2, [])
except Stopped as stop:
    sys.exit(stop.status)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: len(files_named("begun")) == 2)
    return process


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_jobs_and_waits_until_they_have_saved(program, number):
    process = start_parent(program)
    process.send_signal(number)
    assert process.wait(timeout=30) == (130 if number == signal.SIGINT else 143)
    assert files_named("stopped") == ["stopped-1", "stopped-2"] and files_named("begun") == ["begun-1", "begun-2"]


@pytest.mark.parametrize("system", [os.name, "nt"])
def test_jobs_stop_and_save_when_their_parent_is_killed(program, monkeypatch, system):
    """On Windows, whose os.kill ends a process at once, the job interrupts itself instead."""
    monkeypatch.setenv("OS_NAME", system)
    process = start_parent(program)
    process.kill()
    process.wait()
    wait_until(lambda: files_named("stopped") == ["stopped-1", "stopped-2"])


def test_jobs_take_gpus_in_turn(monkeypatch):
    started = []

    class Finished:
        def __init__(self, name: str, argv: list[str]):
            started.append((name, argv))
            self.process = SimpleNamespace(poll=lambda: 0)

        def close(self) -> None:
            return None

    monkeypatch.setattr(jobs, "Job", Finished)
    assert run_side_by_side({str(n): ["--seeds", str(n)] for n in range(5)}, at_once=3, gpus=[0, 2]) == []
    assert [name for name, _ in started] == ["0", "1", "2", "3", "4"]
    assert [argv[2:] for _, argv in started[:3]] == [["--gpu_ids", "0"], ["--gpu_ids", "2"], ["--gpu_ids", "0"]]
    started.clear()
    run_side_by_side({"a": [], "b": []}, at_once=2, gpus=[])
    assert [argv for _, argv in started] == [[], []]


@pytest.mark.parametrize(("flags", "share"), [([], 4), (["--threads", "3"], 3)])
def test_a_job_gets_its_share_of_the_threads_by_default(monkeypatch, flags, share):
    commands = {}
    monkeypatch.setattr("torch.get_num_threads", lambda: 9)
    monkeypatch.setattr(jobs, "run_side_by_side", lambda jobs, *_: commands.update(jobs))
    run.run_jobs(run.parse_arguments(["--jobs", "2", *flags]), {"seed 7": ["--seeds", "7"]})
    job = run.parse_arguments(commands["seed 7"])
    assert (job.threads, job.jobs, job.as_job, job.seeds) == (share, 1, True, [7])
