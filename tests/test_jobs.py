"""Seeds and workers side by side: the same files as one after another, and nothing lost where a process ends early."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import run
from benchmarks.faults import outcome
from config.config_regression import REPOSITORY
from trains.runs import jobs
from trains.runs.jobs import run_seeds, run_side_by_side, run_workers
from utils.errors import UserError

SEEDS_CSV = Path("results/results/normals/mosi-regression-seeds.csv")


def test_seeds_side_by_side_leave_what_they_leave_one_after_another(workplace, capsys):
    flags = ("--seeds", "2", "1", "--threads", "1")
    assert workplace.run(*flags) == 0
    alone, table = outcome(workplace.folder), capsys.readouterr().out.split("test, 2 seeds")[1]
    os.rename("results", "alone")
    assert workplace.run(*flags, "--jobs", "2") == 0
    together, printed = outcome(workplace.folder), capsys.readouterr().out
    rows = [sorted(files.pop(str(SEEDS_CSV)).splitlines()) for files in (alone, together)]
    assert together == alone  # weights, labels, configs and the summary, to the bit
    assert rows[0] == rows[1]  # but for their order
    assert printed.split("test, 2 seeds")[1] == table
    assert printed.count("seed 1  test:") == 1 and printed.count("self_mm on mosi: 21 train") == 1


def forked(command: list[str], **_: object) -> SimpleNamespace:
    """In place of subprocess.Popen: a fork of this process, which has loaded the libraries already."""
    pipes = {name: os.pipe() for name in ("stdin", "stdout", "stderr")}
    number = os.fork()
    if number == 0:
        for place, name in enumerate(pipes):
            os.dup2(pipes[name][min(place, 1)], place)
        sys.stdout, sys.stderr = (open(place, "w", buffering=1, closefd=False) for place in (1, 2))
        os._exit(run.main(command[2:]))
    for place, name in enumerate(pipes):
        os.close(pipes[name][min(place, 1)])
    process = SimpleNamespace(**{name: open(pipes[name][0], encoding="utf-8") for name in ("stdout", "stderr")})
    process.wait = lambda: setattr(process, "returncode", os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]))
    return process


def test_workers_of_a_sweep_side_by_side(workplace, capfd, monkeypatch):
    monkeypatch.setattr(jobs, "subprocess", SimpleNamespace(Popen=forked, PIPE=None))
    words = ["--is_tune", "--tune_times", "3", "--jobs", "2", "--threads", "1", "--set", "update_epochs=1"]
    assert run.main(workplace.command("--datasetName", "mosi", "--seeds", "1111", "--max_epochs", "1", *words)) == 0
    table = pd.read_csv("results/results/tunes/mosi-self_mm-regression-tune.csv")
    assert len(table) in (3, 4) and (table["threads"] == 1).all()
    assert capfd.readouterr().out.count("the best of mosi-self_mm-regression-") == 1


# What follows is about processes, not about what they compute: a small program plays run.py.
PROGRAM = f"""
import sys, time
sys.path.insert(0, {str(REPOSITORY)!r})
from trains.runs.jobs import stop_with_parent
from utils.signals import Stopped, stop_signals
seed = sys.argv[::-1][sys.argv[::-1].index("--seeds") - 1]  # the last word counts
stop_with_parent()
try:
    with stop_signals():
        print("begin", seed, flush=True)
        open(f"begun-{{seed}}", "w").close()
        time.sleep(60 if "--long" in sys.argv else 0.1)
        if seed == "7":
            print("error: seven is unlucky", file=sys.stderr)
            sys.exit(2)
        if seed == "9":
            import os
            os.kill(os.getpid(), 9)
        open(f"finished-{{seed}}", "w").close()
except Stopped as stop:
    time.sleep(0.3)
    open(f"stopped-{{seed}}", "w").close()
    print("stopped by SIGTERM; to go on: ...", file=sys.stderr)
    sys.exit(143)
"""


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    monkeypatch.setattr(jobs, "PROGRAM", path)
    return path


def seeds(*numbers: int, at_once: int = 2) -> None:
    words = ["--jobs", str(at_once), "--seeds", *map(str, numbers), "--gpu_ids", "-1"]
    options = run.parse_arguments(words)
    run_seeds(options.seeds, options.argv, options.jobs, options.gpu_ids, options.threads)


def there(what: str) -> list[str]:
    return sorted(path.name for path in Path().glob(f"{what}-*"))


@pytest.mark.parametrize(
    ("failing", "line"),
    [
        (7, "seed 7: seven is unlucky; --resume goes on with what is unfinished"),
        (9, "seed 9: was killed (SIGKILL); if it was for want of memory, lower --jobs; --resume goes on with .*"),
    ],
)
def test_a_job_that_fails_is_one_line_and_what_is_under_way_is_finished(program, capfd, failing, line):
    with pytest.raises(UserError, match="^" + line.replace("(", r"\(").replace(")", r"\)") + "$"):
        seeds(failing, 2, 3, 4, 5)
    assert "finished-2" in there("finished") and "finished-5" not in there("finished")
    captured = capfd.readouterr()
    assert f"begin {failing}\n" in captured.out and captured.err == ""


def test_workers_go_on_without_one_that_fails(program, caplog):
    import logging

    sevens = iter([7, 2, 3])
    words = ["--is_tune", "--jobs", "3", "--gpu_ids", "-1"]
    original = jobs.job_words
    job_words = lambda *arguments: [*original(*arguments), "--seeds", str(next(sevens))]  # noqa: E731
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(jobs, "job_words", job_words)
        run_workers(words, 3, [-1], None, logging.getLogger())
    assert there("finished") == ["finished-2", "finished-3"]
    assert "worker 1: seven is unlucky; the others went on" in caplog.text


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
    wait_until(lambda: len(there("begun")) == 2)
    return process


def wait_until(true) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_reaches_all_jobs_and_waits_for_what_they_save(program, number):
    process = start_parent(program)
    process.send_signal(number)
    assert process.wait(timeout=30) == (130 if number == signal.SIGINT else 143)
    assert there("stopped") == ["stopped-1", "stopped-2"] and there("begun") == ["begun-1", "begun-2"]


def test_jobs_end_with_the_process_that_started_them(program):
    process = start_parent(program)
    process.kill()
    process.wait()
    wait_until(lambda: there("stopped") == ["stopped-1", "stopped-2"])


def test_words_that_nobody_reads_any_more_are_no_reason_to_wait(program, monkeypatch):
    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Closed())
        seeds(1, 2)
    assert there("finished") == ["finished-1", "finished-2"]


def test_jobs_share_gpus(monkeypatch):
    started = []

    class Fake:
        returncode = 0

        def __init__(self, name, words, slot, ended):
            started.append((name, words))
            self.process, self.slot = self, slot
            ended.put(self)

    monkeypatch.setattr(jobs, "Job", Fake)
    assert run_side_by_side({str(n): ["--seeds", str(n)] for n in range(5)}, at_once=3, gpus=[0, 2]) == []
    assert [name for name, _ in started] == ["0", "1", "2", "3", "4"]
    assert {words[-1] for _, words in started} == {"0", "2"} and all(words[-2] == "--gpu_ids" for _, words in started)
    started.clear()
    run_side_by_side({"a": [], "b": []}, at_once=2, gpus=[])
    assert [words for _, words in started] == [[], []]


@pytest.mark.parametrize(("flags", "share"), [([], 4), (["--threads", "3"], 3)])
def test_a_job_has_its_share_of_the_threads_unless_told(monkeypatch, flags, share):
    monkeypatch.setattr("torch.get_num_threads", lambda: 9)
    options = run.parse_arguments(["--jobs", "2", *flags])
    job = run.parse_arguments(jobs.job_words(options.argv, options.jobs, options.threads))
    assert (job.threads, job.jobs, job.as_job) == (share, 1, True)
