"""RankGAN's ranker against its equations, written out over single sequences."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seqgan_env.games import make_game
from seqgan_env.rewards.ranking import RankConfig, RankReward, log_rank, log_rank_of_others
from seqgan_env.rewards.reward_model import LearningRewardModel
from seqgan_env.rewards.text_cnn import TextCNN, TextCNNConfig
from seqgan_env.support.errors import NumericalFault
from seqgan_env.support.state_dicts import detached
from tests.small import SMALL_CNN, T, V, real_sequences, seeded

SETS = RankConfig(gamma=3.0, n_references=4, n_comparisons=5)
TOKENS = torch.tensor([[0, 1, 2, 3, 4], [5, 5, V, V, V], [3, V, V, V, V]])
LENGTHS = torch.tensor([5, 2, 1])


def ranker(real: Tensor | None = None, config: RankConfig = SETS, seed: int = 0, **cnn: Any) -> RankReward:
    encoder = TextCNN(V, T, TextCNNConfig(**{**vars(SMALL_CNN), **cnn}), seed=seed)
    return RankReward(encoder, real_sequences(30) if real is None else real, config, seed=seed)


def drawn(real: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """References and comparison set that a new ranker draws: the first of a shuffled order."""
    order = torch.randperm(len(real), generator=seeded(seed))
    return real[order[:4]], real[order[4:9]]


def rank_by_hand(encoder: TextCNN, sequence: Tensor, references: Tensor, comparisons: Tensor, gamma: float) -> float:
    """R(s|U, C) by the paper's equations, with loops and in float64."""

    def feature(tokens: Tensor) -> list[float]:
        with torch.no_grad():
            return encoder.features(tokens[None])[0].double().tolist()

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    shares = []
    for reference in references:
        u = feature(reference)
        own = math.exp(gamma * cosine(feature(sequence), u))
        shares.append(own / (own + sum(math.exp(gamma * cosine(feature(rival), u)) for rival in comparisons)))
    return sum(shares) / len(shares)


def test_ranks_by_hand() -> None:
    """Two references: shares 2 / (2 + 1) and 1 / (1 + 3), whose mean is 11/24."""
    own, rivals = torch.tensor([[math.log(2), 0.0]]), torch.tensor([0.0, math.log(3)])
    assert log_rank(own, rivals).exp().item() == pytest.approx(11 / 24)
    assert log_rank_of_others(own, rivals).exp().item() == pytest.approx(13 / 24)


def test_ranks_stay_finite_if_one_is_certain() -> None:
    own, rivals = torch.tensor([[500.0], [-500.0]]), torch.tensor([0.0])
    assert log_rank(own, rivals).tolist() == [0, -500]
    assert log_rank_of_others(own, rivals).tolist() == [-500, 0]


@pytest.mark.parametrize("gamma", [0.5, 3.0, 20.0])
def test_the_reward_is_the_papers_log_rank(gamma: float) -> None:
    real = real_sequences(30)
    model = ranker(real, RankConfig(gamma=gamma, n_references=4, n_comparisons=5))
    references, comparisons = drawn(real)
    scores = model.score(TOKENS, LENGTHS).tolist()
    by_hand = [math.log(rank_by_hand(model.encoder, row, references, comparisons, gamma)) for row in TOKENS]
    assert scores == pytest.approx(by_hand, abs=1e-5)
    swapped = [math.log(rank_by_hand(model.encoder, row, comparisons, references, gamma)) for row in TOKENS]
    assert scores != pytest.approx(swapped, abs=1e-5)  # the negative control: the two sets are not alike


def test_equal_sequences_share_the_rank() -> None:
    alike = TOKENS[:1].repeat(20, 1)
    assert ranker(alike).score(alike[:1], LENGTHS[:1]).item() == pytest.approx(-math.log(6), abs=1e-5)


def test_a_score_does_not_depend_on_the_batch() -> None:
    model, tokens = ranker(), real_sequences(600, seed=3)
    lengths = torch.full((600,), T)
    together = model.score(tokens, lengths)
    alone = torch.cat([model.score(row[None], lengths[:1]) for row in tokens[:300:7]])
    torch.testing.assert_close(together[:300:7], alone, rtol=0, atol=1e-5)
    assert together.std() > 0.01
    assert not together.requires_grad


def test_search_and_step_agree() -> None:
    """All positions of a batch at once, as in `play`, and one at a time, as in `step`."""
    rules: Any = {"reward": "rollout", "n_rollouts": 3, "reward_model": "rank", "discriminator": SMALL_CNN, "ranking": SETS}
    game = make_game(V, T, real_sequences(30), **rules)
    tokens, keys = real_sequences(6, seed=5), torch.arange(6)
    whole = game.action_values(tokens, torch.full((6,), T), keys, range(T))
    for position in range(T):
        prefixes = tokens.clone()
        prefixes[:, position + 1 :] = V
        step = game.action_values(prefixes, torch.full((6,), position + 1), keys, range(position, position + 1))
        torch.testing.assert_close(step[:, 0], whole[:, position], rtol=0, atol=1e-5)


def test_the_loss_of_a_step_is_the_papers() -> None:
    """-log R(real|U, C-) - log(1 - R(generated|U, C+)) for one batch that holds everything."""
    real, generated = real_sequences(14, seed=1), real_sequences(14, seed=2)
    model = ranker(epochs=1, batch_size=28)
    before = ranker(epochs=1, batch_size=28).encoder
    generator = seeded(0)
    torch.randperm(30, generator=generator)  # the sets of the construction
    order, other = (torch.randperm(14, generator=generator) for _ in range(2))
    wrapped = real[order.repeat(2)]
    references, positives = wrapped[14:18], wrapped[18:23]
    negatives = generated[other.repeat(2)][14:19]
    ranks = [
        [rank_by_hand(before, row, references, negatives, 3.0) for row in real[order]],
        [rank_by_hand(before, row, references, positives, 3.0) for row in generated[other]],
    ]
    metrics = model.fit(real, generated)
    loss = -sum(map(math.log, ranks[0])) / 14 - sum(math.log(1 - rank) for rank in ranks[1]) / 14
    right = sum(rank > 1 / 6 for rank in ranks[0]) + sum(rank < 1 / 6 for rank in ranks[1])
    assert metrics["loss"] == pytest.approx(loss, abs=1e-4)
    assert metrics["accuracy"] == pytest.approx(right / 28)


@pytest.mark.rounding
@pytest.mark.usefixtures("global_generators_at_rest")
def test_fitting_ranks_real_sequences_above_generated_ones() -> None:
    rng = seeded(4)
    real = torch.randint(3, (60, T), generator=rng)
    generated = torch.randint(3, 6, (45, T), generator=rng)
    lengths = torch.full((60,), T)
    model, twin = ranker(real, epochs=20), ranker(real, epochs=20)
    assert model.fit(real, generated)["accuracy"] > 0.9
    scores = [model.score(real, lengths), model.score(generated, lengths[:45])]
    assert scores[0].min() > scores[1].max()
    twin.fit(real, generated)
    assert torch.equal(twin.score(real, lengths), scores[0])


def test_sets_are_drawn_anew_by_each_fit_and_kept_in_between() -> None:
    model, real = ranker(learning_rate=0.0), real_sequences(30)
    before = model.score(TOKENS, LENGTHS)
    assert torch.equal(model.score(TOKENS, LENGTHS), before)
    model.fit(real, real_sequences(30, seed=9))
    assert not torch.equal(model.score(TOKENS, LENGTHS), before)


def test_training_resumes_from_a_saved_state() -> None:
    model, resumed = ranker(), ranker(seed=1)
    assert isinstance(model, LearningRewardModel)
    real, generated = real_sequences(30), real_sequences(30, seed=9)
    model.fit(real, generated)
    resumed.load_training_state(detached(model.training_state()))
    assert model.fit(real, generated) == resumed.fit(real, generated)
    assert torch.equal(model.score(TOKENS, LENGTHS), resumed.score(TOKENS, LENGTHS))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (RankConfig(n_references=0), "n_references must be at least 1, got 0"),
        (RankConfig(n_comparisons=-1), "n_comparisons must be at least 1, got -1"),
        (RankConfig(gamma=0.0), "gamma must be above 0, got 0.0"),
        (RankConfig(gamma=math.nan), r"gamma must be above 0 and at most 1e\+30, got nan"),
    ],
)
def test_invalid_sizes_of_sets_are_refused(config: RankConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranker(config=config)


def test_missing_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="needs real sequences, got none"):
        ranker(torch.empty(0, T, dtype=torch.int64))
    with pytest.raises(ValueError, match="real and generated sequences, got 3 and 0"):
        ranker().fit(TOKENS, TOKENS[:0])


def test_a_nan_loss_is_reported() -> None:
    model = ranker()
    with torch.no_grad():
        model.encoder.embedding.weight[0, 0] = math.nan
    with pytest.raises(NumericalFault, match="In a fit of the ranker, step 1, the loss is not finite"):
        model.fit(real_sequences(8), real_sequences(8, seed=2))
