"""One episode at a time: Gymnasium's and Stable-Baselines3's checkers, determinism, rewards, errors and rendering."""

import copy
import functools
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from seqgan_env.games import make_game, oracle_game, text_game
from seqgan_env.rewards.controls import ConstantReward
from seqgan_env.rewards.discriminator import DiscriminatorReward
from seqgan_env.sequence_env import SequenceEnv
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
    nothing_allowed,
    real_sequences,
    small_discriminator,
    small_game,
    small_policy,
    words,
)


def make(environment: str, **changes: Any) -> gym.Env[Any, Any]:
    arguments = {"sequence_length": T, "n_rollouts": 2, "discriminator": SMALL_CNN}
    return gym.make(environment, **arguments, **IDS[environment], **changes)


def small_env(layout: Any = "dict", render_mode: str | None = None, **changes: Any) -> SequenceEnv:
    return SequenceEnv(small_game(**changes), layout=layout, render_mode=render_mode)


def play_by_steps(env: SequenceEnv, tokens: list[int]) -> tuple[list[float], dict[str, Any]]:
    """Rewards and last info of one episode."""
    rewards = []
    for token in tokens:
        _, reward, terminated, truncated, info = env.step(np.int64(token))
        rewards.append(float(reward))
        assert not truncated
    assert terminated
    return rewards, info


# Gymnasium


@contracts
@layouts
@pytest.mark.parametrize("environment", IDS)
def test_both_checkers_pass(environment: str, layout: str, reward: str) -> None:
    env = make(environment, layout=layout, reward=reward).unwrapped
    check_env(env)
    check_env_sb3(env)


@pytest.mark.parametrize("environment", IDS)
def test_gym_make_hands_every_argument_on(environment: str) -> None:
    model = Ordinal()
    env = make(environment, reward="shaped", reward_model=model, layout="flat", render_mode="ansi", mask=no_repeats).unwrapped
    assert isinstance(env, SequenceEnv)
    assert env.game.reward_model is model
    assert (env.game.reward, env.game.n_rollouts, env.game.mask) == ("shaped", 2, no_repeats)
    assert (env.layout, env.render_mode, env.gamma) == ("flat", "ansi", 1)


def test_spaces_of_every_layout() -> None:
    spaces = small_env().observation_space
    assert spaces["tokens"] == gym.spaces.Box(0, V, (T,), np.int64)  # type: ignore[index]
    assert spaces["length"] == gym.spaces.Box(0, T, (1,), np.int64)  # type: ignore[index]
    assert small_env("flat").observation_space == gym.spaces.Box(0, max(V, T), (T + 1,), np.int64)
    masked = small_env("dict-mask").observation_space
    assert masked == gym.spaces.Dict(**spaces, action_mask=gym.spaces.Box(0, 1, (V,), np.int8))  # type: ignore[misc]
    assert small_env().action_space == gym.spaces.Discrete(V)


@layouts
@settings(max_examples=30, deadline=None)
@given(
    choices=st.lists(st.integers(0, V - 1), min_size=1, max_size=20),
    mask=st.sampled_from([None, no_repeats]),
    reward=st.sampled_from(CONTRACTS),
)
def test_any_actions_keep_observations_in_the_space_and_rewards_finite(
    layout: str, choices: list[int], mask: Any, reward: str
) -> None:
    env = small_env(layout, mask=mask, end_token=END, reward=reward)
    terminated = True
    for choice in choices:
        if terminated:
            observation, _ = env.reset()
            assert env.observation_space.contains(observation)
        allowed = np.flatnonzero(env.action_masks())
        observation, value, terminated, truncated, _ = env.step(allowed[choice % len(allowed)])
        assert env.observation_space.contains(observation)
        assert np.isfinite(float(value))
        assert not truncated


# An episode


def test_observations_are_the_prefix_and_its_length() -> None:
    env = small_env(end_token=END)
    observation, info = env.reset(seed=0)
    assert isinstance(observation, dict)
    assert (observation["tokens"].tolist(), observation["length"].tolist(), info) == ([V] * T, [0], {})
    observation, reward, terminated, truncated, info = env.step(np.int64(4))
    assert isinstance(observation, dict)
    assert (observation["tokens"].tolist(), observation["length"].tolist()) == ([4, V, V, V, V], [1])
    assert (reward, terminated, truncated, info) == (0, False, False, {})
    observation, reward, terminated, truncated, _ = env.step(np.int64(END))
    assert isinstance(observation, dict)
    assert observation["tokens"].tolist() == [4, END, V, V, V]
    assert (reward, terminated, truncated) == (4 + 2 * END + 100 * 2 + 6 * (3 + 4 + 5), True, False)


def test_the_flat_layout_has_the_same_with_the_length_last() -> None:
    env = small_env("flat")
    env.reset(seed=0)
    observation, *_ = env.step(np.int64(4))
    assert isinstance(observation, np.ndarray)
    assert observation.tolist() == [4, V, V, V, V, 1]


@layouts
def test_every_observation_is_a_fresh_array(layout: str) -> None:
    env = small_env(layout)
    seen = [env.reset(seed=0)[0], env.step(np.int64(1))[0], env.step(np.int64(3))[0]]
    before = copy.deepcopy(seen)
    env.step(np.int64(5))
    env.reset()
    for observation, expected in zip(seen, before, strict=True):
        np.testing.assert_equal(observation, expected)


def test_a_caller_who_overwrites_an_observation_does_not_change_the_episode() -> None:
    env = small_env("flat")
    observation, _ = env.reset(seed=0)
    assert isinstance(observation, np.ndarray)
    observation[:] = 0
    observation, *_ = env.step(np.int64(1))
    assert isinstance(observation, np.ndarray)
    assert observation.tolist() == [1, V, V, V, V, 1]


@contracts
def test_the_return_of_an_episode_is_the_sequences_reward(reward: str) -> None:
    env = small_env(reward=reward)
    tokens = episodes(env.game, 1)
    worth = Ordinal().score(tokens, torch.tensor([T])).item()
    env.reset(seed=3)
    rewards, _ = play_by_steps(env, tokens[0].tolist())
    assert rewards[-1] == pytest.approx(worth) or reward == "shaped"
    assert sum(rewards) == pytest.approx(worth) or reward == "rollout"
    assert all(value == 0 for value in rewards[:-1]) == (reward == "terminal")


@pytest.mark.parametrize("reward", ["rollout", "shaped"])
def test_completions_follow_the_seed_and_differ_between_episodes(reward: str) -> None:
    env, tokens = small_env(reward=reward), [1, 3, 0, 4, 5]

    def rewards(seed: int | None) -> list[float]:
        env.reset(seed=seed)
        return play_by_steps(env, tokens)[0]

    first, second = rewards(1), rewards(None)
    assert first != second
    assert (rewards(1), rewards(None)) == (first, second)
    assert rewards(2) != first


@pytest.mark.usefixtures("global_generators_at_rest")
@contracts
@pytest.mark.parametrize("environment", IDS)
def test_the_same_seed_plays_bit_for_bit_through_retraining(environment: str, reward: str) -> None:
    one, same = (make(environment, reward=reward, retrain_every=2, layout="flat") for _ in range(2))
    histories: list[list[Any]] = [[], []]
    for env, history in zip((one, same), histories, strict=True):
        rng = np.random.default_rng(0)
        for episode in range(5):
            history.append(env.reset(seed=7 if episode == 0 else None)[0])
            terminated = False
            while not terminated:
                observation, value, terminated, _, info = env.step(rng.integers(4))
                history.extend([observation, value, info])
    for value, again in zip(*histories, strict=True):
        np.testing.assert_equal(value, again)
    assert sum("retraining" in item for item in histories[0] if isinstance(item, dict)) == 2


def test_the_info_at_the_end_describes_the_sequence() -> None:
    env = SequenceEnv(oracle_game(T, V, discriminator=SMALL_CNN))
    env.reset(seed=0)
    tokens = torch.tensor([[1, 3, 0, 4, 5]])
    _, info = play_by_steps(env, tokens[0].tolist())
    assert info.keys() == {"discriminator_probability", "oracle_nll"}
    assert isinstance(env.game.reward_model, DiscriminatorReward)
    assert env.game.oracle is not None
    assert info["discriminator_probability"] == pytest.approx(env.game.reward_model.probability(tokens).item())
    assert info["oracle_nll"] == pytest.approx(env.game.oracle.nll(tokens).item())


def test_attaching_a_policy_changes_the_completions() -> None:
    env, tokens = small_env(reward="rollout"), [1, 3, 0, 4, 5]
    env.reset(seed=1)
    uniform, _ = play_by_steps(env, tokens)
    env.attach_policy(small_policy())
    env.reset(seed=1)
    assert play_by_steps(env, tokens)[0][:-1] != uniform[:-1]


@pytest.mark.parametrize("reward", ["rollout", "shaped"])
@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("vocab_size", [127, 128, 129])
def test_an_episode_may_end_early_with_any_vocabulary(vocab_size: int, attached: bool, reward: str) -> None:
    """Below and above the size from which completions are drawn by blocks, with all completions ended."""
    game = text_game(words(vocab_size), T, reward=reward, n_rollouts=2, reward_model=Ordinal())
    assert (game.vocab_size, game.end_token) == (vocab_size, vocab_size - 1)
    if attached:
        game.attach_policy(small_policy(vocab_size=vocab_size, end_token=game.end_token))
    env = SequenceEnv(game)
    env.reset(seed=0)
    rewards, _ = play_by_steps(env, [3, 5, vocab_size - 1])
    pad, worth = vocab_size, 3 + 2 * 5 + 3 * (vocab_size - 1) + 100 * 3
    worth += sum(position * pad for position in (4, 5))
    assert (sum(rewards) if reward == "shaped" else rewards[-1]) == pytest.approx(worth)


# Retraining


def finish_episodes(env: SequenceEnv, n: int, seed: int = 0) -> list[dict[str, Any]]:
    infos = []
    for tokens in episodes(env.game, n, seed):
        env.reset()
        infos.append(play_by_steps(env, [token for token in tokens.tolist() if token < V])[1])
    return infos


def test_stepping_retrains_the_discriminator() -> None:
    model = small_discriminator()
    env = small_env(reward_model=model, retrain_every=3, end_token=END)
    weights = [parameter.clone() for parameter in model.discriminator.parameters()]
    infos = finish_episodes(env, 7)
    assert [info.get("retraining") is not None for info in infos] == [False, False, True, False, False, True, False]
    assert infos[2]["retraining"].keys() == {"loss", "accuracy", "grad_norm"}
    after = list(model.discriminator.parameters())
    assert all(not torch.equal(one, other) for one, other in zip(weights, after, strict=True))


def test_retraining_gets_the_finished_sequences() -> None:
    model = Recorder()
    env = small_env(reward_model=model, retrain_every=3, end_token=END)
    finish_episodes(env, 6)
    played = episodes(env.game, 6)
    assert [generated.tolist() for _, generated in model.fits] == [played[:3].tolist(), played[3:].tolist()]


def test_the_caller_can_retrain() -> None:
    model = Recorder()
    env = small_env(reward_model=model)
    assert env.retrain(episodes(env.game, 4)) == {"fits": 1}


def test_several_environments_share_one_reward_model() -> None:
    model = small_discriminator()
    learning = gym.make("SeqGAN/Oracle-v0", sequence_length=T, vocab_size=V, reward_model=model, retrain_every=2).unwrapped
    watching = SequenceEnv(oracle_game(T, V, oracle_seed=1, reward_model=model))
    assert isinstance(learning, SequenceEnv)
    before = finish_episodes(watching, 1)[0]["discriminator_probability"]
    finish_episodes(learning, 2, seed=1)
    assert finish_episodes(watching, 1)[0]["discriminator_probability"] != before


@pytest.mark.parametrize("written", [[1, 3, 4, 0, 5], [1, END]])
def test_ends_are_told_by_python_bools_whatever_integers_the_game_has(written: list[int]) -> None:
    env = SequenceEnv(make_game(V, np.int64(T), real_sequences(), end_token=np.int64(END), reward_model="constant"))  # type: ignore[arg-type]
    env.reset(seed=0)
    steps = [env.step(np.int64(token)) for token in written]
    assert [step[2] for step in steps] == [False] * (len(written) - 1) + [True]
    assert all(type(step[2]) is bool and type(step[1]) is float for step in steps)


# Masks


def test_action_masks_follow_the_prefix() -> None:
    env = small_env(mask=no_repeats)
    env.reset(seed=0)
    assert env.action_masks().tolist() == [True] * V
    env.step(np.int64(1))
    env.step(np.int64(4))
    assert env.action_masks().tolist() == [True, False, True, True, False, True]
    assert small_env().action_masks().tolist() == [True] * V


def test_a_mask_cannot_change_the_prefix() -> None:
    def meddling(prefix: np.ndarray) -> np.ndarray:
        prefix[:] = 0
        return np.ones(V, dtype=np.bool_)

    env = small_env("flat", mask=meddling)
    env.reset(seed=0)
    env.step(np.int64(5))
    observation, *_ = env.step(np.int64(5))
    assert isinstance(observation, np.ndarray)
    assert observation[:2].tolist() == [5, 5]


def test_a_masked_action_is_refused_and_changes_nothing() -> None:
    env = small_env("flat", mask=no_repeats)
    env.reset(seed=0)
    env.step(np.int64(4))
    with pytest.raises(ValueError, match=r"Action 4 is masked out after the prefix \[4\]: choose among action_masks\(\)"):
        env.step(np.int64(4))
    observation, *_ = env.step(np.int64(3))
    assert isinstance(observation, np.ndarray)
    assert observation.tolist() == [4, 3, V, V, V, 2]


def test_a_mask_that_allows_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"allows no token after the prefix \[\]"):
        small_env(mask=nothing_allowed).reset(seed=0)


def test_a_dead_end_is_refused_by_the_step_into_it_and_by_the_next() -> None:
    env = small_env(mask=lambda prefix: np.full(V, len(prefix) < 2))
    env.reset(seed=0)
    env.step(np.int64(0))
    for _ in range(2):
        with pytest.raises(ValueError, match=r"allows no token after the prefix \[0, 3\]"):
            env.step(np.int64(3))
    assert env.reset()[1]["action_mask"].all()


@pytest.mark.parametrize("layout", ["dict", "dict-mask"])
def test_infos_have_the_mask_in_gymnasiums_form(layout: str) -> None:
    """int8, so that `action_space.sample` takes it; of the next action, and all ones after the end."""
    env = small_env(layout, mask=no_repeats)
    env.action_space.seed(0)
    observation, info = env.reset(seed=0)
    written: list[int] = []
    while len(written) < T:
        mask = info["action_mask"]
        assert mask.dtype == np.int8
        assert mask.tolist() == [token not in written for token in range(V)] == env.action_masks().tolist()
        if layout == "dict-mask":
            assert isinstance(observation, dict)
            assert np.array_equal(observation["action_mask"], mask)
            assert not np.shares_memory(observation["action_mask"], mask)
        written.append(int(env.action_space.sample(mask)))
        mask[:] = 1  # the caller's own array
        observation, _, terminated, _, info = env.step(np.int64(written[-1]))
    assert terminated
    assert info["action_mask"].tolist() == [1] * V


def test_without_a_mask_infos_have_none_and_observations_allow_everything() -> None:
    env = small_env("dict-mask")
    env.action_space.seed(0)
    observation, info = env.reset(seed=0)
    assert info == {}
    assert isinstance(observation, dict)
    assert observation["action_mask"].tolist() == [1] * V
    assert env.step(env.action_space.sample(info.get("action_mask")))[4] == {}


def test_the_mask_is_asked_once_for_each_prefix() -> None:
    asked: list[list[int]] = []

    def mask(prefix: np.ndarray) -> np.ndarray:
        asked.append(prefix.tolist())
        return no_repeats(prefix)

    env = small_env("dict-mask", mask=mask)
    env.reset(seed=0)
    for token in range(T):
        env.action_masks()
        env.step(np.int64(token))
    assert asked == [list(range(length)) for length in range(T)]


def test_a_mask_may_return_the_same_array_every_time() -> None:
    shared = np.ones(V, dtype=np.bool_)

    def mask(prefix: np.ndarray) -> np.ndarray:
        shared[:] = no_repeats(prefix)
        return shared

    env = small_env(mask=mask)
    env.reset(seed=0)
    shared[:] = False
    env.step(np.int64(1))
    assert env.action_masks().tolist() == no_repeats(np.array([1])).tolist()


def test_masks_come_through_gym_make_and_pickling() -> None:
    env = gym.make("SeqGAN/Oracle-v0", vocab_size=V, sequence_length=T, n_real=30, layout="dict-mask", mask=no_repeats)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    observation, *_, info = env.step(np.int64(2))
    assert info["action_mask"].tolist() == observation["action_mask"].tolist() == no_repeats(np.array([2])).tolist()
    loaded = pickle.loads(pickle.dumps(env.unwrapped))
    assert loaded.action_masks().tolist() == no_repeats(np.array([2])).tolist()
    assert loaded.step(np.int64(3))[4]["action_mask"].tolist() == no_repeats(np.array([2, 3])).tolist()


# What can be set, and asked for


@pytest.mark.parametrize("name", ["game", "layout", "observation_space", "action_space"])
def test_an_environment_cannot_be_changed(name: str) -> None:
    env = small_env()
    with pytest.raises(
        AttributeError, match=f"{name} of a SequenceEnv cannot be changed: create a new SequenceEnv with another"
    ):
        setattr(env, name, getattr(env, name))


def test_another_reward_model_of_the_game_counts_from_the_next_step() -> None:
    env = small_env(reward="rollout")
    env.reset(seed=0)
    env.step(np.int64(1))
    env.game.reward_model = ConstantReward(5.0)
    assert [float(env.step(np.int64(token))[1]) for token in (2, 3, 4, 5)] == [5.0] * 4


@pytest.mark.parametrize("seed", [np.int64(3), np.uint8(3), np.array(3)])
def test_seeds_are_integers_of_any_kind(seed: Any) -> None:
    env, tokens = small_env(reward="rollout"), [1, 3, 0, 4, 5]
    env.reset(seed=3)
    expected = play_by_steps(env, tokens)[0]
    env.reset(seed=4)
    assert play_by_steps(env, tokens)[0] != expected
    env.reset(seed=seed)
    assert play_by_steps(env, tokens)[0] == expected


@pytest.mark.parametrize(
    ("seed", "error", "message"),
    [
        (-1, ValueError, "A seed must be an integer from 0, got -1"),
        (1.0, TypeError, "A seed must be an integer from 0, got 1.0 of type float"),
        ("1", TypeError, "got '1' of type str"),
    ],
)
def test_other_seeds_are_refused(seed: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small_env().reset(seed=seed)


@pytest.mark.parametrize("options", [None, {}])
def test_no_options_change_nothing(options: Any) -> None:
    env = small_env()
    assert env.reset(seed=0, options=options)[1] == {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"prefix": [1, 2]}, ValueError, r"reset\(\) has no option 'prefix'. There are none"),
        ({"a": 1, "b": 2}, ValueError, "has no option 'a', 'b'"),
        (["prefix"], TypeError, r"The options of reset\(\) must be a dictionary or None, got list"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(options: Any, error: type[Exception], message: str) -> None:
    env = make("SeqGAN/Oracle-v0")  # Gymnasium's wrappers hand them on
    env.reset(seed=0)
    env.step(1)
    with pytest.raises(error, match=message):
        env.reset(options=options)
    observation, *_ = env.step(2)
    assert observation["length"] == [2]  # nothing has changed


@contracts
@pytest.mark.parametrize("environment", IDS)
def test_environments_are_pickled_and_copied_with_their_state(environment: str, reward: str) -> None:
    env = make(environment, reward=reward, retrain_every=2).unwrapped
    assert isinstance(env, SequenceEnv)
    env.reset(seed=3)
    env.step(np.int64(1))
    results = []
    for one in (env, pickle.loads(pickle.dumps(env)), copy.deepcopy(env)):
        first = play_by_steps(one, [3, 0, 2, 1])
        one.reset()
        results.append([first, play_by_steps(one, [0, 1, 2, 3, 0])])
    assert results[0] == results[1] == results[2]
    assert "retraining" in results[0][1][1]


@pytest.mark.slow
def test_spawned_processes_play_a_game_of_this_process() -> None:
    make_env = functools.partial(SequenceEnv, oracle_game(T, V, reward="shaped", n_rollouts=2, discriminator=SMALL_CNN))
    here = SyncVectorEnv([make_env] * 2)
    there = AsyncVectorEnv([make_env] * 2, context="spawn")
    try:
        here.reset(seed=1)
        there.reset(seed=1)
        for token in (0, 3, 1, 4, 2):
            (_, rewards, ended, *_), (_, expected, *_) = (env.step(np.array([token, 5 - token])) for env in (there, here))
            assert rewards.tolist() == expected.tolist()
        assert ended.all()
    finally:
        there.close()
        here.close()


# Errors


def test_a_step_needs_an_episode_under_way() -> None:
    env = small_env()
    with pytest.raises(ResetNeeded, match=r"before the first reset\(\): call reset\(\)"):
        env.step(np.int64(0))
    finish_episodes(env, 1)
    with pytest.raises(ResetNeeded, match="after the end of an episode"):
        env.step(np.int64(0))


@pytest.mark.parametrize("action", [-1, V, 10**6])
def test_an_action_outside_the_vocabulary_is_refused(action: int) -> None:
    env = small_env()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=f"Action {action} is outside the vocabulary: token ids go from 0 to 5"):
        env.step(np.int64(action))


@pytest.mark.parametrize("action", [1.0, "1", None, [1], np.array([1, 2]), np.float32(1), np.array([1.7]), np.array(1.7)])
def test_an_action_of_another_type_is_refused(action: Any) -> None:
    env = small_env()
    env.reset(seed=0)
    with pytest.raises(TypeError, match=r"An action must be an integer token id, got .* of type"):
        env.step(action)


@pytest.mark.parametrize("action", [3, np.int32(3), np.array(3), np.array([3])])
def test_integers_of_any_kind_are_actions(action: Any) -> None:
    env = small_env("flat")
    env.reset(seed=0)
    observation, *_ = env.step(action)
    assert isinstance(observation, np.ndarray)
    assert observation[0] == 3


def test_other_render_modes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"render_mode must be one of .*'ansi', 'human'.* or None, got 'depth_array'"):
        small_env(render_mode="depth_array")


# Rendering


def test_ansi_shows_prefix_token_and_reward() -> None:
    env = small_env(render_mode="ansi", reward="rollout")
    env.reset(seed=0)
    assert env.render() == "token 0 of at most 5  (empty prefix)"
    _, first, *_ = env.step(np.int64(4))
    _, second, *_ = env.step(np.int64(3))
    assert env.render() == f"token 2 of at most 5\n4{' ' * 9}[3]\n{first:+.3f}  {second:+.3f}"


def test_text_is_shown_as_words() -> None:
    env = SequenceEnv(text_game(LINES, T, reward_model="constant"), render_mode="ansi")
    assert env.game.vocabulary is not None
    env.reset(seed=0)
    for token in env.game.vocabulary.encode("a d b"):
        env.step(np.int64(token))
    assert env.render() == "token 3 of at most 5\na       d       [b]\n+0.000  +0.000  +0.000"


def test_human_prints_every_reset_and_step(capsys: pytest.CaptureFixture[str]) -> None:
    env = small_env(render_mode="human")
    env.reset(seed=0)
    env.step(np.int64(4))
    assert env.render() is None
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["token 0 of at most 5  (empty prefix)"] + ["token 1 of at most 5", "[4]", "+0.000"] * 2


def test_a_mode_may_be_set_in_the_middle_of_an_episode() -> None:
    env = small_env(reward="rollout")
    env.reset(seed=0)
    _, reward, *_ = env.step(np.int64(4))
    env.render_mode = "ansi"
    assert env.render() == f"token 1 of at most 5\n[4]\n{reward:+.3f}"
    with pytest.raises(ValueError, match=r"render_mode must be one of .* or None, got 'depth_array'"):
        env.render_mode = "depth_array"
    assert env.render_mode == "ansi"


def test_rendering_without_a_mode_warns() -> None:
    with pytest.warns(UserWarning, match=r"render\(\) without a render_mode"):
        assert small_env().render() is None
