"""The closing table of a run: its scores beside published ones and those of guessing the mean label.

Accuracy and F1 are in percent here, as papers print them.
"""

import pandas as pd

from config.config_regression import TASKS

_MOSI_KEYS = ("MAE", "Corr", "Has0_acc_2", "Non0_acc_2", "Has0_F1_score", "Non0_F1_score", "Mult_acc_5", "Mult_acc_7")
_SIMS_KEYS = ("MAE", "Corr", "Mult_acc_2", "F1_score", "Mult_acc_3", "Mult_acc_5")

# (dataset, tasks, source) -> scores. "MMSA" is the authors' own rerun, with their later framework.
# MOSI with fewer tasks than MTAV: table 4 of the paper.
_PUBLISHED = {
    ("mosi", "MTAV", "paper"): (0.713, 0.798, 84.00, 85.98, 84.42, 85.95),
    ("mosi", "MTAV", "MMSA"): (0.7080, 0.7963, 83.44, 85.46, 83.36, 85.43, 53.47, 46.67),
    ("mosi", "M", "paper"): (0.730, 0.781),
    ("mosi", "MV", "paper"): (0.732, 0.775),
    ("mosi", "MA", "paper"): (0.728, 0.790),
    ("mosi", "MT", "paper"): (0.731, 0.789),
    ("mosi", "MAV", "paper"): (0.719, 0.789),
    ("mosi", "MTV", "paper"): (0.714, 0.797),
    ("mosi", "MTA", "paper"): (0.712, 0.797),
    ("mosei", "MTAV", "paper"): (0.530, 0.765, 82.81, 85.17, 82.53, 85.30),
    ("mosei", "MTAV", "MMSA"): (0.5309, 0.7649, 83.76, 85.15, 83.82, 84.90, 55.53, 53.87),
    ("sims", "MTAV", "paper"): (0.419, 0.616, 80.74, 80.78),
    ("sims", "MTAV", "human T, A, V"): (0.408, 0.647, 81.32, 81.73),
    ("sims", "MTAV", "MMSA"): (0.4250, 0.5952, 80.04, 80.44, 65.47, 41.53),
    ("simsv2", "MTAV", "MMSA"): (0.3106, 0.6952, 79.69, 79.76, 72.61, 52.77),
}


def published_scores(dataset: str, tasks: str) -> dict[str, dict[str, float]]:
    """source -> metric -> value, for a dataset and the letters of its tasks; {} if nothing was published."""
    keys = _SIMS_KEYS if dataset.startswith("sims") else _MOSI_KEYS
    entries = {key[2]: values for key, values in _PUBLISHED.items() if key[:2] == (dataset, tasks)}
    return {source: dict(zip(keys, values, strict=False)) for source, values in entries.items()}


def closing_report(
    title: str, tests: list[dict[str, float]], guess: dict[str, float], published: dict[str, dict[str, float]]
) -> str:
    """tests: metric -> value, for each seed; metrics of a single modality begin with its name, such as audio_MAE.

    guess: the same metrics for guessing the mean label. published: source -> metric -> value.
    """
    scale = pd.Series({metric: 100 if _is_percentage(metric) else 1 for metric in tests[0]})
    scores = pd.DataFrame(tests) * scale
    columns = {"mean": scores.mean(skipna=False), "std": scores.std(ddof=0, skipna=False)}
    table = pd.DataFrame(columns | {"guessing the mean": pd.Series(guess) * scale}).loc[scores.columns]
    if len(tests) == 1:
        table = table.drop(columns="std")
    unimodal = table.index.str.startswith(TASKS)
    fusion = table[~unimodal].assign(**{source: pd.Series(values) for source, values in published.items()})
    tables = [title, _format(fusion)]
    if unimodal.any():
        tables += ["each modality alone, against its own human labels, which training never uses"]
        tables += [_format(table[unimodal].rename(index=lambda metric: metric.replace("_", " ")))]
    return "\n".join(tables)


def _format(table: pd.DataFrame) -> str:
    rows = {
        metric: row.map(("{:.2f}" if _is_percentage(metric) else "{:.4f}").format) for metric, row in table.iterrows()
    }
    return pd.DataFrame(rows).T.replace("nan", "-").rename_axis("").reset_index().to_string(index=False)


def _is_percentage(metric: str) -> bool:
    return "acc" in metric or "F1" in metric
