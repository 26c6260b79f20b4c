"""Several workers, some of them killed: never fewer finished trials than requested, at most workers - 1 more."""

import os
import random
import signal
import time

import optuna
import pytest
import sqlalchemy
from conftest import needs_fork
from optuna.trial import TrialState
from postgres import PASSWORD, postgres
from sweeps import CSV, SPACE, TUNES, rows, tune

from config import config_tune
from trains.sweep import study
from trains.sweep.report import SweepReport

pytestmark = needs_fork


@pytest.fixture(scope="module")
def postgres_url():
    with postgres() as url:
        yield url


@pytest.fixture
def place(workplace, monkeypatch):
    """A workplace whose sweeps search SPACE and draw no plots, which would take a second."""
    monkeypatch.setitem(config_tune.SPACES, "mosi", SPACE)
    monkeypatch.setattr(SweepReport, "draw", lambda self: None)
    return workplace


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, place):
    """The URL of a database, empty but for other tests' studies."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    TUNES.mkdir(parents=True)
    return f"sqlite:///{TUNES.resolve()}/shared.db"


def fork(action) -> int:
    """Runs an action in a copy of this process. Returns its id."""
    process = os.fork()
    if process == 0:
        status = 99
        try:
            status = action()
        finally:
            os._exit(status)
    return process


def exit_status(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_trial_of_a_killed_worker_is_retried_with_the_same_values(place, database, monkeypatch):
    monkeypatch.setattr(config_tune, "SPACES", {"mosi": SPACE | {"post_text_dim": [7]}})  # a study of its own
    train = study.Sweep._train

    def kill_at_second_trial(self, trial, config):
        if trial.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return train(self, trial, config)

    with monkeypatch.context() as patch:
        patch.setattr(study.Sweep, "_train", kill_at_second_trial)
        assert exit_status(fork(lambda: tune(place, "--storage", database, times=3))) == -signal.SIGKILL
    assert rows()["trial"].tolist() == [0]
    with study.open_storage(
        database, 1
    ).engine.begin() as connection:  # as if the grace period, two heartbeats, were over
        connection.execute(sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = '2000-01-01 00:00:00'"))
    assert tune(place, "--storage", database, times=3) == 0
    assert rows()["trial"].tolist() == [0, 2, 3]
    study_trials = optuna.load_study(study_name=rows()["study"][0], storage=study.open_storage(database, 1)).trials
    assert study_trials[1].state == TrialState.FAIL and study_trials[1].params == study_trials[2].params


def test_workers_with_only_the_database_in_common_finish_a_sweep(place, postgres_url, monkeypatch):
    """As on three machines, one of which dies."""
    train = study.Sweep._train

    def train_slowly(*arguments):
        time.sleep(0.2)
        return train(*arguments)

    monkeypatch.setattr(study.Sweep, "_train", train_slowly)

    def work(number: int) -> int:
        folder = place.folder / f"machine{number}"
        folder.mkdir()
        os.chdir(folder)
        return tune(place, "--storage", postgres_url, times=7)

    workers = [fork(lambda number=number: work(number)) for number in range(3)]
    deadline = time.monotonic() + 60
    while not list(place.folder.glob("machine0/logs/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(workers[0], signal.SIGKILL)
    assert [exit_status(process) for process in workers] == [-signal.SIGKILL, 0, 0]
    tables = [rows(place.folder / f"machine{number}" / CSV) for number in (1, 2)]
    last = max(tables, key=len)
    assert 7 <= len(last) <= 9 and (last["state"] == "complete").all() and not last.duplicated(list(SPACE)).any()
    assert last["worker"].nunique() in (2, 3)
    log = (place.folder / "machine1" / "logs" / "self_mm-mosi-tune.log").read_text()
    assert ":***@127.0.0.1" in log and PASSWORD not in log and postgres_url not in log


@pytest.mark.parametrize(
    "space", [{**SPACE, "audio_out": [8]}, {"batch_size": [4, 8], "audio_out": list(range(1, 11))}]
)
def test_stress_of_quick_trials_and_kills(place, database, monkeypatch, space):
    """Trials take no time, so that workers meet at every step of theirs; every other worker is killed at random."""
    assert tune(place, times=1) == 0  # makes the cache

    def train_nothing(self, trial, config) -> tuple[float, dict]:
        time.sleep(random.SystemRandom().uniform(0, 0.02))
        names = ("best_epoch", "epochs", "seconds", "seed", "worker", "device", "threads")
        return 1.0, {"state": "complete", "valid": {"Loss": 1.0}, "config": {}, "note": "", **dict.fromkeys(names, 1)}

    monkeypatch.setattr(study.Sweep, "_train", train_nothing)
    monkeypatch.setitem(config_tune.SPACES, "mosi", space)
    generator = random.Random(1)
    workers = [fork(lambda: tune(place, "--storage", database, times=20)) for _ in range(4)]
    for victim in workers[::2]:
        time.sleep(generator.uniform(0.4, 1.0))
        os.kill(victim, signal.SIGKILL)
    assert [exit_status(process) for process in workers][1::2] == [0, 0]
    table = rows()
    table = table[table["study"] == table["study"].iloc[-1]]
    assert 20 <= len(table) <= 23
    assert len(table.drop_duplicates(list(space))) >= 20 - 3  # the last ones that run elsewhere may be trained twice
