"""Random legal and illegal calls on both forms of the environment, against a twin that sees the legal ones alone.

A case is a game and a list of calls. `pytest -m fuzz tests/test_fuzz_environments.py` runs 25 times as many, other ones each
time; without the marker they are always the same.
"""

import copy
import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.error import Error, ResetNeeded
from gymnasium.vector import AutoresetMode
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from agents.vec_env import info_of_row
from seqgan_env.game import SequenceGame
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.rewards.bleu import BleuReward
from seqgan_env.rewards.controls import ConstantReward, RandomReward
from seqgan_env.rewards.custom import FunctionReward
from seqgan_env.rewards.discriminator import DiscriminatorReward
from seqgan_env.rewards.mixture import MixtureReward
from seqgan_env.rewards.reward_model import RewardModel
from seqgan_env.rewards.text_cnn import TextCNN
from seqgan_env.sequence_env import SequenceEnv
from seqgan_env.vector_env import SequenceVectorEnv
from tests.small import SMALL_CNN, seeded, small_policy

EXAMPLES = 800
V, T, END = 4, 3, 2
DOCUMENTED = (ResetNeeded, ValueError, TypeError)
CALLS = (
    *["step"] * 6,
    *["bad step"] * 3,
    *["play"] * 3,
    *["bad play"] * 2,
    "reset",
    "partial reset",
    "bad reset",
    "retrain",
    "bad retrain",
    "attach policy",
    "bad policy",
    "look",
)


def not_the_last_one(prefix: np.ndarray) -> np.ndarray:
    """A mask: no token twice in a row."""
    allowed = np.ones(V, dtype=np.bool_)
    allowed[prefix[-1:]] = False
    return allowed


def share_of_zeros(sequences: list[list[int]]) -> list[float]:
    return [sequence.count(0) / len(sequence) for sequence in sequences]


REAL = torch.randint(V, (9, T), generator=seeded(7))
ORACLE = TokenLSTM(V, 3, 3, initial_std=1.0, generator=seeded(8)).double().requires_grad_(False)
NETWORK = TextCNN(V, T, SMALL_CNN)


def discriminator(scaling: Any = "probability") -> DiscriminatorReward:
    """A fresh copy: creating one takes ten times as long."""
    return DiscriminatorReward(copy.deepcopy(NETWORK), scaling)


MODELS: dict[str, Callable[[], RewardModel]] = {
    "discriminator": discriminator,
    "log": lambda: discriminator("log"),
    "bleu": lambda: BleuReward(REAL, V, 2),
    "constant": ConstantReward,
    "random": lambda: RandomReward(3),
    "function": lambda: FunctionReward(share_of_zeros),
    "mixture": lambda: MixtureReward([(0.5, MODELS["discriminator"]()), (2.0, MODELS["function"]())]),
}
LEARNING = ("discriminator", "log", "mixture")


@dataclass(frozen=True)
class Case:
    """A game, how it is played, and the calls, each with a number that what it passes is drawn from."""

    reward: str
    model: str
    end: bool
    mask: bool
    oracle: bool
    retrain_every: int | None
    layout: str
    mode: AutoresetMode
    n: int
    render: bool
    starts: bool
    calls: list[tuple[str, int]]

    def game(self, model: RewardModel, retrain_every: int | None = None) -> SequenceGame:
        game = SequenceGame(
            V,
            T,
            REAL,
            model,
            reward=self.reward,  # type: ignore[arg-type]
            n_rollouts=2,
            retrain_every=retrain_every,
            end_token=END if self.end else None,
            mask=not_the_last_one if self.mask else None,
            oracle=ORACLE if self.oracle else None,
        )
        game.attach_policy(policy_of(0))
        return game

    @property
    def interval(self) -> int | None:
        """Finished episodes between retrainings, where there is something to retrain."""
        return self.retrain_every if self.model in LEARNING else None


CASES = st.builds(
    Case,
    reward=st.sampled_from(["terminal", "rollout", "shaped"]),
    model=st.sampled_from(list(MODELS)),
    end=st.booleans(),
    mask=st.booleans(),
    oracle=st.booleans(),
    retrain_every=st.sampled_from([None, 1, 2, 3]),
    layout=st.sampled_from(["dict", "flat"]),
    mode=st.sampled_from(list(AutoresetMode)),
    n=st.integers(1, 3),
    render=st.booleans(),
    starts=st.sampled_from([True] * 9 + [False]),
    calls=st.lists(st.tuples(st.sampled_from(CALLS), st.integers(0, 9999)), min_size=3, max_size=10),
)


@functools.cache
def policy_of(seed: int) -> TokenLSTM:
    return small_policy(seed, vocab_size=V)


# --- what is passed in the calls -------------------------------------------------------------------------------------


def bad_token(rng: np.random.Generator, masked: np.ndarray) -> Any:
    """An action that no single environment takes."""
    choices = [-1, V, 10**30, 1.0, "0", None, [0, 1], np.array([0, 1]), np.float64(2), np.array(1.5), (0,), {}]
    choices += [int(token) for token in masked]
    return choices[rng.integers(len(choices))]


def bad_actions(rng: np.random.Generator, good: np.ndarray, masks: np.ndarray, playing: np.ndarray) -> Any:
    """Actions that no vector environment takes; only those of the rows that play are looked at."""
    row = rng.choice(playing)
    outside, negative, masked = good.copy(), good.copy(), good.copy()
    outside[row], negative[row] = V, -1
    choices: list[Any] = [
        outside,
        negative,
        good.astype(float),
        good.astype(bool),
        good.astype(str),
        good[:-1],
        np.append(good, 0),
        good[:, None],
        good.tolist()[0],
        None,
        [[0], [0, 1]],
        "text",
    ]
    if not masks[row].all():
        masked[row] = rng.choice(np.flatnonzero(~masks[row]))
        choices.append(masked)
    return choices[rng.integers(len(choices))]


def whole_episodes(rng: np.random.Generator, case: Case, n: int) -> Tensor:
    """Legal episodes `(n, T)`."""
    tokens = np.full((n, T), V, dtype=np.int64)
    for row in tokens:
        for position in range(T):
            allowed = not_the_last_one(row[:position]) if case.mask else np.ones(V, dtype=np.bool_)
            row[position] = rng.choice(np.flatnonzero(allowed))
            if case.end and row[position] == END:
                break
    return torch.from_numpy(tokens)


def bad_episodes(rng: np.random.Generator, case: Case, n: int) -> Any:
    good = whole_episodes(rng, case, n)
    outside, negative, open_end = good.clone(), good.clone(), good.clone()
    outside[0, 0], negative[0, 0] = V + 1, -1
    open_end[-1] = V
    choices: list[Any] = [
        outside,
        negative,
        open_end,
        good.int(),
        good.double(),
        good[:, :-1],
        torch.cat([good, good]),
        good[0],
        good.numpy(),
        good.tolist(),
        None,
    ]
    if case.mask:
        choices.append(torch.zeros_like(good))
    return choices[rng.integers(len(choices))]


def bad_generated(rng: np.random.Generator, case: Case) -> Any:
    good = whole_episodes(rng, case, 3)
    outside, negative = good.clone(), good.clone()
    outside[1, 1], negative[2, 0] = V + 1, -1
    choices = [
        outside,
        negative,
        good[:0],
        good[:, :-1],
        good[0],
        good.double(),
        good.int(),
        good.numpy(),
        good.tolist(),
        None,
    ]
    return choices[rng.integers(len(choices))]


class NoPolicy:
    """Lacks `step`."""

    def initial_state(self, n: int) -> None:
        """No state."""


# --- checks ----------------------------------------------------------------------------------------------------------


def close(one: Any, other: Any) -> bool:
    """Equal to float32's precision: batches of another size round otherwise."""
    return np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=1e-5, atol=1e-5)


def prefix_of(observation: Any) -> tuple[np.ndarray, int]:
    """Tokens and length that an observation of one row shows, whatever its layout."""
    if isinstance(observation, dict):
        return observation["tokens"], int(observation["length"][0])
    return observation[:-1], int(observation[-1])


def same(one: Any, other: Any, exactly: bool) -> bool:
    """Whether two observations, infos or rewards are the same."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key], exactly) for key in one)
    return bool(np.array_equal(one, other)) if exactly else close(one, other)


def refuses(call: Callable[[], object], errors: tuple[type[Exception], ...] = DOCUMENTED) -> None:
    """The call raises a documented error."""
    try:
        call()
    except errors:
        return
    except Exception as error:
        raise AssertionError(f"undocumented: {error!r}") from error
    raise AssertionError("an illegal call was taken")


@dataclass
class SingleRun:
    """A single environment that gets every call, and a twin that gets the legal ones."""

    case: Case
    environment: type[SequenceEnv] = SequenceEnv
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        case = self.case
        self.twin_game = case.game(MODELS[case.model](), case.interval)
        render = "ansi" if case.render else None
        self.env = self.environment(case.game(MODELS[case.model](), case.interval), layout=case.layout, render_mode=render)  # type: ignore[arg-type]
        self.twin = SequenceEnv(self.twin_game, layout=case.layout, render_mode=render)  # type: ignore[arg-type]
        self.under_way = False

    def run(self) -> None:
        calls = [("reset", 5), *self.case.calls] if self.case.starts else self.case.calls
        started = False
        for name, number in calls:
            rng = np.random.default_rng(number)
            started |= name == "reset"
            if name == "reset" or (name == "partial reset" and started):
                self._reset(number if name == "reset" else None)
            elif name in ("step", "play"):
                for _ in range(1 + number % 2):
                    self._step(rng)
            elif name in ("bad step", "bad play"):
                masked = np.flatnonzero(~self.env.action_masks()) if self.under_way else np.array([], dtype=np.int64)
                token = bad_token(rng, masked)
                refuses(lambda token=token: self.env.step(token))
            elif name == "bad reset":
                seed = [-1, 1.5, "seed", [1]][number % 4]
                refuses(lambda seed=seed: self.env.reset(seed=seed), (*DOCUMENTED, Error))
            elif name == "retrain":
                self._retrain(rng)
            elif name == "bad retrain":
                generated = bad_generated(rng, self.case)
                refuses(lambda generated=generated: self.env.retrain(generated))
            elif name == "attach policy":
                self.env.attach_policy(policy_of(number % 3))
                self.twin.attach_policy(policy_of(number % 3))
            elif name == "bad policy":
                policy = [None, NoPolicy(), 3, "policy"][number % 4]
                refuses(lambda policy=policy: self.env.attach_policy(policy))  # type: ignore[arg-type]
            else:
                assert self.env.action_masks().any()
                assert not self.case.render or self.env.render() == self.twin.render()
            self.counts[name] += 1

    def _reset(self, seed: int | None) -> None:
        observation, info = self.env.reset(seed=seed)
        expected, expected_info = self.twin.reset(seed=seed)
        assert same(info, expected_info, exactly=True)
        assert ([*info] == ["action_mask"]) == self.case.mask
        self._check_observation(observation, expected)
        self.under_way = True

    def _step(self, rng: np.random.Generator) -> None:
        if not self.under_way:
            refuses(lambda: self.env.step(np.int64(0)), (ResetNeeded,))
            return
        token = rng.choice(np.flatnonzero(self.env.action_masks()))
        observation, reward, terminated, truncated, info = self.env.step(token)
        expected = self.twin.step(token)
        assert isinstance(reward, float)
        assert np.isfinite(reward)
        assert reward == expected[1], "an illegal call before has changed the reward"
        assert (terminated, truncated) == (expected[2], False)
        assert same(info, expected[4], exactly=True)
        self._check_observation(observation, expected[0])
        self.under_way = not terminated
        self.counts["episodes"] += terminated
        self.counts["retrainings"] += "retraining" in info

    def _retrain(self, rng: np.random.Generator) -> None:
        generated = whole_episodes(rng, self.case, 4)
        if self.case.model not in LEARNING:
            refuses(lambda: self.env.retrain(generated), (TypeError,))
            return
        metrics = self.env.retrain(generated)
        assert metrics == self.twin.retrain(generated)
        self.counts["retrainings"] += 1

    def _check_observation(self, observation: Any, expected: Any) -> None:
        assert self.env.observation_space.contains(observation), f"{observation} is outside the space"
        assert same(observation, expected, exactly=True)


@dataclass
class VectorRun:
    """A vector environment that gets every call, and single environments, one a row, that get the legal ones.

    The singles share a reward model of their own. When they have all moved, the test retrains it itself, on its own account of
    the finished episodes.
    """

    case: Case
    environment: type[SequenceVectorEnv] = SequenceVectorEnv
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        case = self.case
        render = "ansi" if case.render else None
        self.env = self.environment(
            case.game(MODELS[case.model](), case.interval),
            case.n,
            autoreset_mode=case.mode,
            layout=case.layout,  # type: ignore[arg-type]
            render_mode=render,
        )
        model = MODELS[case.model]()
        self.judge = case.game(model)
        self.rows = [SequenceEnv(case.game(model), layout=case.layout) for _ in range(case.n)]  # type: ignore[arg-type]
        self.observations: list[Any] = [None] * case.n
        self.over = np.ones(case.n, dtype=np.bool_)
        self.fresh = np.zeros(case.n, dtype=np.bool_)
        self.started = False
        self.finished: list[Tensor] = []

    def run(self) -> None:
        calls = [("reset", 5), *self.case.calls] if self.case.starts else self.case.calls
        for name, number in calls:
            rng = np.random.default_rng(number)
            if name == "reset":
                self._reset(rng, np.ones(self.case.n, dtype=np.bool_), number)
            elif name == "partial reset":
                self._partial_reset(rng, number)
            elif name == "bad reset":
                self._bad_reset(number)
            elif name == "step":
                for _ in range(1 + number % 3):
                    self._step(rng)
            elif name == "bad step":
                playing = np.flatnonzero(~self.over) if self.case.mode is AutoresetMode.NEXT_STEP else np.arange(self.case.n)
                if len(playing):  # of rows that start anew no action is read
                    actions = bad_actions(rng, self._actions(rng), self.env.action_masks(), playing)
                    refuses(lambda actions=actions: self.env.step(actions))
            elif name == "play":
                self._play(rng)
            elif name == "bad play":
                episodes = bad_episodes(rng, self.case, self.case.n)
                refuses(lambda episodes=episodes: self.env.play(episodes))
            elif name == "retrain":
                self._retrain(rng)
            elif name == "bad retrain":
                generated = bad_generated(rng, self.case)
                refuses(lambda generated=generated: self.env.retrain(generated))
            elif name == "attach policy":
                for env in (self.env, *self.rows):
                    env.attach_policy(policy_of(number % 3))
            elif name == "bad policy":
                policy = [None, NoPolicy(), 3, "policy"][number % 4]
                refuses(lambda policy=policy: self.env.attach_policy(policy))  # type: ignore[arg-type]
            else:
                self._look()
            self.counts[name] += 1

    # --- resets

    def _reset(self, rng: np.random.Generator, rows: np.ndarray, seed: int | None, **options: Any) -> None:
        seeds: list[int | None] = [None if seed is None else seed + row for row in range(self.case.n)]
        given: Any = seed
        if seed is not None and rng.random() < 0.3:  # the same, a seed for each row
            given = seeds = [int(number) for number in rng.integers(0, 999, self.case.n)]
        observation, info = self.env.reset(seed=given, **options)
        for row in np.flatnonzero(rows):
            self.observations[row], _ = self.rows[row].reset(seed=seeds[row])
        if seeds[0] is not None:
            self.judge.seed(seeds[0])
        self._check_masks(info)
        self.over[rows], self.fresh[rows], self.started = False, True, True
        self._check_observations(observation)

    def _partial_reset(self, rng: np.random.Generator, number: int) -> None:
        rows = rng.random(self.case.n) < 0.5
        options = {"reset_mask": rows}
        if not rows.any():
            refuses(lambda: self.env.reset(options=options), (ValueError,))
        elif not self.started and not rows.all():
            refuses(lambda: self.env.reset(options=options), (ResetNeeded,))
        else:
            seed = number if not self.started or rng.random() < 0.5 else None
            self._reset(rng, rows, seed, options=options)

    def _bad_reset(self, number: int) -> None:
        n = self.case.n
        choices: list[dict[str, Any]] = [
            {"seed": -1 - n},
            {"seed": 1.5},
            {"seed": "seed"},
            {"seed": [1] * (n + 1)},
            {"seed": [*range(n - 1), -1]},
            {"seed": [*range(n - 1), 0.5]},
            {"seed": [*range(n - 1), "1"]},
            {"options": {"reset_mask": [True] * n}},
            {"options": {"reset_mask": np.ones(n)}},
            {"options": {"reset_mask": np.ones(n + 1, dtype=np.bool_)}},
            {"options": {"reset_mask": np.zeros(n, dtype=np.bool_)}},
            {"options": {"reset_mask": None}},
            {"options": {"prefix": [1, 2]}},
            {"options": ["reset_mask"]},
        ]
        refuses(lambda: self.env.reset(**choices[number % len(choices)]))

    # --- steps

    def _actions(self, rng: np.random.Generator) -> np.ndarray:
        return np.array([rng.choice(np.flatnonzero(mask)) for mask in self.env.action_masks()])

    def _step(self, rng: np.random.Generator) -> None:
        actions = self._actions(rng)
        if not self.started or (self.case.mode is AutoresetMode.DISABLED and self.over.any()):
            refuses(lambda: self.env.step(actions), (ResetNeeded,))
            return
        observation, rewards, terminated, truncated, infos = self.env.step(actions)
        assert not truncated.any()
        expected, ended = np.zeros(self.case.n), np.zeros(self.case.n, dtype=np.bool_)
        same_step = self.case.mode is AutoresetMode.SAME_STEP
        for row, env in enumerate(self.rows):
            if self.over[row]:  # NEXT_STEP: this step starts the row anew
                self.observations[row], _ = env.reset()
                self.over[row] = False
                continue
            self.observations[row], reward, ended[row], _, info = env.step(actions[row])
            expected[row] = float(reward)
            if not ended[row]:
                continue
            self.finished.append(torch.from_numpy(prefix_of(self.observations[row])[0].copy()))
            final = infos["final_info"] if same_step else infos
            assert not self.case.mask or np.array_equal(final["action_mask"][row], info.pop("action_mask"))
            assert close([final[key][row] for key in info], list(info.values())), f"{final} for {info}"
            if same_step:
                assert same(infos["final_obs"][row], self.observations[row], exactly=True)
                self.observations[row], _ = env.reset()
        self._check_masks(infos)
        assert np.isfinite(rewards).all()
        assert close(rewards, expected), f"rewards {rewards}, of the single environments {expected}"
        assert np.array_equal(terminated, ended)
        if not same_step:
            self.over |= ended
        self._retrain_if_due(self._of_last_row(infos.get("final_info", {}) if same_step else infos, ended))
        self.fresh[:] = [prefix_of(observation)[1] == 0 for observation in self.observations]
        self.counts["episodes"] += int(ended.sum())
        self._check_observations(observation)

    def _play(self, rng: np.random.Generator) -> None:
        tokens = whole_episodes(rng, self.case, self.case.n)
        if not self.started or not (self.fresh | self.over).all():
            refuses(lambda: self.env.play(tokens), (ResetNeeded,))
            return
        rewards, lengths, infos = self.env.play(tokens)
        assert torch.isfinite(rewards).all()
        for row, env in enumerate(self.rows):
            if self.over[row]:
                env.reset()
            stepped = np.zeros(T)
            terminated, length = False, 0
            while not terminated:
                _, reward, terminated, _, info = env.step(tokens[row, length].numpy())
                stepped[length] = float(reward)
                length += 1
            assert length == lengths[row]
            assert close(rewards[row].numpy(), stepped), f"played {rewards[row]}, stepped {stepped}"
            info.pop("action_mask", None)  # nothing follows episodes that were played as a whole
            assert close([infos[key][row] for key in info], list(info.values()))
            self.finished.append(tokens[row])
            self.observations[row], _ = env.reset()
        self.over[:], self.fresh[:] = False, True
        self._retrain_if_due(infos)
        self.counts["episodes"] += self.case.n

    def _of_last_row(self, infos: dict[str, Any], ended: np.ndarray) -> dict[str, Any]:
        """The infos of a row; the last one that ended must report the retraining."""
        if "retraining" not in infos:
            return {}
        assert np.flatnonzero(infos["_retraining"]).tolist() == [np.flatnonzero(ended)[-1]]
        return info_of_row(infos, int(np.flatnonzero(ended)[-1]))

    def _retrain_if_due(self, infos: dict[str, Any]) -> None:
        due = self.case.interval is not None and len(self.finished) >= self.case.interval
        assert ("retraining" in infos) == due
        if due:
            newest = torch.stack(self.finished)[-self.case.interval :]  # type: ignore[operator]
            assert same(infos["retraining"], self.judge.retrain(newest), exactly=True)
            self.finished.clear()
            self.counts["retrainings"] += 1

    def _retrain(self, rng: np.random.Generator) -> None:
        generated = whole_episodes(rng, self.case, 4)
        if self.case.model not in LEARNING:
            refuses(lambda: self.env.retrain(generated), (TypeError,))
            return
        assert same(self.env.retrain(generated), self.judge.retrain(generated), exactly=True)
        self.counts["retrainings"] += 1

    # --- looks

    def _look(self) -> None:
        masks = self.env.action_masks()
        assert masks.shape == (self.case.n, V)
        if self.started:
            assert np.array_equal(masks, [env.action_masks() for env in self.rows])
        rendered = self.env.render()
        assert (rendered is None) == (not self.case.render)
        assert rendered is None or len(rendered) == self.case.n

    def _check_masks(self, infos: dict[str, Any]) -> None:
        assert ("action_mask" in infos) == self.case.mask
        if self.case.mask:
            assert same(infos["action_mask"], np.array([env.action_masks() for env in self.rows], dtype=np.int8), exactly=True)
            assert infos["_action_mask"].all()

    def _check_observations(self, observation: Any) -> None:
        assert self.env.observation_space.contains(observation), f"{observation} is outside the space"
        for row in range(self.case.n):
            one = (
                {key: value[row] for key, value in observation.items()} if isinstance(observation, dict) else observation[row]
            )
            assert same(one, self.observations[row], exactly=True), f"row {row}: {one}, expected {self.observations[row]}"


def fuzz(run_case: Callable[[Case], Counter[str]], examples: int, derandomize: bool = True, **options: Any) -> Counter[str]:
    """Run so many cases; returns how often each call and event occurred."""
    total: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=derandomize,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        **options,
    )
    @given(CASES)
    def run(case: Case) -> None:
        total.update(run_case(case))
        total["cases"] += 1

    run()
    return total


def vector_case(case: Case, environment: type[SequenceVectorEnv] = SequenceVectorEnv) -> Counter[str]:
    run = VectorRun(case, environment)
    run.run()
    return run.counts


def single_case(case: Case, environment: type[SequenceEnv] = SequenceEnv) -> Counter[str]:
    run = SingleRun(case, environment)
    run.run()
    return run.counts


@pytest.mark.slow
@pytest.mark.parametrize(("run_case", "share"), [(vector_case, 0.55), (single_case, 0.45)], ids=["vector", "single"])
def test_random_calls_keep_the_contracts(
    run_case: Callable[[Case], Counter[str]], share: float, times: int, record_property: Callable[[str, object], None]
) -> None:
    examples = int(EXAMPLES * share) * times
    counts = fuzz(run_case, examples, derandomize=times == 1)
    print(f"\n{counts['cases']} cases: {dict(counts)}")
    record_property("cases", counts["cases"])
    assert counts["cases"] >= examples
    rare = {name: counts[name] for name in (*CALLS, "episodes", "retrainings") if counts[name] < 0.02 * examples}
    assert rare == {}, "the cases pass these by"


# --- negative controls: environments with a fault each, which the same cases must find ------------------------------


class LateRewards(SequenceVectorEnv):
    """Gives each reward one step late."""

    _late: Any = None

    def step(self, actions: Any) -> Any:
        observation, rewards, *rest = super().step(actions)
        late, self._late = self._late if self._late is not None else np.zeros_like(rewards), rewards
        return observation, late, *rest


class OutsideTheSpace(SequenceVectorEnv):
    """Observes a token beyond the vocabulary in the middle of an episode."""

    def step(self, actions: Any) -> Any:
        observation, *rest = super().step(actions)
        (observation["tokens"] if isinstance(observation, dict) else observation)[0, 0] = max(V, T) + 1
        return observation, *rest


class TouchedByRefusal(SequenceVectorEnv):
    """Counts an episode for actions that it refuses, so that later completions are drawn from another key."""

    def step(self, actions: Any) -> Any:
        try:
            return super().step(actions)
        except (ValueError, TypeError):
            self._episodes += 1
            raise


class OtherErrors(SequenceVectorEnv):
    """Does not catch numpy's IndexError."""

    def step(self, actions: Any) -> Any:
        try:
            return super().step(actions)
        except ValueError as error:
            raise IndexError(*error.args) from error


class TakesAnything(SequenceVectorEnv):
    """Clips actions into the vocabulary instead of refusing them."""

    def step(self, actions: Any) -> Any:
        clipped = np.clip(np.nan_to_num(np.asarray(actions, dtype=float)), 0, V - 1).astype(int)
        return super().step(np.resize(clipped, self.num_envs))


class PlaysOffByOne(SequenceVectorEnv):
    """Credits the next token with each reward in `play`."""

    def play(self, tokens: Tensor) -> Any:
        played = super().play(tokens)
        return played._replace(rewards=played.rewards.roll(1, dims=1))


class NotANumber(SequenceVectorEnv):
    """NaN rewards where a row ends."""

    def step(self, actions: Any) -> Any:
        observation, rewards, terminated, *rest = super().step(actions)
        return observation, np.where(terminated, np.nan, rewards), terminated, *rest


class RetrainsLate(SequenceVectorEnv):
    """Forgets the first finished row of every step when it counts towards retraining."""

    def step(self, actions: Any) -> Any:
        record = self.game.record
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.game, "record", lambda tokens: record(tokens[1:]))
            return super().step(actions)


class SingleTouched(SequenceEnv):
    """Counts an episode for an action that it refuses."""

    def step(self, action: Any) -> Any:
        try:
            return super().step(action)
        except (ValueError, TypeError):
            self._episode += 1
            raise


class SingleOutside(SequenceEnv):
    """Never observes its length."""

    def reset(self, **options: Any) -> Any:
        observation, info = super().reset(**options)
        return self.shortened(observation), info

    def step(self, action: Any) -> Any:
        observation, *rest = super().step(action)
        return self.shortened(observation), *rest

    def shortened(self, observation: Any) -> Any:
        return {"tokens": observation["tokens"]} if isinstance(observation, dict) else observation[:-1]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (LateRewards, "of the single environments"),
        (OutsideTheSpace, "outside the space"),
        (TouchedByRefusal, "of the single environments|played"),
        (OtherErrors, "undocumented: IndexError"),
        (TakesAnything, "an illegal call was taken|undocumented"),
        (PlaysOffByOne, "played"),
        (NotANumber, "isfinite"),
        (RetrainsLate, "retraining"),
    ],
)
def test_a_broken_vector_environment_is_found(broken: type[SequenceVectorEnv], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        fuzz(lambda case: vector_case(case, broken), 400, phases=[Phase.generate])


@pytest.mark.parametrize(
    ("broken", "message"),
    [(SingleTouched, "an illegal call before has changed the reward"), (SingleOutside, "outside the space")],
)
def test_a_broken_single_environment_is_found(broken: type[SequenceEnv], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        fuzz(lambda case: single_case(case, broken), 400, phases=[Phase.generate])
