"""The generator as an SB3 policy."""

from pathlib import Path

import numpy as np
import torch
from stable_baselines3.common.evaluation import evaluate_policy

from agents.policy import GeneratorPolicy
from tests.agents.small_agents import new_agent


class TestPolicy:
    def test_predict_reads_the_prefix_and_nothing_else(self) -> None:
        agent = new_agent()
        prefix = np.array([[3, 1, 4, 12, 12]])
        logits = agent.policy.logits({"tokens": torch.from_numpy(prefix), "length": torch.tensor([[3]])})
        garbage = np.array([[3, 1, 4, 7, 2]])
        same = agent.policy.logits({"tokens": torch.from_numpy(garbage), "length": torch.tensor([[3]])})
        flat = agent.policy.logits(torch.tensor([[3, 1, 4, 12, 12, 3]]))
        as_sb3_casts = agent.policy.logits(torch.tensor([[3.0, 1.0, 4.0, 12.0, 12.0, 3.0]]))
        expected = agent.generator.logits(torch.tensor([[3, 1, 4, 0]]))[:, 3]
        for result in (logits, same, flat, as_sb3_casts):
            assert torch.allclose(result, expected, atol=1e-6)
        other = agent.policy.logits({"tokens": torch.from_numpy(prefix), "length": torch.tensor([[2]])})
        assert not torch.allclose(other, expected, atol=1e-4)

    def test_a_finished_prefix_has_logits_too(self) -> None:
        """SB3 asks for the value or action of a last observation."""
        full = {"tokens": torch.arange(5).unsqueeze(0), "length": torch.tensor([[5]])}
        assert new_agent().policy.logits(full).isfinite().all()

    def test_stochastic_and_greedy_actions(self) -> None:
        agent = new_agent()
        observation = {"tokens": np.full((500, 5), 12), "length": np.zeros((500, 1), dtype=np.int64)}
        greedy, _ = agent.predict(observation, deterministic=True)
        drawn, _ = agent.predict(observation)
        assert len(set(greedy.tolist())) == 1
        assert len(set(drawn.tolist())) > 6

    def test_save_and_load(self, tmp_path: Path) -> None:
        policy = new_agent().policy
        policy.save(str(tmp_path / "policy.pt"))
        loaded = GeneratorPolicy.load(str(tmp_path / "policy.pt"))
        observation = {"tokens": np.full((1, 5), 12), "length": np.zeros((1, 1), dtype=np.int64)}
        assert loaded.predict(observation, deterministic=True)[0] == policy.predict(observation, deterministic=True)[0]
        assert loaded.generator.end_token == policy.generator.end_token

    def test_evaluate_policy_plays_it(self) -> None:
        agent = new_agent()
        mean, _ = evaluate_policy(agent, agent.get_env(), n_eval_episodes=8, deterministic=False, warn=False)
        assert 0 < mean < 5
