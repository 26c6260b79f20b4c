"""The released code's metrics: prediction and truth, (N,) each -> name -> value. `round_all`: to 4 digits, as in MMSA."""

from collections.abc import Callable

import numpy as np
from sklearn.metrics import f1_score

SIMS_EDGES = {2: [0.0], 3: [-0.1, 0.1], 5: [-0.7, -0.1, 0.1, 0.7]}  # by number of classes
# The classes of Mult_acc_5 (sims) and Mult_acc_7 (mosi), as the datasets' papers name them.
SIMS_NAMES = ("negative", "weakly negative", "neutral", "weakly positive", "positive")
MOSI_NAMES = ("strongly negative", *SIMS_NAMES, "strongly positive")


def mosi_metrics(prediction: np.ndarray, truth: np.ndarray, round_all: bool = False) -> dict[str, float]:
    """MOSI and MOSEI, labels in [-3, 3]; always rounded to 4 digits, the MAE in float32 unless `round_all`.

    Has0 covers all clips, y >= 0 against y < 0. Non0 excludes clips with true label 0: y > 0 against y < 0.
    """
    prediction, truth = np.float32(prediction), np.float32(truth)
    decided = truth != 0
    values = {
        "Has0_acc_2": _accuracy(prediction >= 0, truth >= 0),
        "Has0_F1_score": _f1(prediction >= 0, truth >= 0),
        "Non0_acc_2": _accuracy(prediction[decided] > 0, truth[decided] > 0),
        "Non0_F1_score": _f1(prediction[decided] > 0, truth[decided] > 0),
        "Mult_acc_5": _accuracy(classes_of(prediction, "mosi", 5), classes_of(truth, "mosi", 5)),
        "Mult_acc_7": _accuracy(classes_of(prediction, "mosi", 7), classes_of(truth, "mosi", 7)),
        "MAE": mean_absolute_error(prediction, truth),
        "Corr": correlation(prediction, truth),
    }
    return {name: rounded(float(value) if round_all else value) for name, value in values.items()}


def sims_metrics(prediction: np.ndarray, truth: np.ndarray, round_all: bool = False) -> dict[str, float]:
    """SIMS and SIMS v2, labels in [-1, 1], in 2, 3 and 5 classes. A bin includes its right edge."""
    prediction, truth = np.clip(np.float32(prediction), -1, 1), np.clip(np.float32(truth), -1, 1)
    classes = {count: [classes_of(values, "sims", count) for values in (prediction, truth)] for count in SIMS_EDGES}
    values = {f"Mult_acc_{count}": _accuracy(*pair) for count, pair in classes.items()}
    values |= {"F1_score": _f1(*classes[2]), "MAE": mean_absolute_error(prediction, truth)}
    values["Corr"] = correlation(prediction, truth)
    return {name: rounded(float(value)) if round_all else float(value) for name, value in values.items()}


METRICS = {"mosi": mosi_metrics, "sims": sims_metrics}
CLASS_COUNTS = {"mosi": (2, 5, 7), "sims": tuple(SIMS_EDGES)}


def metric_names(metrics: Callable) -> list[str]:
    """The names of a family's metrics, and Loss, which every evaluation adds."""
    return [*metrics(np.ones(2), np.ones(2)), "Loss"]


def mean_absolute_error(prediction: np.ndarray, truth: np.ndarray) -> np.floating:
    """In the arrays' own type. The released MAE is a float32 mean: one in float64 may round to another 4th digit."""
    return np.mean(np.abs(prediction - truth))


def rounded(value: float) -> float:
    """To 4 digits, in the value's own type."""
    return round(float(np.round(value, 4)), 4)  # 0.7717, not 0.77170002


def short_floats(values: np.ndarray) -> np.ndarray:
    """As float64, for CSV and JSON: float32's 0.8 becomes 0.8, not 0.800000011920929."""
    return values.astype(str).astype(np.float64)


def lower_is_better(name: str) -> bool:
    return name in ("Loss", "MAE")


def classes_of(values: np.ndarray, metrics: str, count: int) -> np.ndarray:
    """Numbers from 0. mosi: two, y < 0 and y >= 0; or values clipped to [-2, 2] or [-3, 3] and rounded half to even."""
    if metrics == "sims":  # the edges are float32, as the labels are: a label of 0.1 must not exceed the edge 0.1
        return np.digitize(values, np.float32(SIMS_EDGES[count]), right=True)
    return 1.0 * (values >= 0) if count == 2 else np.round(np.clip(values, -(count // 2), count // 2)) + count // 2


def sentiment_class(score: float, metrics: str) -> str:
    """The class of a score: one of seven (metrics "mosi") or five ("sims")."""
    names = MOSI_NAMES if metrics == "mosi" else SIMS_NAMES
    return names[int(classes_of(np.float32(score), metrics, len(names)))]


def _accuracy(prediction: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean(prediction == truth)) if len(truth) else float("nan")


def _f1(prediction: np.ndarray, truth: np.ndarray) -> float:
    return float(f1_score(truth, prediction, average="weighted")) if len(truth) else float("nan")


def correlation(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Pearson correlation; nan for a single clip or constant values."""
    if len(truth) < 2 or np.ptp(prediction) == 0 or np.ptp(truth) == 0:
        return float("nan")
    return float(np.corrcoef(prediction, truth)[0, 1])
