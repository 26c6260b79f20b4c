"""The table that closes a run: ours, beside what was published and what guessing the mean label would score.

Published accuracy and F1 are in percent.
"""

import numpy as np
import pandas as pd

from config.config_regression import TASKS

_MOSI_KEYS = ("MAE", "Corr", "Has0_acc_2", "Non0_acc_2", "Has0_F1_score", "Non0_F1_score", "Mult_acc_5", "Mult_acc_7")
_SIMS_KEYS = ("MAE", "Corr", "Mult_acc_2", "F1_score", "Mult_acc_3", "Mult_acc_5")


def _published(keys: tuple[str, ...], *values: float) -> dict[str, float]:
    return dict(zip(keys, values, strict=False))


# dataset -> source -> metric -> value. "MMSA" is the authors' own rerun, with their later framework.
PUBLISHED = {
    "mosi": {
        "paper": _published(_MOSI_KEYS, 0.713, 0.798, 84.00, 85.98, 84.42, 85.95),
        "MMSA": _published(_MOSI_KEYS, 0.7080, 0.7963, 83.44, 85.46, 83.36, 85.43, 53.47, 46.67),
    },
    "mosei": {
        "paper": _published(_MOSI_KEYS, 0.530, 0.765, 82.81, 85.17, 82.53, 85.30),
        "MMSA": _published(_MOSI_KEYS, 0.5309, 0.7649, 83.76, 85.15, 83.82, 84.90, 55.53, 53.87),
    },
    "sims": {
        "paper": _published(_SIMS_KEYS, 0.419, 0.616, 80.74, 80.78),
        "human T, A, V": _published(_SIMS_KEYS, 0.408, 0.647, 81.32, 81.73),
        "MMSA": _published(_SIMS_KEYS, 0.4250, 0.5952, 80.04, 80.44, 65.47, 41.53),
    },
    "simsv2": {"MMSA": _published(_SIMS_KEYS, 0.3106, 0.6952, 79.69, 79.76, 72.61, 52.77)},
}

# Table 4 of the paper: MOSI with fewer tasks.
ABLATION = {
    "M": _published(_MOSI_KEYS, 0.730, 0.781),
    "MV": _published(_MOSI_KEYS, 0.732, 0.775),
    "MA": _published(_MOSI_KEYS, 0.728, 0.790),
    "MT": _published(_MOSI_KEYS, 0.731, 0.789),
    "MAV": _published(_MOSI_KEYS, 0.719, 0.789),
    "MTV": _published(_MOSI_KEYS, 0.714, 0.797),
    "MTA": _published(_MOSI_KEYS, 0.712, 0.797),
}


def published_scores(dataset: str, tasks: str) -> dict[str, dict[str, float]]:
    """source -> metric -> value, for a dataset and the letters of the tasks; {} where nothing was published."""
    if set(tasks) == set("MTAV"):
        return PUBLISHED.get(dataset, {})
    same = [row for letters, row in ABLATION.items() if set(letters) == set(tasks)]
    return {"paper": same[0]} if same and dataset == "mosi" else {}


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
