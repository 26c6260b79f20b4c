"""Small helpers: the error that users see, seeds, devices, versions, the log."""

import argparse
import ctypes
import importlib.metadata
import logging
import os
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's numbers of its settings


class UserError(Exception):
    """Something the user can mend. Its text is one line: what, where, and how to mend it."""

    def __init__(self, message: str):
        super().__init__(_printable(" ".join(message.split("\n"))))


class DivergedError(UserError):
    """A training came to a loss, a gradient or labels that can't be learned from: its hyper-parameters are unfit."""


def brief(said: object) -> str:
    """The first line of what an error or a file says, fit to be quoted in a message."""
    return _printable(str(said).strip().split("\n")[0][:200])


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


class Parser(argparse.ArgumentParser):
    """Flags, spelt out; a wrong one is one line, as every mistake is, and not a page of usage."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the flags")


def set_seed(seed: int) -> None:
    """Seeds every random stream that training draws from."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # all GPUs too


def random_streams(device) -> tuple[dict, dict]:
    """Where every random stream stands that training may draw from: tensors, and plain values."""
    import numpy as np
    import torch

    streams = {"torch": torch.get_rng_state()}
    if device.type == "cuda":
        streams["cuda"] = torch.cuda.get_rng_state(device)
    kind, key, *rest = np.random.get_state()
    return streams, {"python": random.getstate(), "numpy": [kind, key.tolist(), *rest]}


def set_random_streams(streams: dict, values: dict, device) -> None:
    """Takes over what `random_streams` gave."""
    import numpy as np
    import torch

    version, key, gauss = values["python"]
    random.setstate((version, tuple(key), gauss))
    np.random.set_state(tuple(values["numpy"]))
    torch.set_rng_state(streams["torch"])
    if device.type == "cuda" and "cuda" in streams:
        torch.cuda.set_rng_state(streams["cuda"], device)


def known_gpus(gpu_ids: list[int] | None) -> list[int]:
    """The GPUs that --gpu_ids names; where it names none, all; [] where it names the CPU, or there is none.

    Raises UserError for a GPU that isn't there.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for gpu in gpu_ids or []:
        if not -1 <= gpu < count:
            there = f"0 to {count - 1}" if count else "none: leave the flag out to run on the CPU"
            raise UserError(f"--gpu_ids {gpu}: no such GPU; PyTorch sees {there}")
    return [gpu for gpu in (range(count) if gpu_ids is None else gpu_ids) if gpu != -1]


def pick_device(gpu_ids: list[int] | None):
    """The torch.device to run on: of the GPUs that --gpu_ids names, the one with most free memory; where there is none, the CPU.

    Raises UserError for a GPU that isn't there.
    """
    import torch

    gpus = known_gpus(gpu_ids)
    if not gpus:
        return torch.device("cpu")
    # Asking for its free memory starts a GPU up, so the only one isn't asked.
    gpu = gpus[0] if len(gpus) == 1 else max(gpus, key=lambda gpu: torch.cuda.mem_get_info(gpu)[0])
    torch.cuda.set_device(gpu)  # what names no GPU, such as pinning memory, then doesn't wake another one
    # In bfloat16 PyTorch would choose cuDNN's attention, which plans anew for every length of sentence: on an H200 a window
    # took 0.7 s of planning for 0.05 s of work.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.set_float32_matmul_precision("high")  # TF32: float32 products with 10 bits of mantissa, sums in float32
    return torch.device("cuda", gpu)


def make_deterministic() -> None:
    """Makes a GPU compute the same to the bit each time. Must be called before it is first used."""
    import torch

    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # NVIDIA's condition for its libraries to repeat themselves
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # all memory is written before it is read


def keep_freed_memory() -> None:
    """Lets the C library keep what a training step frees, for the next step.

    glibc returns blocks of 32 MB and more to the system at once, as BERT's larger activations are, and each of their pages
    must be got anew in the next step.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        if libc.mallopt(M_MMAP_THRESHOLD, 1 << 28):  # refused by old versions, which keep their own rule then
            libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def versions() -> str:
    """Versions of Python and of the packages that the numbers depend on, as one line."""
    packages = ("torch", "transformers", "numpy")
    found = [f"python {sys.version.split()[0]}"]
    return " ".join(found + [f"{name} {importlib.metadata.version(name)}" for name in packages])


def commit() -> str:
    """The commit of this repository, with '+' where files differ from it; '' outside a git checkout."""

    def git(*words: str) -> str:
        here = Path(__file__).resolve().parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def make_folder(path: Path) -> Path:
    """Makes a folder that results go to. Raises UserError where that can't be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise UserError(f"{path}: can't write results there ({error.strerror}); name another folder") from None


def check_output(path: Path, *inputs: Path) -> None:
    """Raises UserError for a file that can't be written, or that is one of those to be read."""
    if not path.name or path.is_dir():
        raise UserError(f"{path}: is a folder; name the file to write")
    if path.resolve() in [source.resolve() for source in inputs]:
        raise UserError(f"{path}: is to be read; name another file to write")
    make_folder(path.resolve().parent)


class _LogFile(logging.FileHandler):
    """A log file that gives up, with one line, where the disk is full: the run itself may go on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        error = sys.exc_info()[1]
        self.setLevel(sys.maxsize)  # takes no further record
        self.stream = None  # nor flushes this one at the end
        print(f"{self.baseFilename}: can't be written any more ({error}); the run goes on without it", file=sys.stderr)


def make_log(path: Path) -> logging.Logger:
    """A log that writes to the screen and appends to a file."""
    log = logging.getLogger("self_mm")
    log.setLevel(logging.INFO)
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.propagate = False
    to_file = _LogFile(path, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    to_screen = logging.StreamHandler(sys.stdout)
    to_screen.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(to_file)
    log.addHandler(to_screen)
    return log
