"""Other algorithms of Stable-Baselines3 on the environments, through `SB3VecEnv` and `PrefixExtractor`."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from agents import PrefixExtractor, SB3VecEnv
from seqgan_env import DiscriminatorReward, FunctionReward, SequenceEnv, SequenceVectorEnv, TextCNN, TextCNNConfig, oracle_game

V, T = 8, 5
SMALL_CNN = TextCNNConfig(widths=(1, 2), n_filters=(4, 4), embedding_dim=4, batch_size=16, epochs=1)
SETTINGS: Any = {"n_steps": 20, "batch_size": 80, "n_epochs": 4, "learning_rate": 3e-3, "gamma": 1.0, "seed": 0}


def rising(sequences: list[list[int]]) -> list[float]:
    """The share of tokens that follow their predecessor by one: it takes context to choose them; chance is 1 / V."""
    return [sum((b - a) % V == 1 for a, b in itertools.pairwise(s)) / (T - 1) for s in sequences]


def env(layout: Any = "dict", **rules: Any) -> SB3VecEnv:
    rules = {"reward_model": FunctionReward(rising), **rules}
    return SB3VecEnv(SequenceVectorEnv(oracle_game(T, V, n_real=64, **rules), 16, autoreset_mode="SameStep", layout=layout))


def ppo(vec_env: Any) -> PPO:
    policy_kwargs = {"features_extractor_class": PrefixExtractor}
    return PPO("MultiInputPolicy", vec_env, policy_kwargs=policy_kwargs, **SETTINGS)


class TestPrefixExtractor:
    def test_reads_the_prefix_where_it_ends(self) -> None:
        extractor = PrefixExtractor(env().observation_space)
        prefix = torch.tensor([[3.0, 1.0, 8.0, 8.0, 8.0]])  # as SB3 casts it
        garbage = torch.tensor([[3.0, 1.0, 5.0, 0.0, 8.0]])
        features = extractor({"tokens": prefix, "length": torch.tensor([[2.0]])})
        assert features.shape == (1, 64)
        assert torch.allclose(extractor({"tokens": garbage, "length": torch.tensor([[2.0]])}), features)
        assert not torch.allclose(extractor({"tokens": prefix, "length": torch.tensor([[1.0]])}), features)
        other = torch.tensor([[1.0, 3.0, 8.0, 8.0, 8.0]])
        assert not torch.allclose(extractor({"tokens": other, "length": torch.tensor([[2.0]])}), features)

    def test_both_layouts_give_the_same_features(self) -> None:
        by_dict = PrefixExtractor(env().observation_space)
        by_flat = PrefixExtractor(env("flat").observation_space, vocab_size=V)
        by_flat.load_state_dict(by_dict.state_dict())
        tokens, length = torch.randint(0, V, (6, T)), torch.arange(6).unsqueeze(1)
        assert torch.equal(by_dict({"tokens": tokens, "length": length}), by_flat(torch.cat([tokens, length], dim=1)))

    def test_the_flat_layout_needs_the_vocabulary(self) -> None:
        with pytest.raises(ValueError, match="The layout 'flat' does not tell the vocabulary's size"):
            PrefixExtractor(env("flat").observation_space)


@pytest.mark.slow
@pytest.mark.parametrize("reward", ["terminal", "shaped"])
def test_ppo_learns_what_takes_context(reward: Any) -> None:
    """Chance is 0.125; the same PPO on ids as numbers is the control."""
    with_context = ppo(VecMonitor(env(reward=reward, n_rollouts=4)))
    with_context.learn(12_000)
    mean, _ = evaluate_policy(with_context, VecMonitor(env()), n_eval_episodes=64)
    numbers = PPO("MlpPolicy", env("flat"), **SETTINGS)
    numbers.learn(12_000)
    control, _ = evaluate_policy(numbers, VecMonitor(env("flat")), n_eval_episodes=64)
    assert mean > 0.9
    assert mean > control + 0.2


def test_ppo_plays_the_adversarial_game_from_step_alone() -> None:
    vec_env = env(reward_model="discriminator", discriminator=SMALL_CNN, retrain_every=32)
    discriminator = vec_env.venv.game.reward_model.discriminator  # type: ignore[attr-defined]
    before = discriminator.output.weight.detach().clone()
    ppo(vec_env).learn(320)
    assert not torch.equal(discriminator.output.weight, before)


def test_a2c_under_the_flat_layout() -> None:
    kwargs = {"features_extractor_class": PrefixExtractor, "features_extractor_kwargs": {"vocab_size": V}}
    model = A2C("MlpPolicy", env("flat"), gamma=1.0, seed=0, policy_kwargs=kwargs).learn(160)
    assert 0 <= int(model.predict(env("flat").reset())[0][0]) < V


def test_single_environments_share_a_reward_model_under_make_vec_env() -> None:
    shared = DiscriminatorReward(TextCNN(V, T, SMALL_CNN))
    vec_env = make_vec_env(lambda: SequenceEnv(oracle_game(T, V, n_real=64, reward_model=shared, retrain_every=4)), n_envs=4)
    before = shared.discriminator.output.weight.detach().clone()
    ppo(vec_env).learn(80)
    assert not torch.equal(shared.discriminator.output.weight, before)
    assert np.isfinite(evaluate_policy(ppo(vec_env), vec_env, n_eval_episodes=2)[0])
