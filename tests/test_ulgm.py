"""ULGM's equations by hand on four clips, and the running centres against centres taken anew."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ulgm import NEGATIVE, POSITIVE, ULGM
from utils.errors import UserError

HUMAN = torch.tensor([2.0, 1.0, -1.0, -2.0])
CLIPS = torch.arange(4)
# In one dimension: fusion's centres lie at +1 and -1; text's at +2 and -2.
FUSION = torch.tensor([[2.0], [0.0], [-0.5], [-1.5]])
TEXT = torch.tensor([[3.0], [1.0], [-3.0], [-1.0]])


def trained(bound: float = 3.0, **settings) -> ULGM:
    """After epoch 1, with one micro-batch of all four clips."""
    ulgm = ULGM(HUMAN, {"fusion": 1, "text": 1}, bound, **settings)
    ulgm.update(CLIPS, [4], dict(fusion=FUSION, text=TEXT), epoch=1)
    return ulgm


def test_centres_are_the_mean_features_of_the_classes():
    ulgm = trained()
    assert ulgm.tasks["fusion"].centres.tolist() == [[1.0], [-1.0]]
    assert ulgm.tasks["text"].centres.tolist() == [[2.0], [-2.0]]


def test_labels_start_as_the_human_ones_and_stay_so_in_epoch_1():
    ulgm = trained()
    assert torch.equal(ulgm.targets("text", CLIPS), HUMAN)
    assert torch.equal(ulgm.weights("text", CLIPS), torch.zeros(4))
    assert torch.equal(ulgm.weights("fusion", CLIPS), torch.ones(4))


def test_a_relative_distance_is_of_l2_norms():
    """The positive centre is at (0, 0), the negative one at (3, 4); the second clip lies on the latter."""
    ulgm = ULGM(torch.tensor([1.0, -1.0]), {"fusion": 2}, 3.0)
    ulgm.update(torch.arange(2), [2], {"fusion": torch.tensor([[0.0, 0.0], [3.0, 4.0]])}, epoch=1)
    found = ulgm.tasks["fusion"].relative_distance(torch.tensor([[3.0, 4.0], [3.0, 0.0]]))
    assert found.tolist() == pytest.approx([(0 - 5) / 5, (4 - 3) / 3], abs=1e-6)


@pytest.mark.parametrize("bound", [3.0, 10.0])
def test_new_label_momentum_and_weight_by_hand(bound):
    """Clip 0: fusion at 2 has D+ = 1, D- = 3, so a_m = 2; text at 3 has D+ = 1, D- = 5, so a_s = 4."""
    ulgm = trained(bound)
    ulgm.update(CLIPS[:1], [1], dict(fusion=FUSION[:1], text=TEXT[:1]), epoch=2)
    new = min(bound, 0.5 * (4 / 2) * 2 + 0.5 * (2 + 4 - 2))  # 4, or clamped to H = 3
    expected = 1 / 3 * 2 + 2 / 3 * new
    assert ulgm.targets("text", CLIPS[:1]).item() == pytest.approx(expected, abs=1e-6)
    assert ulgm.weights("text", CLIPS[:1]).item() == pytest.approx(math.tanh(abs(expected - 2)), abs=1e-6)
    assert ulgm.targets("fusion", CLIPS).tolist() == HUMAN.tolist()


def test_the_momentum_keeps_more_of_the_old_label_in_later_epochs():
    ulgm = trained(bound=10)
    ulgm.update(CLIPS[:1], [1], dict(fusion=FUSION[:1], text=TEXT[:1]), epoch=9)
    assert ulgm.targets("text", CLIPS[:1]).item() == pytest.approx(8 / 10 * 2 + 2 / 10 * 4, abs=1e-6)


def test_a_microbatch_is_judged_by_the_centres_that_the_one_before_it_left():
    together, apart, whole = trained(), trained(), trained()
    moved = {"fusion": FUSION + 1, "text": TEXT * 2}
    together.update(CLIPS, [2, 2], moved, epoch=2)
    for part in (slice(0, 2), slice(2, 4)):
        apart.update(CLIPS[part], [2], {task: value[part] for task, value in moved.items()}, epoch=2)
    whole.update(CLIPS, [4], moved, epoch=2)
    assert torch.equal(together.targets("text", CLIPS), apart.targets("text", CLIPS))
    assert not torch.equal(together.targets("text", CLIPS), whole.targets("text", CLIPS))


def test_clips_not_yet_seen_count_with_a_zero_feature():
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


def test_a_class_without_clips_is_an_error():
    with pytest.raises(UserError, match="all fusion labels had the same sign"):
        ULGM(torch.tensor([1.0, 0.0]), {"fusion": 1}, 3.0).check()
    with pytest.raises(UserError, match="0 positive and 1 negative"):
        ULGM(torch.tensor([0.0, -1.0]), {"fusion": 1}, 3.0, exclude_zero=True).check()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 30), st.booleans())
def test_running_centres_equal_centres_taken_anew(seed: int, clips: int, exclude_zero: bool):
    """Also where clips change their class again and again."""
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
