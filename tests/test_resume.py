"""A run that is stopped, killed or broken off anywhere, and resumed, ends as if nothing had happened."""

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
from conftest import Workplace

from benchmarks.faults import finish, outcome
from config.config_regression import REPOSITORY
from utils import files
from utils.files import exclusive_lock

FLAGS = ("--seeds", "1", "2", "--max_epochs", "5")
CHECKPOINT = Path("results/models/self_mm-mosi-regression-1")
STATE = Path("results/models/self_mm-mosi-regression-1-training")
SEEDS_CSV = Path("results/results/normals/mosi-regression-seeds.csv")


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the program handles it."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run leaves that nobody stopped."""
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
    original, calls = pkgutil.resolve_name(name), []

    def counted(*arguments, **settings):
        calls.append(name)
        if len(calls) == number:
            action()
        return original(*arguments, **settings)

    monkeypatch.setattr(name, counted)


# Each of the 2 seeds has 5 epochs; in each, 3 windows and an evaluation go through the model.
@pytest.mark.parametrize("call", [1, 2, 4, 9, 20, 21, 35])
def test_a_signal_saves_all_and_the_resumed_run_ends_the_same(workplace, undisturbed, monkeypatch, capsys, call):
    kind = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1][call % 3]
    with monkeypatch.context() as patch:
        at_call(patch, "models.self_mm.SelfMM.forward", call, lambda: os.kill(os.getpid(), kind))
        assert workplace.run(*FLAGS) == (130 if kind == signal.SIGINT else 143)
    printed = capsys.readouterr()
    assert re.search(
        rf"seed \d  {kind.name}: stopped after (epoch \d, window \d|the end of epoch \d); all of it is saved",
        printed.out,
    )
    assert re.fullmatch(r"stopped by SIG\w+; to continue: python run.py --datasetName mosi .* --resume\n", printed.err)
    assert workplace.run(*FLAGS, "--resume") == 0
    assert re.search(r"seed \d  goes on after", capsys.readouterr().out)
    assert outcome(workplace.folder) == undisturbed


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 7, 16, 30])
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


def stop_in_epoch_3(workplace, monkeypatch, *words: str) -> None:
    """A run of seed 1 that is stopped in its third epoch."""
    with monkeypatch.context() as patch:
        at_call(patch, "models.self_mm.SelfMM.forward", 10, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert workplace.run(*words, "--seeds", "1", "--max_epochs", "5") == 143


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("number", "moment"), [(signal.SIGKILL, 0.5), (signal.SIGKILL, 0.9), (signal.SIGTERM, 0.7)])
def test_a_killed_process_is_resumed(workplace, undisturbed, number, moment):
    """benchmarks/faults.py does this a hundred times, on the demo."""
    status = 0
    while status == 0:  # too late: once more, earlier
        shutil.rmtree("results", ignore_errors=True)
        process = os.fork()
        if process == 0:
            os.setsid()
            os._exit(workplace.run(*FLAGS, "--num_workers", "1"))
        time.sleep(moment)
        os.killpg(process, number)  # as a cluster does: the workers too
        status, moment = finish(process), 0.8 * moment
    assert workplace.run(*FLAGS, "--resume") == 0
    assert outcome(workplace.folder) == undisturbed


@pytest.mark.parametrize(
    "words",
    [
        ["use_finetune=False"],
        ["keep_last_window=True", "KeyEval=Corr", "a_lstm_layers=2", "a_lstm_dropout=0.5"],
        ["--tasks", "MT", "--max_clips_per_pass", "3", "--precision", "bf16"],
    ],
    ids=" ".join,
)
def test_any_kind_of_training_is_resumed(workplace, monkeypatch, words):
    stop_in_epoch_3(workplace, monkeypatch, *words)
    assert workplace.run(*words, "--seeds", "1", "--max_epochs", "5", "--resume") == 0
    resumed = outcome(workplace.folder)
    shutil.rmtree("results")
    assert workplace.run(*words, "--seeds", "1", "--max_epochs", "5") == 0
    assert outcome(workplace.folder) == resumed


def test_two_stops_in_one_epoch(workplace, undisturbed, monkeypatch):
    words = []
    for call in (6, 1):  # after the second window, and after the one that follows
        with monkeypatch.context() as patch:
            at_call(patch, "models.self_mm.SelfMM.forward", call, lambda: os.kill(os.getpid(), signal.SIGTERM))
            assert workplace.run(*FLAGS, *words) == 143
        words = ["--resume"]
    assert workplace.run(*FLAGS, "--resume") == 0
    assert outcome(workplace.folder) == undisturbed


def test_resuming_a_finished_run_trains_nothing_and_gives_the_same_table(workplace, undisturbed, monkeypatch, capsys):
    assert workplace.run(*FLAGS) == 0
    table = capsys.readouterr().out.split("test, 2 seeds")[1]
    rows = SEEDS_CSV.read_bytes()
    shutil.rmtree("results/models")  # not even the checkpoints are needed
    monkeypatch.delattr("trains.self_mm.train_one_epoch")
    assert workplace.run(*FLAGS, "--resume") == 0
    assert capsys.readouterr().out.split("test, 2 seeds")[1] == table
    assert SEEDS_CSV.read_bytes() == rows


def test_resuming_nothing_is_starting(workplace, undisturbed):
    assert workplace.run(*FLAGS, "--resume") == 0
    assert outcome(workplace.folder) == undisturbed


def test_rows_of_another_config_are_told_and_not_mixed(workplace, capsys):
    assert workplace.run() == 0
    assert workplace.run("--set", "H=2", "--resume") == 0
    assert "rows of other settings or data are left alone" in capsys.readouterr().out
    assert len(pd.read_csv(SEEDS_CSV)) == 2


def test_a_state_of_another_config_is_refused_and_kept(workplace, monkeypatch, capsys):
    stop_in_epoch_3(workplace, monkeypatch)
    before = outcome(workplace.folder)
    capsys.readouterr()
    assert workplace.run("--seeds", "1", "--max_epochs", "5", "--set", "H=2", "--resume") == 2
    assert "is a training with other settings or data" in capsys.readouterr().err
    assert outcome(workplace.folder) == before


@pytest.mark.parametrize("words", [[], ["--set", "H=2"]])
def test_a_new_start_over_an_unfinished_training_is_refused(workplace, monkeypatch, capsys, words):
    stop_in_epoch_3(workplace, monkeypatch)
    before = outcome(workplace.folder)
    capsys.readouterr()
    assert workplace.run("--seeds", "1", "--max_epochs", "5", *words) == 2
    assert "an unfinished training is there: add --resume" in capsys.readouterr().err
    assert outcome(workplace.folder) == before


def test_a_row_of_another_commit_is_told(workplace, capsys):
    assert workplace.run() == 0
    table = pd.read_csv(SEEDS_CSV, dtype=str)
    table.assign(commit="deadbeef00").to_csv(SEEDS_CSV, index=False)
    assert workplace.run("--resume") == 0
    assert re.search(r"may not be the same to the bit as today's: commit deadbeef00, now", capsys.readouterr().out)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_bug_ends_a_run_with_workers(workplace):
    code = (
        "import sys, run; from trains import self_mm; self_mm.multitask_loss = None; sys.exit(run.main(sys.argv[1:]))"
    )
    words = workplace.command("--set", "batch_size=4", "--num_workers", "1")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code, *words]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 1 and "TypeError" in finished.stderr


def test_another_way_of_computing_is_told(workplace, monkeypatch, capsys):
    stop_in_epoch_3(workplace, monkeypatch)
    capsys.readouterr()
    assert workplace.run("--seeds", "1", "--max_epochs", "5", "--max_clips_per_pass", "3", "--resume") == 0
    assert "may not be the same to the bit as without the stop: max_clips_per_pass 0, now 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage", ["a byte of state.safetensors", "a digit of state.json", "no state.json", "no checkpoint"]
)
def test_what_cannot_be_resumed_is_one_clear_line(workplace, monkeypatch, capsys, damage):
    stop_in_epoch_3(workplace, monkeypatch)
    file = STATE / damage.split()[-1]
    if damage == "a byte of state.safetensors":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    elif damage == "a digit of state.json":
        state = json.loads(file.read_text())
        file.write_text(json.dumps(state | {"epochs": state["epochs"] + 1}))
    elif damage == "no checkpoint":
        shutil.rmtree(CHECKPOINT)
    else:
        file.unlink()
    capsys.readouterr()
    assert workplace.run("--seeds", "1", "--max_epochs", "5", "--resume") == 2
    error = capsys.readouterr().err
    assert re.match(r"error: .*results/models/self_mm-mosi-regression-1", error) and error.count("\n") == 1


def test_two_runs_of_one_seed_at_once_are_refused(workplace, capsys):
    CHECKPOINT.parent.mkdir(parents=True)
    with exclusive_lock(CHECKPOINT):
        assert workplace.run("--seeds", "1") == 2
    assert "another run is training this seed" in capsys.readouterr().err


def test_a_second_ctrl_c_stops_at_once_and_leaves_the_state_before(workplace, undisturbed, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        at_call(patch, "models.self_mm.SelfMM.forward", 7, twice)
        assert workplace.run(*FLAGS) == 130
    assert workplace.run(*FLAGS, "--resume") == 0
    assert outcome(workplace.folder) == undisturbed


def test_a_signal_before_training_stops_at_once(workplace, monkeypatch, capsys):
    at_call(monkeypatch, "trains.runs.open.open_store", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert workplace.run("--seeds", "1") == 143
    assert not workplace.written()
    assert capsys.readouterr().err.startswith("stopped by SIGTERM; to continue: python run.py")


def test_the_state_is_saved_every_so_often(workplace, monkeypatch):
    """Here at each epoch's end; with the default, only at those of better epochs and of stops."""
    saved = []
    monkeypatch.setattr("trains.runs.keeper.save_state", lambda folder, tensors, values: saved.append(values["epochs"]))
    assert workplace.run("--seeds", "1", "--max_epochs", "5", "--save_every", "0") == 0
    assert saved == [1, 2, 3, 4, 5]


def test_deterministic_computes_the_same_on_a_cpu(workplace, undisturbed):
    import torch

    try:
        assert workplace.run(*FLAGS, "--deterministic") == 0
    finally:
        torch.use_deterministic_algorithms(False)
    weights = "results/models/self_mm-mosi-regression-1/model.safetensors"
    assert outcome(workplace.folder)[weights] == undisturbed[weights]
    assert pd.read_csv(SEEDS_CSV)["deterministic"].tolist() == [True, True]
