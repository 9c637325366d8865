"""Agents that several test files train, and what they play."""

from typing import Any

import pytest
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

import agents.reinforce
from agents.reinforce import Reinforce
from seqgan_env import SequenceVectorEnv, TextCNNConfig, oracle_game, text_game

LINES = ["a b c d", "b a", "c c a", "d", "a a b c", "b d a"] * 20
SMALL_CNN = TextCNNConfig(widths=(1, 2), n_filters=(4, 4), embedding_dim=4, batch_size=16, epochs=1)


def new_game(**rules: Any) -> Any:
    return oracle_game(5, 12, n_real=64, **{"reward": "rollout", "n_rollouts": 3, "discriminator": SMALL_CNN, **rules})


def new_agent(env: Any = None, **arguments: Any) -> Reinforce:
    if env is None:
        env = SequenceVectorEnv(new_game(), 8, autoreset_mode=AutoresetMode.SAME_STEP)
    return Reinforce("GeneratorPolicy", env, **{"seed": 0, "learning_rate": 0.02, **arguments})


def text_env(n: int = 8, **rules: Any) -> SequenceVectorEnv:
    game = text_game(LINES, 4, discriminator=SMALL_CNN, n_rollouts=3, **{"reward": "rollout", **rules})
    return SequenceVectorEnv(game, n, autoreset_mode=AutoresetMode.SAME_STEP)


def weights(agent: Reinforce) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in agent.generator.parameters()])


def note_rewards(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The rewards `(n, length)` of each batch that an agent learns from."""
    noted: list[Tensor] = []
    returns = agents.reinforce.discounted_returns

    def note(rewards: Tensor, gamma: float) -> Tensor:
        noted.append(rewards.clone())
        return returns(rewards, gamma)

    monkeypatch.setattr(agents.reinforce, "discounted_returns", note)
    return noted


def play(env: VecEnv, tokens: Tensor) -> list[dict[str, Any]]:
    """Play whole episodes `(n_envs, T)`, a row an environment; returns the last infos."""
    env.reset()
    infos: list[dict[str, Any]] = []
    for actions in tokens.T.numpy():
        _, _, dones, infos = env.step(actions)
    assert dones.all()
    return infos
