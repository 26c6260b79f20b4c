"""What other libraries raise, each told in one line; a bug is none of it."""

import errno

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from utils.errors import DivergedError, UserError, run_program, translate


def too_much_memory() -> None:
    torch.empty(1 << 46)


class Breaking(Dataset):
    """In a worker process it ends that process."""

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


def full_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def full_gpu_by_cublas() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


@pytest.mark.parametrize(
    ("fail", "fact", "advice"),
    [
        (full_gpu, "the GPU's memory is full", "--max_clips_per_pass"),
        (full_gpu_by_cublas, "the GPU's memory is full", "--gpu_ids"),
        (too_much_memory, "the machine's memory is full", "--num_workers"),
        (lost_worker, "a worker process is gone", "--num_workers 0"),
        (full_disk, "No space left on device", "make room"),
        (full_disk_in_rust, "No space left on device", "make room"),
    ],
)
def test_a_library_s_error_is_one_line_with_what_to_do(fail, fact, advice, capsys):
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
    ],
)
def test_a_bug_is_not_translated(bug):
    assert translate(bug) is None


def test_notes_end_the_line():
    error = torch.OutOfMemoryError("CUDA out of memory")
    error.add_note("seed 1: all is saved")
    assert str(translate(error)) == "the GPU's memory is full; seed 1: all is saved"
    error = OSError(errno.ENOSPC, "No space left on device")
    error.add_note("seed 1: what was saved last stays")
    assert "make room" in str(translate(error)) and str(translate(error)).endswith("seed 1: what was saved last stays")


def test_what_the_program_says_itself_stays():
    assert str(translate(UserError("--bert x: no such folder"))) == "--bert x: no such folder"
    assert str(translate(DivergedError("epoch 1: no number"))) == "epoch 1: no number"
