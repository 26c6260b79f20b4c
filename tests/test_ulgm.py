"""ULGM's equations by hand on four clips, and its running centres against recomputed ones."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ulgm import NEGATIVE, POSITIVE, ULGM
from utils.errors import UserError

HUMAN = torch.tensor([2.0, 1.0, -1.0, -2.0])
CLIPS = torch.arange(4)
# One-dimensional features: fusion's centres are at +1 and -1, text's at +2 and -2.
FUSION = torch.tensor([[2.0], [0.0], [-0.5], [-1.5]])
TEXT = torch.tensor([[3.0], [1.0], [-3.0], [-1.0]])


def ulgm_after_epoch_1(bound: float = 3.0) -> ULGM:
    """ULGM after an epoch of one micro-batch with all four clips."""
    ulgm = ULGM(HUMAN, {"fusion": 1, "text": 1}, bound)
    ulgm.update(CLIPS, [4], dict(fusion=FUSION, text=TEXT), epoch=1)
    return ulgm


def test_centres_are_the_mean_features_of_the_classes():
    ulgm = ulgm_after_epoch_1()
    assert ulgm.tasks["fusion"].centres.tolist() == [[1.0], [-1.0]]
    assert ulgm.tasks["text"].centres.tolist() == [[2.0], [-2.0]]


def test_labels_equal_the_human_labels_through_epoch_1():
    ulgm = ulgm_after_epoch_1()
    assert torch.equal(ulgm.targets("text", CLIPS), HUMAN)
    assert torch.equal(ulgm.weights("text", CLIPS), torch.zeros(4))
    assert torch.equal(ulgm.weights("fusion", CLIPS), torch.ones(4))


def test_relative_distance_uses_l2_norms():
    """The positive centre is at (0, 0), the negative centre at (3, 4)."""
    ulgm = ULGM(torch.tensor([1.0, -1.0]), {"fusion": 2}, 3.0)
    ulgm.update(torch.arange(2), [2], {"fusion": torch.tensor([[0.0, 0.0], [3.0, 4.0]])}, epoch=1)
    distances = ulgm.tasks["fusion"].relative_distance(torch.tensor([[3.0, 4.0], [3.0, 0.0]]))
    assert distances.tolist() == pytest.approx([(0 - 5) / 5, (4 - 3) / 3], abs=1e-6)


@pytest.mark.parametrize("bound", [3.0, 10.0])
def test_new_label_momentum_and_weight_by_hand(bound):
    """Clip 0: fusion's feature 2 has D+ = 1, D- = 3 and a_m = 2; text's feature 3 has D+ = 1, D- = 5 and a_s = 4."""
    ulgm = ulgm_after_epoch_1(bound)
    ulgm.update(CLIPS[:1], [1], dict(fusion=FUSION[:1], text=TEXT[:1]), epoch=2)
    new = min(bound, 0.5 * (4 / 2) * 2 + 0.5 * (2 + 4 - 2))  # 4, clamped to H
    expected = 1 / 3 * 2 + 2 / 3 * new
    assert ulgm.targets("text", CLIPS[:1]).item() == pytest.approx(expected, abs=1e-6)
    assert ulgm.weights("text", CLIPS[:1]).item() == pytest.approx(math.tanh(abs(expected - 2)), abs=1e-6)
    assert ulgm.targets("fusion", CLIPS).tolist() == HUMAN.tolist()


@pytest.mark.parametrize(
    ("source", "text", "weights"),
    [("human", [-1.0, 1.0, 1.0, -2.0], [math.tanh(3), 0, math.tanh(2), 0]), ("copied", HUMAN.tolist(), [1, 1, 1, 1])],
)
def test_given_labels_stay_and_need_no_classes(source, text, weights):
    ulgm = ULGM(HUMAN, {"fusion": 1, "text": 1}, 3.0, source=source, human={"text": torch.tensor(text)})
    for epoch in (1, 2, 3):
        ulgm.update(CLIPS, [4], dict(fusion=FUSION, text=TEXT), epoch)
    assert ulgm.targets("text", CLIPS).tolist() == text
    assert ulgm.weights("text", CLIPS).tolist() == pytest.approx(weights) and ulgm.weights("fusion", CLIPS).eq(1).all()
    positive = ULGM(HUMAN, {"fusion": 1, "text": 1}, 3.0, source="human", human={"text": HUMAN.abs()})
    positive.check()
    assert positive.is_intact(CLIPS)


def test_momentum_keeps_more_of_the_old_label_in_later_epochs():
    ulgm = ulgm_after_epoch_1(bound=10)
    ulgm.update(CLIPS[:1], [1], dict(fusion=FUSION[:1], text=TEXT[:1]), epoch=9)
    assert ulgm.targets("text", CLIPS[:1]).item() == pytest.approx(8 / 10 * 2 + 2 / 10 * 4, abs=1e-6)


def test_each_microbatch_moves_the_centres_that_relabel_the_next():
    one_window, two_windows, one_microbatch = (ulgm_after_epoch_1() for _ in range(3))
    features = {"fusion": FUSION + 1, "text": TEXT * 2}
    one_window.update(CLIPS, [2, 2], features, epoch=2)
    for half in (slice(0, 2), slice(2, 4)):
        two_windows.update(CLIPS[half], [2], {task: values[half] for task, values in features.items()}, epoch=2)
    one_microbatch.update(CLIPS, [4], features, epoch=2)
    assert torch.equal(one_window.targets("text", CLIPS), two_windows.targets("text", CLIPS))
    assert not torch.equal(one_window.targets("text", CLIPS), one_microbatch.targets("text", CLIPS))


def test_unseen_clips_count_with_a_zero_feature():
    ulgm = ULGM(HUMAN, {"fusion": 1}, 3.0)
    ulgm.update(CLIPS[:1], [1], dict(fusion=FUSION[:1]), epoch=1)
    assert ulgm.tasks["fusion"].centres.tolist() == [[1.0], [0.0]]


def test_neutral_clips_count_as_positive_unless_zero_is_excluded():
    human = torch.tensor([2.0, 0.0, -1.0])
    features = dict(fusion=torch.tensor([[4.0], [1.0], [-1.0]]))
    for exclude_zero, centre in ((False, 2.5), (True, 4.0)):
        ulgm = ULGM(human, {"fusion": 1}, 3.0, exclude_zero)
        ulgm.update(torch.arange(3), [3], features, epoch=1)
        assert ulgm.tasks["fusion"].centres[POSITIVE].item() == centre


def test_class_without_clips_is_an_error():
    with pytest.raises(UserError, match="all fusion labels had the same sign"):
        ULGM(torch.tensor([1.0, 0.0]), {"fusion": 1}, 3.0).check()
    with pytest.raises(UserError, match="0 positive and 1 negative"):
        ULGM(torch.tensor([0.0, -1.0]), {"fusion": 1}, 3.0, exclude_zero=True).check()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.booleans())
def test_running_centres_equal_recomputed_ones(seed: int, clips: int, exclude_zero: bool):
    """Five epochs, in which clips change class repeatedly."""
    generator = torch.Generator().manual_seed(seed)
    human = torch.randint(-2, 3, (clips,), generator=generator).float()
    human[:2] = torch.tensor([1.0, -1.0])
    ulgm = ULGM(human, {"fusion": 3, "audio": 2}, 3.0, exclude_zero)
    for epoch in range(1, 6):
        order = torch.randperm(clips, generator=generator)
        microbatches = [len(part) for part in order.split(4)]
        features = {
            "fusion": torch.randn(clips, 3, generator=generator),
            "audio": torch.randn(clips, 2, generator=generator),
        }
        ulgm.update(order, microbatches, features, epoch)
        for state in ulgm.tasks.values():
            positive = state.labels > 0 if exclude_zero else state.labels >= 0
            for sign, members in ((POSITIVE, positive), (NEGATIVE, state.labels < 0)):
                assert state.counts[sign] == members.sum()
                if members.any():
                    torch.testing.assert_close(
                        state.centres[sign], state.features[members].mean(0), atol=1e-5, rtol=1e-5
                    )
