"""The rules: reward contracts by hand, retraining, and arguments that are refused before any work starts."""

import copy
import dataclasses
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqgan_env.data.corpus import read_corpus
from seqgan_env.game import SequenceGame, contract_rewards
from seqgan_env.games import make_game, oracle_game, text_game
from seqgan_env.rewards.bleu import BleuReward
from seqgan_env.rewards.controls import ConstantReward, RandomReward
from seqgan_env.rewards.density_ratio import DensityRatioReward
from seqgan_env.rewards.discriminator import DiscriminatorReward
from seqgan_env.rewards.mixture import MixtureReward
from seqgan_env.rewards.text_cnn import TextCNNConfig
from seqgan_env.support.device import resolve_device
from seqgan_env.support.process_group import Workers
from seqgan_env.vector_env import SequenceVectorEnv
from tests.small import (
    END,
    SMALL_CNN,
    Ordinal,
    Recorder,
    T,
    V,
    episodes,
    real_sequences,
    small_discriminator,
    small_game,
    small_policy,
)

LINES = ["a b c", "b c a b", "c", "a a b c a"]

# Reward contracts

VALUES = torch.tensor([[0.5, 0.25, 1.0, 0.75], [0.5, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0]])
LENGTHS = torch.tensor([4, 2, 1])


@pytest.mark.parametrize(
    ("reward", "expected"),
    [
        ("rollout", VALUES.tolist()),
        ("terminal", [[0, 0, 0, 0.75], [0, 2, 0, 0], [3, 0, 0, 0]]),
        ("shaped", [[0.5, -0.25, 0.75, -0.25], [0.5, 1.5, 0, 0], [3, 0, 0, 0]]),
    ],
)
def test_reward_contracts_by_hand(reward: Any, expected: list[list[float]]) -> None:
    assert contract_rewards(VALUES, LENGTHS, reward).tolist() == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-100, 100, width=16), min_size=T, max_size=T), st.integers(1, T))
def test_shaped_rewards_telescope_to_the_sequences_reward(values: list[float], length: int) -> None:
    q = torch.tensor([values]) * (torch.arange(T) < length)
    rewards = contract_rewards(q, torch.tensor([length]), "shaped")
    assert rewards.sum().item() == pytest.approx(values[length - 1], abs=1e-3)
    assert (rewards[0, length:] == 0).all()


@pytest.mark.parametrize(("reward", "gamma"), [("terminal", 1), ("rollout", 0), ("shaped", 1)])
def test_each_contract_has_its_discount(reward: str, gamma: float) -> None:
    assert small_game(reward=reward).gamma == gamma


@pytest.mark.parametrize("positions", [range(T), range(0, 2), range(2, 3), range(4, 5)])
def test_terminal_values_are_the_rewards_of_finished_sequences(positions: range) -> None:
    game = small_game(end_token=END)
    tokens = torch.tensor([[3, 4, END, V, V], [1, 1, 1, 1, 1], [1, 1, 1, V, V], [END, V, V, V, V]])
    lengths = torch.tensor([3, 5, 3, 1])
    expected = torch.zeros(4, T)
    for row in (0, 1, 3):  # the third is not finished
        expected[row, lengths[row] - 1] = Ordinal().score(tokens[row : row + 1], lengths[row : row + 1])[0]
    values = game.action_values(tokens, lengths, torch.arange(4), positions)
    assert torch.equal(values, expected[:, positions.start : positions.stop])


def test_terminal_rewards_need_no_completions() -> None:
    class NeverAsked:
        def initial_state(self, n: int) -> Any:
            raise AssertionError

        step = initial_state

    game = small_game(reward="terminal")
    game.attach_policy(NeverAsked())  # type: ignore[arg-type]
    tokens = episodes(game, 3)
    game.action_values(tokens, torch.full((3,), T), torch.arange(3), range(T))


@pytest.mark.parametrize("reward", ["rollout", "shaped"])
def test_an_attached_policy_writes_the_completions(reward: str) -> None:
    game, tokens = small_game(reward=reward), torch.zeros(3, T, dtype=torch.int64)
    arguments = (tokens, torch.full((3,), T), torch.arange(3), range(T))
    uniform = game.action_values(*arguments)
    game.attach_policy(small_policy())
    assert not torch.equal(game.action_values(*arguments), uniform)


def test_an_attached_policy_is_held_by_reference() -> None:
    """A rollout policy that is changed after it was attached changes the completions."""
    game, policy, tokens = small_game(reward="rollout"), small_policy(), torch.zeros(3, T, dtype=torch.int64)
    arguments = (tokens, torch.full((3,), T), torch.arange(3), range(T))
    game.attach_policy(policy)
    before = game.action_values(*arguments)
    policy.output.bias[5] += 10
    assert (game.action_values(*arguments)[:, 0] > before[:, 0]).all()  # token 5 is worth most


def test_an_object_that_is_no_policy_is_refused() -> None:
    with pytest.raises(TypeError, match=r"needs initial_state\(n\) and step.*; int lacks them"):
        small_game().attach_policy(3)  # type: ignore[arg-type]


# Retraining


def play(game: Any, tokens: Tensor) -> list[Any]:
    """Finish episodes one after the other."""
    return [game.record(row.unsqueeze(0)) for row in tokens]


def test_retraining_comes_every_k_episodes_on_the_newest_against_as_many_real_ones() -> None:
    model = Recorder()
    game = small_game(reward_model=model, retrain_every=3)
    tokens = episodes(game, 8)
    assert play(game, tokens) == [None, None, {"fits": 1}, None, None, {"fits": 2}, None, None]
    for (real, generated), played in zip(model.fits, (tokens[:3], tokens[3:6]), strict=True):
        assert torch.equal(generated, played)
        assert real.shape == (3, T)
        assert all(row in game.real_sequences.tolist() for row in real.tolist())
        assert len(real.unique(dim=0)) == 3
    assert not torch.equal(model.fits[0][0], model.fits[1][0])


def test_of_more_episodes_than_needed_the_newest_are_taken() -> None:
    model = Recorder()
    game = small_game(reward_model=model, retrain_every=3)
    tokens = episodes(game, 7)
    assert game.record(tokens[:2]) is None
    assert game.record(tokens[2:]) == {"fits": 1}
    assert torch.equal(model.fits[0][1], tokens[4:])
    assert game.record(tokens[:2]) is None  # counting starts anew


def test_without_retrain_every_the_caller_retrains() -> None:
    model = Recorder()
    game = small_game(reward_model=model)
    tokens = episodes(game, 4)
    assert play(game, tokens) == [None] * 4
    assert game.retrain(tokens) == {"fits": 1}
    assert torch.equal(model.fits[0][1], tokens)


def test_the_choice_of_real_sequences_follows_the_seed() -> None:
    chosen = []
    for seed in (1, 1, 2):
        model = Recorder()
        game = small_game(reward_model=model)
        game.seed(seed)
        game.retrain(episodes(game, 5))
        chosen.append(model.fits[0][0])
    assert torch.equal(chosen[0], chosen[1])
    assert not torch.equal(chosen[0], chosen[2])


def test_every_fit_is_of_new_sequences_alone() -> None:
    model = Recorder()
    game = small_game(reward_model=model)
    for token in range(3):
        game.retrain(torch.full((10, T), token))
    assert (model.fits[-1][1] == 2).all()


class Keeper(Recorder):
    """A `Recorder` whose state can be saved."""

    def training_state(self) -> dict[str, Any]:
        return {"fits": [list(fit) for fit in self.fits]}

    def load_training_state(self, state: Any) -> None:
        self.fits = [(real, generated) for real, generated in state["fits"]]


class TestAModelThatCannotBeSaved:
    @pytest.mark.parametrize("deep", [False, True])
    def test_causes_a_warning_with_its_name(self, deep: bool) -> None:
        mixture = MixtureReward([(0.5, Ordinal()), (0.25, Keeper()), (0.25, MixtureReward([(1.0, Recorder())]))])
        game = small_game(reward_model=mixture if deep else Recorder())
        with pytest.warns(UserWarning, match=r"Recorder learns, but .* Give it training_state\(\) and load_train") as warned:
            game.training_state()
        assert len(warned) == 1
        assert warned[0].filename == __file__

    def test_is_the_only_kind_that_warns(self) -> None:
        for model in (Ordinal(), small_discriminator(), Keeper(), MixtureReward([(0.5, Ordinal()), (0.5, Keeper())])):
            game = small_game(reward_model=model)
            state = game.training_state()
            game.load_training_state(state)


def test_a_model_that_cannot_learn_is_not_retrained() -> None:
    with pytest.raises(ValueError, match=r"retrain_every=5, but Ordinal does not learn: it has no fit\(real, generated\)"):
        small_game(retrain_every=5)
    with pytest.raises(TypeError, match="Ordinal does not learn"):
        small_game().retrain(real_sequences())


# Arguments


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": "dense"}, "reward must be one of ('terminal', 'rollout', 'shaped'), got 'dense'"),
        ({"retrain_every": 0}, "retrain_every must be at least 1 episode or None, got 0"),
        ({"n_rollouts": 0}, "n_rollouts must be at least 1, got 0"),
    ],
)
def test_invalid_rules_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        small_game(**changes)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"sequence_length": 0}, "sequence_length must be at least 1, got 0"),
        ({"vocab_size": 1}, "at least 2 tokens to choose from, got vocab_size=1"),
        (
            {"reward_model": "critic"},
            "reward_model must be one of ('discriminator', 'density-ratio', 'rank', 'bleu', 'constant', 'random')",
        ),
        ({"device": "abacus"}, "abacus"),
    ],
)
def test_invalid_games_are_refused(rules: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match=re.escape(message)):
        oracle_game(**{"sequence_length": T, "vocab_size": V, "reward_model": "constant"} | rules)


def test_an_object_without_score_is_no_reward_model() -> None:
    with pytest.raises((TypeError, ValueError), match=r"score\(tokens, lengths\)"):
        oracle_game(T, V, reward_model=object())


def test_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layout must be one of \('dict', 'flat', 'dict-mask'\), got 'list'"):
        small_game().observation_space("list")  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_device_is_an_error() -> None:
    with pytest.raises(ValueError, match="device='cuda:1' was requested, but torch sees no CUDA device here"):
        resolve_device("cuda:1")
    with pytest.raises(ValueError, match="Use 'cpu' or 'auto'"):
        oracle_game(T, V, device="cuda")
    assert resolve_device("auto") == torch.device("cpu")


def test_an_available_device_is_used() -> None:
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")


class TestAttributes:
    @pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SequenceGame)])
    def test_each_argument_takes_effect_when_set_or_cannot_be_set(self, name: str) -> None:
        game = small_game()
        if name in ("reward_model", "n_rollouts", "retrain_every"):
            setattr(game, name, getattr(game, name))
        else:
            with pytest.raises(AttributeError, match=f"{name} of a SequenceGame cannot be changed: create a new SequenceGame"):
                setattr(game, name, getattr(game, name))

    @pytest.mark.parametrize("name", ["search", "workers", "gamma", "real_sequences"])
    def test_derived_attributes_cannot_be_set(self, name: str) -> None:
        game = small_game()
        with pytest.raises(AttributeError):
            setattr(game, name, getattr(game, name))

    @pytest.mark.parametrize("reward", ["terminal", "rollout", "shaped"])
    def test_another_reward_model_judges_prefixes_and_sequences(self, reward: Any) -> None:
        changed, made = small_game(reward=reward, end_token=END), small_game(reward=reward, reward_model=ConstantReward(5.0))
        changed.reward_model = ConstantReward(5.0)
        tokens, lengths = torch.tensor([[0, 1, 3, 4, 5]]), torch.tensor([T])
        values = changed.action_values(tokens, lengths, torch.arange(1), range(T))
        assert torch.equal(values, made.action_values(tokens, lengths, torch.arange(1), range(T)))
        assert values[0].tolist() == ([0.0] * (T - 1) + [5.0] if reward == "terminal" else [5.0] * T)

    def test_another_discriminator_scores_completions_too(self) -> None:
        game = small_game(reward="rollout")
        game.reward_model = small_discriminator(1)
        assert game.search.score_completions == game.reward_model.score_completions

    def test_another_density_ratio_gets_the_attached_policy(self) -> None:
        game, policy = small_game(), small_policy()
        kept = DensityRatioReward(V, T, small_policy(1))
        game.reward_model = kept
        assert kept.policy is not game.search.policy  # no policy is attached: the model keeps its own
        game.attach_policy(policy)
        judge = DensityRatioReward(V, T, small_policy(1))
        game.reward_model = judge
        assert judge.policy is policy

    def test_another_model_shares_the_work(self) -> None:
        game, model = small_game(), small_discriminator()

        class Two(Workers):
            count = 2

        workers = Two()
        game.share_work(workers)
        game.reward_model = model
        assert game.workers is model.workers is workers

    def test_another_number_of_rollouts_takes_effect(self) -> None:
        game = small_game(reward="rollout")
        tokens, lengths = episodes(game, 2), torch.full((2,), T)
        game.n_rollouts = 7
        assert game.search.complete(tokens, lengths, torch.arange(2), range(2)).tokens.shape == (2, 2, 7, T)
        other = small_game(reward="rollout", n_rollouts=7).action_values(tokens, lengths, torch.arange(2), range(T))
        assert torch.equal(game.action_values(tokens, lengths, torch.arange(2), range(T)), other)

    def test_retraining_can_be_turned_on_and_off(self) -> None:
        model = Recorder()
        game = small_game(reward_model=model)
        tokens = episodes(game, 4)
        assert play(game, tokens) == [None] * 4
        game.retrain_every = 2
        assert play(game, tokens) == [None, {"fits": 1}, None, {"fits": 2}]
        game.retrain_every = None
        assert play(game, tokens) == [None] * 4

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("n_rollouts", 0, "n_rollouts must be at least 1, got 0"),
            ("retrain_every", 0, "retrain_every must be at least 1"),
            ("reward_model", Ordinal(), "retrain_every=3, but Ordinal does not learn"),
        ],
    )
    def test_invalid_values_are_refused_and_change_nothing(self, name: str, value: Any, message: str) -> None:
        game = small_game(reward_model=Recorder(), retrain_every=3)
        before = getattr(game, name)
        with pytest.raises(ValueError, match=re.escape(message)):
            setattr(game, name, value)
        assert getattr(game, name) is before

    def test_a_subclass_may_have_its_own_attributes(self) -> None:
        class Own(SequenceGame):
            def __post_init__(self) -> None:
                super().__post_init__()
                self.level = 1

        game = Own(V, T, real_sequences(), Ordinal())
        game.level = 2
        assert game.level == 2


class TestRealSequences:
    @pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16, np.int8])
    @pytest.mark.parametrize("name", ["discriminator", "rank", "bleu", "density-ratio"])
    def test_arrays_are_taken(self, name: Any, dtype: Any) -> None:
        rules: dict[str, Any] = {"reward_model": name, "discriminator": SMALL_CNN}
        of_array = make_game(V, T, real_sequences().numpy().astype(dtype), **rules)
        of_function = make_game(V, T, lambda: real_sequences().numpy().astype(dtype), **rules)
        for game in (of_array, of_function):
            assert game.real_sequences.dtype == torch.int64
            assert torch.equal(game.real_sequences, real_sequences())
        if name != "bleu":
            of_array.retrain(real_sequences(8, seed=1))

    @pytest.mark.parametrize(
        ("real", "error", "message"),
        [
            (real_sequences() + 2, ValueError, "Real sequences have ids from 2 to 7; the tokens are 0 to 5, and 6 pads"),
            (real_sequences() - 1, ValueError, "Real sequences have ids from -1 to 4"),
            (real_sequences()[:, 1:], ValueError, "Real sequences have shape (20, 4), expected (n, 5)"),
            (real_sequences()[:0], ValueError, "Real sequences have shape (0, 5)"),
            (real_sequences()[0], ValueError, "Real sequences have shape (5,)"),
            (real_sequences().float(), TypeError, "got Tensor of torch.float32. Text is read by read_corpus"),
            (real_sequences() > 2, TypeError, "got Tensor of torch.bool"),
            (real_sequences().double().numpy(), TypeError, "got ndarray of float64"),
            (["a b c"], TypeError, "got list of <U5"),
        ],
    )
    @pytest.mark.parametrize("name", ["constant", "discriminator", "rank", "bleu", "density-ratio"])
    def test_invalid_ones_are_refused(self, name: Any, real: Any, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=re.escape(message)):
            make_game(V, T, real, reward_model=name)
        with pytest.raises(error, match=re.escape(message)):
            make_game(V, T, lambda: real, reward_model=name).real_sequences  # noqa: B018
        with pytest.raises(error, match=re.escape(message)):
            small_game(real=real)

    def test_a_function_is_called_once_when_they_are_needed(self) -> None:
        calls: list[int] = []

        def make() -> Tensor:
            calls.append(1)
            return real_sequences()

        game = small_game(real=make)
        assert not calls
        assert game.real_sequences is game.real_sequences
        assert calls == [1]

    def test_of_another_vocabulary_than_the_oracles_or_the_texts(self) -> None:
        with pytest.raises(ValueError, match="The oracle has 5 tokens, but vocab_size=6"):
            small_game(oracle=small_policy(vocab_size=5))
        with pytest.raises(ValueError, match="The vocabulary has 4 tokens, but vocab_size=6"):
            small_game(vocabulary=read_corpus(LINES).vocabulary)


# Copies


def played_through(game: SequenceGame) -> list[Any]:
    """Rewards, infos and metrics of two batches, and of a fit."""
    env = SequenceVectorEnv(game, 3)
    env.reset(seed=5)
    tokens = episodes(small_game(), 6)
    results: list[Any] = []
    for batch in tokens.split(3):
        played = env.play(batch)
        results += [played.rewards.tolist(), {name: np.asarray(value).tolist() for name, value in played.info.items()}]
    return [*results, game.real_sequences.tolist()]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda game: pickle.loads(pickle.dumps(game))], ids=["copied", "pickled"])
@pytest.mark.parametrize("name", ["discriminator", "density-ratio", "rank", "bleu", "random"])
def test_copied_and_pickled_games_play_the_same(name: Any, copied: Callable[[SequenceGame], SequenceGame]) -> None:
    rules: dict[str, Any] = {"reward_model": name, "reward": "shaped", "n_rollouts": 2, "discriminator": SMALL_CNN}
    if name not in ("bleu", "random"):
        rules["retrain_every"] = 3
    game = oracle_game(T, V, n_real=20, **rules)
    game.attach_policy(small_policy())
    other = copied(game)
    assert played_through(other) == played_through(game)


# The two games


def test_the_oracle_game_has_its_oracles_sequences() -> None:
    rules: dict[str, Any] = {"n_real": 50, "reward_model": "constant"}
    games = [oracle_game(T, V, **rules, **seeds) for seeds in ({}, {"data_seed": 1}, {"oracle_seed": 1})]
    assert games[0].real_sequences.shape == (50, T)
    for other in games[1:]:
        assert not torch.equal(games[0].real_sequences, other.real_sequences)
    noise = torch.randint(V, (50, T), generator=torch.Generator().manual_seed(0))
    oracle = games[0].oracle
    assert oracle is not None
    assert oracle.nll(games[0].real_sequences).mean() < oracle.nll(noise).mean() - 0.5


def test_a_game_can_use_the_published_oracle(data_folder: Path) -> None:
    path = data_folder / "seqgan_paper_oracle.npz"
    assert oracle_game(T, oracle_params=path, reward_model="constant").vocab_size == 5000
    with pytest.raises(ValueError, match="has a vocabulary of 5000, but vocab_size=6 was"):
        oracle_game(T, V, oracle_params=path, reward_model="constant")


def test_the_text_game_has_the_texts_sequences() -> None:
    game = text_game(LINES, T, reward_model="constant")
    corpus = read_corpus(LINES, sequence_length=T)
    assert torch.equal(game.real_sequences, corpus.tokens)
    assert (game.vocab_size, game.end_token) == (4, corpus.vocabulary.end_token)
    assert torch.equal(text_game(corpus, T, reward_model="constant").real_sequences, corpus.tokens)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vocab_size": 9}, "has a vocabulary of 4, but vocab_size=9 was"),
        ({"data": read_corpus(LINES, sequence_length=7)}, "sequences of 7 tokens, but sequence_length=5"),
        ({"data": "no/such/file.txt"}, "no/such/file.txt"),
    ],
)
def test_a_text_that_does_not_fit_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        text_game(**{"data": LINES, "sequence_length": T, "reward_model": "constant"} | arguments)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("discriminator", DiscriminatorReward), ("bleu", BleuReward), ("constant", ConstantReward), ("random", RandomReward)],
)
def test_reward_models_have_names(name: Any, kind: type) -> None:
    assert isinstance(make_game(V, T, real_sequences(), reward_model=name).reward_model, kind)


def test_a_discriminator_by_name_takes_windows_that_fit_or_the_given_sizes() -> None:
    default = make_game(V, T, real_sequences()).reward_model
    assert isinstance(default, DiscriminatorReward)
    assert default.discriminator.config == TextCNNConfig(widths=(1, 2, 3, 4, 5), n_filters=(100, 200, 200, 200, 200))
    given = make_game(V, T, real_sequences(), discriminator=SMALL_CNN, scaling="centred").reward_model
    assert isinstance(given, DiscriminatorReward)
    assert (given.discriminator.config, given.scaling) == (SMALL_CNN, "centred")


@pytest.mark.parametrize("name", ["discriminator", "random"])
def test_the_model_seed_makes_another_reward_model(name: Any) -> None:
    tokens, lengths = real_sequences(), torch.full((20,), T)
    games = [make_game(V, T, tokens, reward_model=name, discriminator=SMALL_CNN, model_seed=seed) for seed in (1, 1, 2)]
    scores = [game.reward_model.score(tokens, lengths) for game in games]
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


def test_final_info_has_all_metrics() -> None:
    tokens, lengths = real_sequences(3), torch.full((3,), T)
    assert small_game().final_info(tokens, lengths) == {}
    game = oracle_game(T, V, discriminator=SMALL_CNN)
    info = game.final_info(tokens, lengths)
    assert info.keys() == {"discriminator_probability", "oracle_nll"}
    assert game.oracle is not None
    assert info["oracle_nll"].tolist() == game.oracle.nll(tokens).tolist()
    assert info["discriminator_probability"].tolist() == game.reward_model.score(tokens, lengths).tolist()
