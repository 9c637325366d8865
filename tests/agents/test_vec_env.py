"""`SB3VecEnv`: steps, Gymnasium's wrappers under it, and the replay of what was played at once."""

import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import VectorWrapper
from gymnasium.wrappers.vector import (
    ClipReward,
    DictInfoToList,
    NormalizeReward,
    RecordEpisodeStatistics,
    TransformReward,
)
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnvWrapper, VecMonitor

from agents import PrefixExtractor, SB3VecEnv
from agents.vec_env import info_of_row
from seqgan_env import SequenceEnv, SequenceVectorEnv
from tests.agents.small_agents import new_game, play
from tests.small import END, Recorder, T, V, episodes, no_repeats, small_game

N = 4
counts_in_same_step = pytest.mark.skipif(
    tuple(map(int, gym.__version__.split(".")[:2])) < (1, 4),
    reason="before Gymnasium 1.4, RecordEpisodeStatistics counts episodes a step short in this mode",
)


def native(layout: Any = "dict", n: int = N, render_mode: str | None = None, **rules: Any) -> SequenceVectorEnv:
    return SequenceVectorEnv(small_game(**rules), n, autoreset_mode="SameStep", layout=layout, render_mode=render_mode)


def parts(observation: Any) -> list[Any]:
    return list(observation.values()) if isinstance(observation, dict) else [observation]


def same_observations(one: Any, other: Any) -> bool:
    return all(np.array_equal(*pair) for pair in zip(parts(one), parts(other), strict=True))


class TestSteps:
    def test_other_autoreset_modes_are_refused(self) -> None:
        with pytest.raises(ValueError, match="Make it with autoreset_mode='SameStep'"):
            SB3VecEnv(SequenceVectorEnv(new_game(), 2))

    @pytest.mark.parametrize("layout", ["dict", "flat"])
    def test_steps_equal_the_native_environment(self, layout: Any) -> None:
        native, under = (
            SequenceVectorEnv(new_game(reward="shaped"), 3, autoreset_mode="SameStep", layout=layout) for _ in range(2)
        )
        env = SB3VecEnv(under)
        env.seed(5)
        observation, (expected, _) = env.reset(), native.reset(seed=5)
        rng = np.random.default_rng(0)
        for step in range(1, 11):
            actions = rng.integers(0, 12, 3)
            observation, rewards, dones, infos = env.step(actions)
            expected, native_rewards, terminated, _, native_infos = native.step(actions)
            pairs = (
                zip(observation.values(), expected.values(), strict=True) if layout == "dict" else [(observation, expected)]
            )
            assert all(np.array_equal(a, b) for a, b in pairs)
            assert np.array_equal(rewards, native_rewards.astype(np.float32))
            assert np.array_equal(dones, terminated)
            assert dones.all() == (step % 5 == 0)
            for row, info in enumerate(infos):
                if dones[row]:
                    last, final = info["terminal_observation"], native_infos["final_obs"][row]
                    if layout == "dict":
                        last, final = last["tokens"], final["tokens"]
                    assert np.array_equal(last, final)
                    assert info["oracle_nll"] == native_infos["final_info"]["oracle_nll"][row]
                    assert info["TimeLimit.truncated"] is False
                else:
                    assert info == {}

    def test_masks_go_row_by_row(self) -> None:
        game = new_game(reward="terminal", mask=lambda prefix: np.arange(12) > (prefix[-1] if len(prefix) else 5))
        env = SB3VecEnv(SequenceVectorEnv(game, 2, autoreset_mode="SameStep"))
        env.reset()
        env.step(np.array([6, 7]))
        masks = env.env_method("action_masks")
        assert [mask.sum() for mask in masks] == [5, 4]
        assert [mask.sum() for mask in env.env_method("action_masks", indices=[1])] == [4]

    def test_attributes(self) -> None:
        env = SB3VecEnv(SequenceVectorEnv(new_game(), 2, autoreset_mode="SameStep"))
        assert env.get_attr("gamma") == [0.0, 0.0]
        env.set_attr("render_mode", "ansi")
        assert env.venv.render_mode == "ansi"
        with pytest.raises(ValueError, match="All rows share one environment"):
            env.set_attr("render_mode", None, indices=[0])
        assert env.env_is_wrapped(gym.Wrapper) == [False, False]
        assert env.get_images() == [None, None]
        env.close()

    def test_only_one_of_the_rows_that_end_together_reports_the_retraining(self) -> None:
        model = Recorder()
        env = SB3VecEnv(SequenceVectorEnv(small_game(reward_model=model, retrain_every=6), 3, autoreset_mode="SameStep"))
        tokens = episodes(env.venv.game, 3)
        assert [set(info) & {"retraining"} for info in play(env, tokens)] == [set(), set(), set()]
        infos = play(env, tokens)
        assert [info.get("retraining") for info in infos] == [None, None, {"fits": 1.0}]

    def test_options_reach_the_environment_which_refuses_those_without_effect(self) -> None:
        env = SB3VecEnv(SequenceVectorEnv(small_game(), 3, autoreset_mode="SameStep"))
        env.reset()
        env.set_options({"prefix": [1, 2]})
        with pytest.raises(ValueError, match="has no option 'prefix'"):
            env.reset()
        env.set_options()
        env.reset()

    def test_images_are_those_of_the_rows(self) -> None:
        env = SB3VecEnv(SequenceVectorEnv(small_game(), 2, autoreset_mode="SameStep", render_mode="rgb_array"))
        env.reset()
        empty = env.get_images()
        env.step(np.array([1, 4]))
        one, other = env.get_images()
        assert one is not None
        assert other is not None
        assert (one != other).any()
        assert (one != empty[0]).any()
        assert one.shape == other.shape
        assert one.shape[2] == 3
        assert one.dtype == np.uint8
        assert 0 < (one < 128).mean() < 0.2  # dark signs on a light ground


class TestGymnasiumsWrappers:
    @counts_in_same_step
    def test_episode_statistics_reach_sb3_s_log(self) -> None:
        """The infos of the wrapper equal those of `VecMonitor`, which works without it."""
        env = SB3VecEnv(RecordEpisodeStatistics(native(n=2, end_token=END)))
        twin = VecMonitor(SB3VecEnv(native(n=2, end_token=END)))
        for one in (env, twin):
            one.seed(0)
            one.reset()
        ended = 0
        for actions in np.random.default_rng(0).integers(0, V, (30, 2)):
            infos, expected = (one.step(actions)[3] for one in (env, twin))
            for info, other in zip(infos, expected, strict=True):
                assert ("episode" in info) == ("episode" in other)
                if "episode" in info:
                    ended += 1
                    assert info["episode"]["r"] == pytest.approx(other["episode"]["r"])
                    assert info["episode"]["l"] == other["episode"]["l"]
                    assert "terminal_observation" in info
        assert ended > 8
        assert env.get_attr("episode_count") == [ended] * 2

    @counts_in_same_step
    def test_an_algorithm_learns_through_it(self) -> None:
        env = SB3VecEnv(RecordEpisodeStatistics(native()))
        kwargs = {"features_extractor_class": PrefixExtractor}
        model = PPO("MultiInputPolicy", env, n_steps=T, batch_size=4 * T, gamma=1.0, seed=0, policy_kwargs=kwargs)
        model.learn(3 * N * T)
        assert [episode["l"] for episode in model.ep_info_buffer or ()] == [T] * 3 * N

    @pytest.mark.parametrize(
        ("around", "expected"),
        [
            (lambda env: ClipReward(env, 0.0, 1.0), lambda rewards: np.clip(rewards, 0.0, 1.0)),
            (lambda env: TransformReward(env, lambda rewards: -rewards), lambda rewards: -rewards),
        ],
        ids=["clip", "transform"],
    )
    def test_rewards_come_from_the_wrapper(self, around: Any, expected: Callable[[Any], Any]) -> None:
        env, twin = SB3VecEnv(around(native())), SB3VecEnv(native())
        env.reset()
        twin.reset()
        for actions in episodes(small_game(), N).T.numpy():
            rewards, plain = env.step(actions)[1], twin.step(actions)[1]
            assert np.array_equal(rewards, expected(plain))
            assert rewards.dtype == np.float32
        assert plain.min() > 1

    def test_a_wrapper_with_its_own_state(self) -> None:
        env = SB3VecEnv(NormalizeReward(native()))
        env.reset()
        rewards = [env.step(actions)[1] for actions in episodes(small_game(), N).T.numpy()]
        assert 0 < rewards[-1].max() < 100

    def test_attributes_and_methods_are_found_through_wrappers(self) -> None:
        env = SB3VecEnv(RecordEpisodeStatistics(ClipReward(native(), 0, 1)))
        assert env.get_attr("gamma") == [1.0] * N
        env.set_attr("render_mode", "ansi")
        assert env.get_attr("render_mode") == ["ansi"] * N
        assert env.sequences.render_mode == "ansi"
        env.set_attr("episode_count", 7)
        assert env.venv.episode_count == 7  # type: ignore[attr-defined]
        assert np.array_equal(env.env_method("action_masks"), np.ones((N, V), dtype=bool))
        assert env.env_is_wrapped(ClipReward) == [True] * N
        assert env.env_is_wrapped(gym.Wrapper) == [False] * N

    def test_unsupported_wrappers_are_refused_by_name(self) -> None:
        with pytest.raises(TypeError, match="gives each row its own info: leave out DictInfoToList"):
            SB3VecEnv(DictInfoToList(RecordEpisodeStatistics(native())))
        with pytest.raises(ValueError, match="Make it with autoreset_mode='SameStep'"):
            SB3VecEnv(RecordEpisodeStatistics(SequenceVectorEnv(small_game(), 2)))
        with pytest.raises(TypeError, match=r"needs a SequenceVectorEnv, got SequenceEnv. Make one with gym.make_vec\("):
            SB3VecEnv(SequenceEnv(small_game()))  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="needs a SequenceVectorEnv, got SyncVectorEnv"):
            SB3VecEnv(gym.vector.SyncVectorEnv([lambda: SequenceEnv(small_game())]))

    def test_arrays_of_another_library_are_refused_by_name(self) -> None:
        class ToTorch(VectorWrapper):  # type: ignore[type-arg] - no generic class in older releases
            def reset(self, **arguments: Any) -> Any:
                observation, info = self.env.reset(**arguments)
                return {name: torch.from_numpy(part) for name, part in observation.items()}, info

        with pytest.raises(TypeError, match="needs observations as numpy arrays, but ToTorch converts them"):
            SB3VecEnv(ToTorch(native())).reset()


def test_infos_in_gymnasium_s_form_by_hand() -> None:
    infos = {
        "a": np.array([1.0, 2.0, 3.0]),
        "_a": np.array([True, False, True]),
        "every": np.array([4, 5, 6]),
        "inner": {"b": np.array([7, 0, 0]), "_b": np.array([True, False, False])},
        "_inner": np.array([True, True, False]),
    }
    expected = [{"a": 1.0, "every": 4, "inner": {"b": 7}}, {"every": 5, "inner": {}}, {"a": 3.0, "every": 6}]
    assert [info_of_row(infos, row) for row in range(3)] == expected
    assert info_of_row({}, 1) == {}


@pytest.mark.parametrize("around", [lambda env: env, RecordEpisodeStatistics])
def test_a_pickled_environment_continues_as_the_original(around: Any) -> None:
    env = SB3VecEnv(around(native(reward="shaped")))
    env.seed(3)
    env.reset()
    tokens = episodes(small_game(), N, seed=1).T.numpy()
    env.step(tokens[0])
    loaded = pickle.loads(pickle.dumps(env))
    for actions in tokens[1:]:
        observation, rewards, dones, _ = loaded.step(actions)
        expected, expected_rewards, expected_dones, _ = env.step(actions)
        assert same_observations(observation, expected)
        assert np.array_equal(rewards, expected_rewards)
        assert np.array_equal(dones, expected_dones)
    assert dones.all()


class TestReplay:
    """A replay after `play` shows what steps would have given."""

    @pytest.mark.parametrize("layout", ["dict", "flat", "dict-mask"])
    @pytest.mark.parametrize("reward", ["terminal", "rollout", "shaped"])
    def test_equals_steps(self, reward: str, layout: Any) -> None:
        rules: Any = {"reward": reward, "layout": layout, "retrain_every": 2 * N}
        env, twin = (SB3VecEnv(native(reward_model=Recorder(), **rules)) for _ in range(2))
        for one in (env, twin):
            one.seed(5)
            one.reset()
        for batch in range(3):
            tokens = episodes(small_game(), N, seed=batch)
            replayed = list(env.replay(env, tokens, env.sequences.play(tokens)))
            assert len(replayed) == T
            for actions, (observation, rewards, dones, infos) in replayed:
                expected, expected_rewards, expected_dones, expected_infos = twin.step(actions)
                assert same_observations(observation, expected)
                assert rewards.dtype == np.float32
                assert np.array_equal(rewards, expected_rewards)
                assert np.array_equal(dones, expected_dones)
                for info, other in zip(infos, expected_infos, strict=True):
                    assert info.keys() == other.keys()
                    last, expected_last = info.pop("terminal_observation", {}), other.pop("terminal_observation", {})
                    assert same_observations(last, expected_last)
                    assert info == other
            assert dones.all()
            assert ["retraining" in info for info in infos] == [False] * (N - 1) + [batch == 1]

    def test_under_a_mask_it_is_what_steps_give(self) -> None:
        """The observations have masks; SB3's infos have none."""
        env, twin = (SB3VecEnv(native("dict-mask", mask=no_repeats)) for _ in range(2))
        for one in (env, twin):
            one.seed(5)
            one.reset()
        tokens = episodes(small_game(mask=no_repeats), N)
        for actions, (observation, _, dones, infos) in env.replay(env, tokens, env.sequences.play(tokens)):
            expected, _, _, expected_infos = twin.step(actions)
            assert same_observations(observation, expected)
            assert np.array_equal(observation["action_mask"], np.stack(twin.env_method("action_masks")))
            for info, other in zip(infos, expected_infos, strict=True):
                assert info.keys() == other.keys()
                assert "action_mask" not in info
                if dones.any():
                    assert same_observations(info["terminal_observation"], other["terminal_observation"])
        assert dones.all()

    def test_rows_that_end_early_wait(self) -> None:
        env = SB3VecEnv(native(n=2, end_token=END, reward="shaped"))
        env.reset()
        tokens = torch.tensor([[1, END, V, V, V], [1, 3, 4, END, V]])
        steps = [step for _, step in env.replay(env, tokens, env.sequences.play(tokens))]
        assert [dones.tolist() for _, _, dones, _ in steps] == [
            [False, False],
            [True, False],
            [False, False],
            [False, True],
            [False, False],
        ]
        assert [observation["length"][:, 0].tolist() for observation, *_ in steps] == [[1, 1], [0, 2], [0, 3], [0, 0], [0, 0]]
        rewards = np.stack([rewards for _, rewards, _, _ in steps])
        assert (rewards[2:, 0] == 0).all()
        assert rewards[4, 1] == 0
        assert (rewards[:2, 0] != 0).all()
        assert np.array_equal(steps[1][3][0]["terminal_observation"]["tokens"], [1, END, V, V, V])
        assert steps[1][3][0]["terminal_observation"]["length"].tolist() == [2]
        assert steps[2][3] == [{}, {}]

    def test_wrappers_do_not_count_waiting(self) -> None:
        """Rewards and lengths of `VecMonitor` are those of the episodes, in the next batch too."""
        env = VecMonitor(SB3VecEnv(native(n=2, end_token=END)))
        env.reset()
        for _ in range(2):
            tokens = torch.tensor([[1, END, V, V, V], [1, 3, 4, END, V]])
            inner = env.unwrapped
            played = inner.sequences.play(tokens)  # type: ignore[attr-defined]
            infos = [info for _, step in inner.replay(env, tokens, played) for info in step[3] if info]  # type: ignore[attr-defined]
            assert [info["episode"]["l"] for info in infos] == [2, 4]
            assert [info["episode"]["r"] for info in infos] == played.rewards.sum(dim=1).tolist()

    def test_images_are_those_of_steps(self) -> None:
        env, twin = (SB3VecEnv(native(n=2, render_mode="rgb_array")) for _ in range(2))
        env.reset()
        twin.reset()
        tokens = episodes(small_game(), 2)
        empty = env.get_images()
        assert same_observations(empty[0], twin.get_images()[0])
        for actions, _ in env.replay(env, tokens, env.sequences.play(tokens)):
            twin.step(actions)
            images = list(zip(env.get_images(), twin.get_images(), strict=True))
            assert all(same_observations(*pair) for pair in images)
        assert env.get_images()[0].shape == empty[0].shape  # type: ignore[union-attr]

    def test_a_wrapper_that_plays_by_itself_is_refused(self) -> None:
        class Other(VecEnvWrapper):
            def reset(self) -> Any:
                return self.venv.reset()

            def step_async(self, actions: Any) -> None:
                self.venv.step_async((actions + 1) % V)

            def step_wait(self) -> Any:
                return self.venv.step_wait()

        class Twice(Other):
            def step_async(self, actions: Any) -> None:
                self.venv.step(actions)
                self.venv.step_async(actions)

        class Never(Other):
            def step_async(self, actions: Any) -> None:
                self.actions = actions

            def step_wait(self) -> Any:
                return self.venv.reset(), np.zeros(N), np.zeros(N, dtype=bool), [{}] * N

        for kind in (Other, Twice, Never):
            inner = SB3VecEnv(native())
            env = kind(inner)
            env.reset()
            tokens = episodes(small_game(), N)
            with pytest.raises(ValueError, match=rf"\({kind.__name__}\) plays other actions, or its own steps: leave it"):
                list(inner.replay(env, tokens, inner.sequences.play(tokens)))
            inner.step(tokens[:, 0].numpy())  # it plays on by itself

    def test_is_midway_follows_the_rows(self) -> None:
        env = SB3VecEnv(native(n=2, end_token=END))
        env.reset()
        assert not env.is_midway
        env.step(np.array([1, END]))
        assert env.is_midway
        env.step(np.array([END, END]))
        assert not env.is_midway
        env.step(np.array([1, 1]))
        assert env.is_midway
        env.reset()
        assert not env.is_midway
