"""Writes the files of a run that trains/runs/figures/run_data.py describes, and reads for figures and report."""

import copy
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from data.load_data import EVALUATION_BATCH, Windows
from data.ragged import Split
from models.batch import Batch
from trains.runs.experiment import Experiment
from trains.runs.figures.run_data import CASES, FACTS, disagreement
from trains.self_mm import for_all_clips
from utils.errors import csv_text
from utils.files import exclusive_lock, make_folder, replacing
from utils.metrics import sentiment_class, short_floats
from utils.ranks import ALONE


def record_folder(experiment: Experiment, results: Path) -> Path:
    """Makes an experiment's folder, with run.json. Its name ends with a hash if another experiment has the one in words."""
    provenance = experiment.provenance
    folder = results / f"{provenance.model}-{provenance.dataset}-regression{provenance.suffix}"
    with exclusive_lock(make_folder(folder) / FACTS):
        # A damaged file counts as another experiment's: it stays, and stops nothing.
        if (folder / FACTS).exists() and provenance.config_hash not in (folder / FACTS).read_text(errors="replace"):
            folder = make_folder(folder.with_name(f"{folder.name}-{provenance.config_hash}"))
        facts = asdict(provenance) | {"hyper_parameters": asdict(experiment.config)}
        facts |= {"clips": {name: len(split) for name, split in experiment.store.splits.items()}}
        facts |= {"published": experiment.published, "mean_guess": experiment.mean_guess}
        with replacing(folder / FACTS) as work:
            work.write_text(json.dumps(facts, indent=2), encoding="utf-8")
    return folder


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(path) as work:
        np.savez(work, **arrays)


def with_epoch(arrays: dict, epoch: int, ids: list[str], labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of SEED-labels.npz with a further epoch. arrays: {} before the first. labels: task -> (N,)."""
    constant = {"id": np.array(ids), "fusion": labels["fusion"]}
    added = {"epoch": np.array([epoch])} | {task: labels[task][None] for task in labels if task != "fusion"}
    return constant | {name: np.concatenate([arrays.get(name, part[:0]), part]) for name, part in added.items()}


def predictions(
    experiment: Experiment, model: nn.Module, labels: pd.DataFrame, tested: dict[str, np.ndarray], everything: bool
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The table of SEED-predictions.csv and, if all clips are asked for, the arrays of SEED-features.npz.

    labels: of the best epoch, a column for each task. tested: task -> the test clips' scores (N,).
    """
    tasks, tables, features = list(experiment.config.task_names), [], {}
    cases = disagreement(labels[tasks]).nlargest(CASES).index.sort_values().to_numpy() if len(tasks) > 1 else []
    for name, split in experiment.store.splits.items():
        chosen = np.arange(len(split)) if everything or name == "test" else cases if name == "train" else []
        if not len(chosen):
            continue
        scores = tested
        if everything or name != "test":
            clips = copy.copy(experiment.clips[name])  # with its features on the GPU and texts encoded beforehand
            clips.ranks = ALONE
            windows = [[part] for part in torch.tensor(chosen).split(EVALUATION_BATCH)]
            scores, found = model_outputs(model, Windows(clips, lambda _, plan=windows: plan))
        if everything:
            features |= {f"{name}_id": np.array(split.ids)} | {f"{name}_{task}": part for task, part in found.items()}
        table = score_table(split, scores, experiment.dataset.metrics, chosen)
        table.insert(0, "split", name)
        table.insert(2, "text", [csv_text(split.raw_text[clip]) for clip in chosen] if split.raw_text else "")
        for task in tasks[1:]:
            table[f"{task}_label"] = labels[task].to_numpy()[chosen] if name == "train" else np.nan
            if task in split.labels:
                table[f"{task}_human"] = short_floats(split.labels[task][chosen])
        tables.append(table.assign(id=table["id"].map(csv_text)))
    return pd.concat(tables, ignore_index=True), features


def model_outputs(model: nn.Module, windows: Windows) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Scores (N,) and features (N, D) by task, in file order."""

    def call(batch: Batch) -> dict[str, Tensor]:
        outputs = model(batch)
        return {f"{task}_score": scores for task, scores in outputs.scores.items()} | outputs.features

    found = {name: values.numpy() for name, values in for_all_clips(model, windows, call).items()}
    return {task: found.pop(f"{task}_score") for task in model.tasks}, found


def score_table(split: Split, scores: dict[str, np.ndarray], metrics: str, chosen: np.ndarray) -> pd.DataFrame:
    """One row per chosen clip: id, score, class, unimodal scores and, if the split has labels, the human one."""
    short = {task: short_floats(values) for task, values in scores.items()}
    columns = {"id": [split.ids[clip] for clip in chosen], "score": short["fusion"]}
    columns["class"] = [sentiment_class(score, metrics) for score in short["fusion"]]
    columns |= {f"{task}_score": values for task, values in short.items() if task != "fusion"}
    if "fusion" in split.labels:
        columns["label"] = short_floats(split.labels["fusion"][chosen])
    return pd.DataFrame(columns)
