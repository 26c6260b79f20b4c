"""Sweeps: exactly as many trials as were asked for, none twice, none lost, and none that sees the test split."""

import json
import os
import random
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import tiny
from optuna.trial import TrialState, create_trial
from postgres import postgres

import run
from config import config_tune
from config.config_regression import Config, make_config
from config.config_tune import DEMO_SPACE, SEARCH_SPACE, Range, combinations, count
from data.load_data import ClipDataset
from trains import sweep
from trains.budget import ATTEMPTS, REPEATS, STOPPED, WITHDRAWN, places
from trains.sweep_report import SweepReport
from utils.functions import UserError

TUNES = Path("results/results/tunes")
CSV = TUNES / "mosi-self_mm-regression-tune.csv"
BEST = TUNES / "mosi-self_mm-regression-best.json"
SPACE = {
    "batch_size": [4, 8],
    "learning_rate_other": Range(1e-4, 1e-2, log=True),
    "post_fusion_dim": Range(8, 16),
    "post_text_dropout": [0.0, 0.1],
}


DRAW = SweepReport.draw


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


def tune(place, *words: str, times: int = 4) -> int:
    flags = ["--is_tune", "--tune_times", str(times), "--heartbeat", "1", "--threads", "1", "--set", "update_epochs=2"]
    return run.main(place.command("--datasetName", "mosi", "--seeds", "1111", *flags, *words))


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


def rows(csv: Path = CSV) -> pd.DataFrame:
    return pd.read_csv(csv)


def test_a_sweep_leaves_a_row_for_each_trial_a_table_pictures_and_the_best(place, capsys, monkeypatch):
    monkeypatch.setattr(SweepReport, "draw", DRAW)
    assert tune(place, times=5) == 0
    table = rows()
    assert table["state"].tolist() == ["complete"] * 5 and table["trial"].tolist() == [0, 1, 2, 3, 4]
    assert table["batch_size"].isin([4, 8]).all() and table["learning_rate_other"].between(1e-4, 1e-2).all()
    assert table["post_fusion_dim"].between(8, 16).all() and (table["epochs"] == 2).all()
    assert (table["seconds"] > 0).all() and {"valid_Loss", "valid_MAE", "valid_Corr", "threads"} <= set(table)
    best = json.loads(BEST.read_text())
    assert best["score"] == ["Loss", table["valid_Loss"].min()] and best["seed"] == 1111
    assert Config(**best["hyper_parameters"]).batch_size == table["batch_size"][best["trial"]]
    printed = capsys.readouterr().out
    assert "5 of 5 trials finished" in printed and f"trial {best['trial']}" in printed.split("the best of")[1]
    for name in ("history", "importances", "slices"):
        picture = TUNES / f"mosi-self_mm-regression-{name}.png"
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000


@pytest.mark.parametrize("how", ["--preset tuned", "--params copy.json"])
def test_the_best_trial_run_again_comes_to_its_validation_score_to_the_bit(place, how):
    assert tune(place, "--set", "post_audio_dropout=0.3", "--max_epochs", "4") == 0
    BEST.parent.joinpath("copy.json").write_text(BEST.read_text())
    words = [word.replace("copy.json", str(TUNES / "copy.json")) for word in how.split()]
    assert run.main(place.command("--datasetName", "mosi", "--seeds", "1111", "1112", "--max_epochs", "4", *words)) == 0
    seeds = pd.read_csv("results/results/normals/mosi-regression-seeds.csv")
    best = json.loads(BEST.read_text())
    assert seeds["valid_Loss"][0] == best["score"][1] != seeds["valid_Loss"][1]
    assert seeds["threads"].tolist() == [best["threads"]] * 2
    log = Path("logs/self_mm-mosi.log").read_text()
    assert f"of trial {best['trial']} of mosi-self_mm-regression-" in log and "post_audio_dropout=0.3" in log


def test_the_objective_has_no_test_split(place, monkeypatch):
    seen = []
    original = ClipDataset.__init__

    def spied(self, split, *rest):
        seen.append(len(split))
        original(self, split, *rest)

    monkeypatch.setattr(ClipDataset, "__init__", spied)
    opened = []
    monkeypatch.setattr(sweep.Sweep, "work", lambda self, log, after_each: opened.append(self))
    assert tune(place) == 0
    assert seen == [tiny.SIZES["train"], tiny.SIZES["valid"]]
    assert opened[0].experiment.store.splits.keys() == opened[0].experiment.clips.keys() == {"train", "valid"}


def test_a_sweep_goes_on_and_a_finished_one_trains_nothing(place, monkeypatch):
    assert tune(place, times=2) == 0
    first = rows()
    assert tune(place, times=5) == 0
    assert len(rows()) == 5
    pd.testing.assert_frame_equal(rows()[:2], first, check_dtype=False)
    with monkeypatch.context() as patch:
        patch.delattr("trains.experiment.Experiment.new_training")
        assert tune(place, times=5) == 0
        assert tune(place, times=3) == 0  # fewer than there are
    assert len(rows()) == 3
    monkeypatch.setitem(config_tune.SPACES, "mosi", {"batch_size": [4, 8]})
    assert tune(place, times=1) == 0  # another space is another study
    assert rows()["study"].nunique() == 2 and len(rows()) == 4


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_no_trial_is_repeated_and_a_small_space_ends(place, monkeypatch, sampler, capsys):
    space = {"batch_size": [4, 8], "post_fusion_dim": Range(8, 10)}
    monkeypatch.setitem(config_tune.SPACES, "mosi", space)
    assert tune(place, "--sampler", sampler, "--max_epochs", "1", times=50) == 0
    found = rows()[list(space)].to_dict("records")
    assert sorted(map(str, found)) == sorted(map(str, combinations(space))) and len(found) == count(space) == 6
    assert "no more than 6 different trials" in capsys.readouterr().out


def test_what_set_names_is_not_searched(place):
    assert tune(place, "--set", "batch_size=8", "post_text_dim=7", times=3) == 0
    assert "batch_size" not in rows()
    assert {json.loads(BEST.read_text())["hyper_parameters"][key] for key in ("batch_size", "post_text_dim")} == {8, 7}


def test_a_training_that_diverges_counts_as_pruned_with_the_reason(place, monkeypatch):
    monkeypatch.setitem(config_tune.SPACES, "mosi", {"learning_rate_other": [1e-3, 1e30]})
    assert tune(place, "--set", "batch_size=4", times=2) == 0
    table = rows().set_index("learning_rate_other")
    assert table["state"].to_dict() == {1e-3: "complete", 1e30: "pruned"}
    assert "no number" in table["note"][1e30]


def test_the_pruner_is_fed_the_validation_score_of_each_epoch(place, monkeypatch):
    fed = []

    class Pruner(sweep.optuna.pruners.BasePruner):
        def prune(self, study, trial) -> bool:
            fed.append((trial.number, trial.last_step, trial.intermediate_values[trial.last_step]))
            return trial.number == 1 and trial.last_step == 2

    monkeypatch.setitem(sweep.PRUNERS, "median", Pruner)
    assert tune(place, "--pruner", "median", "--max_epochs", "4", times=2) == 0
    table = rows()
    assert table["state"].tolist() == ["complete", "pruned"] and table["epochs"].tolist() == [4, 2]
    assert [(trial, step) for trial, step, _ in fed] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    assert min(value for trial, _, value in fed if trial == 1) == table["valid_Loss"][1]


def test_a_score_that_is_undefined_counts_as_pruned(place, monkeypatch):
    monkeypatch.setattr("utils.metrics._correlation", lambda prediction, truth: float("nan"))
    assert tune(place, "--set", "KeyEval=Corr", "batch_size=4", times=2) == 0
    assert rows()["state"].tolist() == ["pruned"] * 2 and rows()["note"].tolist() == ["Corr is undefined"] * 2


def test_a_worse_sweep_on_the_same_data_leaves_the_best_trial_of_another(place, monkeypatch, capsys):
    assert tune(place, "--max_epochs", "3", times=2) == 0
    best = BEST.read_text()
    monkeypatch.setitem(config_tune.SPACES, "mosi", {"learning_rate_other": [1e-9]})
    assert tune(place, "--max_epochs", "1", "--set", "learning_rate_bert=1e-9", "batch_size=4", times=1) == 0
    assert BEST.read_text() == best and "keeps a better trial of another sweep" in capsys.readouterr().out


def test_a_database_that_is_away_for_a_while_costs_nothing(place, monkeypatch, capsys):
    """At the worst moments: as a trial begins, and as its end is told."""
    away = {"set_user_attr": [1], "report": [2], "tell": [1, 3]}

    def now_and_then(owner, name: str) -> None:
        original, calls = getattr(owner, name), []

        def call(*arguments, **settings):
            calls.append(1)
            if len(calls) in away[name]:
                raise sweep.StorageInternalError("server closed the connection")
            return original(*arguments, **settings)

        monkeypatch.setattr(owner, name, call)

    now_and_then(sweep.Trial, "set_user_attr")
    now_and_then(sweep.Trial, "report")
    now_and_then(sweep.optuna.study.Study, "tell")
    assert tune(place, times=2) == 0
    assert rows()["trial"].tolist() == [0, 1]
    assert capsys.readouterr().err.count("waiting for it") == 4


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_the_pruners_work(place, pruner):
    assert tune(place, "--pruner", pruner, "--sampler", "tpe", "--max_epochs", "4", times=7) == 0
    assert len(rows()) == 7


def test_a_stopped_trial_is_given_back_and_repeated_with_the_same_values(place, monkeypatch, capsys):
    from trains import self_mm

    original, calls = self_mm.run_model, []

    def counted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(self_mm, "run_model", counted)
    assert tune(place, times=2) == 143
    assert "--is_tune" in capsys.readouterr().err and not CSV.exists()
    assert tune(place, times=2) == 0
    assert rows()["trial"].tolist() == [1, 2]  # 0 broke off, and 1 repeats it
    study = sweep.optuna.load_study(
        study_name=rows()["study"][0], storage=f"sqlite:///{TUNES}/mosi-self_mm-regression-tune.db"
    )
    broken, repeated, _ = study.trials
    assert broken.state == TrialState.FAIL and repeated.user_attrs[REPEATS] == 0
    assert broken.params == repeated.params


def test_a_worker_that_was_only_silent_does_not_finish_a_trial_that_another_has(place, monkeypatch, capsys):
    train = sweep.Sweep._train

    def taken(self, trial, config) -> float:
        value = train(self, trial, config)
        if trial.number == 0:
            sweep.optuna.load_study(study_name=self.study.study_name, storage=self.storage).tell(
                0, state=TrialState.FAIL
            )
        return value

    monkeypatch.setattr(sweep.Sweep, "_train", taken)
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
    assert sum(place.is_finished for place in places(trials)) == 20


def trial(state: TrialState, number: int, **attributes):
    made = create_trial(state=state, value=1.0 if state == TrialState.COMPLETE else None, user_attrs=attributes)
    made.number = number
    return made


def test_places_by_hand():
    """A trial opens a place; a repetition takes it over; what was withdrawn was never there."""
    complete, fail, running = TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING
    found = places(
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
    assert places(stopped)[0].holder is None, "nobody's stop closes a place"
    tries = [trial(fail, 0), *(trial(fail, number, **{REPEATS: 0}) for number in range(1, ATTEMPTS))]
    assert places(tries[:-1])[0].holder is None
    assert places(tries) == places([*tries, trial(running, 9, **{REPEATS: 0})]) == []


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("learning_rate_berd", [1e-5], "closest hyper-parameter is 'learning_rate_bert'"),
        ("batch_size", [16, 32.5], "expected a whole number"),
        ("batch_size", [16, 16], "a list of different values"),
        ("batch_size", 16, "a list of different values"),
        ("batch_size", [], "a list of different values"),
        ("post_text_dropout", [0.0, 1.5], "out of range"),
        ("post_text_dropout", Range(0.0, 1.5), "out of range"),
        ("batch_size", Range(1.5, 4), "doesn't fit"),
        ("tasks", Range(1, 4), "doesn't fit"),
        ("learning_rate_bert", Range(0.0, 1.0, log=True), "with log from above 0"),
        ("learning_rate_bert", Range(1e-3, 1e-5), "from a lower to a higher"),
        ("precision", ["float32", "bf16"], "nothing to search there"),
        ("use_finetune", [True, False], "nothing to search there"),
    ],
)
def test_a_space_is_checked_against_the_config(key, values, words):
    with pytest.raises(UserError, match=f"config/config_tune.py: mosi: {key}: .*{words}"):
        config_tune._check("mosi", {**SEARCH_SPACE, key: values})


def test_the_space_is_the_released_one():
    published = {
        "batch_size": [16, 32], "learning_rate_bert": [5e-5],
        "learning_rate_audio": [1e-4, 1e-3, 5e-3], "learning_rate_video": [1e-4, 1e-3, 5e-3],
        "learning_rate_other": [1e-4, 1e-3], "weight_decay_bert": [0.001, 0.01],
        "weight_decay_audio": [0.0, 0.001, 0.01], "weight_decay_video": [0.0, 0.001, 0.01],
        "weight_decay_other": [0.001, 0.01], "a_lstm_hidden_size": [16, 32], "v_lstm_hidden_size": [32, 64],
        "audio_out": [16], "video_out": [32], "a_lstm_dropout": [0.0], "v_lstm_dropout": [0.0],
        "post_fusion_dim": [64, 128], "post_text_dim": [32, 64], "post_audio_dim": [16, 32],
        "post_video_dim": [16, 32], **{f"post_{part}_dropout": [0.0, 0.1] for part in ("fusion", "text", "audio", "video")},
    }  # fmt: skip
    assert published == SEARCH_SPACE
    assert count(SEARCH_SPACE) == 3**4 * 2**14 and count(DEMO_SPACE) == float("inf")
    assert make_config("mosi").H == 3.0 and make_config("sims").H == 1.0  # not searched: the dataset's own
