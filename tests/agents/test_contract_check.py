"""Each wrong combination of an algorithm and the environment warns once, with its remedy; the right ones are silent."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, NormalizeObservation, RescaleObservation, TransformObservation
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import (
    CallbackList,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecMonitor, VecNormalize

from agents import (
    ContractCheck,
    ContractWarning,
    DiscriminatorCallback,
    PrefixExtractor,
    Reinforce,
    SB3VecEnv,
    check_contract,
)
from agents.contract_check import departures
from seqgan_env import SequenceEnv, SequenceGame, SequenceVectorEnv
from seqgan_env.rewards.mixture import MixtureReward
from tests.small import Ordinal, T, V, real_sequences, small_discriminator, small_game

EXTRACTOR: dict[str, Any] = {"features_extractor_class": PrefixExtractor, "features_extractor_kwargs": {"vocab_size": V}}


def env(layout: Any = "dict", **rules: Any) -> SB3VecEnv:
    return SB3VecEnv(SequenceVectorEnv(small_game(**rules), 4, autoreset_mode="SameStep", layout=layout))


def wrapped(wrapper: Callable[[gym.Env[Any, Any]], gym.Env[Any, Any]], layout: Any = "flat") -> VecEnv:
    return make_vec_env(lambda: wrapper(SequenceEnv(small_game(), layout=layout)), n_envs=2)


def as_multi_discrete(single: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    return TransformObservation(single, lambda flat: flat[:-1], spaces.MultiDiscrete([V + 1] * T))


def ppo(vec_env: VecEnv, policy: str = "MultiInputPolicy", policy_kwargs: Any = EXTRACTOR, **arguments: Any) -> PPO:
    return PPO(
        policy, vec_env, n_steps=10, batch_size=20, n_epochs=1, policy_kwargs=policy_kwargs, **{"gamma": 1.0, **arguments}
    )


def warned(call: Callable[[], Any]) -> list[str]:
    """The contract's warnings that a user would see under Python's default filter."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        call()
    return [str(warning.message) for warning in seen if issubclass(warning.category, ContractWarning)]


class TestSilence:
    @pytest.mark.parametrize(("reward", "gamma"), [("terminal", 1.0), ("shaped", 1.0), ("rollout", 0.0)])
    def test_the_right_discount(self, reward: str, gamma: float) -> None:
        assert warned(lambda: ppo(env(reward=reward), gamma=gamma).learn(40, callback=ContractCheck())) == []

    @pytest.mark.parametrize(
        "around",
        [VecMonitor, lambda inner: VecNormalize(inner, norm_obs=False), lambda inner: VecNormalize(inner, norm_obs_keys=[])],
    )
    def test_wrappers_that_leave_ids_alone(self, around: Any) -> None:
        assert warned(lambda: ppo(around(env())).learn(40, callback=ContractCheck())) == []

    def test_the_mask_in_the_observation(self) -> None:
        assert warned(lambda: ppo(env("dict-mask")).learn(40, callback=ContractCheck())) == []

    def test_the_flat_layout(self) -> None:
        assert warned(lambda: ppo(env("flat"), "MlpPolicy").learn(40, callback=ContractCheck())) == []

    def test_single_environments_and_their_flattened_form(self) -> None:
        for vec_env in (make_vec_env(lambda: SequenceEnv(small_game()), n_envs=2), wrapped(FlattenObservation, "dict")):
            policy = "MultiInputPolicy" if isinstance(vec_env.observation_space, spaces.Dict) else "MlpPolicy"
            assert warned(lambda: ppo(vec_env, policy).learn(20, callback=ContractCheck())) == []  # noqa: B023 - called at once

    @pytest.mark.parametrize("algorithm", [A2C, DQN])
    def test_other_algorithms(self, algorithm: Any) -> None:
        model = algorithm("MultiInputPolicy", env(), gamma=1.0, policy_kwargs=EXTRACTOR)
        assert warned(lambda: check_contract(model)) == []

    def test_the_projects_own_agent(self) -> None:
        for reward in ("rollout", "shaped"):
            agent = Reinforce("GeneratorPolicy", env(reward=reward), seed=0)
            assert warned(lambda: check_contract(agent)) == []  # noqa: B023 - called at once


class TestDiscount:
    MESSAGE = "PPO has gamma=0.99, but the environment's reward contract needs {0}: pass gamma={0}."

    @pytest.mark.parametrize(("reward", "gamma"), [("terminal", 1.0), ("rollout", 0.0)])
    def test_a_wrong_one_warns_once_in_two_calls_of_learn(self, reward: str, gamma: float) -> None:
        model = ppo(env(reward=reward), gamma=0.99)

        def twice() -> None:
            for _ in range(2):
                model.learn(40, callback=ContractCheck(), reset_num_timesteps=False)

        assert warned(twice) == [self.MESSAGE.format(gamma)]

    def test_through_wrappers_and_by_hand(self) -> None:
        for vec_env in (
            VecNormalize(VecMonitor(env()), norm_obs=False),
            make_vec_env(lambda: SequenceEnv(small_game()), n_envs=2),
        ):
            model = ppo(vec_env, gamma=0.99)
            assert warned(lambda: check_contract(model)) == [self.MESSAGE.format(1.0)]  # noqa: B023 - called at once

    def test_a_model_without_an_environment_is_refused(self) -> None:
        model = ppo(env())
        model.env = None
        with pytest.raises(ValueError, match=r"no environment to compare with: call set_env\(\) first"):
            check_contract(model)


class TestScaledIds:
    @pytest.mark.parametrize("arguments", [{}, {"norm_obs_keys": ["tokens"]}])
    def test_the_check_finds_vec_normalize(self, arguments: Any) -> None:
        model = ppo(VecNormalize(env(), **arguments))
        assert warned(lambda: check_contract(model)) == [
            "VecNormalize scales token ids, which are names and not magnitudes: pass it norm_obs=False."
        ]

    def test_vec_normalize_is_found_without_the_check(self) -> None:
        """By the extractor, in the first batch."""
        vec_env = VecNormalize(env())
        model = ppo(vec_env)
        observation, extractor = vec_env.reset(), model.policy.features_extractor
        observed, _ = model.policy.obs_to_tensor(observation)  # type: ignore[arg-type]
        seen = warned(lambda: [extractor(observed) for _ in range(3)])
        assert len(seen) == 1
        assert "which are not token ids. A wrapper such as VecNormalize scales them: pass it norm_obs=False." in seen[0]

    def test_learning_on_scaled_ids_warns_before_it_fails(self) -> None:
        with pytest.warns(ContractWarning, match="pass it norm_obs=False"), pytest.raises(IndexError):
            ppo(VecNormalize(env())).learn(400)

    @pytest.mark.parametrize("ids", [[[0.5, 1.0, 2.0, V, V]], [[-0.4, 1.0, 2.0, V, V]]])
    def test_only_values_that_are_no_ids_warn(self, ids: list[list[float]]) -> None:
        def look(tokens: torch.Tensor) -> list[str]:
            extractor = PrefixExtractor(env().observation_space)
            return warned(lambda: extractor({"tokens": tokens, "length": torch.zeros(1, 1)}))

        assert len(look(torch.tensor(ids))) == 1
        assert look(torch.tensor([[0.0, 1.0, 2.0, V, V]])) == []

    @pytest.mark.parametrize(
        "wrapper", [NormalizeObservation, lambda single: RescaleObservation(single, np.float32(0), np.float32(1))]
    )
    def test_gymnasiums_wrappers_are_found_by_the_space(self, wrapper: Any) -> None:
        vec_env = wrapped(wrapper)
        message = "The observations are no longer token ids: their space is Box"
        with pytest.warns(ContractWarning, match=message) as at_construction:
            model = ppo(vec_env, "MlpPolicy")
        assert len(at_construction) == 1
        seen = warned(lambda: check_contract(model))
        assert len(seen) == 1
        assert seen[0].startswith(message)

    def test_a_cast_that_keeps_ids_does_not_warn(self) -> None:
        """The negative control of the test above."""

        def cast(single: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
            return TransformObservation(single, lambda flat: flat.astype(np.float32), spaces.Box(0, V, (T + 1,), np.float32))

        assert warned(lambda: ppo(wrapped(cast), "MlpPolicy").learn(20, callback=ContractCheck())) == []


class TestInputs:
    @pytest.mark.parametrize("layout", ["dict", "flat"])
    def test_stacked_prefixes(self, layout: str) -> None:
        model = ppo(VecFrameStack(env(layout), 2), "MultiInputPolicy" if layout == "dict" else "MlpPolicy")
        (seen,) = warned(lambda: check_contract(model))
        assert seen == "VecFrameStack puts several prefixes side by side: leave it out, because one prefix is the whole state."

    def test_one_hot_tokens(self) -> None:
        model = ppo(wrapped(as_multi_discrete), "MlpPolicy", policy_kwargs=None)
        (seen,) = warned(lambda: check_contract(model))
        assert seen == (
            "Stable-Baselines3 turns these observations (MultiDiscrete) into one-hot vectors, 35 inputs: keep them as the "
            "environment returns them, in one of their layouts, and use PrefixExtractor."
        )

    @pytest.mark.parametrize(("layout", "policy"), [("dict", "MultiInputPolicy"), ("flat", "MlpPolicy")])
    def test_ids_as_numbers(self, layout: str, policy: str) -> None:
        for algorithm in (A2C, DQN):
            model = algorithm(policy, env(layout), gamma=1.0)
            (seen,) = warned(lambda: check_contract(model))  # noqa: B023 - called at once
            assert seen.startswith(f"{algorithm.__name__} feeds token ids to its networks as numbers")
            assert "pass policy_kwargs={'features_extractor_class': PrefixExtractor}" in seen

    @pytest.mark.parametrize(("n_quantiles", "expected"), [(200, 1), (50, 1), (10, 0)])
    def test_too_many_quantiles_for_a_large_vocabulary(self, n_quantiles: int, expected: int) -> None:
        contrib = pytest.importorskip("sb3_contrib", reason="sb3-contrib is not installed: pip install -e '.[contrib]'")
        game = SequenceGame(5000, T, torch.zeros(1, T, dtype=torch.int64), Ordinal())
        large = SB3VecEnv(SequenceVectorEnv(game, 1, autoreset_mode="SameStep"))
        extractor = {"features_extractor_class": PrefixExtractor, "n_quantiles": n_quantiles, "net_arch": [2]}
        model = contrib.QRDQN("MultiInputPolicy", large, gamma=1.0, policy_kwargs=extractor)
        seen = list(departures(model))
        assert len(seen) == expected
        if expected:
            assert seen[0].startswith(
                f"QRDQN learns {n_quantiles} quantiles for each of 5,000 tokens, {n_quantiles * 5000:,} outputs"
            )
            assert "pass fewer, such as policy_kwargs={'n_quantiles': 10}." in seen[0]


class TestRetrainedRewardModel:
    """Evaluations compare mean rewards over time, but the reward model is retrained in between."""

    RETRAINED: Any = {"retrain_every": 8}  # noqa: RUF012

    @staticmethod
    def names(model: Any, callback: Any) -> list[str]:
        """The callbacks that warnings name when `model` begins to learn."""
        messages = warned(lambda: model.learn(20, callback=[ContractCheck(), callback]))
        assert all("Watch oracle_nll or the likelihood of held-out sequences instead" in message for message in messages)
        return [message.partition(":")[0] for message in messages]

    @staticmethod
    def evaluation(eval_env: VecEnv, **arguments: Any) -> EvalCallback:
        return EvalCallback(eval_env, eval_freq=1_000, verbose=0, **arguments)

    def test_warns_of_each_way_to_compare(self, tmp_path: Path) -> None:
        judge = small_discriminator()
        model, same = ppo(env(reward_model=judge, **self.RETRAINED)), env(reward_model=judge)
        threshold, patience = StopTrainingOnRewardThreshold(1.0), StopTrainingOnNoModelImprovement(1)
        best = {"best_model_save_path": str(tmp_path)}
        assert self.names(model, self.evaluation(same, **best)) == ["EvalCallback's best_model_save_path"]
        both = self.evaluation(same, callback_on_new_best=threshold, callback_after_eval=CallbackList([patience]), **best)
        assert self.names(model, EveryNTimesteps(1_000, both)) == [
            "EvalCallback's best_model_save_path and StopTrainingOnNoModelImprovement and StopTrainingOnRewardThreshold"
        ]
        assert self.names(model, self.evaluation(same, log_path=str(tmp_path))) == []  # it compares nothing

    @pytest.mark.parametrize(
        ("judged_by", "expected"),
        [
            (lambda judge: env(reward_model=judge), 1),
            (lambda judge: VecMonitor(env(reward_model=MixtureReward([(0.5, judge), (0.5, Ordinal())]))), 1),
            (lambda judge: make_vec_env(lambda: SequenceEnv(small_game(reward_model=judge)), n_envs=1), 1),
            (lambda _: env(reward_model=small_discriminator(1), retrain_every=8), 1),
            (lambda _: env(reward_model=small_discriminator(1)), 0),
            (lambda _: env(), 0),
        ],
        ids=["the same", "a part of a mixture", "single", "retrained by the evaluation", "another", "one that does not learn"],
    )
    def test_warns_only_of_a_retrained_reward_model(self, judged_by: Any, expected: int) -> None:
        judge = small_discriminator()
        model = ppo(env(reward_model=judge, **self.RETRAINED))
        stop = self.evaluation(judged_by(judge), callback_on_new_best=StopTrainingOnRewardThreshold(1.0), warn=False)
        stop.eval_freq = -1
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Training and eval env are not of the same type")
            assert len(self.names(model, stop)) == expected

    def test_warns_of_a_frozen_one_only_if_a_callback_retrains_it(self) -> None:
        judge = small_discriminator()
        agent = Reinforce("GeneratorPolicy", env(reward_model=judge, reward="rollout"), seed=0)
        stop = self.evaluation(env(reward_model=judge), callback_on_new_best=StopTrainingOnRewardThreshold(1.0))
        assert self.names(agent, stop) == []
        retraining = DiscriminatorCallback(1, 1, n_generated=8)
        assert self.names(agent, CallbackList([retraining, stop])) == ["StopTrainingOnRewardThreshold"]

    def test_by_hand(self) -> None:
        judge = small_discriminator()
        model = ppo(env(reward_model=judge, **self.RETRAINED))
        stop = self.evaluation(env(reward_model=judge), callback_on_new_best=StopTrainingOnRewardThreshold(1.0))
        assert len(warned(lambda: check_contract(model, stop))) == 1
        assert warned(lambda: check_contract(model)) == []


class TestSavedModels:
    """SB3's `save` leaves out the environment, so a trained policy may be loaded beside an untrained discriminator."""

    MESSAGE = "PPO is trained, but its environment's reward model is not: Stable-Baselines3 saves only the model."

    @staticmethod
    def game(**rules: Any) -> SequenceGame:
        return small_game(reward_model=small_discriminator(), retrain_every=4, **rules)

    @staticmethod
    def vec_env(game: SequenceGame) -> SB3VecEnv:
        return SB3VecEnv(SequenceVectorEnv(game, 4, autoreset_mode="SameStep"))

    def test_a_policy_beside_a_new_discriminator(self, tmp_path: Path) -> None:
        played = self.game()
        model = ppo(self.vec_env(played))
        assert warned(lambda: model.learn(80, callback=ContractCheck())) == []
        model.save(tmp_path / "model.zip")
        torch.save(played.training_state(), tmp_path / "game.pt")
        game = self.game()

        def go_on() -> None:
            PPO.load(tmp_path / "model.zip", env=self.vec_env(game)).learn(40, callback=ContractCheck())

        (message,) = warned(go_on)
        assert message.startswith(self.MESSAGE)
        assert "Save game.training_state() as well, with torch.save, and restore it with game.load_training_state()" in message

        game = self.game()
        game.load_training_state(torch.load(tmp_path / "game.pt"))
        tokens = real_sequences()
        assert torch.equal(*(one.reward_model.score(tokens, torch.full((20,), T)) for one in (game, played)))
        assert warned(go_on) == []

    def test_a_second_learn_does_not_warn(self) -> None:
        """Also where the discriminator has not been retrained yet."""
        model = ppo(self.vec_env(small_game(reward_model=small_discriminator(), retrain_every=1_000)))
        for _ in range(2):
            assert warned(lambda: model.learn(40, callback=ContractCheck(), reset_num_timesteps=False)) == []

    def test_a_discriminator_that_is_not_retrained_does_not_warn(self, tmp_path: Path) -> None:
        frozen = small_game(reward_model=small_discriminator())
        ppo(self.vec_env(frozen)).learn(40).save(tmp_path / "model.zip")
        loaded = PPO.load(tmp_path / "model.zip", env=self.vec_env(frozen))
        assert warned(lambda: loaded.learn(40, callback=ContractCheck())) == []
