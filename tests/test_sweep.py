"""One worker: the files that a sweep leaves, stop and resume, and that the test split is never opened."""

import json
import os
import signal
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pandas as pd
import pytest
import sqlalchemy
import tiny
from optuna.trial import TrialState
from sweeps import BEST, CSV, DATABASE, SPACE, TUNES, rows, trials, tune

import run
from config import config_tune
from config.config_regression import Config
from data.load_data import ClipDataset
from models.self_mm import SelfMM
from trains.sweep import study
from trains.sweep.report import SweepReport

DRAW = SweepReport.draw


@pytest.fixture
def place(workplace, monkeypatch):
    """A workplace whose sweeps search SPACE and draw no plots, which would take a second."""
    monkeypatch.setitem(config_tune.SPACES, "mosi", SPACE)
    monkeypatch.setattr(SweepReport, "draw", lambda self: None)
    return workplace


def test_sweep_writes_csv_best_trial_table_and_plots(place, capsys, monkeypatch):
    monkeypatch.setattr(SweepReport, "draw", DRAW)
    savefig, figures = plt.savefig, []
    monkeypatch.setattr(plt, "savefig", lambda *path, **how: figures.append(plt.gcf()) or savefig(*path, **how))
    assert tune(place, times=5) == 0
    table = rows()
    columns = ["study", "trial", "state", "batch_size", "learning_rate_other", "post_fusion_dim", "post_text_dropout"]
    assert list(table)[:7] == columns and list(table)[7].startswith("valid_")
    assert list(table)[-8:] == ["best_epoch", "epochs", "seconds", "seed", "device", "threads", "worker", "note"]
    assert table["state"].tolist() == ["complete"] * 5 and table["trial"].tolist() == [0, 1, 2, 3, 4]
    assert table["batch_size"].isin([4, 8]).all() and table["learning_rate_other"].between(1e-4, 1e-2).all()
    assert table["post_fusion_dim"].between(8, 16).all() and (table["epochs"] == 2).all()
    assert (table["seconds"] > 0).all() and {"valid_Loss", "valid_MAE", "valid_Corr"} <= set(table)
    best = json.loads(BEST.read_text())
    assert best["score"] == ["Loss", table["valid_Loss"].min()] and best["seed"] == 1111
    assert Config(**best["hyper_parameters"]).batch_size == table["batch_size"][best["trial"]]
    output = capsys.readouterr().out
    assert "5 trials finished, 5 requested" in output
    assert output.split("the best of")[1].splitlines()[1].split()[:2] == ["trial", str(best["trial"])]
    for name in ("history", "importances", "slices"):
        plot = TUNES / f"mosi-self_mm-regression-{name}.png"
        assert plot.read_bytes().startswith(b"\x89PNG") and plot.stat().st_size > 5000
    *_, last, colour_bar = (axes.get_position() for axes in figures[-1].axes)
    assert 0.1 < (colour_bar.x0 - last.x1) * figures[-1].get_figwidth() < 0.4  # inches


def test_a_sweep_of_one_combination_has_no_slices_to_arrange(place, monkeypatch):
    monkeypatch.setattr(SweepReport, "draw", DRAW)
    monkeypatch.setitem(config_tune.SPACES, "mosi", {"batch_size": [8]})
    assert tune(place, "--max_epochs", "1") == 0
    assert BEST.exists() and (TUNES / "mosi-self_mm-regression-history.png").exists()


def test_the_screen_shows_four_digits_and_the_csv_all(place, capsys):
    assert tune(place, times=1) == 0
    rate = rows()["learning_rate_other"][0]
    output = capsys.readouterr().out
    assert len(str(rate)) > 12 and str(rate) not in output
    assert f"learning_rate_other={rate:.4g} " in output
    assert output.split("learning_rate_other")[-1].split()[0] == f"{rate:.4g}"


def test_every_combination_is_tried_although_trials_were_killed_while_their_values_were_drawn(place, monkeypatch):
    space = {"batch_size": [4, 8], "audio_out": [3, 4]}
    monkeypatch.setitem(config_tune.SPACES, "mosi", space)
    draw, drawn = study.Sweep._draw, []

    def killed(self, trial):
        drawn.append(trial.number)
        if len(drawn) == 2:
            trial.suggest_categorical("batch_size", space["batch_size"])
        if len(drawn) < 3:
            raise LookupError("killed")
        return draw(self, trial)

    monkeypatch.setattr(study.Sweep, "_draw", killed)
    assert [tune(place, "--max_epochs", "1") for _ in range(3)] == [1, 1, 0]
    assert rows()["trial"].tolist() == [2, 3, 4, 5] and len(rows().drop_duplicates(list(space))) == 4


def test_text_from_a_shared_database_is_no_formula_and_moves_no_terminal(place):
    assert tune(place, times=2) == 0
    with sqlalchemy.create_engine(DATABASE).begin() as database:
        for old, new in {'"note": ""': '"note": "=1+1"', '"worker": "': '"worker": "\\u001b[2J'}.items():
            query = "UPDATE trial_user_attributes SET value_json = REPLACE(value_json, :old, :new)"
            database.execute(sqlalchemy.text(query), {"old": old, "new": new})
    assert tune(place, times=2) == 0
    assert "'=1+1" in CSV.read_text() and ",=1+1" not in CSV.read_text() and "\x1b" not in CSV.read_text()


@pytest.mark.parametrize("flags", ["--preset tuned", "--params copy.json"])
def test_tuned_hyper_parameters_reproduce_the_score_of_the_best_trial(place, flags):
    assert tune(place, "--set", "post_audio_dropout=0.3", "--max_epochs", "4", times=2) == 0
    (TUNES / "copy.json").write_text(BEST.read_text())
    argv = flags.replace("copy.json", str(TUNES / "copy.json")).split()
    assert run.main(place.command("--datasetName", "mosi", "--seeds", "1111", "1112", "--max_epochs", "4", *argv)) == 0
    # The default of old pandas is wrong in the last bit.
    seeds = pd.read_csv("results/results/normals/mosi-regression-seeds.csv", float_precision="round_trip")
    best = json.loads(BEST.read_text())
    assert seeds["valid_Loss"][0] == best["score"][1] != seeds["valid_Loss"][1]
    assert seeds["threads"].tolist() == [best["threads"]] * 2
    log = Path("logs/self_mm-mosi.log").read_text()
    assert best["study"] in log and f"trial {best['trial']}" in log and "post_audio_dropout=0.3" in log


def test_trials_cannot_see_the_test_split(place, monkeypatch):
    sizes, sweeps = [], []
    original = ClipDataset.__init__

    def spy(self, split, *rest):
        sizes.append(len(split))
        original(self, split, *rest)

    monkeypatch.setattr(ClipDataset, "__init__", spy)
    train = study.Sweep._train
    monkeypatch.setattr(study.Sweep, "_train", lambda self, *rest: sweeps.append(self) or train(self, *rest))
    assert tune(place, "--max_epochs", "1", times=1) == 0
    assert sizes == [tiny.SIZES["train"], tiny.SIZES["valid"]]
    assert sweeps[0].experiment.store.splits.keys() == sweeps[0].experiment.clips.keys() == {"train", "valid"}


def test_sweep_resumes_and_a_finished_one_trains_nothing(place, monkeypatch):
    assert tune(place, times=2) == 0
    first = rows()
    assert tune(place, times=5) == 0
    assert len(rows()) == 5
    pd.testing.assert_frame_equal(rows()[:2], first, check_dtype=False)
    with monkeypatch.context() as patch:
        patch.delattr("trains.runs.experiment.Experiment.new_training")
        assert tune(place, times=5) == 0
        assert tune(place, times=3) == 0
    assert len(rows()) == 5
    monkeypatch.setitem(config_tune.SPACES, "mosi", {"batch_size": [4, 8]})
    assert tune(place, times=1) == 0  # another space is another study
    assert rows()["study"].nunique() == 2 and len(rows()) == 6


def test_small_space_is_searched_completely_and_without_repetition(place, monkeypatch, capsys):
    monkeypatch.setitem(config_tune.SPACES, "mosi", {"batch_size": [4, 8], "post_fusion_dim": [8, 9, 10]})
    assert tune(place, "--pruner", "hyperband", "--max_epochs", "1", times=50) == 0
    combinations = [(size, dim) for size in (4, 8) for dim in (8, 9, 10)]
    assert sorted(zip(rows()["batch_size"], rows()["post_fusion_dim"], strict=True)) == combinations
    assert "6 of 6 combinations of batch_size, post_fusion_dim" in capsys.readouterr().out


def test_set_excludes_a_hyper_parameter_from_the_search(place):
    assert tune(place, "--set", "batch_size=8", "post_text_dim=7", times=1) == 0
    assert "batch_size" not in rows()
    assert {json.loads(BEST.read_text())["hyper_parameters"][key] for key in ("batch_size", "post_text_dim")} == {8, 7}


def test_diverged_training_counts_as_pruned_with_the_reason(place, monkeypatch):
    monkeypatch.setitem(config_tune.SPACES, "mosi", {"learning_rate_other": [1e-3, 1e30]})
    assert tune(place, "--set", "batch_size=4", times=2) == 0
    table = rows().set_index("learning_rate_other")
    assert table["state"].to_dict() == {1e-3: "complete", 1e30: "pruned"}
    assert "epoch" in table["note"][1e30]


def test_undefined_score_counts_as_pruned(place, monkeypatch):
    monkeypatch.setattr("utils.metrics.correlation", lambda *pair: 1.0 if np.array_equal(*pair) else float("nan"))
    assert tune(place, "--set", "KeyEval=Corr", "batch_size=4", times=2) == 0
    assert rows()["state"].tolist() == ["pruned"] * 2 and rows()["note"].tolist() == ["Corr is undefined"] * 2
    assert not BEST.exists()


def test_pruner_receives_the_validation_score_of_each_epoch(place, monkeypatch):
    reports = []

    class Pruner(optuna.pruners.BasePruner):
        def prune(self, study, trial) -> bool:
            reports.append((trial.number, trial.last_step, trial.intermediate_values[trial.last_step]))
            return trial.number == 1 and trial.last_step == 2

    monkeypatch.setitem(study.PRUNERS, "median", Pruner)
    assert tune(place, "--pruner", "median", "--max_epochs", "4", times=2) == 0
    table = rows()
    assert table["state"].tolist() == ["complete", "pruned"] and table["epochs"].tolist() == [4, 2]
    assert [(trial, step) for trial, step, _ in reports] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    assert min(value for trial, _, value in reports if trial == 1) == table["valid_Loss"][1]


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_pruners_work(place, pruner):
    assert tune(place, "--pruner", pruner, "--sampler", "tpe", "--max_epochs", "3", times=6) == 0
    assert len(rows()) == 6


def call_at(monkeypatch, number: int, action) -> None:
    """Runs an action before one of the network's forward passes, counted from 1."""
    original, calls = SelfMM.forward, []

    def forward(*arguments):
        calls.append(1)
        if len(calls) == number:
            action()
        return original(*arguments)

    monkeypatch.setattr(SelfMM, "forward", forward)


def test_stopped_trial_is_retried_with_the_same_values(place, monkeypatch, capsys):
    call_at(monkeypatch, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert tune(place, times=2) == 143
    assert "--is_tune" in capsys.readouterr().err and not CSV.exists()
    assert [trial.state for trial in trials()] == [TrialState.FAIL, TrialState.WAITING]
    assert tune(place, times=2) == 0
    assert rows()["trial"].tolist() == [1, 2]
    stopped, retried, _ = trials()
    assert stopped.params == retried.params


def test_worker_without_heartbeat_leaves_its_trial_to_another(place, monkeypatch, capsys):
    """As after a suspension, in which another worker has found its trial stale."""
    take_over = lambda: optuna.storages.RDBStorage(DATABASE).set_trial_state_values(1, TrialState.FAIL)  # noqa: E731
    call_at(monkeypatch, 1, take_over)
    assert tune(place, times=2) == 0
    assert rows()["trial"].tolist() == [1, 2]
    assert "trial 0  sent no heartbeat" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["suggest_categorical", "report", "set_user_attr", "tell"])
def test_lost_database_ends_the_worker_with_one_line(place, monkeypatch, capsys, method):
    """The database fails for good from one of the calls on."""

    def lose(*arguments, **settings):
        raise sqlalchemy.exc.OperationalError("SELECT 1", {}, OSError("server closed the connection"))

    def call_without_database(*arguments, **settings):
        patch.setattr("sqlalchemy.orm.Session.query", lose)
        return original(*arguments, **settings)

    owner, name = (optuna.study._optimize, "_tell_with_warning") if method == "tell" else (optuna.Trial, method)
    original = getattr(owner, name)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, call_without_database)
        assert tune(place, times=1) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "(server closed the connection); the same command resumes" in error
    assert tune(place, times=1) == 0
    assert len(rows()) == 1
