"""A GPU arrives where the CPU does, and need not wait for the program. Most of it is skipped where there is no GPU."""

import os
import subprocess
import sys
import warnings

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.faults import outcome
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
    # From epoch 3 on the loss has generated labels in it, which magnify the rounding of bfloat16 beyond any use.
    [("float32", 4, 2e-3), ("bf16", 2, 5e-3)],
)
@pytest.mark.parametrize("features", ["on the GPU", "on the CPU", "from a worker"])
def test_training_on_a_gpu_equals_training_on_the_cpu(store, monkeypatch, precision, epochs, tolerance, features):
    config = make_config("mosi", batch_size=4, update_epochs=2, max_epochs=epochs, precision=precision, **DROPOUTS)
    if features != "on the GPU":
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (0, 0))
    num_workers = 1 if features == "from a worker" else 0
    results, centres = [], []
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
    """An epoch of so many windows, after one whose waits for memory and kernels don't count."""
    clips = ClipDataset(store.splits["train"], device)
    order = [[torch.tensor([1, 5, 3, 0]), torch.tensor([4, 2, 7, 6])]] * count
    windows = Windows(clips, lambda epoch: order)
    training = Training(make_model(store, CONFIG, device), windows, CONFIG)
    training.epochs = 1
    train_one_epoch(training, windows, CONFIG)


class Waits(TorchDispatchMode):
    """Counts the calls for which a program must wait for a GPU: those whose result's value or size depends on data."""

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


def test_no_window_waits_for_the_device(store):
    waits = []
    for windows in (1, 3):
        with Waits() as counter:
            train_windows(store, CPU, windows)
        waits.append(counter.count)
    assert waits[0] == waits[1] > 0  # those at the epoch's end


@needs_gpu
def test_no_window_waits_for_the_gpu(store):
    device = torch.device("cuda", 0)
    train_windows(store, device, 1)
    waits = []
    for windows in (1, 3):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                train_windows(store, device, windows)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits.append(sum("called a synchronizing" in str(warning.message) for warning in caught))
    assert waits[0] == waits[1]


RUN = "import sys, run\n{}\nsys.exit(run.main(sys.argv[1:]))"
STOPPED = """
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
def test_deterministic_runs_are_equal_to_the_bit_stopped_or_not(workplace, gpu_ids="0"):
    """Each in a process of its own: what makes a GPU repeat itself must be said before it is first used."""
    flags = ["--set", "batch_size=4", "update_epochs=2", "--max_epochs", "5", "--deterministic", "--resume"]
    words = workplace.command("--gpu_ids", gpu_ids, *flags)
    outcomes = []
    for name, parts in {"one": [("", 0)], "two": [("", 0)], "stopped": [(STOPPED, 143), ("", 0)]}.items():
        folder = workplace.folder / name
        folder.mkdir()
        for patch, status in parts:
            command = [sys.executable, "-c", RUN.format(patch), *words]
            finished = subprocess.run(command, cwd=folder, env=os.environ | {"PYTHONPATH": str(REPOSITORY)})
            assert finished.returncode == status
        outcomes.append(outcome(folder))
    assert outcomes[0] == outcomes[1] == outcomes[2]
