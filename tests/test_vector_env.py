"""The vector form and `play` against the single environment, Gymnasium's own vector environment, and by hand."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqgan_env.game import SequenceGame
from seqgan_env.games import oracle_game, text_game
from seqgan_env.rewards.controls import ConstantReward
from seqgan_env.sequence_env import SequenceEnv
from seqgan_env.vector_env import SequenceVectorEnv
from tests.small import (
    CONTRACTS,
    END,
    IDS,
    LINES,
    SMALL_CNN,
    Ordinal,
    Recorder,
    T,
    V,
    contracts,
    episodes,
    layouts,
    no_repeats,
    small_discriminator,
    small_game,
    small_policy,
    words,
)

N, SEED = 4, 11
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "end token": {"end_token": END},
    "mask": {"mask": no_repeats},
    "mask and end token": {"mask": no_repeats, "end_token": END},
    "discriminator": {"end_token": END, "reward_model": small_discriminator()},
}
variants = pytest.mark.parametrize("rules", VARIANTS.values(), ids=VARIANTS.keys())
modes = pytest.mark.parametrize("mode", AutoresetMode)


def game_of(**rules: Any) -> SequenceGame:
    """A game whose completions are written by a policy in float64."""
    game = small_game(**rules)
    game.attach_policy(small_policy())
    return game


def vector_env(n: int = N, mode: Any = "SameStep", layout: Any = "dict", render_mode: str | None = None, **rules: Any) -> Any:
    return SequenceVectorEnv(game_of(**rules), n, autoreset_mode=mode, layout=layout, render_mode=render_mode)


def allowed_actions(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])


# Steps against plays: rewards `(N, T)` and infos of the same whole episodes


def play_by_vector_steps(env: SequenceVectorEnv, tokens: Tensor) -> Tensor:
    """The rewards of each row's first episode; rows that end before the others begin another one."""
    rewards, playing, rng = torch.zeros(N, T), np.ones(N, dtype=np.bool_), np.random.default_rng(0)
    for position in range(T):
        actions = np.where(playing, tokens[:, position].numpy(), allowed_actions(env.action_masks(), rng))
        _, values, terminated, _, _ = env.step(actions)
        rewards[:, position] = torch.from_numpy(values * playing)
        playing &= ~terminated
    assert not playing.any()
    return rewards


def play_by_single_steps(game: SequenceGame, tokens: Tensor, seed: int) -> Tensor:
    """The rewards of N single environments, seeded `seed + i`."""
    rewards = torch.zeros(N, T)
    for row, sequence in enumerate(tokens.tolist()):
        env = SequenceEnv(game)
        env.reset(seed=seed + row)
        for position, token in enumerate(sequence[: sum(token < V for token in sequence)]):
            _, rewards[row, position], terminated, _, _ = env.step(np.int64(token))
        assert terminated
    return rewards


@contracts
@variants
def test_play_gives_what_steps_give(rules: dict[str, Any], reward: str) -> None:
    env = vector_env(reward=reward, **rules)
    tokens = episodes(env.game, N)
    env.reset(seed=SEED)
    played = env.play(tokens)
    env.reset(seed=SEED)
    close = {"rtol": 1e-5, "atol": 1e-4}
    torch.testing.assert_close(played.rewards, play_by_vector_steps(env, tokens), **close)
    torch.testing.assert_close(played.rewards, play_by_single_steps(env.game, tokens, SEED), **close)
    assert played.lengths.tolist() == (tokens < V).sum(dim=1).tolist()


@contracts
@variants
def test_play_that_is_off_by_one_is_detected(rules: dict[str, Any], reward: str) -> None:
    """The negative control of the test above: another position's rewards, or another row's key, are not close."""
    env = vector_env(reward=reward, **rules)
    tokens = episodes(env.game, N)
    stepped = play_by_single_steps(env.game, tokens, SEED)
    env.reset(seed=SEED)
    assert not torch.allclose(env.play(tokens).rewards.roll(1, dims=1), stepped, rtol=1e-5, atol=1e-4)
    env.reset(seed=SEED + 1)
    other_keys = env.play(tokens).rewards
    assert torch.allclose(other_keys, stepped, rtol=1e-5, atol=1e-4) == (reward == "terminal")


@contracts
def test_episodes_in_a_row_are_played_as_they_are_stepped(reward: str) -> None:
    """Each episode has completions of its own, whether `play` or `step` counted the ones before."""
    env = vector_env(reward=reward)
    first, second = episodes(env.game, N, seed=1), episodes(env.game, N, seed=2)

    def rewards(*players: Callable[[Tensor], Tensor]) -> list[Tensor]:
        env.reset(seed=SEED)
        return [player(tokens) for player, tokens in zip(players, (first, second), strict=True)]

    def play(tokens: Tensor) -> Tensor:
        return env.play(tokens).rewards

    def step(tokens: Tensor) -> Tensor:
        return play_by_vector_steps(env, tokens)

    expected = rewards(step, step)
    for players in ((play, play), (play, step), (step, play)):
        torch.testing.assert_close(rewards(*players), expected, rtol=1e-5, atol=1e-4)


@modes
def test_play_starts_ended_rows_anew_in_every_mode(mode: AutoresetMode) -> None:
    env = vector_env(mode=mode, reward="rollout")
    tokens = episodes(env.game, N)
    env.reset(seed=SEED)
    env.play(tokens)
    expected = env.play(tokens).rewards
    env.reset(seed=SEED)
    play_by_vector_steps(env, tokens)
    torch.testing.assert_close(env.play(tokens).rewards, expected, rtol=1e-5, atol=1e-4)


def test_play_returns_all_metrics_and_retrains_after_all_rewards() -> None:
    model = small_discriminator()
    game = oracle_game(T, V, reward_model=model, retrain_every=N, n_real=20)
    env, tokens = SequenceVectorEnv(game, N), episodes(game, N)
    expected = model.score(tokens, torch.full((N,), T))
    env.reset(seed=0)
    played = env.play(tokens)
    assert played.info.keys() == {"discriminator_probability", "oracle_nll", "retraining"}
    torch.testing.assert_close(played.rewards[:, -1], expected)
    assert played.info["discriminator_probability"] == pytest.approx(expected.numpy())
    assert not torch.equal(model.score(tokens, torch.full((N,), T)), expected)


def test_a_caller_may_overwrite_the_tokens_that_were_played() -> None:
    model = Recorder()
    env = vector_env(reward_model=model, retrain_every=2 * N)
    first, second = episodes(env.game, N, seed=1), episodes(env.game, N, seed=2)
    buffer = first.clone()
    env.reset(seed=0)
    env.play(buffer)
    env.play(buffer.copy_(second))
    assert torch.equal(model.fits[0][1], torch.cat([first, second]))


# Against Gymnasium's own vector environment


def assert_same(one: Any, other: Any, place: str = "") -> None:
    """Equal nested tuples and dictionaries of arrays, numbers to float32's precision."""
    if isinstance(one, tuple):
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if isinstance(one, np.ndarray) and one.dtype == other.dtype == np.object_:
        one, other = dict(enumerate(one)), dict(enumerate(other))
    if one is None:
        assert other is None, place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}/{key}")
    else:
        assert np.asarray(one).dtype == np.asarray(other).dtype, place
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4, err_msg=place)


def pair(mode: AutoresetMode, layout: Any = "dict", **rules: Any) -> tuple[SequenceVectorEnv, SyncVectorEnv]:
    ours = vector_env(mode=mode, layout=layout, **rules)
    return ours, SyncVectorEnv([lambda: SequenceEnv(ours.game, layout=layout)] * N, autoreset_mode=mode)


def compare(ours: SequenceVectorEnv, theirs: SyncVectorEnv, steps: int = 30, seed: int = SEED) -> int:
    """Take the same random steps in both; returns how many episodes ended."""
    rng, ended = np.random.default_rng(1), 0
    assert_same(ours.reset(seed=seed), theirs.reset(seed=SEED))
    for _ in range(steps):
        actions = allowed_actions(ours.action_masks(), rng)
        step, expected = ours.step(actions), theirs.step(actions)
        assert_same(step, expected)
        over = step[2]
        ended += int(over.sum())
        if ours.autoreset_mode is AutoresetMode.DISABLED and over.any():
            ours_reset, theirs_reset = (env.reset(options={"reset_mask": over.copy()}) for env in (ours, theirs))
            if "action_mask" in ours_reset[1]:  # ours are of all rows, as the observation is
                theirs_reset[1]["action_mask"][~over] = ours_reset[1]["action_mask"][~over]
                theirs_reset[1]["_action_mask"][:] = True
            assert_same(ours_reset, theirs_reset)
    return ended


@modes
@contracts
@layouts
def test_rows_are_gymnasiums_own_single_environments(mode: AutoresetMode, layout: str, reward: str) -> None:
    """With an end token, so that rows end at different times."""
    oracle = oracle_game(T, V).oracle
    rules = {"end_token": END, "reward_model": small_discriminator(), "oracle": oracle, "reward": reward}
    ours, theirs = pair(mode, layout, **rules)
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    assert compare(ours, theirs) > 8


@modes
@pytest.mark.parametrize("layout", ["dict", "dict-mask"])
def test_masked_rows_are_gymnasiums_own_too(mode: AutoresetMode, layout: str) -> None:
    ours, theirs = pair(mode, layout, mask=no_repeats, end_token=END, reward="shaped")
    assert compare(ours, theirs) > 8


@modes
def test_the_comparison_detects_another_seed(mode: AutoresetMode) -> None:
    ours, theirs = pair(mode, reward="rollout")
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        compare(ours, theirs, seed=SEED + 1)


# The same seeds through each autoreset mode

Step = tuple[list[int], float, float]
"""The prefix after a step, its reward, and the oracle's NLL where the episode ended, else 0."""
EPISODES_A_ROW = 4


def token_of(row: int, episode: int, position: int) -> int:
    """The token to play there, in whichever step of the environment that is."""
    return int(np.random.default_rng([row, episode, position]).integers(V))


def through(mode: AutoresetMode, seed: int = SEED, **rules: Any) -> list[list[list[Step]]]:
    """The first episodes of each row in an autoreset mode, without the steps that only reset."""
    env = vector_env(mode=mode, **rules)
    env.reset(seed=seed)
    rows: list[list[list[Step]]] = [[[]] for _ in range(N)]
    only_resets = np.zeros(N, dtype=np.bool_)
    while min(len(row) for row in rows) <= EPISODES_A_ROW:
        tokens = [token_of(index, len(row) - 1, len(row[-1])) for index, row in enumerate(rows)]
        observation, rewards, terminated, _, infos = env.step(np.array(tokens))
        for index in np.flatnonzero(~only_resets):
            final = bool(terminated[index]) and mode is AutoresetMode.SAME_STEP
            seen = infos["final_obs"][index] if final else {name: part[index] for name, part in observation.items()}
            nll = (infos["final_info"] if final else infos)["oracle_nll"][index] if terminated[index] else 0.0
            rows[index][-1].append((seen["tokens"][: seen["length"][0]].tolist(), float(rewards[index]), float(nll)))
            if terminated[index]:
                rows[index].append([])
        assert not rewards[only_resets].any()
        only_resets = terminated if mode is AutoresetMode.NEXT_STEP else only_resets
        if mode is AutoresetMode.DISABLED and terminated.any():
            env.reset(options={"reset_mask": terminated})
    return [row[:EPISODES_A_ROW] for row in rows]


def through_single_environments(seed: int = SEED, **rules: Any) -> list[list[list[Step]]]:
    """The same episodes, one at a time."""
    rows: list[list[list[Step]]] = []
    for index in range(N):
        env = SequenceEnv(game_of(**rules))
        rows.append([])
        for episode in range(EPISODES_A_ROW):
            env.reset(seed=seed + index if episode == 0 else None)
            steps: list[Step] = []
            terminated = False
            while not terminated:
                observation, reward, terminated, _, info = env.step(np.int64(token_of(index, episode, len(steps))))
                assert isinstance(observation, dict)
                prefix = observation["tokens"][: observation["length"][0]].tolist()
                steps.append((prefix, float(reward), info.get("oracle_nll", 0.0)))
            rows[-1].append(steps)
    return rows


def assert_same_episodes(rows: list[list[list[Step]]], others: list[list[list[Step]]]) -> None:
    """The same prefixes, exactly; the same numbers, but for the order of sums in batches of other sizes."""
    steps, other_steps = ([step for row in all_rows for episode in row for step in episode] for all_rows in (rows, others))
    assert [prefix for prefix, _, _ in steps] == [prefix for prefix, _, _ in other_steps]
    np.testing.assert_allclose([step[1:] for step in steps], [step[1:] for step in other_steps], rtol=1e-5, atol=1e-6)


ORACLE_RULES: dict[str, Any] = {"end_token": END, "oracle": oracle_game(T, V).oracle}


@contracts
def test_every_autoreset_mode_plays_the_same_episodes(reward: str) -> None:
    """With an end token, so that rows run out of step with each other, and one mode's rows with another's."""
    expected = through_single_environments(reward=reward, **ORACLE_RULES)
    assert len({len(episode) for row in expected for episode in row}) > 2
    for mode in AutoresetMode:
        assert_same_episodes(through(mode, reward=reward, **ORACLE_RULES), expected)


@modes
def test_other_seeds_or_episodes_are_not_the_same(mode: AutoresetMode) -> None:
    """The negative control of the test above."""
    played = through(mode, reward="rollout", **ORACLE_RULES)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        assert_same_episodes(through(mode, SEED + 1, reward="rollout", **ORACLE_RULES), played)
    with pytest.raises(AssertionError):
        assert_same_episodes([row[1:] + row[:1] for row in played], played)


@modes
@contracts
@pytest.mark.parametrize("environment", IDS)
def test_gym_make_vec_hands_every_argument_on(environment: str, reward: str, mode: AutoresetMode) -> None:
    env = gym.make_vec(
        environment,
        num_envs=3,
        vectorization_mode="vector_entry_point",
        autoreset_mode=mode,
        sequence_length=T,
        n_rollouts=2,
        discriminator=SMALL_CNN,
        reward=reward,
        layout="flat",
        render_mode="ansi",
        **IDS[environment],
    ).unwrapped
    assert isinstance(env, SequenceVectorEnv)
    assert (env.num_envs, env.layout, env.render_mode, env.game.reward) == (3, "flat", "ansi", reward)
    assert env.autoreset_mode is env.metadata["autoreset_mode"] is mode
    assert "autoreset_mode" not in SequenceVectorEnv.metadata
    observation, _ = env.reset(seed=0)
    over = np.zeros(3, dtype=np.bool_)
    for _ in range(2 * T):
        if env.autoreset_mode is AutoresetMode.DISABLED and over.any():
            observation, _ = env.reset(options={"reset_mask": over})
        assert env.observation_space.contains(observation)
        observation, rewards, over, *_ = env.step(env.action_space.sample())
        assert np.isfinite(rewards).all()


def test_an_attached_policy_writes_the_completions_of_all_rows() -> None:
    env = SequenceVectorEnv(small_game(reward="rollout"), N)
    tokens = torch.zeros(N, T, dtype=torch.int64)
    rewards = []
    for policy in (None, small_policy(1), small_policy(2)):
        if policy is not None:
            env.attach_policy(policy)
        env.reset(seed=SEED)
        rewards.append(env.play(tokens).rewards[:, 0])
    assert not (rewards[0] == rewards[1]).all()
    assert not (rewards[1] == rewards[2]).all()


# Determinism


@pytest.mark.usefixtures("global_generators_at_rest")
@contracts
def test_the_same_seed_plays_bit_for_bit_through_retraining(reward: str) -> None:
    histories: list[list[Any]] = [[], []]
    for history in histories:
        env = vector_env(mode="NextStep", reward=reward, reward_model=small_discriminator(), retrain_every=5, end_token=END)
        rng = np.random.default_rng(0)
        env.reset(seed=SEED)
        history.extend(env.step(rng.integers(V, size=N)) for _ in range(4 * T))
    np.testing.assert_equal(histories[0], histories[1])
    assert sum("retraining" in infos for *_, infos in histories[0]) >= 2


def test_seeds_can_be_given_for_each_row() -> None:
    env = vector_env(reward="rollout")
    tokens = episodes(env.game, 1).expand(N, T)
    env.reset(seed=[5, 6, 5, 7])
    rewards = env.play(tokens).rewards
    assert torch.equal(rewards[0], rewards[2])
    assert not torch.equal(rewards[0], rewards[1])
    env.reset(seed=5)
    consecutive = env.play(tokens).rewards
    assert torch.equal(consecutive[:2], rewards[:2])
    assert torch.equal(consecutive[2], rewards[3])


def test_without_a_seed_environments_differ() -> None:
    rewards = []
    for _ in range(2):
        env = vector_env(reward="rollout")
        env.reset()
        rewards.append(env.play(torch.zeros(N, T, dtype=torch.int64)).rewards)
    assert not torch.equal(rewards[0], rewards[1])


# Rows


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    reward=st.sampled_from(CONTRACTS),
    mode=st.sampled_from(["NextStep", "SameStep"]),
    layout=st.sampled_from(["dict", "flat"]),
)
def test_any_actions_keep_observations_in_the_space_and_rewards_finite(seed: int, reward: str, mode: str, layout: str) -> None:
    env = vector_env(mode=mode, layout=layout, mask=no_repeats, end_token=END, reward=reward)
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    for _ in range(2 * T):
        assert env.observation_space.contains(observation)
        observation, rewards, _, truncated, _ = env.step(allowed_actions(env.action_masks(), rng))
        assert rewards.shape == (N,)
        assert np.isfinite(rewards).all()
        assert not truncated.any()


@layouts
def test_observations_and_rewards_are_fresh_arrays(layout: str) -> None:
    env = vector_env(layout=layout, reward="rollout")
    seen = [env.reset(seed=0)[0]]
    for _ in range(3):
        observation, rewards, *_ = env.step(np.ones(N, dtype=np.int64))
        seen += [observation, rewards]
    arrays = [array for item in seen for array in (item.values() if isinstance(item, dict) else [item])]
    for index, array in enumerate(arrays):
        assert not any(np.shares_memory(array, other) for other in arrays[index + 1 :])


@layouts
def test_a_caller_who_overwrites_what_a_step_returns_does_not_change_the_episode(layout: str) -> None:
    env, twin = (vector_env(layout=layout, reward="rollout", render_mode="ansi") for _ in range(2))
    for one in (env, twin):
        one.reset(seed=0)
    for _ in range(T - 1):
        observation, rewards, *_ = env.step(np.ones(N, dtype=np.int64))
        expected, expected_rewards, *_ = twin.step(np.ones(N, dtype=np.int64))
        np.testing.assert_equal(observation, expected)
        assert rewards.tolist() == expected_rewards.tolist()
        for array in (rewards, *(observation.values() if isinstance(observation, dict) else [observation])):
            array[:] = 3
        assert env.render() == twin.render()


def test_with_disabled_autoreset_the_caller_resets_the_rows_that_are_over() -> None:
    env = vector_env(mode=AutoresetMode.DISABLED, end_token=END, layout="flat")
    env.reset(seed=0)
    env.step(np.array([END, 1, END, 1]))
    with pytest.raises(ResetNeeded, match=r"Rows \[0, 2\] are over: call reset\(options=\{'reset_mask': ...\}\)"):
        env.step(np.ones(N, dtype=np.int64))
    observation, _ = env.reset(options={"reset_mask": np.array([True, False, True, False])})
    assert observation[:, -1].tolist() == [0, 1, 0, 1]
    env.step(np.ones(N, dtype=np.int64))


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        ([True] * N, TypeError, "must be a numpy array of bool, got"),
        (np.ones(N), TypeError, "must be a numpy array of bool"),
        (np.ones(N + 1, dtype=np.bool_), ValueError, r"must have shape \(4,\) and a True in it"),
        (np.zeros(N, dtype=np.bool_), ValueError, "a True in it"),
    ],
)
def test_other_reset_masks_are_refused(mask: Any, error: type[Exception], message: str) -> None:
    env = vector_env()
    env.reset(seed=0)
    with pytest.raises(error, match=message):
        env.reset(options={"reset_mask": mask})


def test_action_masks_have_a_row_for_each_prefix() -> None:
    env = vector_env(mask=no_repeats)
    env.reset(seed=0)
    env.step(np.array([0, 1, 2, 3]))
    assert (env.action_masks() == ~np.eye(N, V, dtype=np.bool_)).all()
    assert vector_env().action_masks().all()


@modes
def test_infos_and_observations_have_the_mask_of_the_next_action(mode: AutoresetMode) -> None:
    """Right after resets, too: there a row may begin with any token again."""
    env, ended = vector_env(mode=mode, layout="dict-mask", mask=no_repeats, end_token=END), 0
    env.action_space.seed(0)
    observation, info = env.reset(seed=0)
    for _ in range(4 * T):
        mask = info["action_mask"]
        assert (mask.shape, mask.dtype) == ((N, V), np.int8)
        assert info["_action_mask"].all()
        assert np.array_equal(mask, observation["action_mask"])
        assert np.array_equal(mask, env.action_masks())
        for row, length in enumerate(observation["length"][:, 0]):
            prefix = observation["tokens"][row, :length]
            over = length == T or END in prefix
            assert mask[row].tolist() == (np.ones(V) if over else no_repeats(prefix)).tolist()
        actions = env.action_space.sample(tuple(mask))
        mask[:] = 0  # the caller's own array
        observation, _, terminated, _, info = env.step(actions)
        ended += int(terminated.sum())
        if mode is AutoresetMode.SAME_STEP:
            for row in np.flatnonzero(terminated):
                assert info["final_obs"][row]["action_mask"].all()
                assert observation["action_mask"][row].all()
                assert observation["length"][row] == 0
        if mode is AutoresetMode.DISABLED and terminated.any():
            observation, info = env.reset(options={"reset_mask": terminated})
    assert ended > N


def test_without_a_mask_infos_have_none() -> None:
    env = vector_env()
    assert env.reset(seed=0)[1] == {}
    assert env.step(np.zeros(N, dtype=np.int64))[4] == {}


def test_the_mask_is_asked_once_for_each_prefix_of_a_row() -> None:
    asked: list[list[int]] = []

    def mask(prefix: np.ndarray) -> np.ndarray:
        asked.append(prefix.tolist())
        return no_repeats(prefix)

    env = vector_env(n=2, layout="dict-mask", mask=mask)
    env.reset(seed=0)
    for token in range(T):
        env.action_masks()
        env.step(np.full(2, token))
    assert asked == [list(range(length)) for length in [*range(T), 0] for _ in range(2)]


def test_masks_are_of_the_rows_that_were_loaded_pickled_and_played() -> None:
    env, other = (vector_env(mask=no_repeats) for _ in range(2))
    for one, tokens in ((env, [0, 1, 2, 3]), (other, [4, 4, 4, 4])):
        one.reset(seed=0)
        one.step(np.array(tokens))
    other.load_training_state(env.training_state())
    loaded = pickle.loads(pickle.dumps(env))
    for one in (env, other, loaded):
        assert (one.action_masks() == ~np.eye(N, V, dtype=np.bool_)).all()
        one.reset()
        one.play(episodes(env.game, N))
        assert one.action_masks().all()


def test_stepping_retrains_on_what_was_played() -> None:
    model = Recorder()
    env = vector_env(reward_model=model, retrain_every=2 * N)
    env.reset(seed=0)
    tokens = episodes(env.game, 2 * N)
    for batch in tokens.split(N):
        infos = [env.step(actions.numpy())[-1] for actions in batch.T]
    last = infos[-1]["final_info"]
    assert last["_retraining"].tolist() == last["retraining"]["_fits"].tolist() == [False] * (N - 1) + [True]
    assert last["retraining"]["fits"].tolist() == [0] * (N - 1) + [1]
    assert not any("retraining" in info.get("final_info", {}) for info in infos[:-1])
    assert torch.equal(model.fits[0][1], tokens)


def test_the_caller_can_retrain() -> None:
    env = vector_env(reward_model=Recorder())
    assert env.retrain(episodes(env.game, 4)) == {"fits": 1}
    assert env.gamma == 1


class Metrics(Recorder):
    """Its fits have a metric of each kind."""

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, Any]:
        return {**super().fit(real, generated), "steps": 3, "settled": True, "named": "a", "weights": np.arange(2.0)}


@modes
def test_infos_have_gymnasiums_form_through_retraining(mode: AutoresetMode) -> None:
    """With an end token, so that rows end at different times; by Gymnasium's own wrapper."""
    model = Metrics()
    rules: dict[str, Any] = {"end_token": END, "oracle": oracle_game(T, V).oracle, "reward_model": model, "retrain_every": 2}
    env = DictInfoToList(vector_env(mode=mode, **rules))
    env.reset(seed=0)
    rng, carried, over, counts = np.random.default_rng(0), 0, np.zeros(N, dtype=np.bool_), 0
    for _ in range(6 * T):
        if mode is AutoresetMode.DISABLED and over.any():
            env.reset(options={"reset_mask": over})
        fits = len(model.fits)
        _, _, over, _, infos = env.step(rng.integers(V, size=N))
        if mode is AutoresetMode.SAME_STEP:
            assert [set(info) for info in infos] == [{"final_obs", "final_info"} if ended else set() for ended in over]
            infos = [info.get("final_info", {}) for info in infos]
        with_metrics = [row for row, info in enumerate(infos) if "retraining" in info]
        assert [set(info) - {"retraining"} for info in infos] == [{"oracle_nll"} if ended else set() for ended in over]
        assert with_metrics == ([np.flatnonzero(over)[-1]] if len(model.fits) > fits else [])
        for row in with_metrics:
            metrics = infos[row]["retraining"]
            assert metrics.pop("weights").tolist() == [0.0, 1.0]
            assert metrics == {"fits": len(model.fits), "steps": 3, "settled": True, "named": "a"}
            carried += 1
        counts += int(over.sum())
    assert carried == len(model.fits) > 3
    assert counts > 10


@modes
def test_gymnasiums_statistics_are_kept_over_it(mode: AutoresetMode) -> None:
    if mode is AutoresetMode.SAME_STEP and tuple(map(int, gym.__version__.split(".")[:2])) < (1, 4):
        pytest.skip("before Gymnasium 1.4, RecordEpisodeStatistics counts episodes a step short in this mode")
    rules = {"end_token": END, "reward_model": Recorder(), "retrain_every": 2, "reward": "shaped"}
    plain = vector_env(mode=mode, **rules)
    env = RecordEpisodeStatistics(SequenceVectorEnv(game_of(**rules), N, autoreset_mode=mode))
    rng, over = np.random.default_rng(0), np.zeros(N, dtype=np.bool_)
    returns, lengths, starting = np.zeros(N), np.zeros(N, dtype=np.int64), np.zeros(N, dtype=np.bool_)
    for one in (plain, env):
        one.reset(seed=SEED)
    kept: list[tuple[float, int]] = []
    for _ in range(6 * T):
        if mode is AutoresetMode.DISABLED and over.any():
            for one in (plain, env):
                one.reset(options={"reset_mask": over.copy()})
        actions = rng.integers(V, size=N)
        _, rewards, over, _, _ = plain.step(actions)
        infos = env.step(actions)[-1]
        returns += rewards
        lengths += ~starting
        for row in np.flatnonzero(over):
            episode = (infos["episode"]["r"][row], infos["episode"]["l"][row])
            assert episode == (pytest.approx(returns[row]), lengths[row])
            kept.append(episode)
        returns[over], lengths[over] = 0.0, 0
        starting = over if mode is AutoresetMode.NEXT_STEP else starting
    assert len(kept) > 10
    assert len(plain.game.reward_model.fits) > 3


@pytest.mark.parametrize("vocab_size", [127, 128, 129])
def test_all_rows_may_end_in_the_same_step_with_any_vocabulary(vocab_size: int) -> None:
    """Below and above the size from which completions are drawn by blocks."""
    game = text_game(words(vocab_size), T, reward="shaped", n_rollouts=2, reward_model=Ordinal())
    env = SequenceVectorEnv(game, N, autoreset_mode="SameStep")
    tokens = torch.tensor([[3, 5, vocab_size - 1, vocab_size, vocab_size]]).expand(N, T)
    env.reset(seed=SEED)
    played = env.play(tokens).rewards
    env.reset(seed=SEED)
    stepped = [torch.from_numpy(env.step(actions.numpy())[1]) for actions in tokens.T[:3]]
    torch.testing.assert_close(torch.stack(stepped, dim=1).float(), played[:, :3], rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(played.sum(dim=1), game.reward_model.score(tokens, torch.full((N,), 3)).float())


# What can be set, and asked for


@pytest.mark.parametrize(
    "name",
    [
        "game",
        "num_envs",
        "autoreset_mode",
        "layout",
        "single_observation_space",
        "single_action_space",
        "observation_space",
        "action_space",
    ],
)
def test_a_vector_environment_cannot_be_changed(name: str) -> None:
    env = vector_env()
    with pytest.raises(AttributeError, match=f"{name} of a SequenceVectorEnv cannot be changed"):
        setattr(env, name, getattr(env, name))


@contracts
def test_another_reward_model_of_the_game_judges_what_is_played(reward: str) -> None:
    changed, made = vector_env(reward=reward), vector_env(reward=reward, reward_model=ConstantReward(5.0))
    changed.game.reward_model = ConstantReward(5.0)
    tokens = episodes(changed.game, N)
    rewards = []
    for env in (changed, made):
        env.reset(seed=SEED)
        rewards.append(env.play(tokens).rewards)
    assert torch.equal(*rewards)
    assert (rewards[0][:, -1] == (0.0 if reward == "shaped" else 5.0)).all()


@pytest.mark.parametrize("seeds", [np.int64(5), np.array(5), np.arange(5, 5 + N), list(np.arange(5, 5 + N)), range(5, 5 + N)])
def test_seeds_are_integers_of_any_kind(seeds: Any) -> None:
    env = vector_env(reward="rollout")
    tokens = episodes(env.game, N)
    rewards = []
    for seed in (5, 6, seeds):
        env.reset(seed=seed)
        rewards.append(env.play(tokens).rewards)
    assert not torch.equal(rewards[0], rewards[1])
    assert torch.equal(rewards[0], rewards[2])


def test_options_that_would_have_no_effect_are_refused() -> None:
    env = vector_env()
    env.reset(seed=0, options={})
    env.step(np.zeros(N, dtype=np.int64))
    for options in ({"prefix": [1, 2]}, {"reset_mask": np.ones(N, dtype=np.bool_), "prefix": [1]}):
        with pytest.raises(ValueError, match=r"reset\(\) has no option 'prefix'. There is 'reset_mask'"):
            env.reset(options=options)
    with pytest.raises(TypeError, match="a dictionary or None, got str"):
        env.reset(options="reset_mask")
    observation, *_ = env.step(np.zeros(N, dtype=np.int64))
    assert (observation["length"] == 2).all()  # nothing has changed


@contracts
def test_vector_environments_are_pickled_and_copied_with_their_state(reward: str) -> None:
    game = oracle_game(T, V, reward=reward, n_rollouts=2, retrain_every=N, discriminator=SMALL_CNN)
    env = SequenceVectorEnv(game, N)
    env.reset(seed=3)
    tokens = [episodes(game, N, seed=seed) for seed in (0, 1)]
    played = [
        [one.play(part).rewards for part in tokens] for one in (copy.deepcopy(env), pickle.loads(pickle.dumps(env)), env)
    ]
    for copied in played[:2]:
        assert all(torch.equal(one, other) for one, other in zip(copied, played[2], strict=True))


# Errors


@pytest.mark.parametrize(
    ("actions", "error", "message"),
    [
        (np.ones(N), TypeError, "Actions must be integer token ids, got float64"),
        (np.ones(N + 1, dtype=np.int64), ValueError, r"Expected 4 actions, one per row, got shape \(5,\)"),
        (np.ones((N, 1), dtype=np.int64), ValueError, r"got shape \(4, 1\)"),
        (np.array([0, V, 1, -1]), ValueError, r"Actions \[6, -1\] are outside the vocabulary: token ids go from 0 to 5"),
        (np.array([0, 1, 3, 3]), ValueError, r"Action 3 is masked out after the prefix \[3\]: choose among action_masks"),
    ],
)
def test_other_actions_are_refused_and_change_nothing(actions: np.ndarray, error: type[Exception], message: str) -> None:
    env = vector_env(layout="flat", mask=no_repeats)
    env.reset(seed=0)
    before, *_ = env.step(np.array([2, 2, 2, 3]))
    with pytest.raises(error, match=message):
        env.step(actions)
    after, *_ = env.step(np.array([4, 4, 4, 4]))
    assert after[:, 0].tolist() == before[:, 0].tolist()
    assert after[:, -1].tolist() == [2] * N


@modes
def test_everything_needs_a_reset_first(mode: AutoresetMode) -> None:
    env = vector_env(mode=mode)
    with pytest.raises(ResetNeeded, match=r"before the first reset"):
        env.step(np.zeros(N, dtype=np.int64))
    with pytest.raises(ResetNeeded, match=r"play\(\) starts from fresh episodes: call reset\(\) first"):
        env.play(torch.zeros(N, T, dtype=torch.int64))
    with pytest.raises(ResetNeeded, match=r"first reset\(\) must start all rows"):
        env.reset(options={"reset_mask": np.arange(N) == 0})


def test_play_refuses_to_start_in_the_middle_of_an_episode() -> None:
    env = vector_env()
    env.reset(seed=0)
    env.step(np.zeros(N, dtype=np.int64))
    with pytest.raises(ResetNeeded, match="starts from fresh episodes"):
        env.play(torch.zeros(N, T, dtype=torch.int64))


FULL, ENDED = [0, 1, 3, 4, 5], [0, 1, END, V, V]


@pytest.mark.parametrize(
    ("row", "rules"),
    [
        ([0, 1, 3, 4, V], {}),
        (ENDED, {}),
        ([0, 1, 3, 4, V + 1], {}),
        ([0, 1, -1, 4, 5], {}),
        ([0, 1, 3, 4, V], {"end_token": END}),
        ([0, END, 3, V, V], {"end_token": END}),
        ([V, V, V, V, V], {"end_token": END}),
        ([0, 1, END, V, 3], {"end_token": END}),
    ],
)
def test_play_refuses_incomplete_episodes(row: list[int], rules: dict[str, Any]) -> None:
    env = vector_env(**rules)
    env.reset(seed=0)
    good = ENDED if rules else FULL
    with pytest.raises(ValueError, match=r"Row 1 is not a complete episode: .* Expected 5 token ids from 0 to 5"):
        env.play(torch.tensor([good, row, good, good]))


def test_play_refuses_other_types_shapes_and_masked_tokens() -> None:
    env = vector_env(mask=no_repeats)
    env.reset(seed=0)
    with pytest.raises(TypeError, match=r"play\(\) takes int64 token ids, got torch.int32"):
        env.play(torch.zeros(N, T, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"\(num_envs, sequence_length\) = \(4, 5\), got \(4, 4\)"):
        env.play(torch.zeros(N, T - 1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"Action 1 is masked out after the prefix \[0, 1, 3\]"):
        env.play(torch.tensor([FULL, FULL, [0, 1, 3, 1, 4], FULL]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"render_mode": "depth_array"}, r"render_mode must be one of .* got 'depth_array'"),
        ({"layout": "list"}, "layout must be one of"),
        ({"autoreset_mode": "never"}, "'never' is not a valid AutoresetMode"),
    ],
)
def test_other_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceVectorEnv(small_game(), **arguments)


@pytest.mark.parametrize(("seeds", "got"), [([1, 2], 2), ([1] * 5, 5)])
def test_other_numbers_of_seeds_are_refused(seeds: list[int], got: int) -> None:
    with pytest.raises(ValueError, match=f"a seed for each of the 4 rows, got {got}"):
        vector_env().reset(seed=seeds)


# Rendering


def test_ansi_is_a_text_for_each_row() -> None:
    env = SequenceVectorEnv(text_game(LINES, T, reward_model=Ordinal()), 2, render_mode="ansi", autoreset_mode="Disabled")
    assert env.game.vocabulary is not None
    env.reset(seed=0)
    for word, other in (("a", "b"), ("c", "d")):
        env.step(np.array(env.game.vocabulary.encode(f"{word} {other}")))
    assert env.render() == tuple(
        f"token 2 of at most 5\n{first}       [{second}]\n+0.000  +0.000" for first, second in ("ac", "bd")
    )
    assert vector_env().render() is None


def test_a_mode_may_be_set_in_the_middle_of_an_episode() -> None:
    env = vector_env(2, reward="rollout")
    env.reset(seed=0)
    _, rewards, *_ = env.step(np.array([4, 3]))
    env.render_mode = "ansi"
    assert env.render() == tuple(
        f"token 1 of at most 5\n[{token}]\n{reward:+.3f}" for token, reward in zip((4, 3), rewards, strict=True)
    )
    with pytest.raises(ValueError, match=r"render_mode must be one of .* or None, got 'depth_array'"):
        env.render_mode = "depth_array"


def test_human_prints_every_reset_and_step(capsys: pytest.CaptureFixture[str]) -> None:
    env = vector_env(2, render_mode="human")
    env.reset(seed=0)
    env.step(np.array([4, 3]))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["token 0 of at most 5  (empty prefix)"] * 2 + [
        line for token in (4, 3) for line in ("token 1 of at most 5", f"[{token}]", "+0.000")
    ]
