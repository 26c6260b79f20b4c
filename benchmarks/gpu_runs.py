"""The choices of benchmarks.gpu that need whole runs of run.py."""

import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from benchmarks.variants import Bench, Row, failure
from config.config_regression import REPOSITORY
from data.load_data import EVALUATION_BATCH
from trains.runs.keeper import STATE

EPOCHS, SEEDS = 3, 5
TIME_LIMIT = 120  # seconds for a run

# Runs run.py's main after some code.
MAIN = "import sys, run\n{}\nsys.exit(run.main(sys.argv[1:]))"
# From some pass on, a GPU has no memory beyond what is in use; a CPU pretends to be such a GPU.
FILL = """
import torch
from models.self_mm import SelfMM

forward, passes = SelfMM.forward, []

def filling(model, batch):
    passes.append(1)
    if len(passes) == {number}:
        if batch.clips.device.type == "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(batch.clips.device).total_memory
        torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    return forward(model, batch)

SelfMM.forward = filling
"""


def run_python(code: str, argv: list[str], folder: Path) -> subprocess.CompletedProcess:
    """Runs code in a new process in a folder."""
    command = [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n{code}", *argv]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=TIME_LIMIT)


def run_main(bench: Bench, folder: Path, *flags: object, code: str = "") -> tuple[subprocess.CompletedProcess, float]:
    """Runs run.py on a Bench's corpus in a folder, after some code. Returns the process and its seconds."""
    folder.mkdir(exist_ok=True)
    start = time.perf_counter()
    argv = ["--datasetName", bench.shape.dataset, "--dataPath", bench.features, "--bert", bench.folder / "bert"]
    argv += ["--precision", "bf16", "--no_figures", *flags]
    argv += ["--set", "early_stop=99", *(f"{key}={value}" for key, value in bench.settings.items())]
    argv += ["--gpu_ids", -1] if bench.device.type == "cpu" else []
    process = run_python(MAIN.format(code), list(map(str, argv)), folder)
    return process, time.perf_counter() - start


def last_line(process: subprocess.CompletedProcess) -> str:
    """The last line on stderr, which says why a run failed."""
    return (process.stderr.strip().splitlines() or ["nothing on stderr"])[-1]


def seeds(bench: Bench) -> None:
    """Several seeds: the seconds of the processes, and those of the trainings, without start and imports."""
    today: float | None = None
    with tempfile.TemporaryDirectory() as folder:
        for name, jobs in (("one after another (today)", 1), (f"--jobs {SEEDS}", SEEDS)):
            row: Row = {"variant": name, "precision": "bf16"}
            bench.add(row)
            try:
                place, flags = Path(folder) / str(jobs), ["--max_epochs", EPOCHS, "--seeds", *range(1, SEEDS + 1)]
                process, duration = run_main(bench, place, *flags, "--jobs", jobs)
                if process.returncode:
                    raise RuntimeError(last_line(process))
                own = pd.read_csv(next(place.glob("results/results/normals/*-seeds.csv")))["seconds"]
                row |= {
                    "seconds": [duration],
                    "training, s": own.max() if jobs > 1 else own.sum(),
                    "a seed, s": own.mean(),
                }
                today = duration if jobs == 1 else today
                if today:
                    row["times as fast"] = today / duration
            except Exception as error:
                row["note"] = failure(error)


def memory(bench: Bench) -> None:
    """A full GPU ends a run with one line; its state is saved, and --resume finishes it."""
    clips, window = bench.shape.clips, bench.config.batch_size * bench.config.update_epochs
    epoch = math.ceil(clips["train"] / window) + math.ceil(clips["valid"] / EVALUATION_BATCH)  # forward passes
    with tempfile.TemporaryDirectory() as folder:
        for name, code, more in (("full", FILL.format(number=epoch + 2), ()), ("--resume", "", ("--resume",))):
            row: Row = {"variant": name}
            bench.add(row)
            try:
                place = Path(folder) / "run"
                process, _ = run_main(bench, place, "--max_epochs", 2, "--seeds", 1, *more, code=code)
                lines = process.stderr.strip().splitlines()
                row |= {"status": process.returncode, "lines on stderr": len(lines)}
                row["a state is there"] = any(place.rglob(f"*{STATE}"))
                row["last line"] = last_line(process) if process.returncode else process.stdout.strip().splitlines()[-1]
            except Exception as error:
                row["note"] = failure(error)
