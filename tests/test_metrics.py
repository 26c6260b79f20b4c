"""The metrics at their edges, with answers worked out by hand. Typical values: tests/records/metrics.json."""

import math

import numpy as np
import pytest

from utils.metrics import METRICS, mosi_metrics, sentiment_class, sims_metrics


def above(value: float) -> np.float32:
    """The next larger float32."""
    return np.nextafter(np.float32(value), np.float32(np.inf))


def below(value: float) -> np.float32:
    return np.nextafter(np.float32(value), np.float32(-np.inf))


def test_a_sims_bin_includes_its_right_edge_and_nothing_beyond():
    for classes, edges in {
        "Mult_acc_2": [0.0],
        "Mult_acc_3": [-0.1, 0.1],
        "Mult_acc_5": [-0.7, -0.1, 0.1, 0.7],
    }.items():
        inside = (
            [-0.9, -0.4, 0.05, 0.4, 0.9] if len(edges) == 4 else [-0.9, 0.05, 0.9] if len(edges) == 2 else [-0.9, 0.9]
        )
        for edge, left, right in zip(edges, inside, inside[1:], strict=False):
            assert sims_metrics([edge, above(edge)], [left, right])[classes] == 1.0
            assert sims_metrics([edge, above(edge)], [right, left])[classes] == 0.0
    assert sims_metrics([-0.0, 0.0, -5.0, 5.0], [-0.9, -0.9, -0.9, 0.9])["Mult_acc_2"] == 1.0


def test_mosi_classes_are_rounded_half_to_even():
    whole = [-2, -2, 0, 0, 2, 2]
    halves = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
    assert mosi_metrics(halves, whole)["Mult_acc_7"] == 1.0
    beyond = [below(-2.5), below(-1.5), below(-0.5), above(0.5), above(1.5), above(2.5)]
    assert mosi_metrics(beyond, [-3, -2, -1, 1, 2, 3])["Mult_acc_7"] == 1.0
    assert mosi_metrics([9, -9, 2.2], [3, -3, 3])["Mult_acc_5"] == 1.0
    assert mosi_metrics([9, -9, 2.2], [3, -3, 3])["Mult_acc_7"] == 0.6667


def test_a_score_of_zero_is_positive_in_has0_and_not_in_non0():
    values = mosi_metrics([0.0, -0.0, below(0)], [1, 2, -1])
    assert values["Has0_acc_2"] == 1.0 and values["Non0_acc_2"] == 0.3333
    assert mosi_metrics([0.5, -1.0, 1.0], [0, 0, 1])["Non0_acc_2"] == 1.0  # neutral clips are left out
    # F1 of the positives is 2/3 and of the negatives 0; the weights are the shares of the true classes, 2/3 and 1/3.
    assert mosi_metrics([1, -1, 1], [1, 1, -1])["Has0_F1_score"] == pytest.approx(0.5 * 2 / 3, abs=5e-5)


@pytest.mark.parametrize("family", METRICS)
def test_what_is_undefined_is_nan(family):
    metrics = METRICS[family]
    for prediction, truth in (([0.5, 0.5], [0.2, 0.4]), ([0.2, 0.4], [0.5, 0.5]), ([0.3], [0.4])):
        assert math.isnan(metrics(prediction, truth)["Corr"])
    assert metrics([0.5], [0.25])["MAE"] == 0.25
    assert metrics([0.1, 0.2], [0.4, 0.6])["F1_score" if family == "sims" else "Has0_F1_score"] == 1.0  # one sign
    neutral = metrics([0.5, -0.5], [0.0, 0.0])
    assert neutral["MAE"] == 0.5 and math.isnan(neutral["Corr"])
    if family == "mosi":
        assert (
            neutral["Has0_acc_2"] == 0.5 and math.isnan(neutral["Non0_acc_2"]) and math.isnan(neutral["Non0_F1_score"])
        )


def test_mmsa_rounds_sims_metrics_and_rounds_mae_in_float64():
    prediction, truth = [0.31, -0.24, 0.55], [0.2, -0.4, 0.9]
    exact, four_digits = sims_metrics(prediction, truth), sims_metrics(prediction, truth, round_all=True)
    assert exact["MAE"] == pytest.approx(0.62 / 3, abs=1e-7) and four_digits["MAE"] == 0.2067
    assert four_digits["Corr"] == round(exact["Corr"], 4) != exact["Corr"]
    # The nearest float32 to .70035 is .70034999; times 10,000 it is a tie in float32.
    assert mosi_metrics([0.70035], [0])["MAE"] == 0.7004
    assert mosi_metrics([0.70035], [0], round_all=True)["MAE"] == 0.7003
    assert sims_metrics([0.70035], [0], round_all=True)["MAE"] == 0.7003


def test_the_finest_class_follows_the_same_edges():
    assert sentiment_class(0.7, "sims") == sentiment_class(0.4, "sims") != sentiment_class(above(0.7), "sims")
    assert sentiment_class(2.5, "mosi") == sentiment_class(2, "mosi") != sentiment_class(above(2.5), "mosi")
