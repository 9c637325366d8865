"""The options of a game: one default each, however a game is created."""

import dataclasses
from typing import Any

import gymnasium as gym
import pytest

from agents.experiment.config import AdversarialConfig
from seqgan_env.game import SequenceGame
from seqgan_env.game_rules import GameRules
from seqgan_env.games import make_game, oracle_game, text_game
from seqgan_env.rewards.controls import ConstantReward
from seqgan_env.rewards.registry import ScoringRules
from tests.small import T, V, real_sequences

RULES = GameRules(reward="shaped", n_rollouts=3, reward_model="constant")


def contract(game: SequenceGame) -> tuple[str, int, int | None]:
    return game.reward, game.n_rollouts, game.retrain_every


def test_rules_and_their_fields_as_keywords_make_the_same_game() -> None:
    games = [
        make_game(V, T, real_sequences(), rules=RULES),
        oracle_game(T, V, rules=RULES),
        text_game(["a b", "b"], rules=RULES),
        make_game(V, T, real_sequences(), reward="shaped", n_rollouts=3, reward_model="constant"),
    ]
    for game in games:
        assert contract(game) == ("shaped", 3, None)
        assert isinstance(game.reward_model, ConstantReward)


def test_environments_take_rules_by_their_id() -> None:
    arguments: Any = {"sequence_length": T, "vocab_size": V, "rules": RULES}
    for env in (gym.make("SeqGAN/Oracle-v0", **arguments), gym.make_vec("SeqGAN/Oracle-v0", 2, **arguments)):
        assert contract(env.unwrapped.game) == ("shaped", 3, None)


def test_a_keyword_goes_before_the_rules() -> None:
    assert contract(make_game(V, T, real_sequences(), rules=RULES, n_rollouts=5)) == ("shaped", 5, None)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_rolouts'"):
        make_game(V, T, real_sequences(), n_rolouts=5)


def test_games_and_settings_have_one_default_for_each_option() -> None:
    made = SequenceGame(V, T, real_sequences(), ConstantReward())
    assert contract(made) == contract(make_game(V, T, real_sequences())) == (GameRules.reward, GameRules.n_rollouts, None)
    for field in dataclasses.fields(ScoringRules):
        assert getattr(AdversarialConfig(), field.name) == getattr(GameRules(), field.name)
