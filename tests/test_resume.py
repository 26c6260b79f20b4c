"""A run that is stopped, killed or broken off anywhere, and resumed, ends as if nothing had happened."""

import json
import os
import re
import signal
from pathlib import Path

import pandas as pd
import pytest
import tiny
import torch

from benchmarks.faults import outcome
from utils import files

FLAGS = ("--seeds", "1", "2", "--max_epochs", "5")
MODELS = Path("results/models")
SEEDS_CSV = Path("results/results/normals/mosi-regression-seeds.csv")


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the program handles it."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run leaves that nobody stopped."""
    from conftest import Workplace

    folder, before = tmp_path_factory.mktemp("undisturbed"), Path.cwd()
    place = Workplace(folder)
    os.chdir(folder)
    try:
        assert place.run(*FLAGS) == 0
    finally:
        os.chdir(before)
    return outcome(folder)


def at_call(monkeypatch, name: str, number: int, action) -> None:
    """Lets an action come before the nth call of a function."""
    module, _, function = name.rpartition(".")
    original, calls = getattr(__import__(module, fromlist=[function]), function), []

    def counted(*arguments, **settings):
        calls.append(name)
        if len(calls) == number:
            action()
        return original(*arguments, **settings)

    monkeypatch.setattr(name, counted)


# Each of the 2 seeds has 5 epochs; in each, 3 windows and an evaluation go through run_model.
@pytest.mark.parametrize("call", [1, 2, 4, 6, 9, 13, 20, 21, 23, 35])
def test_a_signal_saves_all_and_the_resumed_run_ends_the_same(workplace, undisturbed, monkeypatch, capsys, call):
    kind = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1][call % 3]
    with monkeypatch.context() as patch:
        at_call(patch, "trains.self_mm.run_model", call, lambda: os.kill(os.getpid(), kind))
        assert workplace.run(*FLAGS) == (130 if kind == signal.SIGINT else 143)
    printed = capsys.readouterr()
    assert re.search(
        rf"seed \d  {kind.name}: stopped after (epoch \d, window \d|the end of epoch \d); all of it is saved",
        printed.out,
    )
    assert re.fullmatch(r"stopped by SIG\w+; to go on: python run.py --datasetName mosi .* --resume\n", printed.err)
    assert workplace.run(*FLAGS, "--resume") == 0
    assert re.search(r"seed \d  goes on after", capsys.readouterr().out)
    assert outcome(workplace.folder) == undisturbed


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18, 26, 27, 28, 29, 30])
def test_a_kill_before_any_renaming_loses_nothing(workplace, undisturbed, monkeypatch, call):
    """Renamings are where files and folders change; a seed has some twenty: states, checkpoints, row and summary."""
    killed = []

    def kill():
        killed.append(True)
        raise Killed

    def remove_unless_killed(path, remove=files.remove):
        if not killed:
            remove(path)

    with monkeypatch.context() as patch:
        at_call(patch, "os.replace", call, kill)
        patch.setattr(files, "remove", remove_unless_killed)
        with pytest.raises(Killed):
            workplace.run(*FLAGS)
    assert workplace.run(*FLAGS, "--resume") == 0
    assert outcome(workplace.folder) == undisturbed
