"""What a sweep leaves, how it goes on, and that it never sees the test split."""

import json
import os
import signal
from pathlib import Path

import pandas as pd
import pytest
import tiny
from optuna.trial import TrialState
from sweeps import BEST, CSV, SPACE, TUNES, rows, tune

import run
from config import config_tune
from config.config_regression import Config
from config.config_tune import Range, combinations, count
from data.load_data import ClipDataset
from models.self_mm import SelfMM
from trains.sweep import study as sweep
from trains.sweep.budget import REPEATS
from trains.sweep.report import SweepReport

DRAW = SweepReport.draw


@pytest.fixture
def place(workplace, monkeypatch):
    """A workplace whose sweeps search a small space, and draw no pictures, which take a second."""
    monkeypatch.setitem(config_tune.SPACES, "mosi", SPACE)
    monkeypatch.setattr(SweepReport, "draw", lambda self: [])
    return workplace


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
        patch.delattr("trains.runs.experiment.Experiment.new_training")
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


@pytest.mark.parametrize(("score", "kept"), [(0.0, True), (99.0, False)])
def test_a_better_trial_of_another_sweep_on_the_same_data_is_kept(place, monkeypatch, capsys, score, kept):
    assert tune(place, times=1) == 0
    other = json.loads(BEST.read_text()) | {"score": ["Loss", score]}
    BEST.write_text(json.dumps(other))
    monkeypatch.setitem(config_tune.SPACES, "mosi", {"batch_size": [4]})  # another study
    assert tune(place, times=1) == 0
    assert (json.loads(BEST.read_text()) == other) is kept
    assert ("keeps a better trial of another sweep" in capsys.readouterr().out) is kept


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
    original, calls = SelfMM.forward, []

    def counted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(SelfMM, "forward", counted)
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
