"""A run that is stopped or killed anywhere and then resumed ends as if nothing had happened."""

import json
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import tiny
from conftest import Workplace, needs_fork
from run_files import SEEDS_CSV, checkpoint, state

from benchmarks.faults import finish, outcome
from config.config_regression import REPOSITORY
from utils import files
from utils.files import exclusive_lock

# The best epochs: 4 of seed 1, 3 of seed 2.
FLAGS = ("--seeds", "1", "2", "--max_epochs", "4", "--save_labels", "--save_predictions")


class Killed(BaseException):
    """In place of SIGKILL: nothing in the program handles it."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The files of an uninterrupted run."""
    folder, before = tmp_path_factory.mktemp("undisturbed"), Path.cwd()
    place = Workplace(folder)
    os.chdir(folder)
    try:
        assert place.run(*FLAGS) == 0
    finally:
        os.chdir(before)
    return outcome(folder)


def at_call(monkeypatch, name: str, number: int, action) -> None:
    """Runs an action before the nth call of a function."""
    original, calls = pkgutil.resolve_name(name), []

    def counted(*arguments, **settings):
        calls.append(name)
        if len(calls) == number:
            action()
        return original(*arguments, **settings)

    monkeypatch.setattr(name, counted)


# Each of the 2 seeds has 4 epochs of 4 forward passes: 3 windows and an evaluation; then the test and all predictions.
@pytest.mark.parametrize("call", [1, 2, 4, 9, 16, 17, 30])
def test_a_run_stopped_by_a_signal_resumes_to_the_same_files(workplace, undisturbed, monkeypatch, capsys, call):
    kind = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1][call % 3]
    with monkeypatch.context() as patch:
        at_call(patch, "models.self_mm.SelfMM.forward", call, lambda: os.kill(os.getpid(), kind))
        assert workplace.run(*FLAGS) == (130 if kind == signal.SIGINT else 143)
    printed = capsys.readouterr()
    assert re.search(
        rf"seed \d  {kind.name}: stopped after (epoch \d, window \d|the end of epoch \d); the state is saved",
        printed.out,
    )
    assert re.fullmatch(r"stopped by SIG\w+; .*: python run.py --datasetName mosi .* --resume\n", printed.err)
    assert workplace.run(*FLAGS, "--resume") == 0
    assert re.search(r"seed \d  resumes after", capsys.readouterr().out)
    assert outcome(workplace.folder) == undisturbed


RENAMES = [("os.replace", call) for call in (1, 2, 3, 4, 12, 13, 20)]


@pytest.mark.parametrize(("function", "call"), [*RENAMES, ("trains.runs.keeper.remove", 1)])
def test_a_kill_before_any_change_on_the_disk_loses_nothing(workplace, undisturbed, monkeypatch, function, call):
    """Files and folders change only by renaming: states, checkpoints, row and summary. At the end the state is removed."""
    killed = []

    def kill():
        killed.append(True)
        raise Killed

    def remove_unless_killed(path, remove=files.remove):
        if not killed:
            remove(path)

    with monkeypatch.context() as patch:
        at_call(patch, function, call, kill)
        patch.setattr(files, "remove", remove_unless_killed)
        with pytest.raises(Killed):
            workplace.run(*FLAGS)
    assert workplace.run(*FLAGS, "--resume") == 0
    assert outcome(workplace.folder) == undisturbed


def stop_in_epoch_3(workplace, monkeypatch, *flags: str) -> None:
    """Stops a run of seed 1 in its third epoch."""
    with monkeypatch.context() as patch:
        at_call(patch, "models.self_mm.SelfMM.forward", 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert workplace.run(*flags, "--seeds", "1", "--max_epochs", "4") == 143


@needs_fork
@pytest.mark.parametrize(("number", "moment"), [(signal.SIGKILL, 0.5), (signal.SIGKILL, 0.9), (signal.SIGTERM, 0.7)])
def test_a_killed_process_resumes_to_the_same_files(workplace, undisturbed, number, moment):
    """benchmarks/faults.py does this a hundred times, on the demo."""
    status = 0
    while status == 0:  # the run was faster: try again, earlier
        shutil.rmtree("results", ignore_errors=True)
        process = os.fork()
        if process == 0:
            os.setsid()
            os._exit(workplace.run(*FLAGS, "--num_workers", "1"))
        time.sleep(moment)
        os.killpg(process, number)  # the workers too, as on a cluster
        status, moment = finish(process), 0.8 * moment
    assert workplace.run(*FLAGS, "--resume") == 0
    assert outcome(workplace.folder) == undisturbed


@pytest.mark.parametrize(
    "flags",
    [
        ["use_finetune=False"],
        ["use_finetune=False", "--precision", "float64"],
        ["keep_last_window=True", "KeyEval=Corr", "a_lstm_layers=2", "a_lstm_dropout=0.5"],
        ["--tasks", "MT", "--max_clips_per_pass", "3", "--precision", "bf16"],
    ],
    ids=" ".join,
)
def test_any_kind_of_training_is_resumed(workplace, monkeypatch, flags):
    stop_in_epoch_3(workplace, monkeypatch, *flags)
    assert workplace.run(*flags, "--seeds", "1", "--max_epochs", "4", "--resume") == 0
    resumed = outcome(workplace.folder)
    shutil.rmtree("results")
    assert workplace.run(*flags, "--seeds", "1", "--max_epochs", "4") == 0
    assert outcome(workplace.folder) == resumed


def test_two_stops_in_one_epoch(workplace, undisturbed, monkeypatch):
    flags = []
    for call in (6, 1):  # after the second window, and after the next one
        with monkeypatch.context() as patch:
            at_call(patch, "models.self_mm.SelfMM.forward", call, lambda: os.kill(os.getpid(), signal.SIGTERM))
            assert workplace.run(*FLAGS, *flags) == 143
        flags = ["--resume"]
    assert workplace.run(*FLAGS, "--resume") == 0
    assert outcome(workplace.folder) == undisturbed


def test_resuming_a_finished_run_trains_nothing_and_gives_the_same_table(workplace, undisturbed, monkeypatch, capsys):
    assert workplace.run(*FLAGS) == 0
    table = capsys.readouterr().out.split("test, 2 seeds")[1]
    rows = SEEDS_CSV.read_bytes()
    shutil.rmtree("results/models")  # not needed for the table
    monkeypatch.delattr("trains.self_mm.train_one_epoch")
    assert workplace.run(*FLAGS, "--resume") == 0
    assert capsys.readouterr().out.split("test, 2 seeds")[1] == table
    assert SEEDS_CSV.read_bytes() == rows


def test_resume_without_a_state_trains_from_the_start(workplace, undisturbed):
    assert workplace.run(*FLAGS, "--resume") == 0
    assert outcome(workplace.folder) == undisturbed


def test_a_row_of_another_config_does_not_count_as_finished(workplace):
    assert workplace.run() == 0
    assert workplace.run("--set", "H=2", "--resume") == 0
    assert len(pd.read_csv(SEEDS_CSV)) == 2


def test_a_state_of_another_config_is_refused_and_kept(workplace, monkeypatch, capsys):
    stop_in_epoch_3(workplace, monkeypatch)
    stopped, before = state(), outcome(workplace.folder)
    capsys.readouterr()
    assert workplace.run("--seeds", "1", "--max_epochs", "1", "--set", "H=2", "--resume") == 0
    assert f"nothing to resume with these settings; unfinished: {stopped.name}" in capsys.readouterr().out
    after = outcome(workplace.folder)
    assert {name: after[name] for name in before} == before and after.keys() > before.keys()


def test_an_unfinished_training_is_not_overwritten_nor_another_seed_trained_before_that_is_said(
    workplace, monkeypatch, capsys
):
    assert workplace.run("--seeds", "2", "--max_epochs", "4") == 0
    stop_in_epoch_3(workplace, monkeypatch)
    before = outcome(workplace.folder)
    capsys.readouterr()
    assert workplace.run("--seeds", "2", "1", "--max_epochs", "4") == 2
    assert f"{state(1)}: an unfinished training; add --resume" in capsys.readouterr().err
    assert outcome(workplace.folder) == before


def test_the_state_of_a_former_feature_file_is_not_resumed(workplace, monkeypatch, capsys):
    stop_in_epoch_3(workplace, monkeypatch)
    shutil.rmtree(checkpoint())  # as if killed just before the first was saved
    tiny.write_features(workplace.features, tiny.make_features(seed=5))
    before = outcome(workplace.folder)
    capsys.readouterr()
    assert workplace.run("--seeds", "1", "--max_epochs", "4", "--resume") == 2
    assert "a training with other settings or data (features_sha1" in capsys.readouterr().err
    assert outcome(workplace.folder) == before


@needs_fork
def test_a_bug_ends_a_run_with_workers(workplace):
    code = (
        "import sys, run; from trains import self_mm; self_mm.multitask_loss = None; sys.exit(run.main(sys.argv[1:]))"
    )
    flags = workplace.command("--set", "batch_size=4", "--num_workers", "1")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code, *flags]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 1 and "TypeError" in finished.stderr


def test_a_resumed_run_names_changed_conditions(workplace, monkeypatch, capsys):
    stop_in_epoch_3(workplace, monkeypatch)
    capsys.readouterr()
    assert workplace.run("--seeds", "1", "--max_epochs", "4", "--max_clips_per_pass", "3", "--resume") == 0
    assert "max_clips_per_pass 0, now 3" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["a tensor", "a value", "cut off", "no checkpoint", "another checkpoint"])
def test_an_unusable_state_is_one_clear_line(workplace, monkeypatch, capsys, damage):
    stop_in_epoch_3(workplace, monkeypatch)
    content = state().read_bytes()
    if damage == "a tensor":
        state().write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "a value":
        assert content.count(b'best_epoch\\": 2') == 1
        state().write_bytes(content.replace(b'best_epoch\\": 2', b'best_epoch\\": 1'))
    elif damage == "cut off":
        state().write_bytes(content[:-1000])
    elif damage == "no checkpoint":
        shutil.rmtree(checkpoint())
    else:
        config = json.loads((checkpoint() / "config.json").read_text())
        config["trained_on"]["epoch"] = 1
        (checkpoint() / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert workplace.run("--seeds", "1", "--max_epochs", "4", "--resume") == 2
    error = capsys.readouterr().err
    assert re.match(r"error: .*results/models/self_mm-mosi-regression-1", error) and error.count("\n") == 1
    assert f"remove {state()}" in error or "remove it" in error


def test_a_second_run_of_a_seed_is_refused(workplace, monkeypatch, capsys):
    monkeypatch.setattr(files, "LOCK_TIMEOUT", 1)
    assert workplace.run("--seeds", "1") == 0
    with exclusive_lock(checkpoint()):
        assert workplace.run("--seeds", "1") == 2
    assert "another run is training this seed" in capsys.readouterr().err


def test_a_second_ctrl_c_stops_immediately_and_keeps_the_last_state(workplace, undisturbed, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        at_call(patch, "models.self_mm.SelfMM.forward", 7, twice)
        assert workplace.run(*FLAGS) == 130
    assert workplace.run(*FLAGS, "--resume") == 0
    assert outcome(workplace.folder) == undisturbed


def test_a_signal_before_training_stops_immediately(workplace, monkeypatch, capsys):
    at_call(monkeypatch, "trains.runs.open.open_store", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert workplace.run("--seeds", "1") == 143
    assert not workplace.written()
    assert capsys.readouterr().err.startswith("stopped by SIGTERM; ")


def test_save_every_0_saves_the_state_after_each_epoch(workplace, monkeypatch):
    saved = []
    monkeypatch.setattr("trains.runs.keeper.save_state", lambda path, tensors, values: saved.append(values["epochs"]))
    assert workplace.run("--seeds", "1", "--max_epochs", "5", "--save_every", "0") == 0
    assert saved == [1, 2, 3, 4, 5]


def test_deterministic_changes_nothing_on_a_cpu(workplace, undisturbed):
    import torch

    try:
        assert workplace.run(*FLAGS, "--deterministic") == 0
    finally:
        torch.use_deterministic_algorithms(False)
    weights = str(checkpoint() / "model.safetensors")
    assert outcome(workplace.folder)[weights] == undisturbed[weights]
    assert pd.read_csv(SEEDS_CSV)["deterministic"].tolist() == [True, True]
