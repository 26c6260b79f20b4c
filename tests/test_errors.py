"""Errors of other libraries are reported in one line; bugs keep their traceback."""

import errno

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from utils.errors import DivergedError, UserError, first_line, run_program, translate


def too_much_memory() -> None:
    torch.empty(1 << 46)


class Breaking(Dataset):
    """Ends the worker process that reads it."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> int:
        import os

        if torch.utils.data.get_worker_info() is not None:
            os._exit(1)
        return number


def lost_worker() -> None:
    list(DataLoader(Breaking(), num_workers=1))


def full_disk() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def full_disk_in_rust() -> None:
    raise RuntimeError("I/O error: No space left on device (os error 28)")


def missing_package() -> None:
    raise ModuleNotFoundError("No module named 'optuna'", name="optuna")


def full_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def full_gpu_by_cublas() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize(
    ("fail", "fact", "advice"),
    [
        (full_gpu, "the GPU is out of memory", "--max_clips_per_pass"),
        (full_gpu_by_cublas, "the GPU is out of memory", "--gpu_ids"),
        (too_much_memory, "this machine is out of memory", "--num_workers"),
        (lost_worker, "a data worker died", "--num_workers 0"),
        (full_disk, "No space left on device", "make room"),
        (missing_package, "optuna is not installed", "pip install -r requirements.txt"),
        (full_disk_in_rust, "No space left on device", "make room"),
    ],
)
def test_a_library_error_is_one_line_with_advice(fail, fact, advice, capsys):
    assert run_program(fail) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1 and fact in line and advice in line


@pytest.mark.parametrize(
    "bug",
    [
        ValueError("x"),
        FileNotFoundError(errno.ENOENT, "no such file"),
        RuntimeError("x"),
        ValueError("Caught ValueError in DataLoader worker process 0."),
        ModuleNotFoundError("No module named 'utils.nothing'", name="utils.nothing"),
        ModuleNotFoundError("No module named '_sqlite3'", name="_sqlite3"),  # Python was built without it
        ImportError("cannot import name 'nothing'", name="utils"),
    ],
)
def test_a_bug_is_not_translated(bug):
    assert translate(bug) is None


def test_notes_end_the_line():
    error = torch.OutOfMemoryError("CUDA out of memory")
    error.add_note("seed 1: saved")
    assert str(translate(error)) == "the GPU is out of memory; seed 1: saved"
    error = OSError(errno.ENOSPC, "No space left on device")
    error.add_note("seed 1: the last saved state remains")
    assert "make room" in str(translate(error)) and str(translate(error)).endswith(
        "seed 1: the last saved state remains"
    )


def test_our_own_errors_are_unchanged():
    assert str(translate(UserError("--bert x: no such folder"))) == "--bert x: no such folder"
    assert str(translate(DivergedError("epoch 1: non-finite loss"))) == "epoch 1: non-finite loss"


def test_a_long_message_is_cut_behind_its_passwords():
    for padding in range(120, 200):
        assert "secret" not in first_line("x" * padding + " postgresql://user:" + "secret" * 9 + "@host/db failed")
