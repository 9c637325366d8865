"""The policy gradient as pure functions: returns, advantages, losses."""

from typing import Literal, get_args

import torch
from torch import Tensor

from seqgan_env.data.padding import played_positions

Baseline = Literal["none", "batch", "position", "leave-one-out", "maligan"]
LossReduction = Literal["mean", "sum"]
"""Over the actions of a batch."""


def discounted_returns(rewards: Tensor, gamma: float) -> Tensor:
    """Discounted returns from each position on: G_t = r_t + gamma G_(t+1).

    Args:
        rewards: `(n, length)`, 0 beyond an episode's end.
        gamma: the discount of the reward contract; with `"rollout"` it is 0, and the return is Q itself.

    Returns:
        `(n, length)`.
    """
    returns = rewards.clone()
    for position in range(rewards.shape[1] - 2, -1, -1):
        returns[:, position] += gamma * returns[:, position + 1]
    return returns


def advantages(returns: Tensor, lengths: Tensor, baseline: Baseline) -> Tensor:
    """Returns minus a baseline that does not depend on the action, so that the expected gradient stays the same.

    Args:
        returns: `(n, length)`.
        lengths: `(n,)` int64.
        baseline: `"none"`, as published: any reward of one sign then sharpens the policy. `"batch"`: the mean over all
            actions. `"position"`: the mean over the batch at each position. `"leave-one-out"`: the same mean without the
            action's own row; only this one is unbiased (Kool, van Hoof and Welling, 2019, eq. 8), and an action that is alone
            at its position gets 0. `"maligan"`: weights instead of a baseline; see `maligan_weights`.

    Returns:
        `(n, length)`, 0 beyond `lengths`.

    Raises:
        ValueError: the name is unknown, or a return for `"maligan"` is below 0.
    """
    played = played_positions(lengths, returns.shape[1])
    masked = returns * played
    if baseline == "none":
        return masked
    if baseline == "batch":
        return (masked - masked.sum() / played.sum()) * played
    sums, counts = masked.sum(dim=0), played.sum(dim=0)
    if baseline == "position":
        return (masked - sums / counts.clamp(min=1)) * played
    if baseline == "leave-one-out":
        others = (sums - masked) / (counts - 1).clamp(min=1)
        return (masked - others) * (played & (counts > 1))
    if baseline == "maligan":
        return maligan_weights(masked, counts) * played
    raise ValueError(f"baseline must be one of {get_args(Baseline)}, got {baseline!r}.")


def check_baseline(baseline: Baseline, n: int, length: int, same_along_sequence: bool) -> None:
    """Refuse a baseline that equals the returns in batches of `n` episodes, so that rewards would teach nothing.

    Args:
        baseline: see `advantages`.
        n: episodes in a batch.
        length: the maximum number of actions in an episode.
        same_along_sequence: whether all actions of an episode have the same return, as with `"terminal"`.

    Raises:
        ValueError: the baseline always equals the returns.
    """
    returns = 1.0 + torch.arange(n * length).view(n, length)  # any positive returns that differ
    if same_along_sequence:
        returns = returns[:, :1].expand(n, length)
    if not advantages(returns, torch.full((n,), length), baseline).any():
        raise ValueError(
            f"With baseline={baseline!r} nothing can be learned in batches of {n}: the baseline equals the return itself. "
            "Use more episodes per batch (num_envs; in train.py --adversarial.batch-size), or baseline='none'."
        )


def maligan_weights(returns: Tensor, counts: Tensor) -> Tensor:
    """MaliGAN's rescaled rewards, times the batch size (Che et al., 2017, arXiv 1702.07983, section 3.1).

    The paper's gradient is the sum over a batch of (r_i / sum of r - b) grad log p(x_i), with r = D / (1 - D). Here b is
    1 / n, so that equal rewards teach nothing (the paper increases it during training), and each weight is multiplied by n,
    because `policy_gradient_loss` takes a mean. With completions of prefixes, r at a position is their mean, normalised over
    the batch at this position.

    Args:
        returns: `(n, length)`, at least 0, and 0 beyond an episode's end.
        counts: `(length,)`, the number of episodes that reach each position.

    Returns:
        n r / sum of r - 1, `(n, length)`; 0 at a position where all r are 0 or too small to divide by.

    Raises:
        ValueError: a return is below 0.
    """
    if (returns < 0).any():
        raise ValueError(
            f"baseline='maligan' needs density ratios, which are never negative, but got a return of "
            f"{returns.min().item():.3g}. Use the scaling 'ratio' and the reward contract 'rollout' or 'terminal'."
        )
    sums = returns.sum(dim=0)
    smallest = torch.finfo(returns.dtype).tiny
    weights = returns / sums.clamp(min=smallest) * counts - 1
    return torch.where(sums >= smallest, weights, 0.0)


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor, lengths: Tensor, n_actions: Tensor | None = None) -> Tensor:
    """The REINFORCE loss: minus advantage times log-probability, averaged over actions (paper, eq. 8).

    Args:
        log_probs: `(n, length)` of the actions taken, in nats.
        advantages: `(n, length)`; no gradient flows through them.
        lengths: `(n,)` int64.
        n_actions: actions of the whole batch, if these are some of its rows; the result is then their share of its loss.
    """
    played = played_positions(lengths, log_probs.shape[1])
    return -(advantages.detach() * log_probs * played).sum() / (played.sum() if n_actions is None else n_actions)


def mean_entropy(log_probs: Tensor, lengths: Tensor, n_actions: Tensor | None = None) -> Tensor:
    """Entropy of the next-token distributions in nats, averaged over the actions taken.

    Args:
        log_probs: of all tokens, `(n, length, vocab_size)`, finite.
        lengths: `(n,)` int64.
        n_actions: see `policy_gradient_loss`.
    """
    entropies = -(log_probs.exp() * log_probs).sum(dim=-1)
    played = played_positions(lengths, log_probs.shape[1])
    return (entropies * played).sum() / (played.sum() if n_actions is None else n_actions)


def mean_divergence(log_probs: Tensor, reference: Tensor, lengths: Tensor, n_actions: Tensor | None = None) -> Tensor:
    """KL(policy || reference) of the next-token distributions in nats, averaged over the actions taken.

    Args:
        log_probs: the policy's, of all tokens, `(n, length, vocab_size)`, finite.
        reference: the reference's, of the same shape; both must forbid the same tokens.
        lengths: `(n,)` int64.
        n_actions: see `policy_gradient_loss`.
    """
    divergences = (log_probs.exp() * (log_probs - reference)).sum(dim=-1)
    played = played_positions(lengths, log_probs.shape[1])
    return (divergences * played).sum() / (played.sum() if n_actions is None else n_actions)
