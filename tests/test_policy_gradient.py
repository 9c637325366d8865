"""The policy gradient by hand."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqgan_env.policy_gradient import (
    Baseline,
    advantages,
    check_baseline,
    discounted_returns,
    mean_divergence,
    mean_entropy,
    policy_gradient_loss,
)

REWARDS = torch.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 0.0]])
LENGTHS = torch.tensor([3, 2])


@pytest.mark.parametrize(
    ("gamma", "expected"),
    [
        (0.0, [[1.0, 2.0, 4.0], [3.0, 5.0, 0.0]]),
        (1.0, [[7.0, 6.0, 4.0], [8.0, 5.0, 0.0]]),
        (0.5, [[3.0, 4.0, 4.0], [5.5, 5.0, 0.0]]),
    ],
)
def test_returns_by_hand(gamma: float, expected: list[list[float]]) -> None:
    assert discounted_returns(REWARDS, gamma).tolist() == expected


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        ("none", [[1.0, 2.0, 4.0], [3.0, 5.0, 0.0]]),
        ("batch", [[-2.0, -1.0, 1.0], [0.0, 2.0, 0.0]]),
        ("position", [[-1.0, -1.5, 0.0], [1.0, 1.5, 0.0]]),
        ("leave-one-out", [[-2.0, -3.0, 0.0], [2.0, 3.0, 0.0]]),
    ],
)
def test_advantages_by_hand(baseline: str, expected: list[list[float]]) -> None:
    assert advantages(REWARDS, LENGTHS, baseline).tolist() == expected  # type: ignore[arg-type]


def test_padding_does_not_reach_the_baseline() -> None:
    noisy = REWARDS.clone()
    noisy[1, 2] = 1e6
    for baseline in get_args(Baseline):
        assert torch.equal(advantages(noisy, LENGTHS, baseline), advantages(REWARDS, LENGTHS, baseline))  # type: ignore[arg-type]


@given(st.integers(2, 6), st.integers(1, 5), st.floats(0, 3), st.integers(0, 2**31))
def test_a_centred_constant_reward_teaches_nothing(n: int, length: int, value: float, seed: int) -> None:
    lengths = torch.randint(1, length + 1, (n,), generator=torch.Generator().manual_seed(seed))
    constant = torch.full((n, length), value) * (torch.arange(length) < lengths.unsqueeze(1))
    for baseline in ("batch", "position", "leave-one-out", "maligan"):
        assert advantages(constant, lengths, baseline).abs().max() < 1e-5  # type: ignore[arg-type]


@pytest.mark.parametrize("same_along_sequence", [False, True])
@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("baseline", get_args(Baseline))
def test_baselines_that_leave_nothing_to_learn_are_refused(
    baseline: Baseline, n: int, length: int, same_along_sequence: bool
) -> None:
    """By hand: alone in its batch, an episode is its own mean; at each position, or as a whole where its returns are equal."""
    as_a_whole = baseline == "batch" and (length == 1 or same_along_sequence)
    if n == 1 and (baseline in ("position", "leave-one-out", "maligan") or as_a_whole):
        with pytest.raises(
            ValueError, match=rf"baseline='{baseline}' nothing can be learned in batches of 1.*baseline='none'"
        ):
            check_baseline(baseline, n, length, same_along_sequence)
    else:
        check_baseline(baseline, n, length, same_along_sequence)


RATIOS = torch.tensor([[1.0, 2.0, 4.0], [3.0, 2.0, 9.0], [4.0, 4.0, 9.0]])


def test_maligans_weights_by_hand() -> None:
    """n r / sum r - 1 over those that have the position: sums 8, 8 and 4; the last two rows have no third position."""
    weights = advantages(RATIOS, torch.tensor([3, 2, 2]), "maligan")
    expected = [[3 / 8 - 1, 6 / 8 - 1, 0.0], [9 / 8 - 1, 6 / 8 - 1, 0.0], [12 / 8 - 1, 12 / 8 - 1, 0.0]]
    torch.testing.assert_close(weights, torch.tensor(expected))


def test_maligans_loss_is_the_papers_sum() -> None:
    """Over sequences of one token: minus the sum of (r / sum r - b) log p, b = 1 / n."""
    log_probs, lengths = torch.tensor([[-1.0], [-2.0], [-3.0]]), torch.tensor([1, 1, 1])
    loss = policy_gradient_loss(log_probs, advantages(RATIOS[:, :1], lengths, "maligan"), lengths)
    expected = -((1 / 8 - 1 / 3) * -1 + (3 / 8 - 1 / 3) * -2 + (4 / 8 - 1 / 3) * -3)
    assert loss.item() == pytest.approx(expected)


def test_maligans_weights_have_no_scale_and_stay_finite_without_rewards() -> None:
    lengths = torch.tensor([3, 2, 2])
    assert torch.allclose(advantages(RATIOS * 7, lengths, "maligan"), advantages(RATIOS, lengths, "maligan"))
    assert torch.equal(advantages(torch.zeros(3, 3), lengths, "maligan"), torch.zeros(3, 3))


def test_maligan_refuses_negative_returns() -> None:
    with pytest.raises(ValueError, match=r"never negative, but got a return of -0\.5\. Use the scaling 'ratio'"):
        advantages(torch.tensor([[1.0], [-0.5]]), torch.tensor([1, 1]), "maligan")


def test_unknown_baseline_is_refused() -> None:
    with pytest.raises(ValueError, match=r"baseline must be one of .*'leave-one-out'.*, got 'critic'"):
        advantages(REWARDS, LENGTHS, "critic")  # type: ignore[arg-type]


def test_loss_by_hand_is_minus_the_mean_over_actions() -> None:
    log_probs = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]])
    advantage = torch.tensor([[1.0, 0.5, -1.0], [2.0, 1.0, 7.0]])
    # (1*-1 + .5*-2 + -1*-3 + 2*-4 + 1*-5) / 5 actions; the last entry is padding
    assert policy_gradient_loss(log_probs, advantage, LENGTHS).item() == pytest.approx(12 / 5)


def test_the_gradient_is_the_policy_gradient() -> None:
    """For one softmax choice, d loss / d logit_k = A (p_k - [k is the action]): worked out by hand."""
    logits = torch.tensor([[[0.2, -1.0, 0.7]]], requires_grad=True)
    log_prob = torch.log_softmax(logits, dim=-1)[:, :, 2]
    policy_gradient_loss(log_prob, torch.tensor([[3.0]]), torch.tensor([1])).backward()
    expected = 3.0 * (torch.softmax(logits.detach(), dim=-1) - torch.tensor([0.0, 0.0, 1.0]))
    assert torch.allclose(logits.grad, expected)


def test_no_gradient_flows_through_advantages() -> None:
    advantage = torch.ones(1, 1, requires_grad=True)
    log_prob = torch.zeros(1, 1, requires_grad=True)
    policy_gradient_loss(log_prob, advantage, torch.tensor([1])).backward()
    assert advantage.grad is None


def test_entropy_of_equal_logits_is_the_log_of_their_number() -> None:
    logits = torch.zeros(2, 3, 7)
    logits[1, 2] = torch.tensor([100.0, 0, 0, 0, 0, 0, 0])  # padding, not looked at
    assert mean_entropy(torch.log_softmax(logits, dim=2), LENGTHS).item() == pytest.approx(torch.log(torch.tensor(7.0)).item())


def test_divergence_by_hand() -> None:
    """Of (1/2, 1/2) from (1/4, 3/4): log 2 - log(3) / 2. Padding does not count; a policy's divergence from itself is 0."""
    log_probs = torch.tensor([0.5, 0.5]).log().expand(2, 3, 2)
    reference = torch.tensor([0.25, 0.75]).log().expand(2, 3, 2).clone()
    reference[1, 2] = torch.tensor([1e-4, 1 - 1e-4]).log()
    expected = math.log(2) - math.log(3) / 2
    assert mean_divergence(log_probs, reference, LENGTHS).item() == pytest.approx(expected)
    assert mean_divergence(log_probs, reference, LENGTHS, torch.tensor(10)).item() == pytest.approx(expected / 2)
    assert mean_divergence(reference, reference, LENGTHS).item() == 0


def test_shaped_and_terminal_rewards_have_the_same_return_up_to_a_baseline() -> None:
    """With gamma 1 the return of the shaped reward is R - Q before the action, which the action cannot change."""
    values = torch.tensor([[0.2, 0.6, 0.9]])
    shaped = values - torch.tensor([[0.0, 0.2, 0.6]])
    assert torch.allclose(discounted_returns(shaped, 1.0), 0.9 - torch.tensor([[0.0, 0.2, 0.6]]))
