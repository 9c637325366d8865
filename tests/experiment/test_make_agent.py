"""Other algorithms as players of `train.py`: the same generator, the same game, another update."""

import csv
import dataclasses
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from stable_baselines3.common.buffers import DictRolloutBuffer
from stable_baselines3.common.vec_env import VecMonitor
from torch import Tensor

from agents.actor_critic import ActorCriticPlayer, PlayerPPO, played_episodes
from agents.experiment.checkpoint import pack, unpack
from agents.experiment.config import ActorCriticConfig, AgentName, OracleConfig, TextConfig, kl_coef_of
from agents.experiment.make_agent import Player, make_agent
from agents.experiment.make_task import make_task
from agents.global_random_state import BorrowedRandomness
from seqgan_env.models.generators import GeneratorConfig
from seqgan_env.policy_gradient import discounted_returns
from tests.small import T, V, no_repeats, small_game
from tests.tiny_runs import TINY, oracle_config, text_config
from train import main

pytestmark = pytest.mark.usefixtures("runs_without_pictures")
AGENTS: tuple[AgentName, ...] = get_args(AgentName)
OTHERS = [name for name in AGENTS if name != "reinforce"]
UPDATES = 3

if "sb3_contrib" not in sys.modules:
    pytest.importorskip("sb3_contrib")


def player(agent: AgentName, config: OracleConfig | TextConfig | None = None, **changes: Any) -> ActorCriticPlayer:
    config = config or oracle_config(Path())
    config = dataclasses.replace(config, agent=agent, **changes)
    made: Any = make_agent(config, make_task(config).game)
    return made


def on(game: Any, agent: AgentName = "ppo", **changes: Any) -> ActorCriticPlayer:
    made: Any = make_agent(dataclasses.replace(oracle_config(Path()), agent=agent, **changes), game)
    return made


def parameters(agent: Player) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in agent.generator.parameters()])


def prefixes(tokens: Tensor, vocab_size: int) -> tuple[dict[str, Tensor], Tensor]:
    """Every prefix of sequences `(n, length)` as SB3 hands it to a policy, episode by episode; and the next tokens."""
    n, length = tokens.shape
    seen = torch.arange(length) < torch.arange(length).unsqueeze(1)
    observed = torch.where(seen, tokens.unsqueeze(1), vocab_size).flatten(0, 1).float()
    return {"tokens": observed, "length": torch.arange(length).repeat(n).unsqueeze(1).float()}, tokens.flatten()


@dataclasses.dataclass
class Run:
    start: bytes
    end: bytes
    log: list[dict[str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run of `train.py` with each agent."""
    made = {}
    for agent in AGENTS:
        out = tmp_path_factory.mktemp(agent)
        main(dataclasses.replace(oracle_config(out), agent=agent))
        (folder,) = out.iterdir()
        with (folder / "progress.csv").open() as file:
            log = list(csv.DictReader(file))
        weights = [(folder / f"{name}.safetensors").read_bytes() for name in ("generator_likelihood", "generator")]
        made[agent] = Run(*weights, log)
    return made


@pytest.mark.parametrize("agent", AGENTS)
class TestARun:
    def test_starts_where_every_other_starts(self, runs: dict[str, Run], agent: AgentName) -> None:
        assert runs[agent].start == runs["reinforce"].start
        first = [
            [row[name] for row in runs[one].log if row.get(name)]
            for one in (agent, "reinforce")
            for name in ("pretraining/nll_oracle",)
        ]
        assert first[0] == first[1] != []

    def test_moves_the_generator(self, runs: dict[str, Run], agent: AgentName) -> None:
        assert runs[agent].end != runs[agent].start
        assert all(
            runs[agent].end != runs[other].end for other in AGENTS if other != agent and "maskable" not in other + agent
        )

    def test_plays_as_much_and_retrains_as_often(self, runs: dict[str, Run], agent: AgentName) -> None:
        log = runs[agent].log
        assert sum(bool(row["discriminator/accuracy"]) for row in log) == UPDATES
        assert sum(bool(row["adversarial/nll_test"]) for row in log) == 1 + UPDATES  # before the first one, and after each
        assert [int(row["train/n_updates"]) for row in log if row["train/n_updates"]] == [1, 2, 3]
        assert max(int(row["time/total_timesteps"]) for row in log if row["time/total_timesteps"]) == UPDATES * 8 * 6
        for name in ("rollout/reward_per_token", "rollout/oracle_nll", "rollout/discriminator_probability"):
            assert sum(bool(row[name]) for row in log) == UPDATES


class TestPolicy:
    @pytest.mark.parametrize("agent", ["ppo", "a2c", "maskable-ppo"])
    @pytest.mark.parametrize("kind", ["lstm", "transformer"])
    def test_its_likelihood_is_the_generators(self, agent: AgentName, kind: Any) -> None:
        config = GeneratorConfig(kind=kind, embedding_dim=4, hidden_dim=4, n_layers=2, initial_std=1.0)
        agent_ = player(agent, generator=config)
        tokens, _ = agent_.sample(5)
        observations, actions = prefixes(tokens, 20)
        policy: Any = agent_.policy
        _, log_probs, _ = policy.evaluate_actions(observations, actions)
        expected = agent_.generator.log_prob(tokens)
        assert torch.allclose(log_probs.view_as(expected), expected, atol=1e-5)
        observations["length"] = (observations["length"] - 1).clamp(min=0)  # the negative control: off by one
        _, wrong, _ = policy.evaluate_actions(observations, actions)
        assert not torch.allclose(wrong.view_as(expected), expected, atol=1e-2)

    def test_recurrent_ppo_steps_as_the_generator_does(self) -> None:
        agent = player("recurrent-ppo", generator=GeneratorConfig(embedding_dim=3, hidden_dim=5, initial_std=1.0))
        policy: Any = agent.policy
        agent.learn(8 * 6)  # the modules must go on sharing their parameters
        tokens, _ = agent.sample(4)
        observations, _ = prefixes(tokens, 20)
        state: Any = agent.generator.initial_state(4)
        theirs: Any = tuple(part.unsqueeze(0) for part in state)
        last = torch.full((4,), 20)
        for position in range(6):
            logits, state = agent.generator.step(last, state)
            rows = slice(position, None, 6)
            observation = {name: value[rows] for name, value in observations.items()}
            distribution, theirs = policy.get_distribution(observation, theirs, torch.full((4,), float(position == 0)))
            assert torch.allclose(distribution.distribution.logits, logits.log_softmax(dim=1), atol=1e-5)
            assert all(torch.allclose(a[0], b, atol=1e-6) for a, b in zip(theirs, state, strict=True))
            last = tokens[:, position]
        wrong, _ = policy.get_distribution(observation, tuple(torch.zeros_like(part) for part in theirs), torch.zeros(4))
        assert not torch.allclose(wrong.distribution.logits, logits.log_softmax(dim=1), atol=1e-2)

    def test_recurrent_ppo_has_the_generators_likelihood_of_whole_sequences(self) -> None:
        agent = player("recurrent-ppo", generator=GeneratorConfig(embedding_dim=3, hidden_dim=5, initial_std=1.0))
        policy: Any = agent.policy
        tokens, _ = agent.sample(4)
        observations, actions = prefixes(tokens, 20)
        from sb3_contrib.common.recurrent.type_aliases import RNNStates

        zeros = (torch.zeros(1, 4, 5), torch.zeros(1, 4, 5))
        starts = (torch.arange(24) % 6 == 0).float()
        _, log_probs, _ = policy.evaluate_actions(observations, actions, RNNStates(zeros, zeros), starts)
        assert torch.allclose(log_probs.view(4, 6), agent.generator.log_prob(tokens), atol=1e-5)

    @pytest.mark.parametrize("agent", OTHERS)
    def test_has_each_parameter_once_and_the_same_generator_as_reinforce(self, agent: AgentName) -> None:
        agent_ = player(agent)
        reinforce: Any = make_agent(oracle_config(Path()), make_task(oracle_config(Path())).game)
        assert torch.equal(parameters(agent_), parameters(reinforce))
        optimised = [id(p) for group in agent_.policy.optimizer.param_groups for p in group["params"]]
        assert len(optimised) == len(set(optimised))
        assert {id(p) for p in agent_.generator.parameters()} <= set(optimised)
        assert {id(p) for p in agent_.policy.critic_parts.parameters()} <= set(optimised)

    def test_the_critic_leaves_the_generator_alone(self) -> None:
        agent = player("ppo")
        policy: Any = agent.policy
        values, log_probs, _ = policy.evaluate_actions(*prefixes(agent.sample(3)[0], 20))
        values.sum().backward()
        assert all(p.grad is None for p in agent.generator.parameters())
        assert any(p.grad is not None for p in agent.policy.critic_parts.parameters())
        log_probs.sum().backward()
        assert all(p.grad is not None for p in agent.generator.parameters())

    def test_dropout_stays_off(self) -> None:
        agent = player("ppo", generator=GeneratorConfig(embedding_dim=4, hidden_dim=4, dropout=0.5, initial_std=1.0))
        policy: Any = agent.policy
        policy.set_training_mode(True)
        tokens, _ = agent.sample(5)
        _, log_probs, _ = policy.evaluate_actions(*prefixes(tokens, 20))
        agent.generator.eval()
        assert torch.allclose(log_probs.view(5, 6), agent.generator.log_prob(tokens), atol=1e-5)

    def test_the_generator_is_the_whole_actor(self) -> None:
        agent = player("ppo")
        with pytest.raises(ValueError, match=r"net_arch must have no layers for 'pi', got \[16\]"):
            type(agent.policy)(
                agent.observation_space,
                agent.action_space,  # type: ignore[arg-type]
                lambda _: 0.1,
                net_arch=[16],
            )


class TestMasks:
    def test_maskable_ppo_writes_nothing_forbidden(self) -> None:
        agent = on(small_game(mask=no_repeats), "maskable-ppo")
        agent.learn(2 * 8 * T)  # the environment refuses what is masked out
        tokens, _ = agent.sample(50)
        assert all(len(set(row)) == T for row in tokens.tolist())
        unmasked, _ = agent.generator.sample(50, T, torch.Generator().manual_seed(0))
        assert not all(len(set(row)) == T for row in unmasked.tolist())

    def test_ppo_has_no_masks(self) -> None:
        with pytest.raises(ValueError, match="is masked out after the prefix"):
            on(small_game(mask=no_repeats)).learn(8 * T)


class TestRandomness:
    @pytest.mark.usefixtures("global_generators_at_rest")
    @pytest.mark.parametrize("agent", OTHERS)
    def test_leaves_the_global_generators_alone(self, agent: AgentName) -> None:
        player(agent).learn(8 * 6)

    def test_follows_from_the_seed_alone(self) -> None:
        results = []
        for outside, seed in ((1, 5), (2, 5), (1, 6)):
            with torch.random.fork_rng():
                torch.manual_seed(outside)
                results.append(parameters(player("ppo", seed=seed).learn(2 * 8 * 6)))
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])

    def test_borrowed_generators_continue_and_are_restored_after_an_error(self) -> None:
        def fail(randomness: BorrowedRandomness) -> None:
            with randomness.lent():
                torch.rand(1)
                raise RuntimeError

        one, other = BorrowedRandomness(3, torch.device("cpu")), BorrowedRandomness(3, torch.device("cpu"))
        with one.lent():
            torch.rand(1)
            second = torch.rand(1)
        before = torch.get_rng_state()
        with pytest.raises(RuntimeError):
            fail(other)
        assert torch.equal(torch.get_rng_state(), before)
        with other.lent():
            assert torch.equal(torch.rand(1), second)


class TestGoingOn:
    @pytest.mark.parametrize("agent", OTHERS)
    @pytest.mark.parametrize("text", [False, True], ids=["oracle", "text"])
    def test_equals_training_without_a_stop(self, tmp_path: Path, agent: AgentName, text: bool) -> None:
        """With an end token, rows are in the middle of episodes."""
        config = text_config(tmp_path) if text else oracle_config(tmp_path)
        whole, first, second = (player(agent, config) for _ in range(3))
        steps = 8 * whole.game.sequence_length
        whole.learn(3 * steps)
        first._total_timesteps = 3 * steps
        first.learn(steps)
        # The learning rate is the same throughout in this config, so that the parts need not know of each other.
        first.learn(steps, reset_num_timesteps=False)
        (tmp_path / "state").write_bytes(pack({**first.training_state()}))
        second.load_training_state(unpack(tmp_path / "state"))
        second.learn(steps, reset_num_timesteps=False)
        assert torch.equal(parameters(second), parameters(whole))
        assert second.num_timesteps == whole.num_timesteps
        assert not torch.equal(parameters(first), parameters(whole))

    @pytest.mark.parametrize("agent", OTHERS)
    def test_save_and_load(self, tmp_path: Path, agent: AgentName) -> None:
        agent_ = player(agent)
        agent_.learn(8 * 6)
        agent_.save(str(tmp_path / "agent"))
        loaded = type(agent_).load(str(tmp_path / "agent"), env=agent_.env)
        assert torch.equal(parameters(loaded), parameters(agent_))
        loaded.learn(8 * 6)
        assert not torch.equal(parameters(loaded), parameters(agent_))

    def test_the_trained_discriminator_is_saved(self, tmp_path: Path) -> None:
        trained, fresh = player("ppo"), player("ppo")
        trained.retrain_reward_model(16)
        trained.save(str(tmp_path / "agent"))
        tokens, lengths = trained.sample(8)
        expected, before = (one.game.reward_model.score(tokens, lengths) for one in (trained, fresh))
        assert not torch.equal(before, expected)
        loaded = PlayerPPO.load(str(tmp_path / "agent"), env=fresh.env)
        assert torch.equal(loaded.game.reward_model.score(tokens, lengths), expected)

    def test_episodes_that_a_monitor_counts_are_counted_once(self) -> None:
        agent: Any = player("ppo")
        agent.set_env(VecMonitor(agent.env))
        agent.learn(8 * 6)
        assert [episode["l"] for episode in agent.ep_info_buffer] == [6] * 8
        assert [episode["r"] for episode in agent.ep_info_buffer] == agent.last_played.rewards.sum(dim=1).tolist()


class TestRewards:
    def test_returns_of_reinforce_under_each_contract(self) -> None:
        """Under terminal every token's return is the sequence's score; under shaped it is what the token may still change."""
        played, returns = {}, {}
        for reward in ("terminal", "shaped", "rollout"):
            agent: Any = on(small_game(reward=reward), "reinforce")
            agent.env.reset()
            tokens, _ = agent.sample(8)
            played[reward] = agent.env.venv.play(tokens).rewards
            returns[reward] = discounted_returns(played[reward], agent.gamma)
        score = played["terminal"][:, -1:]
        assert torch.allclose(returns["terminal"], score.expand(-1, T))
        before = torch.cat([torch.zeros(8, 1), played["rollout"][:, :-1]], dim=1)
        assert torch.allclose(returns["shaped"], score - before, atol=1e-4)
        assert torch.equal(returns["rollout"], played["rollout"])

    @pytest.mark.parametrize(("agent", "expected"), [("reinforce", "rollout"), ("ppo", "shaped")])
    def test_default_contract(self, agent: AgentName, expected: str) -> None:
        agent_ = player(agent)
        assert agent_.game.reward == expected
        assert agent_.gamma == agent_.game.gamma == (0 if expected == "rollout" else 1)

    @pytest.mark.parametrize("reward", ["terminal", "rollout"])
    def test_every_agent_plays_under_every_contract(self, reward: Any) -> None:
        changed = dataclasses.replace(TINY["adversarial"], reward=reward)
        for agent in AGENTS:
            agent_ = player(agent, adversarial=changed)
            before = parameters(agent_)
            agent_.learn(8 * 6)
            assert agent_.game.reward == reward
            assert agent_.gamma == agent_.game.gamma
            assert not torch.equal(parameters(agent_), before)

    @pytest.mark.parametrize("by", ["set_env", "load"])
    def test_the_discount_is_that_of_the_current_environment(self, tmp_path: Path, by: str) -> None:
        agent, other = on(small_game(reward="terminal")), on(small_game(reward="rollout"))
        env = other.env
        if by == "set_env":
            agent.set_env(env)  # type: ignore[arg-type]
        else:
            agent.save(str(tmp_path / "agent"))
            agent = type(agent).load(str(tmp_path / "agent"), env)
        assert agent.gamma == agent.rollout_buffer.gamma == 0
        assert agent.game.search.policy is agent.generator
        kept = type(agent).load(str(tmp_path / "agent"), env, gamma=0.5) if by == "load" else None
        assert kept is None or kept.gamma == kept.rollout_buffer.gamma == 0.5

    def test_an_environment_of_another_end_token_is_refused(self) -> None:
        with pytest.raises(ValueError, match="The environment's end token is 2, the generator's None"):
            on(small_game()).set_env(on(small_game(end_token=2)).env)  # type: ignore[arg-type]

    def test_completions_are_the_generators_own(self) -> None:
        agent = player("ppo")
        assert agent.game.search.policy is agent.generator


def test_played_episodes_by_hand() -> None:
    """Two rows of four steps; the first ends an episode, then plays a whole one; the second plays two."""
    game = small_game(end_token=2)
    agent = on(game)
    buffer = DictRolloutBuffer(4, agent.observation_space, agent.action_space, n_envs=2)  # type: ignore[arg-type]
    for step, (lengths, rewards) in enumerate([((3, 0), (9, 1)), ((4, 1), (9, 2)), ((0, 0), (5, 3)), ((1, 1), (6, 4))]):
        observation = {"tokens": np.full((2, T), V), "length": np.array(lengths)[:, None]}
        value = torch.zeros(2)
        buffer.add(observation, np.zeros((2, 1)), np.array(rewards), np.array(lengths) == 0, value, value)
        assert buffer.full == (step == 3)
    played = played_episodes(buffer)
    assert played.rewards.tolist() == [[5, 6, 0, 0, 0], [1, 2, 0, 0, 0], [3, 4, 0, 0, 0]]
    assert played.lengths.tolist() == [2, 2, 2]


FIELDS: dict[str, Any] = {
    "learning_rate_factor": 2.0,
    "gae_lambda": 0.5,
    "vf_coef": 0.1,
    "critic_dims": (8, 8),
    "normalize_advantage": False,
    "epochs": 2,
    "minibatches": 2,
    "clip_range": 0.01,
}


def test_every_setting_has_an_effect() -> None:
    assert set(FIELDS) == {field.name for field in dataclasses.fields(ActorCriticConfig)}

    def trained(**changes: Any) -> Tensor:
        agent = player("ppo", actor_critic=ActorCriticConfig(**changes))
        agent.learn(2 * 8 * 6)
        critic = [p.detach().flatten() for p in agent.policy.critic_parts.parameters()]
        return torch.cat([parameters(agent), *critic])

    base = trained()
    for name, value in FIELDS.items():
        changed = trained(**{name: value})
        assert changed.shape != base.shape or not torch.equal(changed, base), name


class TestRefusals:
    @pytest.mark.parametrize("agent", ["maskable-ppo", "recurrent-ppo"])
    def test_without_the_extra(self, monkeypatch: pytest.MonkeyPatch, agent: AgentName) -> None:
        monkeypatch.delitem(sys.modules, "agents.actor_critic_contrib", raising=False)
        monkeypatch.delattr("agents.actor_critic_contrib", raising=False)
        monkeypatch.setitem(sys.modules, "sb3_contrib", None)
        with pytest.raises(ImportError, match=r"needs sb3-contrib, which is not installed: pip install -e '\.\[contrib\]'"):
            player(agent)
        player("ppo")

    @pytest.mark.parametrize("change", [{"likelihood_steps": 1}, {"kl_coef": 0.1}])
    def test_settings_that_only_reinforce_has(self, change: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match="Only reinforce has likelihood steps and a penalty for leaving its start"):
            player("a2c", adversarial=dataclasses.replace(TINY["adversarial"], **change))

    def test_only_reinforce_is_held_to_its_start_and_by_default_only_on_a_text(self) -> None:
        text, oracle = text_config(Path()), oracle_config(Path())
        assert [kl_coef_of(dataclasses.replace(text, agent=agent)) for agent in AGENTS] == [3, 0, 0, 0, 0]
        assert [kl_coef_of(dataclasses.replace(oracle, agent=agent)) for agent in AGENTS] == [0, 0, 0, 0, 0]
        given = dataclasses.replace(TINY["adversarial"], kl_coef=0.3)
        assert [kl_coef_of(dataclasses.replace(config, adversarial=given)) for config in (text, oracle)] == [0.3, 0.3]
        made: Any = make_agent(text, make_task(text).game)
        assert made.kl_coef == 3

    @pytest.mark.parametrize(
        ("config", "has"),
        [(GeneratorConfig(n_layers=2), "2 LSTM layers"), (GeneratorConfig(kind="transformer"), "TokenTransformer")],
    )
    def test_recurrent_ppo_of_another_generator(self, config: GeneratorConfig, has: str) -> None:
        with pytest.raises(ValueError, match=f"one LSTM layer from step to step, and this generator has {has}"):
            player("recurrent-ppo", generator=config)

    def test_without_an_environment(self, tmp_path: Path) -> None:
        player("ppo").save(str(tmp_path / "agent"))
        with pytest.raises(ValueError, match="This agent has no environment"):
            _ = PlayerPPO.load(str(tmp_path / "agent")).game
