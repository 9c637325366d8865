"""Algorithms of Stable-Baselines3 and sb3-contrib play and learn, through `SB3VecEnv` and `PrefixExtractor`.

The lesson, `rising`, is to follow each token by the next number: it takes a look at the prefix, whose first token is free.
A memoryless policy that sees nothing draws each token from the same distribution p and earns the sum of p_i p_(i+1), which for
four tokens is (p_0 + p_2)(p_1 + p_3), at most 1 / 4. So learning is told from luck by the untrained policy and by a blind one.
"""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecMonitor

from agents import PrefixExtractor, SB3VecEnv
from seqgan_env import FunctionReward, SequenceEnv, SequenceGame, SequenceVectorEnv, TextCNNConfig, make_game, oracle_game

V, T, N = 4, 4, 16
SMALL_CNN = TextCNNConfig(widths=(1, 2), n_filters=(4, 4), embedding_dim=4, batch_size=16, epochs=1)
NARROW: Any = {"embedding_dim": 8, "features_dim": 16}
CONTRIB = "sb3-contrib is not installed: pip install -e '.[contrib]'"
ON_POLICY: Any = {"n_steps": 16, "learning_rate": 0.01}
EPOCHS: Any = {**ON_POLICY, "batch_size": 64, "n_epochs": 4}
TRPO_SETTINGS: Any = {**ON_POLICY, "batch_size": 64, "target_kl": 0.03, "n_critic_updates": 4}
REPLAY: Any = {
    "learning_rate": 0.005,
    "learning_starts": 200,
    "buffer_size": 5_000,
    "batch_size": 64,
    "train_freq": 1,
    "target_update_interval": 100,
    "exploration_fraction": 0.5,
}


class Blind(BaseFeaturesExtractor):
    """The useless feature: always one."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space, 1)

    def forward(self, observations: Any) -> torch.Tensor:
        return torch.ones_like(observations["length"])


def rising(sequences: list[list[int]], vocab_size: int = V) -> list[float]:
    """The share of tokens that follow their predecessor by one."""
    return [sum((b - a) % vocab_size == 1 for a, b in itertools.pairwise(s)) / (len(s) - 1) for s in sequences]


def game(**rules: Any) -> SequenceGame:
    return oracle_game(T, V, n_real=64, **{"reward_model": FunctionReward(rising), **rules})


def env(layout: Any = "dict", **rules: Any) -> VecMonitor:
    return VecMonitor(SB3VecEnv(SequenceVectorEnv(game(**rules), N, autoreset_mode="SameStep", layout=layout)))


def algorithm(name: str) -> type[BaseAlgorithm]:
    if name in ("PPO", "A2C", "DQN"):
        return {"PPO": PPO, "A2C": A2C, "DQN": DQN}[name]
    kind: type[BaseAlgorithm] = getattr(pytest.importorskip("sb3_contrib", reason=CONTRIB), name)
    return kind


def make(name: str, vec_env: VecEnv, settings: dict[str, Any], blind: bool = False, **policy_kwargs: Any) -> Any:
    features: dict[str, Any] = {"features_extractor_class": Blind}
    if not blind:
        features = {"features_extractor_class": PrefixExtractor, "features_extractor_kwargs": NARROW}
    policy = "MultiInputLstmPolicy" if name == "RecurrentPPO" else "MultiInputPolicy"
    return algorithm(name)(
        policy, vec_env, gamma=1.0, seed=0, policy_kwargs={"net_arch": [], **features, **policy_kwargs}, **settings
    )


def mean_reward(model: Any) -> float:
    """The mean reward of 64 episodes that the policy samples."""
    mean, _ = evaluate_policy(model, env(), n_eval_episodes=64, deterministic=False)
    return float(np.mean(mean))


@pytest.mark.slow
@pytest.mark.rounding
@pytest.mark.parametrize(
    ("name", "settings", "policy_kwargs", "steps"),
    [
        ("PPO", EPOCHS, {}, 3_000),
        ("PPO", EPOCHS, {"features_extractor_kwargs": {**NARROW, "reader": "lstm"}}, 3_000),
        ("PPO", {**EPOCHS, "learning_rate": 0.002}, {"features_extractor_kwargs": {**NARROW, "reader": "transformer"}}, 4_000),
        ("A2C", {"n_steps": 4, "learning_rate": 0.01}, {}, 12_000),
        ("DQN", REPLAY, {}, 10_000),
        ("TRPO", TRPO_SETTINGS, {}, 6_000),
        ("QRDQN", REPLAY, {"n_quantiles": 5}, 10_000),
        ("RecurrentPPO", EPOCHS, {"lstm_hidden_size": 16}, 3_000),
    ],
)
def test_every_algorithm_learns(name: str, settings: Any, policy_kwargs: Any, steps: int) -> None:
    model = make(name, env(), settings, **policy_kwargs)
    untrained = mean_reward(model)
    model.learn(steps)
    assert mean_reward(model) > max(0.85, untrained + 0.3)


@pytest.mark.slow
@pytest.mark.rounding
@pytest.mark.parametrize(
    ("name", "settings", "policy_kwargs", "steps"),
    [("PPO", EPOCHS, {}, 3_000), ("A2C", {"n_steps": 4, "learning_rate": 0.01}, {}, 6_000), ("DQN", REPLAY, {}, 5_000)],
)
def test_a_blind_policy_learns_nothing(name: str, settings: Any, policy_kwargs: Any, steps: int) -> None:
    """The negative control of the test above: 192 pairs, each right with probability 1 / 4 at most."""
    model = make(name, env(), settings, blind=True, **policy_kwargs)
    model.learn(steps)
    assert mean_reward(model) < 0.45


class TestMasks:
    @staticmethod
    def no_leap(prefix: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """The number after next is forbidden."""
        allowed = np.ones(V, dtype=np.bool_)
        if len(prefix):
            allowed[(prefix[-1] + 2) % V] = False
        return allowed

    def masked_env(self, played: list[list[int]] | None = None) -> VecMonitor:
        def reward(sequences: list[list[int]]) -> list[float]:
            if played is not None:
                played.extend(sequences)
            return rising(sequences)

        return env(mask=self.no_leap, reward_model=FunctionReward(reward))

    @pytest.mark.slow
    @pytest.mark.rounding
    def test_maskable_ppo_learns_and_never_plays_a_masked_token(self) -> None:
        pytest.importorskip("sb3_contrib", reason=CONTRIB)
        from sb3_contrib.common.maskable.evaluation import evaluate_policy as evaluate_masked

        played: list[list[int]] = []
        model = make("MaskablePPO", self.masked_env(played), EPOCHS)
        untrained, _ = evaluate_masked(model, self.masked_env(), n_eval_episodes=64, deterministic=False)
        model.learn(3_000)
        trained, _ = evaluate_masked(model, self.masked_env(), n_eval_episodes=64, deterministic=False)
        assert untrained < 0.6  # chance is 1 / 3
        assert trained > 0.85
        assert len(played) == model.num_timesteps / T
        assert not any((b - a) % V == 2 for sequence in played for a, b in itertools.pairwise(sequence))

    def test_an_algorithm_that_ignores_masks_is_stopped(self) -> None:
        """The negative control of the test above: without masks, forbidden tokens are drawn, and refused."""
        with pytest.raises(ValueError, match=r"is masked out after the prefix \[.*\]: choose among action_masks\(\)"):
            make("PPO", self.masked_env(), EPOCHS).learn(N * T)

    @pytest.mark.slow
    @pytest.mark.rounding
    @pytest.mark.parametrize("layout", ["dict", "dict-mask"])
    def test_maskable_ppo_learns_over_the_published_vocabulary(self, layout: Any) -> None:
        """sb3-contrib #247: over so many tokens, float32's rounding of masked probabilities stopped older versions."""
        pytest.importorskip("sb3_contrib", reason=CONTRIB)
        vocab_size, earned = 5_000, []

        def mask(prefix: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
            allowed = np.ones(vocab_size, dtype=np.bool_)
            allowed[prefix] = False
            return allowed

        def low(sequences: list[list[int]]) -> list[float]:
            shares = [float(np.mean(np.array(sequence) < vocab_size // 2)) for sequence in sequences]
            earned.append(float(np.mean(shares)))
            return shares

        real = torch.arange(T * 8).view(8, T)
        large = make_game(vocab_size, T, real, reward_model=FunctionReward(low), mask=mask)
        vec_env = SB3VecEnv(SequenceVectorEnv(large, N, autoreset_mode="SameStep", layout=layout))
        settings = {**EPOCHS, "learning_rate": 0.05}
        make("MaskablePPO", vec_env, settings).learn(14 * N * settings["n_steps"])
        assert np.mean(earned[:4]) < 0.6  # chance is 1 / 2
        assert np.mean(earned[-4:]) > 0.8

    def test_masks_come_row_by_row_as_maskable_ppo_asks_for_them(self) -> None:
        pytest.importorskip("sb3_contrib", reason=CONTRIB)
        from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported

        vec_env = self.masked_env()
        assert is_masking_supported(vec_env)
        vec_env.reset()
        actions = np.arange(N) % V
        vec_env.step(actions)
        forbidden = np.zeros((N, V), dtype=np.bool_)
        forbidden[np.arange(N), (actions + 2) % V] = True
        assert (get_action_masks(vec_env) == ~forbidden).all()


class RandomStart(VecEnvWrapper):
    """Plays the first token of each episode at random, so that no fixed sequence is right."""

    def __init__(self, venv: VecEnv, vocab_size: int) -> None:
        super().__init__(venv)
        self.vocab_size, self.rng = vocab_size, np.random.default_rng(0)

    def start(self) -> Any:
        return self.venv.step(self.rng.integers(self.vocab_size, size=self.num_envs))[0]

    def reset(self) -> Any:
        self.venv.reset()
        return self.start()

    def step_wait(self) -> Any:
        observation, rewards, dones, infos = self.venv.step_wait()
        return self.start() if dones.all() else observation, rewards, dones, infos


@pytest.mark.slow
@pytest.mark.rounding
def test_ids_as_numbers_are_poor_features() -> None:
    """The same PPO with a `PrefixExtractor` and with SB3's own features of ids: each token has a successor to learn."""
    vocab_size, length = 8, 3
    successor = np.random.default_rng(0).permutation(vocab_size)

    def right(sequences: list[list[int]]) -> list[float]:
        return [sum(successor[a] == b for a, b in itertools.pairwise(s)) / (length - 1) for s in sequences]

    def start_anywhere(layout: Any) -> VecEnv:
        lesson = oracle_game(length, vocab_size, n_real=64, reward_model=FunctionReward(right))
        vec_env = SB3VecEnv(SequenceVectorEnv(lesson, 32, autoreset_mode="SameStep", layout=layout))
        return VecMonitor(RandomStart(vec_env, vocab_size))

    def learned(policy: str, layout: Any, **policy_kwargs: Any) -> float:
        settings: Any = {"n_steps": 12, "batch_size": 128, "n_epochs": 4, "learning_rate": 3e-3, "gamma": 1.0, "seed": 0}
        model = PPO(policy, start_anywhere(layout), policy_kwargs=policy_kwargs, **settings).learn(10_000)
        mean, _ = evaluate_policy(model, start_anywhere(layout), n_eval_episodes=96, deterministic=False)
        return float(np.mean(mean))

    with_context = learned("MultiInputPolicy", "dict", features_extractor_class=PrefixExtractor)
    assert with_context > 0.8
    assert with_context > learned("MlpPolicy", "flat") + 0.2


def test_a2c_under_the_flat_layout() -> None:
    kwargs = {"features_extractor_class": PrefixExtractor, "features_extractor_kwargs": {"vocab_size": V}}
    model = A2C("MlpPolicy", env("flat"), gamma=1.0, seed=0, policy_kwargs=kwargs).learn(160)
    observation = env("flat").reset()
    assert isinstance(observation, np.ndarray)
    assert 0 <= int(model.predict(observation)[0][0]) < V


# The adversarial game, from step() alone


class Infos(BaseCallback):
    """Keeps the infos of all steps, and how many episodes ended."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        self.all += self.locals["infos"]
        return True


def vector_form(shared: SequenceGame) -> VecEnv:
    return SB3VecEnv(SequenceVectorEnv(shared, N, autoreset_mode="SameStep"))


def single_form(shared: SequenceGame) -> VecEnv:
    return DummyVecEnv([lambda: SequenceEnv(shared)] * N)


@pytest.mark.parametrize("form", [vector_form, single_form])
@pytest.mark.parametrize(("retrain_every", "expected"), [(None, 0), (24, 2), (1_000, 0)])
def test_a_discriminator_stays_or_is_retrained_inside_step(form: Any, retrain_every: int | None, expected: int) -> None:
    """64 episodes, 16 of which end at once: single environments retrain after 24 and 48, the vector form after 32 and 64."""
    played = game(
        reward="shaped", reward_model="discriminator", discriminator=SMALL_CNN, n_rollouts=2, retrain_every=retrain_every
    )
    discriminator = played.reward_model.discriminator  # type: ignore[attr-defined]
    before = [parameter.detach().clone() for parameter in discriminator.parameters()]
    infos = Infos()
    make("PPO", form(played), EPOCHS).learn(64 * T, callback=infos)
    moved = [not torch.equal(one, other) for one, other in zip(before, discriminator.parameters(), strict=True)]
    retrainings = [info["retraining"] for info in infos.all if "retraining" in info]
    assert any(moved) == (expected > 0)
    assert len(retrainings) == expected
    assert all({"loss", "accuracy"} <= metrics.keys() for metrics in retrainings)
    assert sum("terminal_observation" in info for info in infos.all) == 64
    assert all("terminal_observation" in info for info in infos.all if "retraining" in info)
