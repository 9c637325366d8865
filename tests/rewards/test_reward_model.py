"""The base class of reward models, and the adapter for any object with `score`."""

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from seqgan_env.rewards.bleu import BleuReward
from seqgan_env.rewards.controls import ConstantReward, RandomReward
from seqgan_env.rewards.custom import FunctionReward
from seqgan_env.rewards.discriminator import DiscriminatorReward
from seqgan_env.rewards.mixture import MixtureReward, ObjectiveMixture
from seqgan_env.rewards.reward_model import LearningRewardModel, RewardModel, adapt, learns
from seqgan_env.rewards.text_cnn import TextCNN
from seqgan_env.support.process_group import Workers
from tests.small import SMALL_CNN, Ordinal, Recorder, T, V, real_sequences, small_discriminator, small_game, small_policy

TOKENS = torch.tensor([[0, 1, 2, 3, 4], [5, 5, V, V, V], [3, V, V, V, V]])
LENGTHS = torch.tensor([5, 2, 1])


@pytest.mark.parametrize(
    ("model", "learning"),
    [
        (small_discriminator(), True),
        (BleuReward(TOKENS, V), False),
        (FunctionReward(lambda sequences: []), False),
        (ConstantReward(), False),
        (RandomReward(), False),
    ],
)
def test_reward_models_and_those_that_learn(model: RewardModel, learning: bool) -> None:
    assert isinstance(model, RewardModel)
    assert isinstance(model, LearningRewardModel) is learning
    assert learns(model) is learning
    assert learns(MixtureReward([(1.0, ConstantReward()), (0.5, ObjectiveMixture(ConstantReward(), model, 0.3))])) is learning


class TestTheDefaults:
    """A model that defines only `score`."""

    def test_do_nothing(self) -> None:
        model = ConstantReward(2.0)
        assert model.score_completions(TOKENS, LENGTHS).tolist() == [2.0] * 3
        assert model.token_scores(TOKENS, LENGTHS) is None
        assert model.log_odds(TOKENS) is None
        assert model.probability(TOKENS) is None
        assert model.training_state() is None
        assert model.parts == (model,)
        assert model.unwrapped is model
        assert model.networks() == {}
        model.attach_policy(small_policy())
        model.share_work(Workers())
        model.load_training_state({})
        with pytest.raises(TypeError, match=r"ConstantReward does not learn: it has no fit\(real, generated\)"):
            model.fit(TOKENS, TOKENS)

    def test_need_a_score(self) -> None:
        with pytest.raises(TypeError, match="score"):
            RewardModel()  # type: ignore[abstract]

    def test_a_model_with_fit_learns(self) -> None:
        class Fits(ConstantReward):
            def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
                return {"fits": 1.0}

        assert Fits().learns
        assert small_game(reward_model=Fits(), retrain_every=3).retrain(real_sequences()) == {"fits": 1.0}

    def test_the_probability_follows_from_the_odds(self) -> None:
        class Sure(ConstantReward):
            def log_odds(self, tokens: Tensor) -> Tensor:
                return torch.full((len(tokens),), 3.0)

        info = small_game(reward_model=Sure()).final_info(TOKENS, LENGTHS)
        assert info["discriminator_probability"].tolist() == pytest.approx([torch.tensor(3.0).sigmoid().item()] * 3)


class Full(Recorder):
    """An object without the base class, with every optional method."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def score_completions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.full((len(tokens),), 7.0)

    def token_scores(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.ones(tokens.shape)

    def attach_policy(self, policy: Any) -> None:
        self.told.append(policy)

    def share_work(self, workers: Any) -> None:
        self.told.append(workers)

    def log_odds(self, tokens: Tensor) -> Tensor:
        return torch.zeros(len(tokens))

    def probability(self, tokens: Tensor) -> Tensor:
        return torch.full((len(tokens),), 0.5)

    def training_state(self) -> dict[str, Any]:
        return {"fits": len(self.fits)}

    def load_training_state(self, state: Any) -> None:
        self.told.append(state)


class TestTheAdapter:
    def test_leaves_reward_models_unchanged(self) -> None:
        model = ConstantReward()
        assert adapt(model) is model

    def test_uses_every_method_that_an_object_has(self) -> None:
        custom, policy, workers = Full(), small_policy(), Workers()
        model = adapt(custom)
        assert model.unwrapped is custom
        assert torch.equal(model.score(TOKENS, LENGTHS), Ordinal().score(TOKENS, LENGTHS))
        assert model.score_completions(TOKENS, LENGTHS).tolist() == [7.0] * 3
        assert torch.equal(model.token_scores(TOKENS, LENGTHS), torch.ones(3, T))  # type: ignore[arg-type]
        assert model.log_odds(TOKENS).tolist() == [0.0] * 3  # type: ignore[union-attr]
        assert model.probability(TOKENS).tolist() == [0.5] * 3  # type: ignore[union-attr]
        assert model.learns
        assert model.fit(TOKENS, TOKENS) == {"fits": 1.0}
        assert model.training_state() == {"fits": 1}
        model.attach_policy(policy)
        model.share_work(workers)
        model.load_training_state({"fits": 1})
        assert custom.told == [policy, workers, {"fits": 1}]

    def test_has_defaults_for_missing_methods(self) -> None:
        model = adapt(Ordinal())
        assert torch.equal(model.score_completions(TOKENS, LENGTHS), Ordinal().score(TOKENS, LENGTHS))
        assert model.token_scores(TOKENS, LENGTHS) is None
        assert model.probability(TOKENS) is None
        assert model.training_state() is None
        assert not model.learns
        with pytest.raises(TypeError, match="Ordinal does not learn"):
            model.fit(TOKENS, TOKENS)

    @pytest.mark.parametrize("name", ["training_state", "load_training_state", "log_odds", "probability"])
    def test_uses_paired_methods_only_as_pairs(self, name: str) -> None:
        half = type("Half", (Ordinal,), {name: vars(Full)[name], "told": []})()
        model = adapt(half)
        assert model.training_state() is None
        assert model.probability(TOKENS) is None

    def test_is_made_of_any_object_with_a_score(self) -> None:
        spaced = SimpleNamespace(score=lambda tokens, lengths: lengths.float())
        assert small_game(reward_model=spaced).action_values(TOKENS[1:2], LENGTHS[1:2], LENGTHS[1:2], range(T)).sum() == 0
        assert adapt(spaced).score(TOKENS, LENGTHS).tolist() == [5, 2, 1]
        with pytest.raises(TypeError, match=r"A reward model needs score\(tokens, lengths\); object lacks it"):
            small_game(reward_model=object())

    def test_does_not_show_outside_the_game(self) -> None:
        custom, other = Recorder(), Recorder()
        game = small_game(reward_model=custom)
        assert game.reward_model is custom
        game.reward_model = other
        assert game.reward_model is other
        game.retrain(real_sequences())
        assert (len(custom.fits), len(other.fits)) == (0, 1)

    def test_is_copied_with_the_game(self) -> None:
        game = small_game(reward_model=Recorder())
        for copied in (copy.deepcopy(game), pickle.loads(pickle.dumps(game))):
            copied.retrain(real_sequences())
            assert len(copied.reward_model.fits) == 1
        assert game.reward_model.fits == []  # type: ignore[attr-defined]


class Always(DiscriminatorReward):
    """A custom reward that redefines only `score`."""

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.full((len(tokens),), 7.0)


class FullAlways(Full):
    """The same without a base class."""

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.full((len(tokens),), 8.0)


class Mixed(ConstantReward, DiscriminatorReward):
    """Inherits its score from one class, and a faster form from another."""

    def __init__(self) -> None:
        super().__init__(9.0)


def test_a_custom_score_scores_completions_too() -> None:
    discriminator = TextCNN(V, T, SMALL_CNN)
    plain, custom = DiscriminatorReward(discriminator), Always(discriminator)
    tokens = real_sequences(3, 0)
    lengths = tokens[:, 0]
    for model, expected in ((custom, 7), (adapt(FullAlways()), 8), (Mixed(), 9)):
        assert (model.score_completions(tokens, lengths) == expected).all()
    mixture = MixtureReward([(1.0, custom), (2.0, plain)])
    torch.testing.assert_close(mixture.score_completions(tokens, lengths), 7 + 2 * plain.score(tokens, lengths))


class Twice(Always):
    """A custom score with its own faster form."""

    def score_completions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return torch.full((len(tokens),), 6.0)


def test_a_faster_form_is_used_only_with_its_own_score() -> None:
    assert (Twice(TextCNN(V, T, SMALL_CNN)).score_completions(TOKENS, LENGTHS) == 6).all()
    asked = []

    class Noted(TextCNN):
        def log_odds(self, tokens: Tensor, precision: Any = "highest") -> Tensor:
            asked.append(precision)
            return super().log_odds(tokens, precision)

    model = DiscriminatorReward(Noted(V, T, type(SMALL_CNN)(**{**vars(SMALL_CNN), "precision": "medium"})))
    model.score(TOKENS, LENGTHS)
    model.score_completions(TOKENS, LENGTHS)
    assert asked == ["highest", "medium"]
