"""Callbacks see each step, stop training, and retrain and evaluate on schedule."""

from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy

from agents.callbacks import DiscriminatorCallback, EvaluationCallback
from tests.agents.small_agents import new_agent, text_env


class TestCallbacks:
    def test_one_step_a_position(self) -> None:
        calls: list[int] = []

        class Count(BaseCallback):
            def _on_step(self) -> bool:
                calls.append(self.num_timesteps)
                return True

        new_agent().learn(2 * 40, Count())
        assert calls == [8 * step for step in range(1, 11)]

    def test_a_callback_can_stop(self) -> None:
        class Stop(BaseCallback):
            def _on_step(self) -> bool:
                return self.n_calls < 7

        agent = new_agent()
        agent.learn(100 * 40, Stop())
        assert agent._n_updates == 1  # stopped in the second batch, which is not learned from

    @pytest.mark.parametrize(("g_steps", "d_steps", "fits"), [(1, 1, 4), (1, 3, 12), (2, 2, 4), (3, 1, 1)])
    def test_the_discriminator_is_retrained_on_schedule(
        self, monkeypatch: pytest.MonkeyPatch, g_steps: int, d_steps: int, fits: int
    ) -> None:
        agent = new_agent()
        generated: list[torch.Tensor] = []
        retrain = agent.game.retrain
        monkeypatch.setattr(agent.game, "retrain", lambda tokens: (generated.append(tokens), retrain(tokens))[1])
        agent.learn(4 * 40, DiscriminatorCallback(g_steps, d_steps, n_generated=16))
        assert len(generated) == fits
        assert all(tokens.shape == (16, 5) for tokens in generated)
        assert len({tuple(tokens.flatten().tolist()) for tokens in generated}) == fits  # fresh negatives each time

    def test_the_last_update_is_followed_by_one_retraining(self, monkeypatch: pytest.MonkeyPatch) -> None:
        agent = new_agent()
        fits: list[int] = []
        retrain = agent.retrain_reward_model
        monkeypatch.setattr(agent, "retrain_reward_model", lambda n: (fits.append(n), retrain(n))[1])
        agent.learn(2 * 40, DiscriminatorCallback(1, 1, n_generated=16))
        assert len(fits) == 2

    def test_a_callback_counts_within_one_call_of_learn(self) -> None:
        agent = new_agent()
        seen: list[int] = []
        agent.learn(3 * 40, EvaluationCallback(seen.append, every=2))
        agent.learn(2 * 40, EvaluationCallback(seen.append, every=2), reset_num_timesteps=False)
        assert seen == [2, 3, 2]

    def test_an_evaluation_can_serve_a_second_learn(self) -> None:
        agent = new_agent()
        seen: list[int] = []
        evaluation = EvaluationCallback(seen.append, every=2)
        agent.learn(3 * 40, evaluation)
        agent.learn(2 * 40, evaluation, reset_num_timesteps=False)
        assert seen == [2, 3, 2]

    def test_evaluation_can_use_the_training_environment(self) -> None:
        """Between two calls of `learn` and inside one; sequences end at different lengths, so some rows are in mid-episode."""
        agent = new_agent(text_env())
        env = agent.get_env()
        assert env is not None
        agent.learn(32)
        evaluate_policy(agent, env, n_eval_episodes=3, deterministic=False, warn=False)
        played_by: Any = env
        assert played_by.is_midway
        inside = EvalCallback(env, n_eval_episodes=3, eval_freq=3, deterministic=False, verbose=0, warn=False)
        agent.learn(64, inside, reset_num_timesteps=False)
        assert agent.num_timesteps >= 96
        assert np.isfinite(inside.last_mean_reward)

    def test_invalid_schedules_are_refused(self) -> None:
        with pytest.raises(ValueError, match="must be at least 1"):
            DiscriminatorCallback(0)
        with pytest.raises(ValueError, match="must be at least 1 update, got 0"):
            EvaluationCallback(print, every=0)
