"""Callbacks and wrappers of Stable-Baselines3 act under `Reinforce` as under SB3's own algorithms, or are refused by name."""

import copy
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common import callbacks, vec_env
from stable_baselines3.common.callbacks import BaseCallback, EvalCallback

from agents.reinforce import Reinforce
from agents.vec_env import SB3VecEnv
from seqgan_env import SequenceVectorEnv
from seqgan_env.rewards.controls import ConstantReward
from tests.agents.small_agents import new_agent, new_game, note_rewards, text_env, weights


def untested(kinds: set[str], tests: str, end: str | None = None) -> list[str]:
    """The classes that the given test class of this file does not name."""
    source = Path(__file__).read_text(encoding="utf-8")
    part = source[source.index(f"class {tests}") : None if end is None else source.index(f"class {end}")]
    return [kind for kind in kinds if re.search(rf"\.{kind}\b", part) is None]


class KeepLocals(BaseCallback):
    """Keeps what SB3's algorithms show callbacks at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        names = ("actions", "new_obs", "rewards", "dones", "infos")
        self.steps.append({name: copy.deepcopy(self.locals[name]) for name in names})
        return True


def evaluation(**arguments: Any) -> EvalCallback:
    """An evaluation at every third step, on its own game with a reward that is never retrained."""
    env = SB3VecEnv(SequenceVectorEnv(new_game(reward_model="bleu", reward="terminal"), 4, autoreset_mode="SameStep"))
    return EvalCallback(env, **{"eval_freq": 3, "n_eval_episodes": 4, "verbose": 0, "warn": False, **arguments})


class TestCallbacks:
    """8 rows play 5 tokens each: 40 in a batch."""

    def test_every_callback_has_a_test(self) -> None:
        own = {name for name, value in vars(callbacks).items() if isinstance(value, type) and issubclass(value, BaseCallback)}
        assert untested(own - {"BaseCallback", "EventCallback"}, "TestCallbacks", "TestWrappers") == []

    def test_they_see_the_steps_of_the_environment(self) -> None:
        """Compared with steps by hand in an equal environment, under the same policy."""
        agent, twin = (new_agent(SequenceVectorEnv(new_game(reward="shaped"), 8, autoreset_mode="SameStep")) for _ in range(2))
        seen = KeepLocals()
        agent.learn(40, seen)
        env = twin.get_env()
        assert env is not None
        env.reset()
        assert len(seen.steps) == 5
        for step in seen.steps:
            observation, rewards, dones, infos = env.step(step["actions"])
            assert all(np.array_equal(step["new_obs"][name], part) for name, part in observation.items())  # type: ignore[union-attr]
            assert step["rewards"] == pytest.approx(rewards, abs=1e-6)
            assert np.array_equal(step["dones"], dones)
            assert [info.keys() for info in step["infos"]] == [info.keys() for info in infos]
        assert dones.all()
        assert [info["oracle_nll"] for info in step["infos"]] == [info["oracle_nll"] for info in infos]

    @pytest.mark.parametrize("env", [lambda: None, text_env], ids=["one length", "unequal lengths"])
    def test_max_episodes(self, env: Any) -> None:
        agent = new_agent(env())
        stop = callbacks.StopTrainingOnMaxEpisodes(3)
        agent.learn(10_000, stop)
        assert stop.n_episodes == 3 * 8
        assert agent._n_updates == 2  # the third batch is not learned from, as a rollout of SB3's would not be

    def test_evaluations_and_the_best_model(self, tmp_path: Path) -> None:
        new_bests = callbacks.ConvertCallback(lambda _, __: True)
        evaluate = evaluation(
            log_path=str(tmp_path), best_model_save_path=str(tmp_path), callback_on_new_best=new_bests, deterministic=False
        )
        assert isinstance(evaluate, callbacks.EvalCallback)
        agent = new_agent()
        agent.learn(3 * 40, callbacks.CallbackList([evaluate]))
        with np.load(tmp_path / "evaluations.npz") as logged:
            assert logged["timesteps"].tolist() == [24, 48, 72, 96, 120]
            assert logged["ep_lengths"].tolist() == [[5] * 4] * 5
            means = logged["results"].mean(axis=1)
        assert evaluate.best_mean_reward == means.max()
        assert new_bests.n_calls == len(np.unique(np.maximum.accumulate(means)))
        assert Reinforce.load(tmp_path / "best_model.zip").num_timesteps == 24 * (1 + means.argmax())

    def test_a_threshold_of_the_reward(self) -> None:
        for threshold, stops in ((-1.0, True), (1e9, False)):
            agent = new_agent()
            on_new_best = callbacks.StopTrainingOnRewardThreshold(threshold)
            agent.learn(3 * 40, evaluation(callback_on_new_best=on_new_best))
            assert agent.num_timesteps == (24 if stops else 120)

    def test_no_improvement(self) -> None:
        """With learning rate 0 greedy evaluations are equal: the second and the third are no better."""
        agent = new_agent(learning_rate=0.0)
        after = callbacks.StopTrainingOnNoModelImprovement(max_no_improvement_evals=1)
        agent.learn(10 * 40, evaluation(callback_after_eval=after))
        assert agent.num_timesteps == 3 * 24

    def test_checkpoints(self, tmp_path: Path) -> None:
        agent = new_agent()
        agent.learn(2 * 40, callbacks.CheckpointCallback(5, str(tmp_path)))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["rl_model_40_steps.zip", "rl_model_80_steps.zip"]
        assert Reinforce.load(tmp_path / "rl_model_40_steps.zip").num_timesteps == 40

    def test_every_n_timesteps(self) -> None:
        at: list[int] = []

        def note(local_variables: dict[str, Any], _: dict[str, Any]) -> bool:
            at.append(local_variables["self"].num_timesteps)
            return len(at) < 3

        agent = new_agent()
        agent.learn(10 * 40, callbacks.EveryNTimesteps(20, callbacks.ConvertCallback(note)))
        assert at == [24, 48, 72]
        assert agent.num_timesteps == 72

    def test_a_log_every_n_timesteps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if not hasattr(callbacks, "LogEveryNTimesteps"):
            pytest.skip("this release of Stable-Baselines3 has no LogEveryNTimesteps")
        agent = new_agent()
        logged: list[int] = []
        dump = agent.dump_logs
        monkeypatch.setattr(agent, "dump_logs", lambda: (logged.append(agent.num_timesteps), dump()))
        agent.learn(3 * 40, callbacks.LogEveryNTimesteps(40), log_interval=None)  # type: ignore[arg-type]
        assert logged == [40, 80, 120]

    @pytest.mark.parametrize("env", [lambda: None, text_env], ids=["one length", "unequal lengths"])
    def test_the_progress_bar_counts_num_timesteps(self, monkeypatch: pytest.MonkeyPatch, env: Any) -> None:
        bars: list[Any] = []

        class Bar:
            def __init__(self, total: int) -> None:
                self.total, self.n = total, 0
                bars.append(self)

            def update(self, n: int) -> None:
                self.n += n

            def refresh(self) -> None:
                pass

            close = refresh

        monkeypatch.setattr(callbacks, "tqdm", Bar)
        agent = new_agent(env())
        agent.learn(80, lambda _, __: True, progress_bar=True)
        assert (bars[0].total, bars[0].n) == (80, agent.num_timesteps)
        agent.learn(60, reset_num_timesteps=False, progress_bar=True)
        assert bars[0].n + bars[1].n == agent.num_timesteps
        if env is text_env:
            with pytest.raises(ValueError, match=r"counts a token for each row and step.*learn\(..., progress_bar=True\)"):
                agent.learn(80, callbacks.CallbackList([callbacks.ProgressBarCallback()]))
        else:
            agent.learn(80, callbacks.ProgressBarCallback())
            assert bars[2].n == agent.num_timesteps


class TestWrappers:
    @staticmethod
    def env(layout: Any = "dict", **rules: Any) -> SB3VecEnv:
        game = new_game(**{"reward": "shaped", **rules})
        return SB3VecEnv(SequenceVectorEnv(game, 8, autoreset_mode="SameStep", layout=layout))

    def test_every_wrapper_has_a_test(self) -> None:
        kinds = {name: value for name, value in vars(vec_env).items() if isinstance(value, type)}
        own = {name for name, value in kinds.items() if issubclass(value, vec_env.VecEnvWrapper)}
        assert untested(own - {"VecEnvWrapper"}, "TestWrappers") == []

    @pytest.mark.parametrize("end", [False, True], ids=["one length", "unequal lengths"])
    def test_a_monitor_writes_a_row_an_episode(self, tmp_path: Path, end: bool) -> None:
        inner = SB3VecEnv(text_env(reward="shaped")) if end else self.env()
        keyword = "discriminator_probability" if end else "oracle_nll"
        agent = new_agent(vec_env.VecMonitor(inner, str(tmp_path / "monitor.csv"), info_keywords=(keyword,)))
        rows: list[tuple[int, float, float]] = []

        class Played(BaseCallback):
            def _on_rollout_end(self) -> None:
                rewards, lengths, info = agent.last_played
                rows.extend(zip(lengths.tolist(), rewards.sum(dim=1).tolist(), info[keyword].tolist(), strict=True))

            def _on_step(self) -> bool:
                return True

        agent.learn(3 * 30, Played())
        env = agent.get_env()
        assert env is not None
        env.close()
        lines = [line.split(",") for line in (tmp_path / "monitor.csv").read_text(encoding="utf-8").splitlines()[2:]]
        written = sorted((int(length), float(total), float(known)) for total, length, _, known in lines)
        assert len(written) == len(rows) >= 24
        assert np.array(written) == pytest.approx(np.array(sorted(rows)), abs=1e-5)
        assert (len({length for length, *_ in rows}) > 1) == end
        assert len(agent.ep_info_buffer or ()) == len(rows)  # none is counted twice
        assert all({"r", "l", "t", keyword} == episode.keys() for episode in agent.ep_info_buffer or ())

    def test_a_monitor_changes_nothing_else(self) -> None:
        plain, monitored = (new_agent(around(self.env())) for around in (lambda env: env, lambda env: vec_env.VecMonitor(env)))
        assert torch.equal(weights(plain.learn(3 * 40)), weights(monitored.learn(3 * 40)))

    def test_normalised_rewards_are_learned_from(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """They are the wrapper's rewards for the same steps; the log keeps the game's."""
        agent, twin = (new_agent(vec_env.VecNormalize(self.env(), norm_obs=False, gamma=1.0)) for _ in range(2))
        seen, noted = KeepLocals(), note_rewards(monkeypatch)
        agent.learn(40, seen)
        env = twin.get_env()
        assert env is not None
        env.reset()
        for step in seen.steps:
            _, rewards, _, _ = env.step(step["actions"])
            assert step["rewards"] == pytest.approx(rewards, rel=1e-3)
        learned = np.stack([step["rewards"] for step in seen.steps], axis=1)
        assert np.array_equal(noted[0].numpy(), learned)
        own = agent.last_played.rewards
        assert not np.allclose(learned, own.numpy(), atol=1e-2)
        assert [episode["r"] for episode in agent.ep_info_buffer or ()] == own.sum(dim=1).tolist()
        assert not torch.equal(weights(agent), weights(new_agent(self.env()).learn(40)))

    def test_normalised_ids_are_refused(self) -> None:
        message = "VecNormalize scales token ids, which are names and not magnitudes: pass it norm_obs=False"
        with pytest.raises(ValueError, match=message):
            new_agent(vec_env.VecNormalize(self.env()))
        with pytest.raises(ValueError, match=message):
            new_agent().set_env(vec_env.VecMonitor(vec_env.VecNormalize(self.env())))

    def test_nan_rewards_are_found(self) -> None:
        rules: Any = {"reward": "terminal", "reward_model": ConstantReward(float("nan"))}
        with pytest.raises(ValueError, match="found nan in rewards"):
            new_agent(vec_env.VecCheckNan(self.env(**rules), raise_exception=True)).learn(40)
        new_agent(vec_env.VecCheckNan(self.env(), raise_exception=True)).learn(40)  # a control

    @pytest.mark.parametrize(
        ("name", "around"),
        [
            ("VecFrameStack", lambda env: vec_env.VecFrameStack(env("flat"), 2)),
            ("VecExtractDictObs", lambda env: vec_env.VecExtractDictObs(env(), "tokens")),
            ("VecExtractDictObs", lambda env: vec_env.VecMonitor(vec_env.VecExtractDictObs(env(), "tokens"))),
        ],
    )
    def test_wrappers_that_change_observations_are_refused(self, name: str, around: Any) -> None:
        with pytest.raises(ValueError, match=rf"^{name} changes observations or actions.*: leave it out"):
            new_agent(around(self.env))

    def test_a_wrapper_for_images_changes_nothing(self) -> None:
        transposed = new_agent(vec_env.VecTransposeImage(self.env()))
        assert torch.equal(weights(transposed.learn(40)), weights(new_agent(self.env()).learn(40)))

    def test_a_video_shows_each_step(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "moviepy", ModuleType("moviepy"))  # which would only write the file
        venv = SequenceVectorEnv(new_game(reward="shaped"), 2, autoreset_mode="SameStep", render_mode="rgb_array")
        video = vec_env.VecVideoRecorder(SB3VecEnv(venv), str(tmp_path), lambda step: step == 0, video_length=20)
        new_agent(video).learn(2 * 10)
        frames = [frame.tobytes() for frame in video.recorded_frames]
        assert len(frames) == 1 + 2 * 5
        assert len(set(frames)) == 1 + 2 * 4
        assert frames[0] == frames[5] == frames[10]  # all rows stand at the start of their next episodes
        video.recorded_frames.clear()

    def test_a_custom_wrapper_may_shape_rewards_but_not_play(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Doubled(vec_env.VecEnvWrapper):
            def reset(self) -> Any:
                return self.venv.reset()

            def step_wait(self) -> Any:
                observation, rewards, dones, infos = self.venv.step_wait()
                return observation, 2 * rewards, dones, infos

        class Warming(Doubled):
            def reset(self) -> Any:
                self.venv.reset()
                return self.venv.step(np.zeros(8, dtype=np.int64))[0]

        agent = new_agent(Doubled(self.env()))
        noted = note_rewards(monkeypatch)
        agent.learn(40)
        assert torch.equal(noted[0], 2 * agent.last_played.rewards)
        with pytest.raises(ValueError, match=r"\(Warming\) plays other actions, or its own steps"):
            new_agent(Warming(SB3VecEnv(text_env()))).learn(200)
