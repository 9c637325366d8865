"""The generator as an SB3 algorithm."""

import copy
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TransformReward
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

import agents.reinforce
from agents.callbacks import DiscriminatorCallback
from agents.contract_check import ContractWarning
from agents.reinforce import Reinforce
from agents.vec_env import SB3VecEnv
from seqgan_env import SequenceVectorEnv, TextCNNConfig, make_game
from seqgan_env.policy_gradient import advantages, mean_divergence, policy_gradient_loss
from seqgan_env.rewards.controls import ConstantReward
from seqgan_env.rewards.mixture import MixtureReward
from seqgan_env.support.state_dicts import detached
from tests.agents.small_agents import new_agent, new_game, text_env, weights
from tests.small import KeepsEpisodes, Recorder, T, V, no_repeats, seeded, small_game


class TestUpdate:
    @pytest.mark.parametrize("baseline", ["none", "batch", "position", "leave-one-out"])
    def test_one_update_is_the_policy_gradient(self, baseline: Any) -> None:
        """Rewards, advantages, loss and clipping, computed by hand in an equal environment, give the same step."""
        agent = new_agent(baseline=baseline)
        agent.learn(8 * 5)

        twin = new_agent()
        env = SequenceVectorEnv(new_game(), 8, autoreset_mode=AutoresetMode.SAME_STEP)
        env.attach_policy(twin.generator)
        env.reset(seed=0)
        tokens, lengths = twin.generator.sample(8, 5, torch.Generator().manual_seed(0))
        rewards = env.play(tokens).rewards
        optimizer = torch.optim.Adam(twin.generator.parameters(), lr=0.02)
        loss = policy_gradient_loss(twin.generator.log_prob(tokens), advantages(rewards, lengths, baseline), lengths)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(twin.generator.parameters(), 5.0)
        optimizer.step()
        assert torch.equal(weights(agent), weights(twin))

        shifted = new_agent()
        wrong = advantages(rewards.roll(1, dims=1), lengths, baseline)
        policy_gradient_loss(shifted.generator.log_prob(tokens), wrong, lengths).backward()
        torch.nn.utils.clip_grad_norm_(shifted.generator.parameters(), 5.0)
        torch.optim.Adam(shifted.generator.parameters(), lr=0.02).step()
        assert not torch.allclose(weights(agent), weights(shifted), atol=1e-3)

    @pytest.mark.parametrize("reduction", ["mean", "sum"])
    def test_the_gradient_of_the_mean_or_of_the_sum_is_clipped(self, reduction: Any) -> None:
        """By hand, over two updates; in a single one Adam would not tell a clipped gradient from another."""

        def by_hand(reduction: str) -> tuple[Tensor, list[bool]]:
            twin, clipped = new_agent(), []
            env = SequenceVectorEnv(new_game(), 8, autoreset_mode=AutoresetMode.SAME_STEP)
            env.attach_policy(twin.generator)
            env.reset(seed=0)
            optimizer, rng = torch.optim.Adam(twin.generator.parameters(), lr=0.02), torch.Generator().manual_seed(0)
            for _ in range(2):
                tokens, lengths = twin.generator.sample(8, 5, rng)
                advantage = advantages(env.play(tokens).rewards, lengths, "leave-one-out")
                terms = -advantage * twin.generator.log_prob(tokens)
                optimizer.zero_grad()
                (terms.sum() if reduction == "sum" else terms.sum() / lengths.sum()).backward()
                norm = torch.nn.utils.clip_grad_norm_(twin.generator.parameters(), limit)
                clipped.append(bool(norm > limit))
                optimizer.step()
            return weights(twin), clipped

        limit = 0.025  # between the norms of the two sums
        expected, clipped = by_hand(reduction)
        other, _ = by_hand("mean" if reduction == "sum" else "sum")
        agent = new_agent(loss_reduction=reduction, max_grad_norm=limit)
        agent.learn(2 * 40)
        assert clipped == [reduction == "sum", False]
        torch.testing.assert_close(weights(agent), expected)
        assert not torch.allclose(weights(agent), other, atol=1e-4)

    def test_entropy_and_divergence_are_summed_with_the_loss(self) -> None:
        """Sequences end early here: a sum is as many times the mean as there are tokens."""
        norms, entropies = [], []
        for reduction in ("mean", "sum"):
            agent = new_agent(text_env(), ent_coef=0.3, kl_coef=0.2, loss_reduction=reduction, max_grad_norm=1e9)
            agent.learn(1)
            norms.append(agent.logger.name_to_value["train/grad_norm"])
            entropies.append(agent.logger.name_to_value["train/entropy"])
        n_tokens = int(agent.last_played.lengths.sum())
        assert n_tokens < agent.n_envs * agent.n_steps
        assert norms[1] == pytest.approx(n_tokens * norms[0], rel=1e-4)
        assert entropies[0] == entropies[1]

    def test_same_seed_is_bit_identical(self) -> None:
        runs = [weights(new_agent(seed=seed).learn(3 * 40)) for seed in (0, 0, 1)]
        assert torch.equal(runs[0], runs[1])
        assert not torch.equal(runs[0], runs[2])

    def test_global_random_state_is_left_alone(self) -> None:
        before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]  # noqa: NPY002
        new_agent(likelihood_steps=1).learn(2 * 40)
        assert torch.equal(torch.get_rng_state(), before)
        assert np.array_equal(np.random.get_state()[1], numpy_before)  # type: ignore[index]  # noqa: NPY002

    @pytest.mark.parametrize(
        "change",
        [
            {"learning_rate": 0.01},
            {"baseline": "none"},
            {"ent_coef": 0.5},
            {"kl_coef": 1.0},
            {"max_grad_norm": 1e-4},
            {"loss_reduction": "sum"},
            {"likelihood_steps": 1},
            {"rollout_lag": 0.8},
            {"policy_kwargs": {"initial_std": 0.2}},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_every_argument_has_an_effect(self, change: dict[str, Any]) -> None:
        assert not torch.equal(weights(new_agent().learn(3 * 40)), weights(new_agent(**change).learn(3 * 40)))

    def test_likelihood_batch_size_has_an_effect(self) -> None:
        runs = [weights(new_agent(likelihood_steps=1, likelihood_batch_size=n).learn(40)) for n in (8, 16)]
        assert not torch.equal(*runs)

    def test_a_learning_rate_schedule_is_followed(self) -> None:
        agent = new_agent(learning_rate=lambda remaining: 0.02 * remaining)
        agent.learn(4 * 40)
        assert agent.policy.optimizer.param_groups[0]["lr"] == pytest.approx(0.0)

    def test_gamma_is_that_of_the_contract(self) -> None:
        assert new_agent().gamma == 0.0
        for reward in ("terminal", "shaped"):
            game = new_game(reward=reward)
            assert new_agent(SequenceVectorEnv(game, 8, autoreset_mode="SameStep")).gamma == 1.0


class TestRolloutPolicy:
    def test_without_lag_the_generator_itself_completes(self) -> None:
        agent = new_agent()
        assert agent.game.search.policy is agent.generator

    def test_with_lag_parameters_follow_by_hand(self) -> None:
        agent = new_agent(rollout_lag=0.75)
        before = weights(agent)
        agent.learn(40)
        expected = 0.75 * before + 0.25 * weights(agent)
        rolled = torch.cat([parameter.flatten() for parameter in agent.rollout_policy.parameters()])
        assert torch.allclose(rolled, expected, atol=1e-7)
        assert not torch.allclose(rolled, weights(agent), atol=1e-4)

    def test_the_lagging_policy_really_writes_the_completions(self) -> None:
        agent = new_agent(rollout_lag=0.75)
        assert agent.game.search.policy is agent.rollout_policy
        tokens, lengths = agent.sample(8)
        keys = torch.arange(8)
        before = agent.game.search.complete(tokens, lengths, keys, range(2)).tokens.clone()
        with torch.no_grad():
            agent.rollout_policy.output.bias[3] += 50  # now it writes nothing but token 3
        after = agent.game.search.complete(tokens, lengths, keys, range(2)).tokens
        assert not torch.equal(before, after)
        assert (after[0, :, :, 1:] == 3).all()

    def test_pretraining_reaches_it_by_sync(self) -> None:
        agent = new_agent(rollout_lag=0.75)
        with torch.no_grad():
            agent.generator.output.bias += 1
        agent.sync_rollout_policy()
        assert torch.equal(agent.rollout_policy.output.bias, agent.generator.output.bias)


class TestReferencePolicy:
    @pytest.mark.rounding
    def test_holds_the_generator_to_its_start(self) -> None:
        """Measured on the same sequences; the control is free to move away."""

        def distance(kl_coef: float) -> float:
            agent = new_agent(learning_rate=0.02, kl_coef=kl_coef)
            start = copy.deepcopy(agent.generator)
            tokens, lengths = agent.sample(64)
            agent.learn(40 * 40)  # after fewer updates, how far it has moved depends on the seed
            of_both = (torch.log_softmax(one.logits(tokens), dim=2) for one in (agent.generator, start))
            return mean_divergence(*of_both, lengths).item()

        held, free = distance(20.0), distance(0.0)
        assert held < free / 3
        assert free > 0.01

    def test_is_the_generator_before_the_first_update(self) -> None:
        agent = new_agent(kl_coef=1.0, rollout_lag=0.5)
        with torch.no_grad():
            agent.generator.output.bias += 1  # as by maximum likelihood
        start = weights(agent)
        agent.learn(2 * 40)
        reference = agent.reference_policy
        assert reference is not None
        assert torch.equal(torch.cat([parameter.flatten() for parameter in reference.parameters()]), start)
        agent.sync_rollout_policy()
        assert torch.equal(torch.cat([parameter.flatten() for parameter in reference.parameters()]), weights(agent))

    def test_is_saved(self, tmp_path: Path) -> None:
        agent = new_agent(kl_coef=1.0)
        agent.learn(2 * 40)
        agent.save(tmp_path / "agent.zip")
        loaded = Reinforce.load(tmp_path / "agent.zip", env=SequenceVectorEnv(new_game(), 8, autoreset_mode="SameStep"))
        assert agent.reference_policy is not None
        assert loaded.reference_policy is not None
        assert torch.equal(loaded.reference_policy.output.bias, agent.reference_policy.output.bias)
        assert not torch.equal(loaded.reference_policy.output.bias, loaded.generator.output.bias)

    @pytest.mark.parametrize("before", [{}, {"kl_coef": 1.0}, {"rollout_lag": 0.5}, {"kl_coef": 1.0, "rollout_lag": 0.5}])
    @pytest.mark.parametrize("after", [{"kl_coef": 0.0}, {"kl_coef": 0.5}, {"rollout_lag": 0.0}, {"rollout_lag": 0.9}])
    def test_loading_with_another_weight_adds_or_removes_it(
        self, tmp_path: Path, before: dict[str, float], after: dict[str, float]
    ) -> None:
        agent = new_agent(**before)
        agent.learn(2 * 40)
        agent.save(tmp_path / "agent.zip")
        env = SequenceVectorEnv(new_game(), 8, autoreset_mode="SameStep")
        loaded = Reinforce.load(tmp_path / "agent.zip", env=env, **after)
        assert (loaded.reference_policy is None) == (loaded.kl_coef == 0)
        assert (loaded.rollout_policy is loaded.generator) == (loaded.rollout_lag == 0)
        lagging = agent.rollout_policy if loaded.rollout_lag else agent.generator
        assert torch.equal(loaded.rollout_policy.output.bias, lagging.output.bias)
        if loaded.reference_policy is not None:
            start = agent.generator if agent.reference_policy is None else agent.reference_policy
            assert torch.equal(loaded.reference_policy.output.bias, start.output.bias)
        loaded.learn(40, reset_num_timesteps=False)

    @pytest.mark.parametrize("mask", [None, no_repeats])
    def test_divergence_under_a_mask_by_hand(self, mask: Any) -> None:
        """By hand: each next token's divergence over what the mask allows, and the mean over the actions taken."""
        game = small_game(reward="terminal", mask=mask)
        env = KeepsEpisodes(game, 8, autoreset_mode="SameStep")
        agent = Reinforce("GeneratorPolicy", env, 0.1, kl_coef=1.0, seed=0)
        agent.learn(8 * T)
        writer = copy.deepcopy(agent.generator)
        agent.learn(8 * T, reset_num_timesteps=False)
        divergence = agent.logger.name_to_value["train/kl"]
        assert agent.reference_policy is not None
        expected = []
        for row in env.tokens:
            for position in range(T):
                allowed = torch.ones(V, dtype=torch.bool) if mask is None else torch.from_numpy(mask(row[:position].numpy()))
                p, q = (
                    torch.softmax(model.logits(row.unsqueeze(0))[0, position][allowed], dim=0)
                    for model in (writer, agent.reference_policy)
                )
                expected.append((p * (p / q).log()).sum().item())
        assert divergence == pytest.approx(sum(expected) / len(expected), rel=1e-3)
        assert divergence > 1e-3


class TestBatchesOfOneEpisode:
    def env(self, **rules: Any) -> SequenceVectorEnv:
        return SequenceVectorEnv(new_game(**rules), 1, autoreset_mode="SameStep")

    @pytest.mark.parametrize(
        ("baseline", "reward", "learns"),
        [
            ("leave-one-out", "rollout", False),
            ("position", "rollout", False),
            ("maligan", "rollout", False),
            ("batch", "terminal", False),
            ("batch", "rollout", True),
            ("none", "terminal", True),
        ],
    )
    def test_are_refused_if_the_baseline_equals_the_return(self, baseline: Any, reward: str, learns: bool) -> None:
        if not learns:
            with pytest.raises(ValueError, match=rf"baseline='{baseline}' nothing can be learned in batches of 1.*num_envs"):
                new_agent(self.env(reward=reward), baseline=baseline)
            return
        agent = new_agent(self.env(reward=reward), baseline=baseline)
        before = weights(agent)
        assert not torch.equal(weights(agent.learn(5)), before)

    def test_are_refused_by_constructor_load_and_set_env(self, tmp_path: Path) -> None:
        agent = new_agent()
        agent.save(tmp_path / "agent.zip")
        with pytest.raises(ValueError, match="baseline='leave-one-out' nothing can be learned in batches of 1"):
            new_agent(self.env())
        with pytest.raises(ValueError, match="baseline='leave-one-out' nothing can be learned in batches of 1"):
            Reinforce.load(tmp_path / "agent.zip", env=self.env())
        with pytest.raises(ValueError, match="baseline='leave-one-out' nothing can be learned in batches of 1"):
            agent.set_env(self.env())  # type: ignore[arg-type]
        assert Reinforce.load(tmp_path / "agent.zip", env=self.env(), baseline="none").n_envs == 1


class TestSaveAndLoad:
    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ({"kl_coef": -0.1}, "kl_coef must be at least 0 and finite, got -0.1"),
            ({"kl_coef": float("nan")}, "kl_coef must be at least 0 and finite, got nan"),
            ({"rollout_lag": 1.0}, r"rollout_lag must lie in \[0, 1\), got 1.0"),
            ({"baseline": "mean"}, r"baseline must be one of \('none', .*\), got 'mean'"),
            ({"ent_coef": float("inf")}, "ent_coef must be finite, got inf"),
            ({"loss_reduction": "none"}, r"loss_reduction must be one of \('mean', 'sum'\), got 'none'"),
            ({"max_grad_norm": 0.0}, "max_grad_norm must be above 0, got 0.0"),
            (
                {"likelihood_steps": -1},
                "likelihood_steps must be at least 0 and likelihood_batch_size at least 1, got -1 and 64",
            ),
            (
                {"likelihood_batch_size": 0},
                "likelihood_steps must be at least 0 and likelihood_batch_size at least 1, got 0 and 0",
            ),
        ],
    )
    def test_invalid_settings_are_refused(self, tmp_path: Path, setting: dict[str, Any], message: str) -> None:
        """By the constructor and by `load`."""
        with pytest.raises(ValueError, match=message):
            new_agent(**setting)
        new_agent().save(tmp_path / "agent.zip")
        with pytest.raises(ValueError, match=message):
            Reinforce.load(tmp_path / "agent.zip", **setting)

    def test_load_can_change_ent_coef(self, tmp_path: Path) -> None:
        new_agent(ent_coef=0.1).save(tmp_path / "agent.zip")
        assert Reinforce.load(tmp_path / "agent.zip").ent_coef == 0.1
        assert Reinforce.load(tmp_path / "agent.zip", ent_coef=0.5).ent_coef == 0.5

    def test_last_played_needs_a_played_batch(self) -> None:
        with pytest.raises(ValueError, match=r"Nothing has been played yet: call learn\(\) or update\(\) first"):
            _ = new_agent().last_played

    @pytest.mark.parametrize("lag", [0.0, 0.5])
    def test_a_loaded_agent_acts_the_same_and_continues(self, tmp_path: Path, lag: float) -> None:
        agent = new_agent(rollout_lag=lag)
        agent.learn(2 * 40)
        agent.save(tmp_path / "agent.zip")
        loaded = Reinforce.load(tmp_path / "agent.zip", env=SequenceVectorEnv(new_game(), 8, autoreset_mode="SameStep"))
        assert torch.equal(weights(loaded), weights(agent))
        for old, new in zip(agent.rollout_policy.parameters(), loaded.rollout_policy.parameters(), strict=True):
            assert torch.equal(old, new)
        assert loaded.num_timesteps == 80
        assert loaded.game.search.policy is loaded.rollout_policy
        before = weights(loaded).clone()
        loaded.learn(40, reset_num_timesteps=False)
        assert loaded.num_timesteps == 120
        assert not torch.equal(weights(loaded), before)
        state = agent.policy.optimizer.state_dict()["state"]
        assert state[0]["step"] == 2  # the saved optimiser's moments, not fresh ones
        assert loaded.policy.optimizer.state_dict()["state"][0]["step"] == 3

    def test_the_trained_discriminator_is_saved(self, tmp_path: Path) -> None:
        """For a new game, as in a new process: with `env`, or with the first environment set after loading."""
        agent = new_agent()
        agent.learn(2 * 40, DiscriminatorCallback(1, 5, n_generated=64))
        tokens, lengths = agent.sample(64)
        expected = agent.game.reward_model.score(tokens, lengths)
        agent.save(tmp_path / "agent.zip")
        fresh = new_game().reward_model.score(tokens, lengths)
        assert not torch.allclose(fresh, expected, atol=1e-4)

        def env() -> SequenceVectorEnv:
            return SequenceVectorEnv(new_game(), 8, autoreset_mode="SameStep")

        loaded = Reinforce.load(tmp_path / "agent.zip", env=env())
        assert torch.equal(loaded.game.reward_model.score(tokens, lengths), expected)
        late = Reinforce.load(tmp_path / "agent.zip")
        late.save(tmp_path / "again.zip")  # nothing is lost on the way
        for path in ("agent.zip", "again.zip"):
            late = Reinforce.load(tmp_path / path)
            late.set_env(env())  # type: ignore[arg-type]
            assert torch.equal(late.game.reward_model.score(tokens, lengths), expected)
        late.set_env(env())  # type: ignore[arg-type] - a later one plays its own game
        assert torch.equal(late.game.reward_model.score(tokens, lengths), fresh)
        fits = [one.retrain_reward_model(64) for one in (loaded, Reinforce.load(tmp_path / "agent.zip", env=env()))]
        assert fits[0] == fits[1]  # the optimiser's moments are those that were saved
        state = loaded.game.reward_model.optimizer.state_dict()["state"]  # type: ignore[attr-defined]
        assert state[0]["step"] > 8

    @pytest.mark.parametrize(
        "rules",
        [
            {"reward_model": "bleu"},
            {"reward_model": "rank"},
            {"discriminator": TextCNNConfig(widths=(1,), n_filters=(3,), embedding_dim=4, batch_size=16)},
        ],
        ids=["another kind", "another that learns", "another size"],
    )
    def test_another_reward_model_stays_unchanged_with_a_warning(self, tmp_path: Path, rules: Any) -> None:
        agent = new_agent()
        agent.learn(40, DiscriminatorCallback(1, 1, n_generated=64))
        agent.save(tmp_path / "agent.zip")
        game = new_game(**rules)
        before = detached(game.training_state())
        with pytest.warns(
            ContractWarning, match="The DiscriminatorReward saved with the agent differs in kind or size .* stays unchanged"
        ):
            Reinforce.load(tmp_path / "agent.zip", env=SequenceVectorEnv(game, 8, autoreset_mode="SameStep"))
        assert str(detached(game.training_state())) == str(before)

    def test_a_file_without_the_game_is_loaded(self, tmp_path: Path) -> None:
        """As older versions wrote it."""
        agent = new_agent()
        agent.save(tmp_path / "agent.zip")
        with ZipFile(tmp_path / "agent.zip") as full, ZipFile(tmp_path / "old.zip", "w") as old:
            for name in full.namelist():
                if name != "game_state.pth":
                    old.writestr(name, full.read(name))
        assert len(old.namelist()) == len(full.namelist()) - 1
        loaded = Reinforce.load(tmp_path / "old.zip", env=SequenceVectorEnv(new_game(), 8, autoreset_mode="SameStep"))
        assert torch.equal(weights(loaded), weights(agent))

    @pytest.mark.parametrize("mixed", [False, True])
    def test_a_reward_model_that_cannot_be_saved_is_named(self, tmp_path: Path, mixed: bool) -> None:
        model: Any = MixtureReward([(0.5, Recorder()), (0.5, ConstantReward())]) if mixed else Recorder()
        agent = new_agent(SequenceVectorEnv(new_game(reward_model=model), 8, autoreset_mode="SameStep"))
        with pytest.warns(UserWarning, match="Recorder learns, but what it learns is not saved"):
            agent.save(tmp_path / "agent.zip")
        assert Reinforce.load(tmp_path / "agent.zip", env=agent.get_env()).game.reward_model is model

    def test_without_an_environment_it_predicts(self, tmp_path: Path) -> None:
        agent = new_agent(text_env())
        agent.save(tmp_path / "agent.zip")
        loaded = Reinforce.load(tmp_path / "agent.zip")
        observation = {"tokens": np.full((1, 4), agent.generator.vocab_size), "length": np.zeros((1, 1), dtype=np.int64)}
        assert loaded.predict(observation, deterministic=True)[0] == agent.predict(observation, deterministic=True)[0]
        assert loaded.generator.end_token == agent.generator.end_token
        with pytest.raises(ValueError, match="has no environment"):
            loaded.sample(1)


class TestEnvironments:
    def test_an_id_and_a_single_environment_are_played_in_batches(self) -> None:
        agent = Reinforce(env="SeqGAN/Oracle-v0", seed=0)
        assert (agent.n_envs, agent.n_steps) == (64, 20)
        single = gym.make("SeqGAN/Oracle-v0", sequence_length=5, vocab_size=12, layout="flat")
        agent = Reinforce(env=single, seed=0)
        assert agent.game is single.unwrapped.game  # type: ignore[attr-defined]
        assert agent.observation_space == single.observation_space

    def test_set_env(self) -> None:
        agent = new_agent()
        other = SequenceVectorEnv(new_game(), 8, autoreset_mode="SameStep")
        agent.set_env(other)  # type: ignore[arg-type]
        assert agent.game is other.game
        assert other.game.search.policy is agent.rollout_policy

    @pytest.mark.parametrize("by", ["set_env", "load"])
    @pytest.mark.parametrize("contracts", [("rollout", "terminal"), ("shaped", "rollout")])
    def test_the_discount_is_that_of_the_current_environment(
        self, tmp_path: Path, by: str, contracts: tuple[str, str]
    ) -> None:
        """And the agent learns the same there as one that began there with the same parameters."""
        first, second = (new_agent(SequenceVectorEnv(new_game(reward=r), 8, autoreset_mode="SameStep")) for r in contracts)
        other = SequenceVectorEnv(new_game(reward=contracts[1]), 8, autoreset_mode="SameStep")
        if by == "set_env":
            first.set_env(other)  # type: ignore[arg-type]
            first.env.seed(0)  # type: ignore[union-attr]
        else:
            first.save(tmp_path / "agent.zip")
            first = Reinforce.load(tmp_path / "agent.zip", env=other)
        assert first.gamma == other.gamma == second.gamma
        assert torch.equal(weights(first.learn(40)), weights(second.learn(40)))

    def test_an_environment_of_another_end_token_is_refused(self, tmp_path: Path) -> None:
        agent = new_agent()
        game = make_game(12, 5, torch.zeros(4, 5, dtype=torch.int64), end_token=3, reward_model="constant")
        other = SequenceVectorEnv(game, 8, autoreset_mode="SameStep")
        agent.save(tmp_path / "agent.zip")
        before = agent.env
        for take in (lambda: agent.set_env(other), lambda: Reinforce.load(tmp_path / "agent.zip", env=other)):  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="The environment's end token is 3, the generator's None"):
                take()
        assert agent.env is before

    @pytest.mark.parametrize("seed", [np.int64(3), 3])
    def test_a_seed_is_an_integer_of_any_kind(self, seed: Any) -> None:
        assert torch.equal(weights(new_agent(seed=seed).learn(40)), weights(new_agent(seed=3).learn(40)))

    def test_gymnasium_s_wrappers_are_refused_by_name(self) -> None:
        """`play` would bypass them; those that `gym.make` adds are not needed here."""
        single = gym.make("SeqGAN/Oracle-v0", sequence_length=5, vocab_size=12)
        assert single is not single.unwrapped
        Reinforce(env=single, seed=0)
        venv = SequenceVectorEnv(new_game(), 8, autoreset_mode="SameStep")
        recorded = RecordEpisodeStatistics(venv)
        for env, name in (
            (TransformReward(single, lambda reward: 2 * float(reward)), "TransformReward"),
            (recorded, "RecordEpisodeStatistics"),
            (SB3VecEnv(recorded), "RecordEpisodeStatistics"),
        ):
            with pytest.raises(ValueError, match=rf"which {name} would not see: .* VecMonitor\(SB3VecEnv\(env\)\)"):
                Reinforce(env=env, seed=0)

    def test_policies_of_other_algorithms_are_refused(self) -> None:
        with pytest.raises(ValueError, match="got the policy 'MlpPolicy': pass 'GeneratorPolicy', or a class derived from it"):
            Reinforce("MlpPolicy", text_env())
        with pytest.raises(TypeError, match="pass 'GeneratorPolicy', or a class derived from it, got ActorCriticPolicy"):
            Reinforce(ActorCriticPolicy, text_env())  # type: ignore[arg-type]

    def test_foreign_environments_are_refused(self) -> None:
        with pytest.raises(TypeError, match="needs one of this package's environments, got CartPoleEnv"):
            Reinforce(env=gym.make("CartPole-v1"))
        from stable_baselines3.common.env_util import make_vec_env

        with pytest.raises(TypeError, match="needs an SB3VecEnv over a SequenceVectorEnv, got DummyVecEnv"):
            Reinforce(env=make_vec_env("CartPole-v1"))

    @pytest.mark.parametrize("reward", ["terminal", "rollout", "shaped"])
    def test_sequences_of_unequal_length(self, reward: str) -> None:
        agent = new_agent(text_env(reward=reward))
        lengths: list[int] = []

        class CountTokens(BaseCallback):
            def _on_rollout_end(self) -> None:
                lengths.extend(self.locals["lengths"].tolist())

            def _on_step(self) -> bool:
                return True

        agent.learn(100, CountTokens())
        assert agent.num_timesteps == sum(lengths) >= 100
        assert len(set(lengths)) > 1
        assert weights(agent).isfinite().all()


class TestUnderAMask:
    """In a game with a mask, the agent samples under it and learns from the masked probabilities."""

    def agent(self, **changes: Any) -> Reinforce:
        game = small_game(mask=no_repeats, reward="rollout", **changes)
        self.env = KeepsEpisodes(game, 16, autoreset_mode="SameStep")
        return Reinforce("GeneratorPolicy", self.env, learning_rate=0.05, ent_coef=0.01, seed=0)

    def test_no_forbidden_token_is_played(self) -> None:
        agent = self.agent()
        agent.learn(16 * T * 5)
        tokens, _ = agent.sample(200)
        assert all(len(set(row)) == T for row in tokens.tolist())
        unmasked, _ = agent.generator.sample(200, T, seeded())
        assert any(len(set(row)) < T for row in unmasked.tolist())

    def test_log_probabilities_are_those_under_the_mask(self, monkeypatch: pytest.MonkeyPatch) -> None:
        agent = self.agent()
        generator = copy.deepcopy(agent.generator)
        used: list[torch.Tensor] = []
        loss = agents.reinforce.policy_gradient_loss

        def note(log_probs: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
            used.append(log_probs.detach().clone())
            return loss(log_probs, *rest)

        monkeypatch.setattr(agents.reinforce, "policy_gradient_loss", note)
        agent.learn(16 * T)
        for row, log_probs in zip(self.env.tokens.tolist(), used[0].tolist(), strict=True):
            state = generator.initial_state(1)
            last = torch.tensor([V])
            for position, token in enumerate(row):
                logits, state = generator.step(last, state)
                left = torch.from_numpy(np.flatnonzero(no_repeats(np.array(row[:position], dtype=np.int64))))
                expected = logits[0, token] - torch.logsumexp(logits[0, left], dim=0)
                assert log_probs[position] == pytest.approx(expected.item(), abs=1e-5)
                last = torch.tensor([token])

    def test_a_mask_that_allows_all_changes_no_more_than_rounding(self) -> None:
        agents = []
        for mask in (None, lambda prefix: np.ones(V, dtype=np.bool_)):
            game = small_game(mask=mask, reward="rollout")
            agent = Reinforce("GeneratorPolicy", SequenceVectorEnv(game, 16, autoreset_mode="SameStep"), seed=0)
            agents.append(agent.learn(16 * T * 3))
        for one, other in zip(*(agent.generator.parameters() for agent in agents), strict=True):
            torch.testing.assert_close(one, other)

    @pytest.mark.rounding
    def test_it_learns(self) -> None:
        """`Ordinal` rewards rising tokens: 555 for 1 2 3 4 5, and 537.5 on average for random tokens."""
        agent = self.agent()
        before = agent.game.reward_model.score(agent.sample(500)[0], torch.full((500,), T)).mean()
        agent.learn(16 * T * 50)
        after = agent.game.reward_model.score(agent.sample(500)[0], torch.full((500,), T)).mean()
        assert before < 542
        assert after > before + 10
