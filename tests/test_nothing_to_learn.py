"""Runs in which no weight would change, no epoch could be chosen, or nothing was learned say so."""

import re

import numpy as np
import pandas as pd
import pytest
import tiny
from sweeps import rows, tune

import run
from config import config_tune
from config.config_regression import make_config


def only_window_is_incomplete(clips: int, batch_size: int, update_epochs: int) -> bool:
    return -(-clips // batch_size) < update_epochs


def test_a_window_needs_more_clips_than_one_micro_batch_less_than_it_has():
    for batch_size, update_epochs in ((32, 4), (16, 4), (1, 1), (5, 2)):
        config = make_config("mosi", batch_size=batch_size, update_epochs=update_epochs)
        for clips in range(1, 130):
            assert config.updates_weights(clips) != only_window_is_incomplete(clips, batch_size, update_epochs)
    assert make_config("mosi", keep_last_window=True).updates_weights(1)


def test_too_few_clips_for_a_window_are_refused_before_training(workplace, capsys):
    assert run.main(workplace.command("--datasetName", "mosi")) == 2
    captured = capsys.readouterr()
    assert "21 training clips" in captured.err and "a window of 4 x 32" in captured.err
    assert "--set keep_last_window=True" in captured.err and captured.err.count("\n") == 1
    assert "  best" not in captured.out and not list(workplace.folder.rglob("config.json"))[1:]
    assert run.main(workplace.command("--datasetName", "mosi", "--set", "keep_last_window=True")) == 0


def test_a_trial_that_cannot_learn_is_pruned_with_the_reason(workplace, monkeypatch):
    monkeypatch.setattr("trains.sweep.report.SweepReport.draw", lambda self: None)
    monkeypatch.setitem(config_tune.SPACES, "mosi", {"batch_size": [4, 32]})
    assert tune(workplace, times=2) == 0
    table = rows().set_index("batch_size")
    assert table.loc[32, "state"] == "pruned" and "no weight would ever change" in table.loc[32, "note"]
    assert table.loc[4, "state"] == "complete"


def test_a_metric_that_is_undefined_for_its_split(workplace, capsys):
    features = tiny.make_features()
    features["valid"]["regression_labels"][:] = features["test"]["regression_labels"][:] = 1
    tiny.write_features(workplace.features, features)
    assert workplace.run("--set", "KeyEval=Corr", "batch_size=4") == 2
    assert "valid: KeyEval = Corr is undefined" in capsys.readouterr().err
    assert workplace.run() == 0
    assert "warning: test: its labels leave Corr undefined" in capsys.readouterr().out


@pytest.mark.parametrize("dropout", ["0.99", "0"])
def test_a_model_no_better_than_guessing_is_called_so(workplace, capsys, dropout):
    assert workplace.run("--set", f"post_fusion_dropout={dropout}", "batch_size=4") == 0
    printed = capsys.readouterr().out
    guess = float(re.search(r"^ *MAE +\S+ +(\S+)", printed, re.MULTILINE)[1])
    row = pd.read_csv("results/results/normals/mosi-regression-seeds.csv").iloc[0]
    if not np.isclose(row["MAE"], guess, atol=1e-4):
        assert ("the model learned nothing of use" in printed) == (row["MAE"] > guess)
