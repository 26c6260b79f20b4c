"""The closing table of a run: its scores beside published ones and those of guessing the mean label."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from config.config_regression import TASKS

Scores = dict[str, float]  # metric -> value; metrics of a single modality begin with its name, such as audio_MAE


def published_scores(dataset: str, tasks: str) -> dict[str, Scores]:
    """The scores of each source, for a dataset and the letters of its tasks; {} if nothing was published.

    "MMSA" is the authors' own rerun, with their later framework. MOSI with fewer tasks than MTAV: table 4 of the paper.
    """
    table = pd.read_csv(Path(__file__).with_name("published.csv"), index_col="source")
    rows = table[(table.pop("dataset") == dataset) & (table.pop("tasks") == tasks)]
    return {source: row.dropna().to_dict() for source, row in rows.iterrows()}


def score_tables(tests: list[Scores], guess: Scores, published: dict[str, Scores]) -> dict[str, pd.DataFrame]:
    """Title -> table, as printed. tests: of each seed. guess: of guessing the mean label. published: of each source."""
    scale = scale_of(tests[0])
    scores = pd.DataFrame(tests) * scale
    columns = {"mean": scores.mean(skipna=False), "std": scores.std(ddof=0, skipna=False)}
    table = pd.DataFrame(columns | {"guessing the mean": pd.Series(guess) * scale}).loc[scores.columns]
    if len(tests) == 1:
        table = table.drop(columns="std")
    unimodal = table.index.str.startswith(TASKS)
    fusion = table[~unimodal].assign(**{source: pd.Series(values) for source, values in published.items()})
    tables = {f"test, {len(tests)} seed{'s' * (len(tests) > 1)}": as_printed(fusion)}
    if unimodal.any():
        alone = table[unimodal].rename(index=lambda metric: metric.replace("_", " "))
        tables["each modality alone, against its own human labels"] = as_printed(alone)
    return tables


def ablation_table(tests: dict[str, list[Scores]], published: dict[str, dict[str, Scores]]) -> pd.DataFrame:
    """As printed: a row for each choice of tasks, with the mean and std of its seeds and, if published, the paper's scores."""
    names = ["MAE", "Corr", *[name for name in next(iter(tests.values()))[0] if name.endswith("acc_2")][-1:]]
    frames = {tasks: pd.DataFrame(scores)[names] * scale_of(names) for tasks, scores in tests.items()}
    kinds = {"": {tasks: frame.mean(skipna=False) for tasks, frame in frames.items()}}
    kinds[" std"] = {tasks: frame.std(ddof=int(len(frame) == 1), skipna=False) for tasks, frame in frames.items()}
    kinds[" paper"] = {tasks: pd.Series(published[tasks].get("paper"), dtype=float) for tasks in tests}
    parts = {kind: as_printed(pd.DataFrame(values).reindex(names)).set_index("").T for kind, values in kinds.items()}
    table = pd.DataFrame({f"{name}{kind}": part[name] for name in names for kind, part in parts.items()})
    return table.loc[:, (table != "-").any()].rename_axis("tasks").reset_index()


def brief(scores: Scores, key: str) -> str:
    """Three scores in a line, written as in the table: loss, correlation, and `key` or the accuracy that papers give."""
    accuracies = [name for name in reversed(scores) if name.endswith("acc_2")]
    names = list(dict.fromkeys(["Loss", "Corr", key, *accuracies]))[:3]
    printed = as_printed(pd.DataFrame({"score": pd.Series(scores)[names] * scale_of(names)}))
    return "  ".join(map(" ".join, printed.to_numpy()))


def scale_of(metrics: Iterable[str]) -> pd.Series:
    """By metric: 100 for accuracy and F1, which papers print in percent, else 1."""
    return pd.Series({metric: 100 if "acc" in metric or "F1" in metric else 1 for metric in metrics})


def as_printed(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each metric, as text: percentages with 2 digits, other numbers with 4; the metrics are the first column."""
    digits = scale_of(table.index).map({100: "{:.2f}", 1: "{:.4f}"})
    rows = {metric: row.map(digits[metric].format) for metric, row in table.iterrows()}
    return pd.DataFrame(rows).T.replace("nan", "-").rename_axis("").reset_index()
