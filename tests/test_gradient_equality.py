"""Under its own discount, every reward contract has one and the same expected policy gradient; and PPO finds the mode.

All sequences of a tiny vocabulary are written down, so that expectations and Q are exact sums, in float64. What the project's
own functions make of them is compared with the gradient of the expected reward itself.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from stable_baselines3 import PPO
from torch import Tensor

from agents import PrefixExtractor, SB3VecEnv
from seqgan_env import SequenceVectorEnv, TokenLSTM, oracle_game, seeded_oracle
from seqgan_env.game import contract_rewards
from seqgan_env.game_rules import GAMMAS
from seqgan_env.models.sampling import Mask, allowed_tokens, forbid
from seqgan_env.policy_gradient import advantages, discounted_returns, policy_gradient_loss
from tests.references import all_sequences
from tests.small import seeded

V, T = 3, 3
CONTRACTS = ("terminal", "rollout", "shaped")


def no_token_twice_in_a_row(prefix: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    allowed = np.ones(V, dtype=np.bool_)
    allowed[prefix[-1:][prefix[-1:] < V]] = False  # padding, in sequences that have ended, forbids nothing
    return allowed


RULES: dict[str, dict[str, Any]] = {
    "plain": {},
    "end token": {"end_token": 1},
    "mask": {"mask": no_token_twice_in_a_row},
    "mask and end token": {"mask": no_token_twice_in_a_row, "end_token": 1},
}
rules = pytest.mark.parametrize("rules", RULES.values(), ids=RULES)


class Enumeration:
    """Everything that a policy can write, with its probability, its reward, and exact Q."""

    def __init__(self, end_token: int | None = None, mask: Mask | None = None) -> None:
        self.policy = TokenLSTM(V, 4, 4, end_token=end_token, initial_std=1.0, generator=seeded()).double()
        self.tokens = all_sequences(V, T, end_token)
        self.log_probs = self._log_probs(mask)
        possible = self.log_probs.sum(dim=1) > -torch.inf  # what the mask forbids cannot be written
        self.tokens, self.log_probs = self.tokens[possible], self.log_probs[possible]
        self.lengths = (self.tokens < V).sum(dim=1)
        self.probabilities = self.log_probs.sum(dim=1).exp()
        self.rewards = torch.rand(len(self.tokens), generator=seeded(1), dtype=torch.float64)

    def _log_probs(self, mask: Mask | None) -> Tensor:
        """Log-probability of each token `(n, T)`, under the mask; 0 at padding."""
        logits = self.policy.logits(self.tokens)
        if mask is not None:
            allowed = [allowed_tokens(mask, self.tokens[:, :position], V) for position in range(T)]
            logits = forbid(logits, torch.stack(allowed, dim=1))
        written = self.tokens < V
        taken = torch.log_softmax(logits, dim=2).gather(2, self.tokens.clamp(max=V - 1).unsqueeze(2)).squeeze(2)
        return torch.where(written, taken, 0.0)

    def action_values(self, weights: Tensor | None = None) -> Tensor:
        """Q `(n, T)`: the mean reward of all sequences with the same first tokens, by their probabilities; 0 at padding.

        Other weights `(n,)` stand for completions by another policy.
        """
        weights = self.probabilities.detach() if weights is None else weights
        values = torch.zeros(self.tokens.shape, dtype=torch.float64)
        for position in range(T):
            prefixes = self.tokens[:, : position + 1]
            same = (prefixes.unsqueeze(1) == prefixes.unsqueeze(0)).all(dim=2) * weights  # (n, n)
            values[:, position] = (same @ self.rewards) / same.sum(dim=1)
        return values * (self.tokens < V)

    def gradient_of(self, scalar: Tensor) -> Tensor:
        """Its gradient with respect to all parameters, as one vector."""
        parts = torch.autograd.grad(scalar, list(self.policy.parameters()), retain_graph=True)
        return torch.cat([part.flatten() for part in parts])

    def gradient_of_expected_reward(self) -> Tensor:
        return self.gradient_of((self.probabilities * self.rewards).sum())

    def expected_policy_gradient(self, contract: Any, gamma: float, values: Tensor | None = None) -> Tensor:
        """The expectation of REINFORCE's ascent direction, without a baseline.

        The loss is a mean over actions and linear in the advantages: weighted by the probabilities, and times the number of
        actions, it is the expected sum over an episode.
        """
        values = self.action_values() if values is None else values
        returns = discounted_returns(contract_rewards(values, self.lengths, contract), gamma)
        weighted = advantages(returns, self.lengths, "none") * self.probabilities.unsqueeze(1)
        return -self.gradient_of(policy_gradient_loss(self.log_probs, weighted, self.lengths) * self.lengths.sum())


def off_by(gradient: Tensor, truth: Tensor) -> float:
    """The relative distance of two vectors."""
    return ((gradient - truth).norm() / truth.norm()).item()


@rules
def test_the_enumeration_is_complete(rules: dict[str, Any]) -> None:
    enumeration = Enumeration(**rules)
    assert enumeration.probabilities.sum().item() == pytest.approx(1, abs=1e-12)
    first = enumeration.action_values()[:, 0]
    expected_reward = (enumeration.probabilities * enumeration.rewards).sum().item()
    assert (enumeration.probabilities * first).sum().item() == pytest.approx(expected_reward, abs=1e-12)


@rules
def test_every_contract_has_the_gradient_of_the_expected_reward(rules: dict[str, Any]) -> None:
    enumeration = Enumeration(**rules)
    truth = enumeration.gradient_of_expected_reward()
    assert truth.norm() > 0.01
    for contract in CONTRACTS:
        assert off_by(enumeration.expected_policy_gradient(contract, GAMMAS[contract]), truth) < 1e-12, contract


@rules
@pytest.mark.parametrize(("contract", "gamma"), [("rollout", 1.0), ("rollout", 0.5), ("terminal", 0.9), ("terminal", 0.0)])
def test_another_discount_has_another_gradient(rules: dict[str, Any], contract: Any, gamma: float) -> None:
    """The negative control: ten orders of magnitude beyond the tolerance."""
    enumeration = Enumeration(**rules)
    wrong = enumeration.expected_policy_gradient(contract, gamma)
    assert off_by(wrong, enumeration.gradient_of_expected_reward()) > 0.01


@rules
def test_completions_of_another_policy_change_the_rollout_gradient_but_not_the_shaped_one(rules: dict[str, Any]) -> None:
    """Shaping telescopes, whoever completes, as long as nothing is discounted.

    With exact Q of the policy itself the discount would not show: later differences are 0 in the mean.
    """
    enumeration = Enumeration(**rules)
    truth = enumeration.gradient_of_expected_reward()
    uniform = enumeration.action_values(torch.ones(len(enumeration.tokens), dtype=torch.float64))
    assert off_by(enumeration.expected_policy_gradient("shaped", GAMMAS["shaped"], uniform), truth) < 1e-12
    assert off_by(enumeration.expected_policy_gradient("shaped", 0.9, uniform), truth) > 0.01
    assert off_by(enumeration.expected_policy_gradient("rollout", GAMMAS["rollout"], uniform), truth) > 0.01
    assert off_by(enumeration.expected_policy_gradient("shaped", 0.9), truth) < 1e-12


@rules
@pytest.mark.parametrize("contract", ["rollout", "shaped"])
def test_q_that_is_off_by_one_position_has_another_gradient(rules: dict[str, Any], contract: Any) -> None:
    enumeration = Enumeration(**rules)
    late = enumeration.action_values().roll(1, dims=1)
    wrong = enumeration.expected_policy_gradient(contract, GAMMAS[contract], late)
    assert off_by(wrong, enumeration.gradient_of_expected_reward()) > 0.01


class OracleLikelihood:
    """A fixed reward: the log-likelihood of a sequence under the oracle, in nats per token."""

    def __init__(self, oracle: TokenLSTM) -> None:
        self.oracle = oracle

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return -self.oracle.nll(tokens).float()


def greedy(model: PPO, env: SB3VecEnv) -> Tensor:
    """The sequence of the policy's likeliest tokens."""
    observation = env.reset()
    for _ in range(4):
        actions, _ = model.predict(observation, deterministic=True)
        observation, _, _, infos = env.step(actions)
    return torch.from_numpy(infos[0]["terminal_observation"]["tokens"])


@pytest.mark.rounding
@pytest.mark.parametrize("oracle_seed", [0, 1])
def test_ppo_finds_the_mode_of_a_tiny_oracle(oracle_seed: int) -> None:
    """The mode, or one of the few sequences that are nearly as likely; the mean of all is 2.5 nats per token above it."""
    oracle = seeded_oracle(oracle_seed, 5)
    nll = oracle.nll(all_sequences(5, 4, None))
    game = oracle_game(4, 5, oracle_seed=oracle_seed, reward_model=OracleLikelihood(oracle))
    env = SB3VecEnv(SequenceVectorEnv(game, 64, autoreset_mode="SameStep"))
    model = PPO(
        "MultiInputPolicy",
        env,
        gamma=game.gamma,
        gae_lambda=1.0,
        n_steps=8,
        batch_size=256,
        n_epochs=4,
        learning_rate=3e-3,
        seed=0,
        policy_kwargs={"features_extractor_class": PrefixExtractor},
    )
    model.learn(8_192)
    assert oracle.nll(greedy(model, env)[None]).item() < nll.min() + 0.3
    assert nll.mean() > nll.min() + 2
