"""The table that closes a run: ours, beside what was published and what guessing the mean label would score."""

import numpy as np
import pandas as pd

from config.config_regression import TASKS


def closing_report(
    title: str, tests: list[dict[str, float]], guess: dict[str, float], published: dict[str, dict[str, float]]
) -> str:
    """tests: for each seed, metric -> value; those of a modality alone are called after it, as audio_MAE.

    guess: the same metrics of guessing the mean label. published: source -> metric -> value, accuracy and F1 in percent.
    """
    alone = [metric for metric in tests[0] if metric.startswith(TASKS)]
    beside = {"guessing the mean": _as_printed(guess)}
    tables = [title, _table([metric for metric in tests[0] if metric not in alone], tests, beside | published)]
    if alone:
        tables += [
            "each modality alone, against labels of its own that training never saw",
            _table(alone, tests, beside),
        ]
    return "\n".join(tables)


def _table(metrics: list[str], tests: list[dict[str, float]], beside: dict[str, dict[str, float]]) -> str:
    """A line for each metric: mean and std over the seeds, then the columns beside: name -> metric -> value."""
    rows = []
    for metric in metrics:
        values = [_as_printed(test)[metric] for test in tests]
        row = {
            "": metric.replace("_", " ") if metric.startswith(TASKS) else metric,
            "mean": _number(metric, np.mean(values)),
        }
        if len(values) > 1:
            row["std"] = _number(metric, np.std(values))
        rows.append(row | {name: _number(metric, column.get(metric, np.nan)) for name, column in beside.items()})
    return pd.DataFrame(rows).to_string(index=False)


def _is_percentage(metric: str) -> bool:
    """Papers print accuracy and F1 in percent, errors and correlations as they are."""
    return "acc" in metric or "F1" in metric


def _as_printed(metrics: dict[str, float]) -> dict[str, float]:
    return {metric: value * 100 if _is_percentage(metric) else value for metric, value in metrics.items()}


def _number(metric: str, value: float) -> str:
    if np.isnan(value):
        return "-"
    return f"{value:.2f}" if _is_percentage(metric) else f"{value:.4f}"
