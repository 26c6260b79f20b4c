"""What breaks while a run is under way: numbers, memory, disks. Each time one line, and what was there still is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.faults import outcome
from config.config_regression import REPOSITORY
from models.self_mm import SelfMM
from models.ulgm import ULGM
from trains.finite_check import FiniteCheck
from utils.errors import UserError
from utils.log import make_log

CHECKPOINT = Path("results/models/self_mm-mosi-regression-1")
LAST_GOOD = "last good checkpoint: that of epoch 1, in results/models/self_mm-mosi-regression-1"


def in_window(monkeypatch, epoch: int, number: int, change) -> list[int]:
    """Lets `change` have the weighted losses (B,) of one window. Returns a list that counts the windows as they come."""
    from trains import self_mm

    original, windows = self_mm.multitask_loss, []

    def changed(outputs, ulgm, batch):
        losses = original(outputs, ulgm, batch)
        windows.append(len(windows) + 1)
        return change(losses) if len(windows) == 3 * (epoch - 1) + number else losses

    monkeypatch.setattr(self_mm, "multitask_loss", changed)
    return windows


def complaint(workplace, capsys, *words: str) -> str:
    capsys.readouterr()
    assert workplace.run("--max_epochs", "5", *words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_loss_that_is_no_number_stops_in_its_window_with_its_clips(workplace, monkeypatch, capsys):
    def broken(losses):
        return torch.where(torch.arange(len(losses)) == 2, float("nan"), losses)

    windows = in_window(monkeypatch, 2, 2, broken)
    error = complaint(workplace, capsys)
    assert re.search(r"seed 1, epoch 2: the loss is no number any more, at video\d\$_\$\d+: try", error)
    assert LAST_GOOD in error and len(windows) == 5


def test_a_gradient_that_is_no_number_stops_in_its_window_with_its_clips(workplace, monkeypatch, capsys):
    def broken(losses):
        losses.register_hook(lambda gradient: gradient * float("inf"))
        return losses

    windows = in_window(monkeypatch, 2, 1, broken)
    error = complaint(workplace, capsys)
    assert re.search(r"seed 1, epoch 2: the gradient is no number any more, at (video\d\$_\$\d+(, |: try)){8}", error)
    assert LAST_GOOD in error and len(windows) == 4


def test_a_class_that_is_lost_stops_in_its_window_with_the_task(workplace, monkeypatch, capsys):
    original = ULGM._relabel

    def all_positive(self, clips, features, epoch):
        labels = original(self, clips, features, epoch)
        return labels | {"audio": labels["audio"].abs() + 1} if epoch == 3 else labels

    monkeypatch.setattr(ULGM, "_relabel", all_positive)
    error = complaint(workplace, capsys)
    assert re.search(
        r"epoch 3: ULGM: the audio labels were all of one sign \(\d+ positive, 0 negative clips now\)", error
    )
    assert "last good checkpoint: that of epoch" in error


def test_a_gpus_verdict_is_read_one_window_later(monkeypatch):
    """The device's part is played by a tensor of the CPU that says it is a GPU's; its events do nothing."""

    class Elsewhere(torch.Tensor):
        device = torch.device("cuda", 0)

    class Event:
        def record(self):
            pass

        synchronize = record

    monkeypatch.setattr(torch.cuda, "Event", Event)
    ulgm = ULGM(torch.tensor([1.0, -1.0]), {"fusion": 2}, bound=3.0)
    check = FiniteCheck(["a", "b"], ulgm)
    clips = torch.tensor([0, 1]).as_subclass(Elsewhere)
    check.inspect(1, clips, torch.tensor([1.0, float("inf")]), torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match="epoch 1: the loss is no number any more, at b: try"):
        check.inspect(2, clips, torch.tensor([1.0, 1.0]), torch.nn.Linear(1, 1))


def test_a_full_gpu_names_the_flag_and_a_value_and_what_is_saved_goes_on(workplace, monkeypatch, capsys):
    forward, calls = SelfMM.forward, []

    def full(self, batch):
        calls.append(len(batch.clips))
        if len(calls) == 6:  # the second epoch's second window
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(SelfMM, "forward", full)
        error = complaint(workplace, capsys)
    assert "add --max_clips_per_pass 4 (now 8 go through at once" in error
    assert "all is saved that was learned up to epoch 2, window 1: --resume goes on" in error
    assert workplace.run("--max_epochs", "5", "--max_clips_per_pass", "4", "--resume") == 0
    assert "goes on after epoch 2, window 1" in capsys.readouterr().out


def test_memory_that_runs_out_amid_a_step_leaves_the_state_before(workplace, monkeypatch, capsys):
    """Half the weights may have moved then; what is on the disk is not touched."""
    step, calls = torch.optim.Adam.step, []

    def full(self, *arguments):
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", full)
        assert "what was saved last stays: --resume goes on" in complaint(workplace, capsys)
    assert workplace.run("--max_epochs", "5", "--resume") == 0
    resumed = outcome(workplace.folder)
    shutil.rmtree("results")
    assert workplace.run("--max_epochs", "5") == 0
    assert outcome(workplace.folder) == resumed


def test_a_lost_worker_leaves_the_state_before_and_the_resumed_run_ends_the_same(workplace, monkeypatch, capsys):
    """Its signal may come amid a forward pass, after dropout has drawn numbers."""
    forward, calls = SelfMM.forward, []

    def lost(self, batch):
        calls.append(1)
        output = forward(self, batch)
        if len(calls) == 6:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")
        return output

    with monkeypatch.context() as patch:
        patch.setattr(SelfMM, "forward", lost)
        error = complaint(workplace, capsys)
    assert "--num_workers 0 needs less" in error and "what was saved last stays: --resume goes on" in error
    assert workplace.run("--max_epochs", "5", "--resume") == 0
    resumed = outcome(workplace.folder)
    shutil.rmtree("results")
    assert workplace.run("--max_epochs", "5") == 0
    assert outcome(workplace.folder) == resumed


def test_a_damaged_seeds_csv_is_told_before_the_training(workplace, capsys):
    csv = Path("results/results/normals/mosi-regression-seeds.csv")
    csv.parent.mkdir(parents=True)
    csv.write_text("rubbish\n1\n")
    assert "has no column model" in complaint(workplace, capsys)
    assert not list(Path("results/models").glob("*-training"))


def test_a_log_that_cannot_be_written_is_one_line_and_the_run_goes_on(capsys):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    log = make_log(Path("/dev/full"))
    log.info("first")
    log.info("second")
    captured = capsys.readouterr()
    assert captured.out == "first\nsecond\n"
    assert captured.err.count("\n") == 1 and "No space left" in captured.err


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs unshare and the right to mount a small disk")
def test_a_disk_that_fills_leaves_what_was_there_whole(tmp_path):
    """In a process with a disk of 3 MiB of its own, which is filled up to more and more of what a run needs."""
    script = Path(__file__).with_name("full_disk.py")
    command = ["unshare", "-rm", "sh", "-c", 'mkdir results && mount -t tmpfs -o size=3m tmpfs results && "$0" "$@"']
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(script.parent)])}
    finished = subprocess.run(
        [*command, sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
