"""Training on a GPU gives the CPU's results, is deterministic on request, and does not synchronise in each window."""

import os
import subprocess
import sys
from functools import partial

import pytest
import tiny
import torch
from test_benchmarks import SMALL, SMALL_BERT
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.corpora import write
from benchmarks.faults import outcome
from benchmarks.gpu_windows import use_graphs
from benchmarks.machine import host_waits
from benchmarks.padded_windows import choose_sizes
from benchmarks.throughput import without_dropout
from benchmarks.variants import Bench, Variant
from config.config_regression import DATASETS, REPOSITORY, make_config
from data.load_data import ClipDataset, Windows, evaluation_windows, training_windows
from data.store import open_store
from models.self_mm import SelfMM
from trains.self_mm import fit, train_one_epoch
from trains.training import Training
from utils.metrics import METRICS

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DROPOUTS = {f"post_{name}_dropout": 0.0 for name in ("fusion", "audio", "video")}
CONFIG = make_config("mosi", batch_size=4, update_epochs=2, max_epochs=4, **DROPOUTS)


@pytest.fixture
def store(tmp_path):
    return open_store(tiny.write_features(tmp_path / "f.pkl"), DATASETS["mosi"], False, None, None)


def make_model(store, config, device):
    torch.manual_seed(1)
    bert = tiny.make_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return SelfMM(config, bert.config.to_dict(), store.audio_width, store.vision_width, bert).to(device)


@needs_gpu
@pytest.mark.parametrize(
    ("precision", "epochs", "tolerance"),
    # From epoch 3 the loss includes generated labels, which amplify bfloat16's rounding too much to compare.
    [("float32", 4, 2e-3), ("bf16", 2, 5e-3), ("float64", 4, 1e-9)],
)
@pytest.mark.parametrize("features", ["on the GPU", "on the CPU", "from a worker"])
def test_training_on_a_gpu_gives_the_cpu_results(store, monkeypatch, precision, epochs, tolerance, features):
    config = make_config("mosi", batch_size=4, update_epochs=2, max_epochs=epochs, precision=precision, **DROPOUTS)
    if features != "on the GPU":
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (0, 0))
    num_workers = 1 if features == "from a worker" else 0
    results, centres = [], []  # on the CPU, on the GPU
    for device in (CPU, torch.device("cuda", 0)):
        clips = {name: ClipDataset(split, device) for name, split in store.splits.items()}
        model = make_model(store, config, device)
        train = training_windows(clips["train"], config, seed=1, num_workers=num_workers)
        training = Training(model, train, config)
        *_, last = fit(training, train, evaluation_windows(clips["valid"]), config, METRICS["mosi"])
        results.append(last)
        centres.append({task: state.centres.cpu() for task, state in training.ulgm.tasks.items()})
    on_cpu, on_gpu = results
    assert on_gpu.train_loss == pytest.approx(on_cpu.train_loss, abs=tolerance)
    assert on_gpu.valid["Loss"] == pytest.approx(on_cpu.valid["Loss"], abs=tolerance)
    torch.testing.assert_close(centres[1], centres[0], atol=10 * tolerance, rtol=0)


def train_windows(store, device, count: int) -> None:
    """Trains epoch 2, the first with relabelling, on a number of equal windows."""
    clips = ClipDataset(store.splits["train"], device)
    order = [[torch.tensor([1, 5, 3, 0]), torch.tensor([4, 2, 7, 6])]] * count
    windows = Windows(clips, lambda epoch: order)
    training = Training(make_model(store, CONFIG, device), windows, CONFIG)
    training.epochs = 1
    train_one_epoch(training, windows, CONFIG)


class SynchronisationCounter(TorchDispatchMode):
    """Counts the calls that would synchronise with a GPU: those whose result's value or size depends on data."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "unique_dim")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        by_mask = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            part is not None and part.dtype == torch.bool for part in args[1]
        )
        self.count += name in self.NAMES or by_mask
        return function(*args, **(kwargs or {}))


def test_windows_do_not_synchronise(store):
    counts = []
    for windows in (1, 3):
        with SynchronisationCounter() as counter:
            train_windows(store, CPU, windows)
        counts.append(counter.count)
    assert counts[0] == counts[1] > 0  # at the end of the epoch


@needs_gpu
def test_windows_do_not_synchronise_with_the_gpu(store):
    device = torch.device("cuda", 0)
    train_windows(store, device, 1)  # warm-up: first allocations synchronise
    counts = [host_waits(partial(train_windows, store, device, windows), device) for windows in (1, 3)]
    assert counts[0] == counts[1]


@needs_gpu
@pytest.mark.parametrize("parts", [{}, {"step": True}, {"step": True, "labels": True}])
def test_cuda_graphs_of_padded_windows_train_as_the_program_does(tmp_path, parts):
    """In float64, because Adam makes steps of full size from gradients that are rounding errors."""
    write(SMALL, SMALL_BERT, tmp_path)
    bench = Bench(torch.device("cuda", 0), SMALL, SMALL_BERT, tmp_path, publish=lambda rows: None, batch_size=4)
    outcomes = []
    for with_graphs in (False, True):
        ours = bench.make(Variant("", "float64"))
        if with_graphs:
            clips = [torch.cat(window) for window in bench.windows]
            graphs = use_graphs(ours, choose_sizes(bench.store.splits["train"], clips, 2), **parts)
        with without_dropout(ours.model):
            losses = [ours.run([window]) for window in bench.windows]
        outcomes.append((losses, {name: value.cpu() for name, value in ours.model.state_dict().items()}, ours.labels()))
    assert 1 <= len(graphs.captured) <= 2
    torch.testing.assert_close(outcomes[1], outcomes[0], atol=1e-8, rtol=0)


RUN = "import sys, run\n{}\nsys.exit(run.main(sys.argv[1:]))"
STOP_IN_PASS_10 = """
import os, signal
from models.self_mm import SelfMM

forward, calls = SelfMM.forward, []

def stopping(*arguments):
    calls.append(1)
    if len(calls) == 10:
        os.kill(os.getpid(), signal.SIGTERM)
    return forward(*arguments)

SelfMM.forward = stopping
"""


@needs_gpu
def test_deterministic_runs_are_bit_identical_even_if_stopped_and_resumed(workplace):
    """Each run is a new process, because the settings for determinism must precede the first use of the GPU."""
    flags = ["--set", "batch_size=4", "update_epochs=2", "--max_epochs", "5", "--deterministic", "--resume"]
    argv = workplace.command("--gpu_ids", "0", *flags)
    outcomes = []
    # Folder -> its processes: code to run first, expected exit status.
    for name, processes in {"one": [("", 0)], "two": [("", 0)], "stopped": [(STOP_IN_PASS_10, 143), ("", 0)]}.items():
        folder = workplace.folder / name
        folder.mkdir()
        for patch, status in processes:
            command = [sys.executable, "-c", RUN.format(patch), *argv]
            process = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
            assert process.returncode == status
        outcomes.append(outcome(folder))
    assert outcomes[0] == outcomes[1] == outcomes[2]
