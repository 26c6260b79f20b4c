"""Measures, in one call, what a GPU alone can decide about this program.

    python -m benchmarks.gpu                                      # all choices, in some minutes
    python -m benchmarks.gpu --choices lstm graphs --json FILE

Each choice has a table with a row per variant, the program's own way first. A window has MOSI's sizes, its BERT is BERT-base with
random weights. The columns: seconds for a window, median of turns; times as fast as today's way; kernels that run in a window,
and launches, the host's calls that start them (a CUDA graph's kernels need one); busy, the share of a window's time in which one
or more kernels run; host waits, how often a window makes the host wait for the GPU; GiB, all that the variant takes: weights,
optimizer, activations, graphs; loss, the mean of the first windows', which no variant should change much.

Each choice runs in its own process, so that one that fails or hangs takes nothing else along: its row says why.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch
from transformers import BertConfig

from benchmarks import gpu_runs, gpu_windows
from benchmarks.corpora import SHAPES, write
from benchmarks.machine import describe
from benchmarks.tables import markdown
from benchmarks.variants import Bench, Row, failure
from utils.device import pick_device
from utils.errors import Parser, UserError, run_program

CHOICES: dict[str, Callable[[Bench], None]] = {
    "graphs": gpu_windows.graphs,
    "lstm": gpu_windows.lstm,
    "attention": gpu_windows.attention,
    "features": gpu_windows.features,
    "tf32": gpu_windows.tf32,
    "optimizer": gpu_windows.optimizer,
    "precision": gpu_windows.precision,
    "deterministic": gpu_windows.deterministic,
    "memory": gpu_runs.memory,
    "seeds": gpu_runs.seeds,
    "compile": gpu_windows.compiled,
}
TIME_LIMIT = 150  # seconds for a choice


def run_choice(name: str, folder: Path, sender: Connection) -> None:
    """Sends the rows whenever there is more to tell. For a process of its own."""
    os.setsid()  # so that all its processes can be ended together
    rows: list[Row] = []

    def publish(so_far: list[Row]) -> None:
        rows[:] = so_far
        sender.send(rows)

    try:
        bench = Bench(pick_device(None), SHAPES["mosi"], BertConfig(), folder, publish)
        CHOICES[name](bench)
        publish(bench.rows)
    except Exception as error:
        publish([*rows, {"variant": "all", "note": failure(error)}])


def start_method() -> str:
    """How processes start: from one that has imported everything, unless an import there has used the GPU; else afresh."""
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # with it, a library that only looks for GPUs uses none
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([gpu_runs.__name__, gpu_windows.__name__])
    trial = context.Process(target=torch.cuda.init)
    trial.start()
    trial.join()
    return "spawn" if trial.exitcode else "forkserver"


def run_isolated(name: str, folder: Path, method: str, limit: float) -> list[Row]:
    """Runs a choice in another process, for at most `limit` seconds. Returns its rows. folder: see Bench."""
    context = multiprocessing.get_context(method)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run_choice, args=(name, folder, sender))
    process.start()
    sender.close()
    rows: list[Row] = []
    end = time.monotonic() + limit
    problem = f"not finished after {limit:.0f} s"
    try:
        while receiver.poll(max(0.0, end - time.monotonic())):
            rows = receiver.recv()
    except EOFError:  # it has ended
        process.join()
        problem = f"exit status {process.exitcode}" if process.exitcode else ""
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    return [*rows, {"variant": "the rest", "note": f"failed: {problem}"}] if problem else rows


def as_table(rows: list[Row]) -> str:
    """A column for each key of the rows, notes last."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "note")) + ["note"]
    return markdown(columns, [[cell(row.get(column, "")) for column in columns] for row in rows])


def cell(value: object) -> str:
    if isinstance(value, list):
        value = median(value) if value else ""
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


def fastest(name: str, rows: list[Row]) -> str:
    """The fastest variant for each precision, and how much faster than today's way it is."""
    found = []
    for precision in dict.fromkeys(row.get("precision") for row in rows):
        timed = [row for row in rows if row.get("precision") == precision and "times as fast" in row]
        if timed:
            best = max(timed, key=lambda row: row["times as fast"])
            found.append(f"{precision}: {best['variant']}, {best['times as fast']:.2f} times as fast as today")
    return f"{name}: {'; '.join(found) or 'see its table'}"


def measure(names: list[str], json_file: Path | None) -> None:
    """Measures these choices. Raises UserError if there is no GPU."""
    if not torch.cuda.is_available():
        raise UserError("benchmarks.gpu: PyTorch sees no GPU; benchmarks.throughput measures a CPU, too")
    machine = describe(torch.device("cuda"))
    print(", ".join(f"{key} {value}" for key, value in machine.items() if value), flush=True)
    method, choices = start_method(), {}
    with tempfile.TemporaryDirectory() as folder:
        write(SHAPES["mosi"], BertConfig(), Path(folder))
        for name in names:
            start = time.perf_counter()
            choices[name] = run_isolated(name, Path(folder), method, TIME_LIMIT)
            print(f"\n{name}, measured in {time.perf_counter() - start:.0f} s\n\n{as_table(choices[name])}", flush=True)
            if json_file:
                json_file.write_text(json.dumps({"machine": machine, "choices": choices}, indent=1, default=float))
    print("\nfastest: " + " | ".join(fastest(name, rows) for name, rows in choices.items()))


def main(argv: list[str] | None = None) -> int:
    parser = Parser(prog="python -m benchmarks.gpu", description=__doc__.split("\n")[0])
    parser.add_argument("--choices", nargs="+", choices=list(CHOICES), default=list(CHOICES), help="default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to this file")

    def work() -> None:
        args: argparse.Namespace = parser.parse_args(argv)
        measure(args.choices, args.json)

    return run_program(work)


if __name__ == "__main__":
    sys.exit(main())
