"""Replays a recorded run of the authors' code, and compares everything that it recorded.

tests/records/README.md describes the format.
"""

import functools
import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from config.config_regression import DATASETS, TASK_LETTERS, Config, make_config
from data.load_data import ClipDataset, Windows, evaluation_windows
from data.store import open_store
from models.pretrained_bert import load_bert
from models.self_mm import SelfMM
from models.ulgm import NEGATIVE, POSITIVE
from models.weights_file import load_released_weights
from trains.self_mm import encode_texts, evaluate, fit, predict
from trains.training import Training
from utils.metrics import METRICS
from utils.ranks import ALONE, Ranks

IN_REPOSITORY = Path(__file__).parent / "records"
NAMED = [Path(folder) for folder in os.environ.get("PARITY_DIRS", "").split(os.pathsep) if folder]
RECORDS = [*sorted(path.parent for path in IN_REPOSITORY.glob("*/record.json")), *NAMED]

# Released keys without effect here: the text width comes from the encoder, and nothing reads the others.
UNUSED_KEYS = {"text_out", "t_bert_dropout", "need_data_aligned"}
RENAMED_KEYS = {"excludeZero": "exclude_zero"}
CPU = torch.device("cpu")


# The largest accepted differences from a record.
TOLERANCES = {
    # What the released code's own results change by when its initial weights are perturbed by 1e-6.
    "float32": {
        "labels": 5e-2, "labels' mean": 1e-4, "centres": 1e-3, "losses": 2e-4, "predictions": 1e-3, "MAE": 2e-4, "Corr": 2e-4,
        "other metrics": 1e-4,
    },
    # Metrics are always computed from float32 numbers. MAE is their sum in the order of the clips, which differs between
    # the codes, so it may round to another fourth digit.
    "float64": {
        "labels": 1e-9, "labels' mean": 1e-9, "centres": 1e-9, "losses": 1e-9, "predictions": 1e-9, "MAE": 1.01e-4, "Corr": 1e-6,
        "other metrics": 1e-6,
    },
}  # fmt: skip


class Comparison:
    """Compares numbers with a record's, and keeps the largest differences."""

    def __init__(self, dtype: str):
        self._accepted = TOLERANCES[dtype]
        self._largest = dict.fromkeys(self._accepted, 0.0)

    def check(self, what: str, ours: object, recorded: object, where: object) -> None:
        """Raises AssertionError if the difference is too large. what: a key of TOLERANCES."""
        ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
        assert ours.shape == recorded.shape, (what, where)
        both_undefined = np.isnan(ours) & np.isnan(recorded)
        difference = np.max(np.where(both_undefined, 0, np.abs(ours - recorded)))
        assert difference <= self._accepted[what], f"{what}, {where}: {difference}"  # not if it is NaN
        self._largest[what] = max(self._largest[what], float(difference))

    def check_scores(self, ours: dict[str, float], recorded: dict[str, float], where: object) -> None:
        assert ours.keys() == recorded.keys()
        for name, value in recorded.items():
            what = "losses" if name == "Loss" else name if name in self._accepted else "other metrics"
            self.check(what, ours[name], value, (where, name))

    def __str__(self) -> str:
        return ", ".join(f"{what} {difference:.0e}" for what, difference in self._largest.items())


@functools.cache
def read_record(folder: Path) -> dict:
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))


def precision(folder: Path) -> str:
    return read_record(folder).get("dtype", "float32")


def recorded_windows(record: dict, epoch: int) -> list[list[Tensor]]:
    """Returns an epoch's windows in the recorded order."""
    assert epoch <= len(record["epochs"]), f"epoch {epoch}: the recorded run had ended"
    microbatches = [torch.tensor(batch) for batch in record["epochs"][epoch - 1]["train_batches"]]
    step = record["hyper_parameters"]["update_epochs"]
    return [microbatches[start : start + step] for start in range(0, len(microbatches), step)]


def recorded_best_epochs(record: dict) -> list[int]:
    """Returns the epochs in which a new best model was saved: by a validation loss that is lower by at least 1e-6."""
    if "saved_epochs" in record:
        return record["saved_epochs"]
    best, saved = float("inf"), []
    for number, epoch in enumerate(record["epochs"], start=1):
        if epoch["valid"]["Loss"] <= best - 1e-6:
            best = epoch["valid"]["Loss"]
            saved.append(number)
    return saved if record["stopped_early"] else [number for number in saved if number < len(record["epochs"])]


def recorded_config(record: dict) -> Config:
    values = {
        RENAMED_KEYS.get(key, key): value for key, value in record["hyper_parameters"].items() if key not in UNUSED_KEYS
    }
    values["max_epochs"] = len(record["epochs"]) + record["stopped_early"]  # a record may also be cut off
    values |= {"tasks": record.get("tasks", "MTAV"), "precision": record.get("dtype", "float32")}
    preset = "mmsa" if record.get("code") == "mmsa" else None
    return make_config(record["dataset"], preset, **values)


def replay(folder: Path, cache: Path, max_clips_per_pass: int = 0, ranks: Ranks = ALONE) -> Comparison:
    """Trains on the recorded windows from the recorded weights. Raises AssertionError at the first mismatch."""
    record, comparison = read_record(folder), Comparison(precision(folder))
    config, dataset = recorded_config(record), DATASETS[record["dataset"]]
    metrics = functools.partial(METRICS[dataset.metrics], round_all=config.round_scores)
    store = open_store(folder / record["features"], dataset, record["aligned"], None, cache)
    clips = {name: ClipDataset(split, CPU, max_clips_per_pass, ranks) for name, split in store.splits.items()}
    train = Windows(clips["train"], lambda epoch: recorded_windows(record, epoch))
    valid, test = evaluation_windows(clips["valid"]), evaluation_windows(clips["test"])
    bert = load_bert(str(folder / "bert"))
    model = SelfMM(config, bert.config.to_dict(), store.audio_width, store.vision_width, bert)
    load_released_weights(model, load_file(folder / "initial_weights.safetensors"), folder)
    if not config.use_finetune:
        for split in clips.values():
            encode_texts(model, evaluation_windows(split))
    training = Training(model, train, config)
    labels_and_centres = load_file(folder / "ulgm.safetensors")

    best_epochs, best_weights = [], {}
    for result in fit(training, train, valid, config, metrics):
        epoch, where = record["epochs"][result.epoch - 1], f"epoch {result.epoch}"
        comparison.check("losses", result.train_loss, epoch["train_loss"], where)
        comparison.check_scores(result.valid, epoch["valid"], where)
        if "valid_loss" in epoch:  # before any rounding
            scores = predict(model, valid)["fusion"]
            comparison.check("losses", np.mean(np.abs(scores - valid.labels)), epoch["valid_loss"], where)
        for task, state in training.ulgm.tasks.items():
            labels = labels_and_centres[f"epoch{result.epoch}.labels.{task}"]
            comparison.check("labels", state.labels, labels, (where, task))
            comparison.check("labels' mean", (state.labels - labels).abs().mean(), 0, (where, task))
            for sign, name in ((POSITIVE, "pos"), (NEGATIVE, "neg")):
                centre = labels_and_centres[f"epoch{result.epoch}.centers.{task}.{name}"]
                comparison.check("centres", state.centres[sign], centre, (where, task))
        # A record that was cut off ends after a validation, before that epoch's weights were saved.
        was_saved = record["stopped_early"] or result.epoch < len(record["epochs"])
        if training.at_best and was_saved:
            best_epochs.append(result.epoch)
            best_weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    assert training.epochs == len(record["epochs"])
    assert (training.epochs - training.best_epoch >= config.early_stop) == record["stopped_early"]
    assert best_epochs == recorded_best_epochs(record)
    model.load_state_dict(best_weights)
    test_metrics, scores = evaluate(model, test, metrics)
    comparison.check_scores(test_metrics, record["test"], "test")
    if "test_loss" in record:
        comparison.check("losses", np.mean(np.abs(scores["fusion"] - test.labels)), record["test_loss"], "test")
    predictions = load_file(folder / "test_predictions.safetensors")
    for letter in config.tasks:
        task = TASK_LETTERS[letter]
        comparison.check("predictions", scores[task], predictions[letter].reshape(-1), ("test", task))
    return comparison
