"""A trace agrees with the environment, the search, the policy and Reinforce, and survives JSON with hostile tokens."""

import dataclasses
import json
import math
import statistics
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from torch import Tensor

import agents.reinforce
from agents.prefix_extractor import token_policy
from seqgan_env.game import SequenceGame
from seqgan_env.inspection.trace import EpisodeTrace
from seqgan_env.inspection.tracing import ObservationPolicy, trace_batch, trace_episode
from seqgan_env.observations import Layout, Observation
from seqgan_env.policy_gradient import advantages, discounted_returns
from seqgan_env.sequence_env import SequenceEnv
from seqgan_env.support.hashed_random import mix, stream_key
from tests.inspection.hostile import HOSTILE, hostile_game
from tests.small import END, KeepsEpisodes, T, V, episodes, no_repeats, seeded, small_discriminator, small_game, small_policy

pytestmark = pytest.mark.rounding


def attached(game: SequenceGame, seed: int = 5) -> SequenceGame:
    """The game, with another rollout policy than the traced one."""
    game.attach_policy(small_policy(seed))
    return game


class Halves:
    """A policy that gives token k half the probability of token k - 1, whatever came before."""

    def initial_state(self, n: int) -> Tensor:
        return torch.zeros(n, 0)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return torch.arange(V).neg().mul(math.log(2)).double().expand(len(tokens), V), state


@pytest.mark.parametrize("end_token", [None, END])
@pytest.mark.parametrize("judge", ["ordinal", "discriminator"])
def test_q_is_what_the_environment_pays_for_rollouts(judge: str, end_token: int | None) -> None:
    changes = {"reward_model": small_discriminator()} if judge == "discriminator" else {}
    game = attached(small_game(reward="rollout", end_token=end_token, **changes))
    for seed in range(4):
        trace = trace_episode(game, small_policy(), seed=seed)
        env = SequenceEnv(game)
        env.reset(seed=seed)
        paid = [env.step(np.int64(token)) for token in trace.tokens]
        rewards = pytest.approx([reward for _, reward, *_ in paid], rel=1e-5)  # batches of other sizes round otherwise
        assert [step.q for step in trace.steps] == rewards
        assert [step.reward for step in trace.steps] == rewards
        assert [terminated for *_, terminated, _, _ in paid] == [False] * (len(paid) - 1) + [True]
        assert trace.sequence_reward == pytest.approx(paid[-1][1], rel=1e-5)


@pytest.mark.parametrize("reward", ["terminal", "shaped"])
def test_rewards_follow_the_contract_and_q_is_there_under_each(reward: Any) -> None:
    game = attached(small_game(reward=reward, end_token=END))
    trace = trace_episode(game, small_policy(), seed=1)
    env = SequenceEnv(game)
    env.reset(seed=1)
    assert [step.reward for step in trace.steps] == pytest.approx([env.step(np.int64(t))[1] for t in trace.tokens], abs=1e-4)
    assert trace.reward_contract == reward
    assert trace.gamma == 1
    assert all(step.q != 0 for step in trace.steps)


def test_q_and_completions_are_those_of_the_search() -> None:
    game = attached(small_game(end_token=END))
    tokens = episodes(game, 8)
    lengths = (tokens < V).sum(dim=1)
    keys = mix(torch.tensor([stream_key(seed) for seed in range(7, 15)]), 0)
    values = game.search.action_values(tokens, lengths, keys)
    completions = game.search.complete(tokens, lengths, keys, range(T - 1))
    traces = trace_batch(game, small_policy(), seed=7, tokens=tokens)
    assert len({len(trace.steps) for trace in traces}) > 1
    for row, trace in enumerate(traces):
        assert [step.q for step in trace.steps] == values[row, : len(trace.steps)].tolist()
        for position, step in enumerate(trace.steps[:-1]):
            wholes = [(*trace.tokens[: position + 1], *completion.tokens) for completion in step.completions]
            padded = [(*whole, *[V] * (T - len(whole))) for whole in wholes]
            assert padded == [tuple(whole) for whole in completions.tokens[position, row].tolist()]
            scores = [completion.score for completion in step.completions]
            assert step.q == pytest.approx(statistics.mean(scores))
            assert step.q_standard_error == pytest.approx(statistics.stdev(scores) / math.sqrt(game.n_rollouts))
        assert trace.steps[-1].completions == ()
        assert trace.steps[-1].q_standard_error == 0


def test_one_completion_has_no_standard_error() -> None:
    steps = trace_episode(small_game(n_rollouts=1), small_policy(), seed=0).steps
    assert [step.q_standard_error for step in steps] == [None] * (T - 1) + [0]


def test_an_episode_of_one_token_is_its_own_reward() -> None:
    game = small_game(end_token=END)
    (step,) = trace_episode(game, small_policy(), seed=0, tokens=[END]).steps
    assert step.q == game.reward_model.score(torch.tensor([[END] + [V] * (T - 1)]), torch.tensor([1])).item()
    assert step.completions == ()


def test_probabilities_of_a_policy_by_hand() -> None:
    trace = trace_episode(small_game(), Halves(), seed=0, tokens=[0, 1, 2, 3, 5], top_k=3)
    p = [2.0**-k / (2 - 2.0 ** (1 - V)) for k in range(V)]
    assert [step.log_prob for step in trace.steps] == pytest.approx([math.log(p[token]) for token in (0, 1, 2, 3, 5)])
    assert [step.rank for step in trace.steps] == [1, 2, 3, 4, 6]
    for step in trace.steps:
        assert step.entropy == pytest.approx(-sum(q * math.log(q) for q in p))
        assert [token for token, _ in step.top_k] == [0, 1, 2]
        assert [probability for _, probability in step.top_k] == pytest.approx(p[:3])


def test_the_policy_writes_what_its_own_sample_writes(global_generators_at_rest: None) -> None:
    policy = small_policy(end_token=END)
    game = small_game(end_token=END)
    for seed in range(5):
        tokens, lengths = policy.sample(1, T, seeded(seed))
        trace = trace_episode(game, policy, seed=seed)
        assert trace.tokens == tuple(tokens[0, : lengths[0]].tolist())
        log_probs = [step.log_prob for step in trace.steps]
        assert log_probs == pytest.approx(policy.log_prob(tokens)[0, : lengths[0]].tolist())


def test_a_batch_is_its_episodes() -> None:
    game = attached(small_game(end_token=END))
    batch = trace_batch(game, small_policy(), 4, seed=20)
    for seed, trace in enumerate(batch, start=20):
        alone = trace_episode(game, small_policy(), seed=seed)
        assert trace.tokens == alone.tokens
        assert [step.completions for step in trace.steps] == [step.completions for step in alone.steps]
        assert [step.log_prob for step in trace.steps] == pytest.approx([step.log_prob for step in alone.steps])


def test_the_mask_binds_the_policy() -> None:
    game = small_game(mask=no_repeats)
    trace = trace_episode(game, small_policy(), seed=0)
    assert len(set(trace.tokens)) == T
    for position, step in enumerate(trace.steps):
        assert {token for token, _ in step.top_k} == set(range(V)) - set(trace.tokens[:position])
        assert sum(p for _, p in step.top_k) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"token 0 no probability after the prefix \[0\]"):
        trace_episode(game, small_policy(), seed=0, tokens=[0, 0, 1, 2, 3])


def test_tracing_does_not_move_the_environment() -> None:
    game = attached(small_game(reward="rollout"))
    rewards = []
    for traces in (False, True):
        env = SequenceEnv(game)
        env.reset(seed=3)
        rewards.append([])
        for token in range(T):
            rewards[-1].append(env.step(np.int64(token))[1])
            if traces:
                trace_episode(env, small_policy(), seed=9)
    assert rewards[0] == rewards[1]


def test_advantages_are_those_that_reinforce_used(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Tensor] = []
    loss = agents.reinforce.policy_gradient_loss

    def note(log_probs: Tensor, advantage: Tensor, *rest: Tensor) -> Tensor:
        used.append(advantage.clone())
        return loss(log_probs, advantage, *rest)

    monkeypatch.setattr(agents.reinforce, "policy_gradient_loss", note)
    game = small_game(reward="shaped", end_token=END)
    env = KeepsEpisodes(game, 6, autoreset_mode=AutoresetMode.SAME_STEP)
    agent = agents.reinforce.Reinforce("GeneratorPolicy", env, learning_rate=0.0, baseline="position", seed=4)
    agent.learn(1)

    def advantage_fn(rewards: Tensor, lengths: Tensor) -> Tensor:
        return advantages(discounted_returns(rewards, game.gamma), lengths, "position")

    traces = trace_batch(env, agent.generator, seed=4, tokens=env.tokens, advantage_fn=advantage_fn)
    assert len(used) == 1
    assert used[0].abs().max() > 1
    for trace, row in zip(traces, used[0], strict=True):
        assert [step.advantage for step in trace.steps] == row[: len(trace.steps)].tolist()


def test_every_form_of_environment_can_be_traced() -> None:
    made = gym.make("SeqGAN/Oracle-v0", sequence_length=T, vocab_size=V, n_real=8, n_rollouts=2)
    vector = gym.make_vec("SeqGAN/Oracle-v0", 2, sequence_length=T, vocab_size=V, n_real=8, n_rollouts=2)
    single, batch = (trace_episode(source, small_policy(), seed=1) for source in (made, vector))
    assert single == batch
    assert single.oracle_nll == pytest.approx(
        made.unwrapped.game.oracle.nll(torch.tensor([single.tokens])).item()  # type: ignore[attr-defined]
    )
    assert single.discriminator_probability == pytest.approx(single.sequence_reward)


def test_invalid_games_and_policies_are_refused() -> None:
    with pytest.raises(TypeError, match="Expected a SequenceGame or an environment that plays one, got int"):
        trace_episode(3, small_policy(), seed=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="ObservationPolicy makes one"):
        trace_episode(small_game(), torch.nn.Linear(2, 2), seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="either n"):
        trace_batch(small_game(), small_policy(), seed=0)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        trace_episode(small_game(), small_policy(), seed=0, top_k=0)
    with pytest.raises(ValueError, match="at least 1 episode"):
        trace_batch(small_game(), small_policy(), 0, seed=0)


@pytest.mark.parametrize("tokens", [[], [0, 1], [0, 1, 1, 1, V + 1], [0, -1, 1, 1, 1], [END, 0, 1, 1, 1], [0] * (T + 1)])
def test_incomplete_episodes_are_refused(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match=r"is not a complete episode. Expected 5 token ids from 0 to 5, or fewer"):
        trace_episode(small_game(end_token=END), small_policy(), seed=0, tokens=tokens)


def prefix_logits(observation: Observation) -> Tensor:
    """Logits of `small_policy` after observed prefixes, computed from the whole prefix."""
    if isinstance(observation, dict):
        tokens, lengths = observation["tokens"], observation["length"]
    else:
        tokens, lengths = observation[:, :-1], observation[:, -1:]
    logits = small_policy().logits(torch.from_numpy(tokens))
    return logits[torch.arange(len(tokens)), torch.from_numpy(lengths[:, 0])]


@pytest.mark.parametrize("layout", ["dict", "flat"])
def test_a_function_of_observations_is_a_policy(layout: Layout) -> None:
    game = small_game(end_token=END)
    observing = ObservationPolicy(game, layout, prefix_logits)
    traces = []
    for policy in (small_policy(), observing):
        game.attach_policy(policy)
        traces.append(trace_episode(game, policy, seed=2, tokens=[0, 3, 1, 4, END]))
    recurrent, from_prefixes = traces
    for one, other in zip(recurrent.steps, from_prefixes.steps, strict=True):
        assert one.completions == other.completions
        assert one.log_prob == pytest.approx(other.log_prob)


def test_a_function_of_observations_gets_the_mask_if_it_asks_for_it() -> None:
    """Of unfinished prefixes; in completions, too, where rows end before others."""
    game = small_game(end_token=END, mask=no_repeats)

    def logits(observation: Observation) -> Tensor:
        assert isinstance(observation, dict)
        for tokens, length, mask in zip(*observation.values(), strict=True):
            prefix = tokens[: length[0]]
            over = len(prefix) == T or END in prefix
            assert mask.tolist() == (np.ones(V) if over else no_repeats(prefix)).tolist()
        return prefix_logits(observation)

    traces = []
    for policy in (small_policy(), ObservationPolicy(game, "dict-mask", logits)):
        game.attach_policy(policy)
        traces.append(trace_episode(game, policy, seed=2, tokens=[0, 3, 1, 4, END]))
    assert [step.completions for step in traces[0].steps] == [step.completions for step in traces[1].steps]


def test_logits_of_another_shape_are_refused() -> None:
    game = small_game()
    with pytest.raises(ValueError, match=r"shape \(n, vocab_size\) = \(1, 6\), got \(1, 5\)"):
        trace_episode(game, ObservationPolicy(game, "dict", lambda observation: torch.zeros(1, 5)), seed=0)


def test_a_policy_of_stable_baselines_can_be_traced() -> None:
    env = SequenceEnv(small_game())
    policy = PPO("MultiInputPolicy", env, seed=0, n_steps=8, batch_size=8).policy
    trace = trace_episode(env, token_policy(policy, env.game), seed=0)
    observation, _ = env.reset()
    for step in trace.steps:
        with torch.no_grad():
            _, log_prob, entropy = policy.evaluate_actions(policy.obs_to_tensor(observation)[0], torch.tensor([step.token]))
        assert step.log_prob == pytest.approx(log_prob.item(), abs=1e-6)
        assert entropy is not None
        assert step.entropy == pytest.approx(entropy.item(), abs=1e-5)
        observation, *_ = env.step(np.int64(step.token))


def test_json_round_trip() -> None:
    def advantage_fn(rewards: Tensor, lengths: Tensor) -> Tensor:
        return rewards - rewards.mean()

    plain = trace_episode(small_game(n_rollouts=1), small_policy(), seed=0)
    for trace in [plain, *trace_batch(hostile_game(), small_policy(), 3, seed=0, advantage_fn=advantage_fn)]:
        text = trace.to_json()
        assert text.isascii()
        assert EpisodeTrace.from_json(text) == trace


def test_tokens_keep_their_spelling() -> None:
    trace = trace_episode(hostile_game(), small_policy(), seed=0, tokens=[0, 1, 3, 4, 5])
    read = EpisodeTrace.from_json(trace.to_json())
    assert [read.name(token) for token in read.tokens] == [HOSTILE[token] for token in (0, 1, 3, 4, 5)]
    assert trace_episode(small_game(), small_policy(), seed=0).name(3) == "3"


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_another_schema_is_refused(schema: object) -> None:
    fields = json.loads(trace_episode(small_game(), small_policy(), seed=0).to_json()) | {"schema": schema}
    with pytest.raises(ValueError, match=f"This trace has schema {schema!r}, but this version of seqgan_env reads schema 1"):
        EpisodeTrace.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": "6"}, r"vocab_size must be a valid integer, got '6'"),
        ({"vocab_size": True}, r"vocab_size must be a valid integer, got 'True'"),
        ({"gamma": None}, r"gamma must be a valid number, got 'None'"),
        ({"token_names": {"a": "b"}}, r"token_names\.a must be a valid integer"),
        ({"token_names": {"1": 2}}, r"token_names\.1 must be a valid string, got '2'"),
        ({"steps": [{}]}, r"steps\.0\.prefix_length, steps\.0\.token, .* are missing or unknown"),
        ({"steps": []}, r"A trace has 1 to sequence_length=5 steps, got 0"),
        ({"more": 1}, r"the fields more are missing or unknown"),
    ],
)
def test_damage_is_named(change: dict[str, Any], message: str) -> None:
    fields = json.loads(trace_episode(small_game(), small_policy(), seed=0).to_json()) | change
    with pytest.raises(ValueError, match=message):
        EpisodeTrace.from_json(json.dumps(fields))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 1, "gamma": NaN}', "[" * 100_000])
def test_json_other_than_a_trace_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Not a trace as written by EpisodeTrace\.to_json"):
        EpisodeTrace.from_json(text)


def test_numbers_that_json_lacks_are_refused() -> None:
    trace = trace_episode(small_game(), small_policy(), seed=0)
    with pytest.raises(ValueError, match="are all rewards finite"):
        dataclasses.replace(trace, sequence_reward=math.nan).to_json()
    text = trace.to_json().replace('"gamma":1.0', '"gamma":1e999')
    with pytest.raises(ValueError, match=r"gamma must be a finite number, got 'inf'"):
        EpisodeTrace.from_json(text)


def test_steps_out_of_order_are_refused() -> None:
    trace = trace_episode(small_game(), small_policy(), seed=0)
    with pytest.raises(ValueError, match="prefixes of length 0, 1, 2"):
        dataclasses.replace(trace, steps=trace.steps[::-1])
