"""benchmarks.gpu on a CPU: padding changes no result, every choice has its rows, and what fails is a row."""

import contextlib
import io
import os
import subprocess
import sys
import time

import pytest
import torch
from conftest import needs_fork
from test_benchmarks import CPU, SMALL, SMALL_BERT

from benchmarks import gpu, gpu_runs, gpu_windows, variants
from benchmarks.corpora import write
from benchmarks.machine import summarise_trace
from benchmarks.padded_windows import STEPS, Size, choose_sizes, pad_window
from benchmarks.throughput import without_dropout
from benchmarks.variants import Bench, Variant
from models.self_mm import SelfMM
from trains.self_mm import forward_backward

TIMED = ["lstm", "attention", "features", "tf32", "optimizer", "graphs", "deterministic", "compile"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write(SMALL, SMALL_BERT, folder)
    with pytest.MonkeyPatch.context() as small:
        for module, name, value in (
            *((variants, "WINDOWS", 2), (variants, "TURNS", 1), (variants, "PROFILED", 2), (gpu_windows, "SAMPLE", 9)),
            *((gpu_runs, "EPOCHS", 1), (gpu_runs, "SEEDS", 2)),
        ):
            small.setattr(module, name, value)
        small.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # restores what make_deterministic sets
        small.setattr(torch, "compile", lambda function, **settings: function)  # takes minutes
        small.setattr(gpu_runs, "run_python", run_here)
        yield Bench(CPU, SMALL, SMALL_BERT, folder, publish=lambda rows: None, batch_size=4)


def run_here(code: str, argv: list[str], folder) -> subprocess.CompletedProcess:
    """Saves the imports of a new process. Runs seeds one after another whatever --jobs."""
    argv = ["1" if flag == "--jobs" else argument for flag, argument in zip(["", *argv], argv, strict=False)]
    output, errors, status = io.StringIO(), io.StringIO(), 1
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(SelfMM, "forward", SelfMM.forward)  # restores what the code changes
        patch.setattr(sys, "argv", ["run.py", *argv])
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                exec(code, {})
            except SystemExit as end:
                status = end.code
    return subprocess.CompletedProcess(argv, status, output.getvalue(), errors.getvalue())


def sizes_of(bench: Bench, count: int) -> list[Size]:
    return choose_sizes(bench.store.splits["train"], [torch.cat(window) for window in bench.windows], count)


def test_a_padded_window_gives_the_same_scores_losses_and_gradients(bench):
    ours = bench.make(Variant("", "float64"))
    plain = ours.train[bench.windows[0]]
    size = Size(*(part + step for part, step in zip(sizes_of(bench, 1)[0], STEPS, strict=True)))
    padded = pad_window(plain, size)
    assert Size.of(padded) == size and all(a > b for a, b in zip(size, Size.of(plain), strict=True))
    results = []
    with without_dropout(ours.model):
        for window in (plain, padded):
            ours.model.zero_grad()
            scores = ours.model(window.passes[0]).scores
            losses = forward_backward(ours.model, ours.ulgm, window)
            gradients = {name: parameter.grad for name, parameter in ours.model.named_parameters()}
            results.append((scores, losses, gradients))
    torch.testing.assert_close(results[1], results[0], atol=1e-12, rtol=1e-9)


def test_sizes_ascend_and_hold_all_windows(bench):
    sizes = sizes_of(bench, 2)
    assert len(sizes) <= 2 and sizes[-1].holds(sizes[0])
    assert all(sizes[-1].holds(Size.of(bench.make(Variant("")).train[window])) for window in bench.windows)


@pytest.mark.parametrize("choice", TIMED)
def test_a_choice_times_its_variants_and_compares_them_with_the_first(bench, choice):
    bench.rows = []
    gpu.CHOICES[choice](bench)
    assert len(bench.rows) >= 2 and not [row["note"] for row in bench.rows if "failed" in row["note"]]
    assert all(len(row["seconds"]) == variants.TURNS and row["times as fast"] > 0 for row in bench.rows)
    assert bench.rows[0]["times as fast"] == 1 and "today" in bench.rows[0]["variant"]
    # All train alike, but dropout draws other numbers, and generated labels amplify that.
    assert max(row["loss"] for row in bench.rows) < 2 * min(row["loss"] for row in bench.rows)


def test_precision_compares_losses_with_the_cpu(bench):
    bench.rows = []
    gpu_windows.precision(bench)
    differences = [row["largest difference of a window's loss"] for row in bench.rows]
    assert len(differences) == 5 and differences[0] == differences[2] == 0 and 0 < differences[1] < 0.01


def test_seeds_are_timed_one_after_another_and_at_once(bench):
    bench.rows = []
    gpu_runs.seeds(bench)
    assert [row["seconds"][0] > row["training, s"] > 0 for row in bench.rows] == [True, True], bench.rows


def test_a_full_gpu_is_one_line_and_resume_finishes(bench):
    bench.rows = []
    gpu_runs.memory(bench)
    full, resumed = bench.rows
    assert full["status"] == 2 and full["lines on stderr"] == 1 and full["a state is there"], full
    assert full["last line"].startswith("error: the GPU is out of memory")
    assert resumed["status"] == 0 and not resumed["a state is there"], resumed


def test_a_variant_that_fails_is_a_row_and_the_others_are_measured(bench):
    def fail(ours):
        raise RuntimeError("CUDA error: operation not permitted\nCompile with TORCH_USE_CUDA_DSA")

    bench.rows = []
    bench.measure(Variant("plain"), Variant("broken", change=fail), Variant("last"))
    assert [row["note"] for row in bench.rows] == ["", "failed: CUDA error: operation not permitted", ""]
    table = gpu.as_table(bench.rows)
    assert "failed: CUDA error: operation not permitted" in table and "nan" not in table
    assert gpu.fastest("it", [*bench.rows[:2], bench.rows[2] | {"times as fast": 1.25}]).startswith(
        "it: bf16: last, 1.25 times as fast"
    )


@needs_fork
@pytest.mark.parametrize(
    ("end", "told"), [(lambda: os._exit(3), "exit status 3"), (lambda: time.sleep(60), "after 1 s")]
)
def test_a_choice_that_dies_or_hangs_keeps_its_rows(monkeypatch, tmp_path, end, told):
    def choice(bench):
        bench.publish([{"variant": "first"}])
        end()

    class Published:
        def __init__(self, device, shape, bert, folder, publish):
            self.publish = publish

    monkeypatch.setattr(gpu, "Bench", Published)
    monkeypatch.setitem(gpu.CHOICES, "lstm", choice)
    first, rest = gpu.run_isolated("lstm", tmp_path, "fork", limit=1)
    assert first == {"variant": "first"} and rest["note"].startswith("failed: ") and told in rest["note"]


def test_without_a_gpu_there_is_one_line_and_status_2(monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main([]) == 2
    captured = capsys.readouterr()
    assert "no GPU" in captured.err and captured.err.count("\n") == 1 and not captured.out


def test_overlapping_kernels_are_busy_once():
    def event(category, start, duration, name="k"):
        return {"cat": category, "ts": start, "dur": duration, "name": name}

    work = [event("kernel", 0, 10), event("gpu_memcpy", 5, 10), event("kernel", 20, 5)]
    calls = [event("cuda_runtime", 0, 1, "cudaLaunchKernel"), event("cuda_runtime", 1, 1, "cudaStreamSynchronize")]
    result = summarise_trace([*work, *calls, {"name": "a mark", "ts": 0}])
    assert result == {"kernels": 3, "launches": 1, "busy": pytest.approx(20e-6)}
    assert summarise_trace(calls) == {}
