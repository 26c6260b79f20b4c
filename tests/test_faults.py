"""Faults during a run: non-finite numbers, full memory, full disks. Each is one line, and saved files stay whole."""

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

LAST_GOOD = "last good checkpoint: epoch 1, in results/models/self_mm-mosi-regression-1-"


def in_window(monkeypatch, epoch: int, number: int, change) -> list[int]:
    """Applies `change` to the weighted losses (B,) of one window. Returns a list that grows by one per window."""
    from trains import self_mm

    original, windows = self_mm.multitask_loss, []

    def changed(outputs, ulgm, batch):
        losses = original(outputs, ulgm, batch)
        windows.append(len(windows) + 1)
        return change(losses) if len(windows) == 3 * (epoch - 1) + number else losses

    monkeypatch.setattr(self_mm, "multitask_loss", changed)
    return windows


def complaint(workplace, capsys, *flags: str) -> str:
    capsys.readouterr()
    assert workplace.run("--max_epochs", "3", *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_non_finite_loss_stops_the_run_in_its_window_and_names_its_clips(workplace, monkeypatch, capsys):
    def broken(losses):
        return torch.where(torch.arange(len(losses)) == 2, float("nan"), losses)

    windows = in_window(monkeypatch, 2, 2, broken)
    error = complaint(workplace, capsys)
    assert re.search(r"epoch 2: .*loss.* video\d\$_\$\d+: try", error)
    assert LAST_GOOD in error and len(windows) == 5


def test_a_non_finite_gradient_stops_the_run_in_its_window_and_names_its_clips(workplace, monkeypatch, capsys):
    def broken(losses):
        losses.register_hook(lambda gradient: gradient * float("inf"))
        return losses

    windows = in_window(monkeypatch, 2, 1, broken)
    error = complaint(workplace, capsys)
    assert re.search(r"epoch 2: .*gradient.* (video\d\$_\$\d+(, |: try)){8}", error)
    assert LAST_GOOD in error and len(windows) == 4


def test_a_class_without_clips_stops_the_run_and_names_the_task(workplace, monkeypatch, capsys):
    original = ULGM._relabel

    def all_positive(self, clips, features, epoch):
        labels = original(self, clips, features, epoch)
        return labels | {"audio": labels["audio"].abs() + 1} if epoch == 3 else labels

    monkeypatch.setattr(ULGM, "_relabel", all_positive)
    error = complaint(workplace, capsys)
    assert re.search(r"epoch 3: .*audio labels.*\d+ positive and 0 negative", error)
    assert "last good checkpoint: epoch" in error


def test_a_gpu_s_check_is_read_one_window_later(monkeypatch):
    """A CPU tensor stands in for the GPU's; its events do nothing."""

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
    with pytest.raises(UserError, match="epoch 1: .*loss.* b: try"):
        check.inspect(2, clips, torch.tensor([1.0, 1.0]), torch.nn.Linear(1, 1))


def test_a_full_gpu_names_a_flag_with_its_value_and_saves_the_state(workplace, monkeypatch, capsys):
    forward, calls = SelfMM.forward, []

    def full(self, batch):
        calls.append(len(batch.clips))
        if len(calls) == 6:  # the second epoch's second window
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(SelfMM, "forward", full)
        error = complaint(workplace, capsys)
    assert "add --max_clips_per_pass 4 (now 8;" in error
    assert "--resume continues after epoch 2, window 1" in error
    assert workplace.run("--max_epochs", "3", "--max_clips_per_pass", "4", "--resume") == 0
    assert "resumes after epoch 2, window 1" in capsys.readouterr().out


def test_a_gpu_that_is_full_during_an_optimizer_step_keeps_the_last_state(workplace, monkeypatch, capsys):
    """Half the weights may have changed, so the state must not be saved."""
    step, calls = torch.optim.Adam.step, []

    def full(self, *arguments):
        calls.append(1)
        if len(calls) == 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", full)
        assert "--resume continues from the last saved state" in complaint(workplace, capsys)
    assert workplace.run("--max_epochs", "3", "--resume") == 0
    resumed = outcome(workplace.folder)
    shutil.rmtree("results")
    assert workplace.run("--max_epochs", "3") == 0
    assert outcome(workplace.folder) == resumed


def test_a_lost_worker_keeps_the_last_state_and_the_run_resumes_to_the_same_files(workplace, monkeypatch, capsys):
    """Its signal may come during a forward pass, after dropout has drawn random numbers."""
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
    assert "--num_workers 0" in error and "--resume continues from the last saved state" in error
    assert workplace.run("--max_epochs", "3", "--resume") == 0
    resumed = outcome(workplace.folder)
    shutil.rmtree("results")
    assert workplace.run("--max_epochs", "3") == 0
    assert outcome(workplace.folder) == resumed


def test_a_damaged_seeds_csv_is_reported_before_training(workplace, capsys):
    csv = Path("results/results/normals/mosi-regression-seeds.csv")
    csv.parent.mkdir(parents=True)
    csv.write_text("rubbish\n1\n")
    assert f"{csv}: " in complaint(workplace, capsys)
    assert not list(Path("results/models").glob("*-training*"))


def test_a_log_that_cannot_be_written_is_one_line_and_the_run_continues(capsys):
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
def test_a_full_disk_leaves_whole_files(tmp_path):
    """In a process with its own 3 MiB disk, filled so that writing fails at several points of a run."""
    script = Path(__file__).with_name("full_disk.py")
    command = ["unshare", "-rm", "sh", "-c", 'mkdir results && mount -t tmpfs -o size=3m tmpfs results && "$0" "$@"']
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(script.parent)])}
    finished = subprocess.run(
        [*command, sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
