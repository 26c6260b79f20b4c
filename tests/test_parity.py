"""Replays recorded runs of the authors' released code and compares labels, centres, losses, metrics and predictions.

The records are in ../shared/parity. PARITY_DIRS names further folders, separated by os.pathsep; METRICS_CASES names a further
file of metrics cases. The tolerances are the changes in the released code's own results when its initial weights are perturbed
by 1e-6.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import fork_ranks
from safetensors.torch import load_file

from config.config_regression import DATASETS, REPOSITORY, Config, make_config
from data.load_data import ClipDataset, Windows, evaluation_windows
from data.store import open_store
from models.pretrained_bert import load_bert
from models.self_mm import SelfMM
from models.ulgm import NEGATIVE, POSITIVE
from trains.runs.released_checkpoint import load_released_weights
from trains.self_mm import evaluate, fit
from trains.training import Training
from utils.metrics import METRICS
from utils.ranks import ALONE, Ranks, join_ranks

SHARED = REPOSITORY.parent / "shared" / "parity"
RECORDS = sorted(path.parent for path in SHARED.glob("*/record.json"))
RECORDS += [Path(folder) for folder in os.environ.get("PARITY_DIRS", "").split(os.pathsep) if folder]
CASES = [path for path in (SHARED / "metrics.json", os.environ.get("METRICS_CASES")) if path and Path(path).exists()]
CPU = torch.device("cpu")

# Released keys without effect here: the text width comes from the encoder, and nothing reads the others.
UNUSED_KEYS = {"text_out", "t_bert_dropout", "need_data_aligned"}


def recorded_windows(record: dict, epoch: int) -> list[list[torch.Tensor]]:
    """Returns an epoch's windows in the recorded order."""
    microbatches = [torch.tensor(batch) for batch in record["epochs"][epoch - 1]["train_batches"]]
    step = record["hyper_parameters"]["update_epochs"]
    return [microbatches[start : start + step] for start in range(0, len(microbatches), step)]


def recorded_config(record: dict) -> Config:
    values = {key: value for key, value in record["hyper_parameters"].items() if key not in UNUSED_KEYS}
    return make_config(record["dataset"], **{"max_epochs": len(record["epochs"]) + record["stopped_early"], **values})


recorded = pytest.mark.skipif(
    not RECORDS, reason="no recorded runs: ../shared/parity is missing and PARITY_DIRS is not set"
)
each_record = pytest.mark.parametrize("folder", RECORDS, ids=lambda folder: folder.name)


@recorded
@pytest.mark.parametrize("max_clips_per_pass", [0, 7], ids=["one pass", "passes of 7"])
@each_record
def test_replay_matches_the_released_run(folder: Path, max_clips_per_pass: int, tmp_path: Path):
    replay(folder, tmp_path, max_clips_per_pass)


@recorded
@pytest.mark.parametrize("ranks", [2, 4])
@each_record
def test_replay_on_every_rank_matches_the_released_run(folder: Path, ranks: int, tmp_path: Path):
    statuses = fork_ranks(ranks, lambda rank: replay(folder, tmp_path / str(rank), ranks=join_ranks()))
    assert statuses == [0] * ranks


def replay(folder: Path, cache: Path, max_clips_per_pass: int = 0, ranks: Ranks = ALONE) -> None:
    """Trains on the recorded windows from the recorded weights. Raises AssertionError at the first mismatch."""
    record = json.loads((folder / "record.json").read_text())
    config = recorded_config(record)
    dataset = DATASETS[record["dataset"]]
    metrics = METRICS[dataset.metrics]
    store = open_store(folder / record["features"], dataset, record["aligned"], None, cache)
    clips = {name: ClipDataset(split, CPU, max_clips_per_pass, ranks) for name, split in store.splits.items()}
    bert = load_bert(str(folder / "bert"))
    model = SelfMM(config, bert.config.to_dict(), store.audio_width, store.vision_width, bert)
    load_released_weights(model, load_file(folder / "initial_weights.safetensors"), folder)
    ulgm_tensors = load_file(folder / "ulgm.safetensors")
    train = Windows(clips["train"], lambda epoch: recorded_windows(record, epoch))
    training = Training(model, train, config)

    best_weights, results = {}, []
    for result in fit(training, train, evaluation_windows(clips["valid"]), config, metrics):
        results.append(result)
        epoch = record["epochs"][result.epoch - 1]
        assert result.train_loss == pytest.approx(epoch["train_loss"], abs=2e-4)
        assert_metrics(result.valid, epoch["valid"])
        for task, state in training.ulgm.tasks.items():
            difference = (state.labels - ulgm_tensors[f"epoch{result.epoch}.labels.{task}"]).abs()
            assert difference.mean() < 1e-4 and difference.max() < 5e-2, (result.epoch, task)
            for sign, name in ((POSITIVE, "pos"), (NEGATIVE, "neg")):
                centre = ulgm_tensors[f"epoch{result.epoch}.centers.{task}.{name}"]
                torch.testing.assert_close(state.centres[sign], centre, atol=1e-3, rtol=0)
        # A truncated record ends after a validation, before the released code saved that epoch's weights.
        was_saved = record["stopped_early"] or result.epoch < len(record["epochs"])
        if result.is_best and was_saved:
            best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    assert len(results) == len(record["epochs"])
    assert results[-1].best_epoch == best_by_margin([epoch["valid"]["Loss"] for epoch in record["epochs"]])
    model.load_state_dict(best_weights)
    test_metrics, scores = evaluate(model, evaluation_windows(clips["test"]), metrics)
    assert_metrics(test_metrics, record["test"])
    predictions = load_file(folder / "test_predictions.safetensors")
    for letter, task in zip("MTAV", ("fusion", "text", "audio", "vision"), strict=True):
        np.testing.assert_allclose(scores[task], predictions[letter].numpy().reshape(-1), atol=1e-3, rtol=0)


def best_by_margin(losses: list[float]) -> int:
    """Returns the best epoch by the released rule: a new best must be lower by at least 1e-6."""
    best, best_epoch = float("inf"), 0
    for epoch, loss in enumerate(losses, start=1):
        if loss <= best - 1e-6:
            best, best_epoch = loss, epoch
    return best_epoch


def assert_metrics(ours: dict[str, float], recorded: dict[str, float]) -> None:
    assert ours.keys() == recorded.keys()
    for name, value in recorded.items():
        tolerance = 2e-4 if name in ("Loss", "MAE", "Corr") else 1e-4
        assert ours[name] == pytest.approx(value, abs=tolerance), name


@pytest.mark.skipif(not CASES, reason="no metrics cases: ../shared/parity is missing and METRICS_CASES is not set")
@pytest.mark.parametrize("path", CASES, ids=lambda path: Path(path).name)
def test_metrics_match_the_released_code(path: Path):
    for case in json.loads(Path(path).read_text()):
        metrics = METRICS[DATASETS[case["dataset"]].metrics]
        values = metrics(np.float32(case["pred"]), np.float32(case["true"]))
        assert values.keys() == case["expected"].keys()
        for name, expected in case["expected"].items():
            assert values[name] == pytest.approx(expected, abs=1e-6), (case["dataset"], name)
