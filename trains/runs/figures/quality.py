"""How close generated labels are to human labels of single modalities, which training never sees, beside two yardsticks."""

import numpy as np
import pandas as pd

from trains.runs.figures.run_data import RunData
from trains.runs.report import as_printed
from utils.metrics import correlation, mean_absolute_error, rounded

SHUFFLES = 20
SOURCES = {"label": "generated", "copied": "copied", "shuffled": "shuffled"}  # name in columns -> in words
MEASURES = ("MAE", "Corr", "sign")


def label_quality(labels: dict, human: dict, bound: float, seed: list[int]) -> dict[str, float]:
    """TASK_SOURCE_MEASURE -> value, for the unimodal tasks with human labels. Both: task -> (N,) array. bound: ULGM's H.

    SOURCE: `label` for the generated labels; `copied` for the label of all modalities; `shuffled` for that label plus the
    generated offsets from it, each given to a random clip (the mean of SHUFFLES draws). MEASURE: MAE, Corr, or `sign`, the
    share of clips with the human label's sign, among those where neither this nor the copied label is 0.
    """
    rng, values = np.random.default_rng(seed), {}
    for task in (task for task in human if task in labels and task != "fusion"):
        copied, truth = labels["fusion"], human[task]
        offsets, decided = labels[task] - copied, (truth != 0) & (copied != 0)
        shuffled = [np.clip(copied + rng.permutation(offsets), -bound, bound) for _ in range(SHUFFLES)]
        for source, guesses in zip(SOURCES, ([labels[task]], [copied], shuffled), strict=True):
            means = np.mean([_agreement(guess, truth, decided) for guess in guesses], axis=0)
            values |= {f"{task}_{source}_{name}": rounded(mean) for name, mean in zip(MEASURES, means, strict=True)}
    return values


def quality_table(run: RunData) -> pd.DataFrame:
    """As printed: the mean over seeds, each at its best epoch; no rows without human unimodal labels."""
    best = {seed: history.loc[run.rows["best_epoch"][seed]] for seed, history in run.histories.items()}
    means, rows = pd.DataFrame(best).mean(axis=1, skipna=False), {}
    for task in (task for task in run.tasks if f"{task}_label_MAE" in means):
        for source, words in SOURCES.items():
            rows[f"{task}, {words}"] = [means[f"{task}_{source}_{measure}"] for measure in MEASURES]
    return as_printed(pd.DataFrame(rows, index=MEASURES).T).rename(columns={"": "labels"})


def _agreement(guess: np.ndarray, truth: np.ndarray, decided: np.ndarray) -> tuple[float, float, float]:
    same_sign = np.sign(guess[decided]) == np.sign(truth[decided])
    return mean_absolute_error(guess, truth), correlation(guess, truth), same_sign.mean() if len(same_sign) else np.nan
