"""The discriminator that knows both densities: against its equation, in the game, and in training."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agents.experiment.make_task import Task, judge_discriminator
from seqgan_env import SequenceEnv, SequenceVectorEnv
from seqgan_env.game import SequenceGame
from seqgan_env.games import make_game, text_game
from seqgan_env.inspection.tracing import trace_batch
from seqgan_env.models.generators import GeneratorConfig, make_generator
from seqgan_env.models.sampling import Mask
from seqgan_env.models.token_model import TokenModel
from seqgan_env.rewards.controls import ConstantReward
from seqgan_env.rewards.density_ratio import DensityRatioConfig, DensityRatioReward, policy_log_prob
from seqgan_env.rewards.mixture import MixtureReward
from seqgan_env.rewards.monte_carlo import UniformPolicy
from seqgan_env.rewards.reward_model import LearningRewardModel, learns
from seqgan_env.support.errors import NumericalFault
from seqgan_env.support.process_group import Workers
from seqgan_env.support.state_dicts import detached
from tests.small import END, T, V, episodes, no_repeats, real_sequences, seeded, small_policy

SMALL = DensityRatioConfig(n_models=2, model=GeneratorConfig(embedding_dim=4, hidden_dim=4, dropout=0.3), batch_size=8)
LEARNER = GeneratorConfig(embedding_dim=8, hidden_dim=8)
LENGTHS = torch.full((20,), T)


def ratio(policy: Any = None, seed: int = 0, *, mask: Mask | None = None, end: int | None = None, **config: Any) -> Any:
    settings = DensityRatioConfig(**{**vars(SMALL), **config})
    policy = policy if policy is not None else small_policy(9)
    return DensityRatioReward(V, T, policy, settings, end_token=end, mask=mask, seed=seed)


def ratio_game(reward: Any = "rollout", policy: TokenModel | None = None, **changes: Any) -> SequenceGame:
    rules = {"reward": reward, "reward_model": "density-ratio", "density_ratio": SMALL} | changes
    game = make_game(V, T, real_sequences(), **rules)
    game.attach_policy(policy or small_policy(9))
    return game


class Half(Workers):
    """The first of two workers; the other adds nothing."""

    count = 2


def test_each_worker_learns_from_its_rows() -> None:
    """`tests.experiment.test_torchrun` tests several together."""
    model, seen = ratio(n_models=1), []
    model.share_work(Half())
    learner = model.density.models[-1]
    hidden = learner.hidden
    learner.hidden = lambda tokens: seen.append(len(tokens)) or hidden(tokens)  # type: ignore[func-returns-value]
    model.fit(real_sequences(), real_sequences(seed=8))
    assert set(seen) == {4, 2}


class Steps:
    """A policy with no method but `step`, such as one of another library."""

    def __init__(self, model: TokenModel) -> None:
        self.initial_state = model.initial_state
        self.step = model.step


def test_has_what_the_game_uses() -> None:
    model, tokens = ratio(), real_sequences(3)
    assert isinstance(model, LearningRewardModel)
    assert learns(model)
    lengths = (tokens < V).sum(dim=1)
    for scores in (model.token_scores(tokens, lengths).sum(dim=1), model.log_odds(tokens)):
        torch.testing.assert_close(scores, model.score(tokens, lengths))
    policy = small_policy(1)
    model.attach_policy(policy)
    assert model.policy is policy
    workers = Workers()
    model.share_work(workers)
    assert model.workers is workers


def test_scores_by_hand() -> None:
    """Along each sequence, with single steps: the mean of two members' probabilities over the policy's."""
    policy, tokens = small_policy(9), real_sequences()
    model = ratio(policy)
    scores = model.token_scores(tokens, LENGTHS)
    for row, sequence in enumerate(tokens.tolist()):
        states = [member.initial_state(1) for member in (*model.density.members, policy)]
        last = V
        for position, token in enumerate(sequence):
            read = [
                member.step(torch.tensor([last]), state)
                for member, state in zip((*model.density.members, policy), states, strict=True)
            ]
            first, second, own = (torch.softmax(logits.double(), dim=-1)[0, token].item() for logits, _ in read)
            assert scores[row, position].item() == pytest.approx(np.log((first + second) / 2 / own), abs=1e-5)
            states, last = [state for _, state in read], token
    assert torch.allclose(model.score(tokens, LENGTHS), scores.sum(dim=1))
    assert torch.allclose(model.probability(tokens), torch.sigmoid(scores.sum(dim=1)))


def test_another_policy_changes_only_the_denominator() -> None:
    model, tokens, other = ratio(small_policy(9)), real_sequences(), small_policy(8)
    before = model.token_scores(tokens, LENGTHS)
    model.attach_policy(other)
    change = model.token_scores(tokens, LENGTHS) - before
    expected = small_policy(9).log_prob(tokens) - other.log_prob(tokens)
    assert torch.allclose(change, expected.float(), atol=1e-5)
    assert change.abs().max() > 0.1


def test_a_policy_with_step_alone_has_the_same_density() -> None:
    policy, tokens = small_policy(9), real_sequences()
    assert torch.allclose(policy_log_prob(Steps(policy), tokens, V), policy.log_prob(tokens))
    uniform = policy_log_prob(UniformPolicy(V), tokens, V)
    assert torch.allclose(uniform, torch.full((20, T), -np.log(V), dtype=torch.float32))


def test_a_mask_renormalises_the_policy() -> None:
    tokens = torch.tensor([[0, 1, 2, 3, 4], [5, 3, 1, 0, 2]])
    masked = policy_log_prob(small_policy(9), tokens, V, no_repeats)
    probabilities = torch.softmax(small_policy(9).logits(tokens), dim=-1)
    for row, position in itertools.product(range(2), range(T)):
        allowed = torch.from_numpy(no_repeats(tokens[row, :position].numpy()))
        share = probabilities[row, position, tokens[row, position]] / probabilities[row, position, allowed].sum()
        assert masked[row, position].exp().item() == pytest.approx(share.item())
    assert not torch.allclose(masked[:, 1:], small_policy(9).log_prob(tokens)[:, 1:], atol=0.01)


def test_padding_has_no_score() -> None:
    model = ratio(small_policy(9, end_token=END), end=END)
    tokens = torch.tensor([[0, END, V, V, V], [1, 3, 4, 0, 5]])
    for policy in (small_policy(9, end_token=END), Steps(small_policy(9, end_token=END))):
        model.attach_policy(policy)
        scores = model.token_scores(tokens, torch.tensor([2, T]))
        assert torch.equal(scores[0, 2:], torch.zeros(3).to(scores.dtype))
        assert (scores[0, :2] != 0).all()
        assert (scores[1] != 0).all()


def test_the_expected_score_is_minus_the_divergence() -> None:
    """Over all sequences of three tokens out of three: the sum of q log(p / q), and of p / q under q, which is 1."""
    policy = small_policy(1, vocab_size=3)
    model = DensityRatioReward(3, 3, policy, SMALL)
    every = torch.tensor(list(itertools.product(range(3), repeat=3)))
    q = policy.log_prob(every).sum(dim=1).exp()
    p = model.density.log_prob(every).sum(dim=1).exp().double()
    scores = model.score(every, torch.full((27,), 3)).double()
    assert q.sum().item() == pytest.approx(1)
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    assert (q * scores).sum().item() == pytest.approx(-(q * (q / p).log()).sum().item(), abs=1e-5)
    assert (q * scores.exp()).sum().item() == pytest.approx(1, abs=1e-5)
    assert (q * scores).sum() < -0.01


@pytest.mark.parametrize("end", [None, END])
@pytest.mark.parametrize("reward", ["terminal", "rollout", "shaped"])
def test_single_steps_and_whole_batches_earn_the_same(reward: Any, end: int | None) -> None:
    game = ratio_game(reward, small_policy(9, end_token=end), end_token=end)
    tokens = episodes(game, 3)
    lengths = (tokens < V).sum(dim=1)
    batch = SequenceVectorEnv(game, 3, autoreset_mode="SameStep")
    batch.reset(seed=0)
    played = batch.play(tokens).rewards
    single = SequenceEnv(game)
    for row, length in enumerate(lengths.tolist()):
        single.reset(seed=row)
        rewards = [float(single.step(token)[1]) for token in tokens[row, :length].numpy()]
        assert rewards == pytest.approx(played[row, :length].tolist(), abs=1e-5)
    scores = game.reward_model.token_scores(tokens, lengths)  # type: ignore[attr-defined]
    if reward == "terminal":
        assert played.sum(dim=1).tolist() == pytest.approx(scores.sum(dim=1).tolist(), abs=1e-5)
        assert (played != 0).sum().item() == 3
    else:
        assert torch.allclose(played, scores.to(played.dtype), atol=1e-5)
        assert not torch.allclose(played[:, 1:], scores[:, :-1].to(played.dtype), atol=1e-3)  # not of the token before


def test_rows_at_different_positions_earn_their_own_scores() -> None:
    game = ratio_game("shaped", small_policy(9, end_token=END), end_token=END)
    env = SequenceVectorEnv(game, 2, autoreset_mode="SameStep")
    env.reset(seed=0)
    rewards = [env.step(np.array(actions))[1] for actions in ([END, 0], [3, 1], [4, 3])]
    first = game.reward_model.token_scores(torch.tensor([[END, V, V, V, V], [3, 4, V, V, V]]), torch.tensor([1, 2]))  # type: ignore[attr-defined]
    assert [reward[0] for reward in rewards] == pytest.approx([*first[0, :1].tolist(), *first[1, :2].tolist()], abs=1e-5)


@pytest.mark.parametrize("reward", ["terminal", "rollout", "shaped"])
def test_a_trace_has_the_earned_rewards(reward: Any) -> None:
    game, policy = ratio_game(reward), small_policy(9)
    traces = trace_batch(game, policy, 2, seed=3)
    tokens = torch.tensor([trace.tokens for trace in traces])
    env = SequenceVectorEnv(game, 2, autoreset_mode="SameStep")
    env.reset(seed=3)
    played = env.play(tokens).rewards
    for trace, row in zip(traces, played.tolist(), strict=True):
        assert [step.reward for step in trace.steps] == pytest.approx(row, abs=1e-5)
        assert not any(step.completions for step in trace.steps)
        assert trace.sequence_reward == pytest.approx(
            game.reward_model.score(torch.tensor([trace.tokens]), torch.tensor([T])).item(), abs=1e-5
        )


def test_the_start_joins_at_the_first_fit_and_stays_unchanged() -> None:
    generator, real = small_policy(9).float(), real_sequences()
    model, alone = ratio(generator), ratio(generator, with_start=False)
    assert torch.equal(model.score(real, LENGTHS), alone.score(real, LENGTHS))
    for one in (model, alone):
        one.fit(real, real)
    start = generator.log_prob(real)
    own = alone.density.log_probs(real)  # the models learn alike in both
    with torch.no_grad():
        generator.output.weight += 1.0
    model.fit(real, real)
    expected = torch.stack([start, *own]).exp().mean(dim=0).log()
    first, *learning = model.density.log_probs(real)
    assert torch.allclose(first, start)
    assert not torch.allclose(torch.stack(learning), torch.stack(own), atol=1e-4)
    again = ratio(small_policy(9).float())
    again.fit(real, real)
    assert torch.allclose(again.density.log_prob(real), expected, atol=1e-5)
    assert ratio(UniformPolicy(V)).fit(real, real)["nll"] > 0  # which is no generator, and does not join


@pytest.mark.rounding
def test_learns_real_sequences() -> None:
    real = torch.arange(T).expand(200, T) % V
    model = ratio(learning_rate=0.03, model=LEARNER, with_start=False)
    history = [model.fit(real, real_sequences())["nll"] for _ in range(6)]
    assert history[-1] < 0.3 < history[0]
    assert model.probability(real[:1]).item() > 0.99
    assert (model.probability(real_sequences()) < 0.5).float().mean() > 0.9


def test_learns_nothing_from_generated_sequences() -> None:
    real, written = real_sequences(), small_policy(9).sample(20, T, seeded())[0]
    scores = []
    for generated in (real, written):
        model = ratio()
        model.fit(real, generated)
        scores.append(model.score(real, LENGTHS))
    assert torch.equal(*scores)


def test_the_step_size_falls_with_each_fit() -> None:
    model = ratio(learning_rate=0.01, learning_rate_decay=0.5)
    model.fit(real_sequences(), real_sequences())
    model.fit(real_sequences(), real_sequences())
    assert model.optimizer.param_groups[0]["lr"] == pytest.approx(0.0025)


def test_the_same_seed_learns_the_same_and_can_be_resumed() -> None:
    real, score = real_sequences(), lambda model: model.score(real_sequences(), LENGTHS)
    whole, other, first = ratio(), ratio(seed=1), ratio()
    for model in (whole, other):
        model.fit(real, real)
        model.fit(real, real)
    first.fit(real, real)
    second = ratio(seed=5)
    second.load_training_state(detached(first.training_state()))
    second.fit(real, real)
    assert torch.equal(score(whole), score(second))
    assert not torch.equal(score(whole), score(other))


def test_a_state_before_the_first_fit_has_no_start() -> None:
    model = ratio(with_start=True)
    before, scores = detached(model.training_state()), model.score(real_sequences(), LENGTHS)
    model.fit(real_sequences(), real_sequences())
    model.load_training_state(before)
    assert model.start is None
    assert torch.equal(model.score(real_sequences(), LENGTHS), scores)


def test_tokens_beyond_the_length_have_no_score() -> None:
    tokens = torch.tensor([[1, 2, 3, 1, 2]] * 2)
    scores = ratio().token_scores(tokens, torch.tensor([2, T]))
    assert scores.dtype == torch.float32
    assert scores[0, 2:].tolist() == [0] * (T - 2)
    assert torch.equal(scores[0, :2], scores[1, :2])
    assert (scores[1] != 0).all()


def test_models_differ_from_a_generator_with_the_same_seed() -> None:
    model = make_generator(SMALL.model, V, sequence_length=T, generator=seeded(3))
    assert not any(torch.equal(own.output.weight, model.output.weight) for own in ratio(seed=3).density.models)


def test_members_differ_from_each_other() -> None:
    first, second = ratio().density.log_probs(real_sequences())
    assert not torch.allclose(first, second, atol=0.01)


def test_a_mixture_of_rewards_passes_the_policy_on() -> None:
    model = ratio(small_policy(9))
    mixed = MixtureReward([(0.5, model), (0.5, ConstantReward())])
    game = SequenceGame(V, T, real_sequences(), mixed, reward="rollout", n_rollouts=2)
    policy = small_policy(8)
    game.attach_policy(policy)
    assert model.policy is policy
    expected = 0.5 * ratio(policy).score(real_sequences(), LENGTHS) + 0.25
    assert torch.allclose(mixed.score(real_sequences(), LENGTHS), expected)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="precision must be one of"):
        ratio(precision="low")
    for name in ("n_models", "batch_size", "epochs"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            ratio(**{name: 0})
    for name in ("learning_rate", "learning_rate_decay", "max_grad_norm"):
        with pytest.raises(ValueError, match=f"{name} must be above 0, got -1"):
            ratio(**{name: -1})
    with pytest.raises(ValueError, match="got 20 and 0"):
        ratio().fit(real_sequences(), real_sequences()[:0])


def test_a_nan_loss_ends_the_fit() -> None:
    model = ratio()
    with torch.no_grad():
        model.density.members[0].output.weight[0, 0] = torch.nan
    with pytest.raises(NumericalFault, match="a fit of the density ratio"):
        model.fit(real_sequences(), real_sequences())


def test_is_measured_on_unseen_sequences() -> None:
    """By hand: a confident discriminator that is right about all real and a quarter of the generated sequences."""

    class Sure(ConstantReward):
        def log_odds(self, tokens: Tensor) -> Tensor:
            return torch.where(tokens[:, 0] == 0, -3.0, 3.0)

        def probability(self, tokens: Tensor) -> Tensor:
            return torch.sigmoid(self.log_odds(tokens))

    game = make_game(V, T, real_sequences(), reward_model=Sure())
    real, written = torch.ones(4, T, dtype=torch.int64), torch.tensor([[0] * T] + [[1] * T] * 3)
    task = Task(game, real, {}, (), lambda *_: {})
    right, wrong = np.log1p(np.exp(-3)), np.log1p(np.exp(3))
    found = judge_discriminator(task, written)
    assert found["discriminator_accuracy"] == pytest.approx((1 + 0.25) / 2)
    assert found["discriminator_loss"] == pytest.approx((right + (right + 3 * wrong) / 4) / 2)
    assert judge_discriminator(Task(make_game(V, T, real, reward_model="constant"), real, {}, (), lambda *_: {}), real) == {}


def test_plays_a_text() -> None:
    game = text_game(["a b c", "b c", "c a b a"] * 4, reward_model="density-ratio", density_ratio=SMALL, reward="shaped")
    env = SequenceVectorEnv(game, 4, autoreset_mode="SameStep")
    env.reset(seed=0)
    assert np.isfinite(game.retrain(game.real_sequences)["nll"])
    played = env.play(game.real_sequences[:4])
    assert torch.isfinite(played.rewards).all()
    assert played.info["discriminator_probability"].shape == (4,)
