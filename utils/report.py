"""The table that closes a run: ours, beside what was published and what guessing the mean label would score."""

import numpy as np
import pandas as pd

from utils.published import published_scores


def closing_report(experiment, tests: list[tuple[dict[str, float], dict[str, np.ndarray]]], title: str) -> str:
    """tests: for each seed, the fusion score's metrics on the test split, and task -> scores (N,)."""
    test, train = experiment.store.splits["test"], experiment.store.splits["train"]
    guess = np.full(len(test), train.labels["fusion"].mean(), dtype=np.float32)
    beside = {"guessing the mean": _as_printed(experiment.metrics(guess, test.labels["fusion"]))}
    beside |= published_scores(experiment.dataset.name, experiment.config.tasks)
    ours = [_as_printed(metrics) for metrics, _ in tests]
    rows = [_row(metric, [scores[metric] for scores in ours], beside) for metric in ours[0]]
    tables = [title, pd.DataFrame(rows).to_string(index=False)]

    unimodal = [task for task in experiment.config.task_names if task != "fusion" and task in test.labels]
    rows = []
    for task in unimodal:
        truth = test.labels[task]
        alone = [experiment.metrics(scores[task], truth) for _, scores in tests]
        mean_error = {"guessing the mean": {"MAE": float(np.abs(truth - train.labels[task].mean()).mean())}}
        rows += [
            _row(metric, [values[metric] for values in alone], mean_error, f"{task} ") for metric in ("MAE", "Corr")
        ]
    if rows:
        tables += ["each modality alone, against labels of its own that training never saw"]
        tables += [pd.DataFrame(rows).to_string(index=False)]
    return "\n".join(tables)


def _row(metric: str, values: list[float], beside: dict[str, dict[str, float]], prefix: str = "") -> dict[str, str]:
    """One line of a table: mean and std over the seeds, then the columns beside: name -> metric -> value."""
    row = {"": prefix + metric, "mean": _number(metric, np.mean(values))}
    if len(values) > 1:
        row["std"] = _number(metric, np.std(values))
    return row | {name: _number(metric, column.get(metric, np.nan)) for name, column in beside.items()}


def _is_percentage(metric: str) -> bool:
    """Papers print accuracy and F1 in percent, errors and correlations as they are."""
    return "acc" in metric or "F1" in metric


def _as_printed(metrics: dict[str, float]) -> dict[str, float]:
    return {metric: value * 100 if _is_percentage(metric) else value for metric, value in metrics.items()}


def _number(metric: str, value: float) -> str:
    if np.isnan(value):
        return "-"
    return f"{value:.2f}" if _is_percentage(metric) else f"{value:.4f}"
