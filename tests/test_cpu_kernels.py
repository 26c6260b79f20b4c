"""The CPU's own kernels against PyTorch's: equal but for rounding and, in dropout, the random numbers."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from config.config_regression import REPOSITORY
from models.batch import Group
from models.cpu_kernels import attend, can_attend, draw_mask, dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_keeps_the_mean(dtype):
    torch.manual_seed(0)
    rows = torch.ones(400, 500, dtype=dtype, requires_grad=True)
    dropped = dropout(torch.nn.Dropout(0.1), rows)
    dropped.sum().backward()
    assert (dropped == 0).float().mean().item() == pytest.approx(0.1, abs=0.003)
    assert dropped.float().mean().item() == pytest.approx(1.0, abs=0.006)
    assert torch.equal(rows.grad, dropped)  # dropped values get no gradient
    for idle in (torch.nn.Dropout(0.1).eval(), torch.nn.Dropout(0.0)):
        assert torch.equal(dropout(idle, rows), rows)
    assert not dropout(torch.nn.Dropout(1.0), rows).any()


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
def test_dropouts_are_independent_and_have_their_probability(probability):
    """Each value, its neighbours (four share a 64-bit number), and the next draw."""
    torch.manual_seed(0)
    masks = [draw_mask((400, 500), probability, torch.float64).flatten() for _ in range(2)]
    assert masks[0].unique().tolist() == [0, pytest.approx(1 / (1 - probability), rel=1e-4)]
    first, second = ((mask > 0).double() for mask in masks)
    tolerance = 4 / len(first) ** 0.5  # four standard deviations of a mean or correlation of 200,000 values
    assert first.mean() == pytest.approx(1 - probability, abs=tolerance)
    for other in (second, *(first.roll(distance) for distance in (1, 2, 3, 4, 500))):
        assert abs(torch.corrcoef(torch.stack([first, other]))[0, 1]) < tolerance
    for lane in range(4):
        assert first[lane::4].mean() == pytest.approx(1 - probability, abs=2 * tolerance)


ATTENTION_GROUPS = [Group.from_lengths(np.array(lengths)) for lengths in ([5, 5], [3, 3, 3], [1, 1], [1])]


def attention_inputs(dtype: torch.dtype, tokens: int = 22, width: int = 12) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(tokens, width, generator=generator).to(dtype).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 0.05)]
)
@pytest.mark.parametrize("first_tokens", [False, True])
def test_attention_with_dropout_is_that_of_torch_if_nothing_is_dropped(dtype, tolerance, first_tokens):
    groups = queried = ATTENTION_GROUPS
    if first_tokens:  # as in BERT's last layer
        queried = [Group(group.sentences, length=1, tokens=group.sentences) for group in groups]
    queries, keys, values = attention_inputs(dtype)
    rows = queries[: sum(group.tokens for group in queried)]
    nearly_0 = 1e-6  # of 65536 random numbers, none is dropped
    assert can_attend(rows, groups, nearly_0)
    ours = attend(rows, keys, values, queried, groups, 3, nearly_0)
    expected, query_start, start = [], 0, 0
    for group, queried_group in zip(groups, queried, strict=True):
        query = queried_group.pad(rows[query_start:][: queried_group.tokens], 3)
        key, value = (group.pad(part[start:][: group.tokens], 3) for part in (keys, values))
        expected.append(queried_group.unpad(scaled_dot_product_attention(query, key, value)))
        query_start, start = query_start + queried_group.tokens, start + group.tokens
    theirs = torch.cat(expected)
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    direction = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    gradients = [torch.autograd.grad((part * direction).sum(), (queries, keys, values)) for part in (ours, theirs)]
    for gradient, other in zip(*gradients, strict=True):
        torch.testing.assert_close(gradient, other, atol=2 * tolerance, rtol=2 * tolerance)


def test_attention_in_bf16_is_as_exact_as_that_of_torch():
    group = Group.from_lengths(np.array([40, 40]))
    rows = [part.detach() for part in attention_inputs(torch.bfloat16, tokens=80, width=128)]
    padded = [group.pad(part, 2) for part in rows]
    exact = group.unpad(scaled_dot_product_attention(*(part.double() for part in padded)))
    theirs = group.unpad(scaled_dot_product_attention(*padded, dropout_p=1e-9)).double()
    with torch.autocast("cpu", torch.bfloat16):
        ours = attend(*rows, [group], [group], 2, 1e-9)
    assert ours.dtype == torch.bfloat16
    assert (ours.double() - exact).abs().max() <= 1.1 * (theirs - exact).abs().max()


def test_attention_frees_its_memory_with_the_backward_pass():
    """The features that a window returns keep its graph until the next one."""
    output = attend(*attention_inputs(torch.float32), ATTENTION_GROUPS, ATTENTION_GROUPS, 3, 0.1)
    output.sum().backward(retain_graph=False)
    with pytest.raises(RuntimeError, match="second time"):
        output.sum().backward()


def test_attention_with_dropout_has_the_gradient_of_its_own_draw():
    def seeded(*rows: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return attend(*rows, ATTENTION_GROUPS, ATTENTION_GROUPS, 3, 0.4)

    assert torch.autograd.gradcheck(seeded, attention_inputs(torch.float64), fast_mode=True)


def test_attention_drops_as_torch_does():
    """Mean and standard deviation of each output over 1,500 draws, against scaled_dot_product_attention's own dropout."""
    torch.manual_seed(0)
    group = Group.from_lengths(np.array([4]))
    rows = [part.detach()[:4] for part in attention_inputs(torch.float64)]
    padded = [group.pad(part, 3) for part in rows]
    ours = torch.stack([attend(*rows, [group], [group], 3, 0.3) for _ in range(1500)])
    theirs = [scaled_dot_product_attention(*padded, dropout_p=0.3) for _ in range(1500)]
    theirs = torch.stack([group.unpad(part) for part in theirs])
    deviation = theirs.std(dim=0)
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() < 5 * deviation / 1500**0.5 * 2**0.5).all()
    torch.testing.assert_close(ours.std(dim=0), deviation, rtol=0.1, atol=0)


def test_attention_of_padded_groups_and_without_dropout_is_left_to_torch():
    padded = [Group.from_lengths(np.array([5, 3]))]
    rows = torch.zeros(8, 12)
    assert not can_attend(rows, padded, 0.1)
    assert not can_attend(rows, ATTENTION_GROUPS, 0.0)


def test_denormal_numbers_are_flushed_in_all_threads():
    """They slow an LSTM's backward pass down, whose work is shared between threads."""
    tiny_numbers = "(torch.full((4_000_000,), 1e-30) * 1e-10).count_nonzero()"
    code = f"import torch; from models.cpu_kernels import set_up_cpu; set_up_cpu(); print(int({tiny_numbers}))"
    command, environment = [sys.executable, "-c", code], os.environ | {"OMP_NUM_THREADS": "2"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=True)
    assert result.stdout.strip() == "0"
