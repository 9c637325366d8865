"""The reward models that have a name."""

import math
from pathlib import Path
from typing import Any, get_args

import gymnasium as gym
import pytest
import torch

from seqgan_env.games import make_game
from seqgan_env.rewards.registry import REWARD_MODELS, RewardName
from seqgan_env.rewards.reward_model import adapt
from seqgan_env.rewards.text_cnn import TextCNNConfig
from tests.small import T, V, real_sequences

SMALL_CNN_OF_2 = TextCNNConfig(widths=(1, 2), n_filters=(3, 3), embedding_dim=4)


def test_every_name_makes_a_model_and_is_in_the_docs() -> None:
    assert (*REWARD_MODELS,) == get_args(RewardName)
    page = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
    assert [name for name in REWARD_MODELS if f'`"{name}"`' not in page] == []


@pytest.mark.parametrize("name", get_args(RewardName))
def test_the_description_of_a_model_has_its_name(name: Any) -> None:
    game = make_game(V, T, real_sequences(), reward_model=name, discriminator=SMALL_CNN_OF_2)
    description = adapt(game.reward_model).description()
    assert description is not None
    assert description["reward_model"] == name


@pytest.mark.parametrize(("name", "option"), [("density-ratio", "density_ratio"), ("rank", "ranking")])
def test_none_stands_for_the_default_settings(name: Any, option: str) -> None:
    arguments: dict[str, Any] = {"reward_model": name, "discriminator": SMALL_CNN_OF_2}
    game = make_game(V, T, real_sequences(), **arguments, **{option: None})
    default = make_game(V, T, real_sequences(), **arguments)
    assert adapt(game.reward_model).description() == adapt(default.reward_model).description()


@pytest.mark.parametrize("name", get_args(RewardName))
def test_a_game_takes_each_reward_model_by_name(name: RewardName) -> None:
    env = gym.make("SeqGAN/Text-v0", data=["a b", "u e", "b b"], reward_model=name, discriminator=SMALL_CNN_OF_2)
    env.reset(seed=0)
    reward, terminated = 0.0, False
    while not terminated:
        _, step_reward, terminated, _, _ = env.step(1)
        reward += float(step_reward)
    assert math.isfinite(reward)
    assert type(env.unwrapped.game.reward_model).__name__ == f"{name.title().replace('-', '')}Reward"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", get_args(RewardName))
@pytest.mark.parametrize("objective", [None, len])
def test_no_sequences_have_no_scores(name: Any, objective: Any) -> None:
    game = make_game(V, T, real_sequences(), reward_model=name, discriminator=SMALL_CNN_OF_2, objective=objective)
    tokens, lengths = torch.empty(0, T, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
    assert game.reward_model.score(tokens, lengths).shape == (0,)
    assert adapt(game.reward_model).score_completions(tokens, lengths).shape == (0,)
    assert game.action_values(tokens, lengths, lengths, range(T)).shape == (0, T)
    assert all(values.shape == (0,) for values in game.final_info(tokens, lengths).values())
