"""PPO in a single file, in the style of CleanRL, on the native vector environment; PyTorch is the only library that it needs.

All rows have episodes of the same length, so each update sees exactly one whole episode per row, and no value is bootstrapped.
With `retrain_every` the environment retrains its discriminator inside `step()`, and PPO plays the adversarial game.

    python examples/cleanrl_ppo.py
    python examples/cleanrl_ppo.py --reward shaped --updates 200
"""

from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn
from torch.distributions import Categorical

from seqgan_env import TextCNNConfig  # importing it registers the environments

DISCRIMINATOR = TextCNNConfig(widths=(1, 2, 3), n_filters=(64, 64, 64), embedding_dim=16, learning_rate=1e-3)


@dataclass(frozen=True)
class Config:
    """Settings of the example."""

    vocab_size: int = 20
    """Number of tokens."""
    sequence_length: int = 10
    """Tokens in a sequence."""
    reward: Literal["terminal", "shaped"] = "terminal"
    """The reward contract; its discount comes from the environment."""
    retrain_every: int | None = 512
    """Finished episodes between two fits of the discriminator; None never retrains it."""
    num_envs: int = 64
    """Rows of the vector environment: episodes per update."""
    updates: int = 100
    """PPO updates."""
    epochs: int = 4
    """Passes over the episodes of an update."""
    minibatches: int = 4
    """Gradient steps per pass."""
    learning_rate: float = 3e-3
    """Adam's step size."""
    gae_lambda: float = 0.95
    """Lambda of generalized advantage estimation (Schulman et al., 2016)."""
    clip: float = 0.2
    """Limit on the ratio of new to old probability (Schulman et al., 2017, eq. 7)."""
    entropy_bonus: float = 0.01
    """Weight of the policy's entropy."""
    width: int = 64
    """Width of the token embedding and the GRU."""
    seed: int = 0
    """Seed of the network, the draws and the environment."""


class ActorCritic(nn.Module):
    """A GRU that reads the prefix, with heads for the next token's logits and for the value."""

    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size + 1, width)  # the pad id is also the start token
        self.gru = nn.GRU(width, width, batch_first=True)
        self.logits, self.value = nn.Linear(width, vocab_size), nn.Linear(width, 1)

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Categorical, Tensor]:
        """The next token's distribution and values `(n,)` of prefixes `(n, sequence_length)` with lengths `(n,)`."""
        states, _ = self.gru(self.embedding(F.pad(tokens, (1, 0), value=self.embedding.num_embeddings - 1)))
        state = states[torch.arange(len(tokens)), lengths]  # after the start token and `length` tokens
        return Categorical(logits=self.logits(state)), self.value(state).squeeze(-1)


def advantages_of(rewards: Tensor, values: Tensor, gamma: float, gae_lambda: float) -> Tensor:
    """Generalized advantages of whole episodes, `(length, n)` like rewards and values; after the last step the value is 0."""
    advantages, ahead, next_value = torch.zeros_like(rewards), torch.zeros_like(rewards[0]), torch.zeros_like(values[0])
    for t in reversed(range(len(rewards))):
        ahead = rewards[t] + gamma * next_value - values[t] + gamma * gae_lambda * ahead
        advantages[t], next_value = ahead, values[t]
    return advantages


def main(config: Config, **rules: Any) -> tuple[tuple[float, float], tuple[float, float]]:
    """Train; return (mean reward of an episode, mean NLL_oracle) in the first and in the last update.

    Args:
        config: all settings.
        rules: further arguments of the environment, such as `reward_model`.
    """
    torch.manual_seed(config.seed)
    env: Any = gym.make_vec(
        "SeqGAN/Oracle-v0",
        num_envs=config.num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode="SameStep",
        vocab_size=config.vocab_size,
        sequence_length=config.sequence_length,
        reward=config.reward,
        retrain_every=config.retrain_every,
        **{"discriminator": DISCRIMINATOR, **rules},
    )
    net = ActorCritic(config.vocab_size, config.width)
    optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
    observation, _ = env.reset(seed=config.seed)
    curve: list[tuple[float, float]] = []
    for update in range(config.updates):
        steps: list[tuple[Tensor, ...]] = []
        for _ in range(config.sequence_length):
            tokens, lengths = torch.from_numpy(observation["tokens"]), torch.from_numpy(observation["length"]).squeeze(1)
            with torch.no_grad():
                policy, value = net(tokens, lengths)
                action = policy.sample()
            observation, reward, _, _, infos = env.step(action.numpy())
            steps.append((tokens, lengths, action, policy.log_prob(action), value, torch.from_numpy(reward).float()))
        tokens, lengths, actions, old_log_probs, values, rewards = (torch.stack(column) for column in zip(*steps, strict=True))
        advantages = advantages_of(rewards, values, env.gamma, config.gae_lambda)
        curve.append((rewards.sum(dim=0).mean().item(), float(infos["final_info"]["oracle_nll"].mean())))
        if update % 20 == 0:
            print(f"update {update}: mean reward {curve[-1][0]:.3f}, NLL_oracle {curve[-1][1]:.3f}")

        columns = (tokens, lengths, actions, old_log_probs, advantages, advantages + values)
        batch = [column.flatten(0, 1) for column in columns]  # (length * n, ...)
        for _ in range(config.epochs):
            for rows in torch.randperm(len(batch[0])).chunk(config.minibatches):
                prefix, length, action, old_log_prob, advantage, target = (column[rows] for column in batch)
                policy, value = net(prefix, length)
                ratio = (policy.log_prob(action) - old_log_prob).exp()
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                gain = torch.min(ratio * advantage, ratio.clamp(1 - config.clip, 1 + config.clip) * advantage)
                loss = F.mse_loss(value, target) - gain.mean() - config.entropy_bonus * policy.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), 0.5)
                optimizer.step()
    (reward_before, nll_before), (reward_after, nll_after) = curve[0], curve[-1]
    print(
        f"mean reward {reward_before:.3f} -> {reward_after:.3f}, NLL_oracle {nll_before:.3f} -> {nll_after:.3f} nats per token"
    )
    return curve[0], curve[-1]


if __name__ == "__main__":
    main(tyro.cli(Config))
