"""The table that closes a run: ours, beside what was published and what guessing the mean label would score."""

from collections.abc import Callable

import numpy as np
import pandas as pd

Metrics = Callable[[np.ndarray, np.ndarray], dict[str, float]]


def closing_report(
    title: str,
    tests: list[tuple[dict[str, float], dict[str, np.ndarray]]],
    train_labels: dict[str, np.ndarray],
    test_labels: dict[str, np.ndarray],
    metrics: Metrics,
    published: dict[str, dict[str, float]],
) -> str:
    """tests: for each seed, the fusion score's metrics, and task -> scores (N,) on the test split.

    The labels are by task. published: source -> metric -> value, accuracy and F1 in percent.
    """
    guess = np.full(len(test_labels["fusion"]), train_labels["fusion"].mean(), dtype=np.float32)
    beside = {"guessing the mean": _as_printed(metrics(guess, test_labels["fusion"])), **published}
    ours = [_as_printed(values) for values, _ in tests]
    rows = [_row(metric, [values[metric] for values in ours], beside) for metric in ours[0]]
    tables = [title, pd.DataFrame(rows).to_string(index=False)]

    rows = []
    for task in [task for task in tests[0][1] if task != "fusion" and task in test_labels]:
        truth = test_labels[task]
        alone = [metrics(scores[task], truth) for _, scores in tests]
        mean_error = {"guessing the mean": {"MAE": float(np.abs(truth - train_labels[task].mean()).mean())}}
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
