"""Many workers, some of whom die, finish exactly as many trials as were asked for."""

import os
import random
import signal
import time

import pytest
from optuna.trial import TrialState, create_trial
from postgres import postgres
from sweeps import CSV, SPACE, TUNES, rows, tune

from config import config_tune
from trains.sweep import study as sweep
from trains.sweep.budget import ATTEMPTS, REPEATS, STOPPED, WITHDRAWN, slots
from trains.sweep.report import SweepReport


@pytest.fixture(scope="module")
def database():
    with postgres() as url:
        yield url


@pytest.fixture
def place(workplace, monkeypatch):
    """A workplace whose sweeps search a small space, and draw no pictures, which take a second."""
    monkeypatch.setitem(config_tune.SPACES, "mosi", SPACE)
    monkeypatch.setattr(SweepReport, "draw", lambda self: [])
    return workplace


def fork(action) -> int:
    """Starts a process of this program. Returns its number."""
    process = os.fork()
    if process == 0:
        status = 99
        try:
            status = action()
        finally:
            os._exit(status)
    return process


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@pytest.mark.parametrize("amid", [True, False], ids=["amid the training", "after it"])
def test_a_worker_that_was_only_silent_does_not_finish_a_trial_that_another_has(place, monkeypatch, capsys, amid):
    train = sweep.Sweep._train
    taken = []

    def take(self) -> None:
        """As another worker does, for which the first trial's heart has stopped."""
        if not taken:
            taken.append(True)
            sweep.optuna.load_study(study_name=self.study.study_name, storage=self.storage).tell(
                0, state=TrialState.FAIL
            )

    def trained(self, trial, config) -> tuple:
        if amid:
            take(self)
        ended = train(self, trial, config)
        take(self)
        return ended

    monkeypatch.setattr(sweep.Sweep, "_train", trained)
    assert tune(place, times=2) == 0
    assert sorted(rows()["trial"]) == [1, 2]
    assert "trial 0  was silent for too long, and was given to another worker" in capsys.readouterr().out


def test_three_workers_of_which_one_is_killed_finish_exactly_what_was_asked_for(place, database, monkeypatch):
    """Each as another machine would: with a folder of its own, and only the database in common."""
    monkeypatch.setattr(sweep.Sweep, "_train", slowly(sweep.Sweep._train))

    def worker(number: int) -> int:
        folder = place.folder / f"machine{number}"
        folder.mkdir()
        os.chdir(folder)
        return tune(place, "--storage", database, times=7)

    workers = [fork(lambda number=number: worker(number)) for number in range(3)]
    deadline = time.monotonic() + 60
    while not list(place.folder.glob("machine0/logs/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    os.kill(workers[0], signal.SIGKILL)
    assert [ended(process) for process in workers] == [-signal.SIGKILL, 0, 0]
    for number in (1, 2):
        table = rows(place.folder / f"machine{number}" / CSV)
        assert len(table) == 7 and (table["state"] == "complete").all()
        assert not table.duplicated(list(SPACE)).any()
        assert table["worker"].nunique() in (2, 3)


def slowly(train):
    def slow(*arguments):
        time.sleep(0.2)
        return train(*arguments)

    return slow


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_workers_that_come_and_die_never_finish_too_many(place, request, monkeypatch, kind):
    """Trials take no time here, so that workers meet in every step of theirs; every other worker is killed anywhere."""
    if kind == "postgresql":
        url = request.getfixturevalue("database")
    else:
        TUNES.mkdir(parents=True)
        url = f"sqlite:///{TUNES.resolve()}/many.db"
    assert tune(place, "--storage", url, times=1) == 0  # makes tables and cache

    def quick(self, trial, config) -> float:
        time.sleep(random.SystemRandom().uniform(0, 0.02))
        found = {"state": "complete", "valid": {"Loss": 1.0}, "config": {}, "note": ""}
        names = ("best_epoch", "epochs", "seconds", "seed", "worker", "device", "threads")
        trial.set_user_attr(sweep.RESULT, found | dict.fromkeys(names, 1))
        return TrialState.COMPLETE, 1.0

    monkeypatch.setattr(sweep.Sweep, "_train", quick)
    generator = random.Random(1)
    workers = [fork(lambda: tune(place, "--storage", url, times=20)) for _ in range(4)]
    for victim in workers[::2]:
        time.sleep(generator.uniform(0.4, 1.0))
        os.kill(victim, signal.SIGKILL)
    statuses = [ended(process) for process in workers]
    assert statuses[1::2] == [0, 0]
    storage = sweep.open_storage(url, 1)
    (study,) = [study for study in sweep.optuna.get_all_study_summaries(storage) if study.n_trials > 1]
    trials = sweep.optuna.load_study(study_name=study.study_name, storage=storage).trials
    finished = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(finished) == 20, [(trial.number, trial.state, trial.user_attrs) for trial in trials]
    assert sum(place.is_finished for place in slots(trials)) == 20


def trial(state: TrialState, number: int, **attributes):
    made = create_trial(state=state, value=1.0 if state == TrialState.COMPLETE else None, user_attrs=attributes)
    made.number = number
    return made


def test_places_by_hand():
    """A trial opens a place; a repetition takes it over; what was withdrawn was never there."""
    complete, fail, running = TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING
    found = slots(
        [
            trial(complete, 0),
            trial(fail, 1),
            trial(fail, 2, **{WITHDRAWN: "its place is taken"}),
            trial(running, 3, **{REPEATS: 1}),
            trial(running, 4, **{REPEATS: 1}),  # by two workers at once: the first holds the place
            trial(running, 5),
        ]
    )
    assert [(place.number, place.holder.number, place.is_finished) for place in found] == [
        (0, 0, True),
        (1, 3, False),
        (5, 5, False),
    ]
    stopped = [trial(fail, number, **{STOPPED: True}, **({REPEATS: 0} if number else {})) for number in range(9)]
    assert slots(stopped)[0].holder is None, "nobody's stop closes a place"
    tries = [trial(fail, 0), *(trial(fail, number, **{REPEATS: 0}) for number in range(1, ATTEMPTS))]
    assert slots(tries[:-1])[0].holder is None
    assert slots(tries) == slots([*tries, trial(running, 9, **{REPEATS: 0})]) == []
