"""The collapse alarm: by hand, and on a generator that really collapses beside one that does not."""

import math
from typing import Any

import pytest
import torch

from agents.callbacks import EvaluationCallback
from agents.experiment.collapse import BestKeeper, CollapseAlarm, CollapseConfig, criterion
from agents.reinforce import Reinforce
from seqgan_env import oracle_game
from seqgan_env.metrics.shares import unique_share
from seqgan_env.metrics.temperature import mean_nll
from seqgan_env.models.likelihood import PretrainConfig, pretrain
from seqgan_env.vector_env import SequenceVectorEnv

START = {"unique": 0.97, "entropy": 4.0, "nll_test": 5.0, "length": 1.02, "full_length": 0.16}


# By hand


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (
            {"unique": 0.12},
            "After 40 updates: only 12% of the samples are distinct (97% at the start of the",
        ),
        ({"entropy": 1.234}, "After 40 updates: the policy's entropy is 1.23 nats per token (4.00 at the start"),
        ({"nll_test": 5.678}, "After 40 updates: NLL_test is 5.68 nats per token (5.00 at the start"),
        ({"nll_test": math.nan}, "After 40 updates: NLL_test is nan nats per token"),
        ({"nll_test": math.inf}, "After 40 updates: NLL_test is inf nats per token"),
        (
            {"length": 1.7, "full_length": 0.986},
            "After 40 updates: samples are on average 1.70 times as long as real sequences (1.02 at the start of the "
            "adversarial phase), and 99% of them have the maximal length (16%). The generator",
        ),
        ({"length": 0.5}, "After 40 updates: samples are on average 0.50 times as long as real sequences"),
        ({"length": math.nan}, "After 40 updates: samples are on average nan times as long"),
    ],
)
def test_each_kind_has_its_message(metrics: dict[str, float], expected: str) -> None:
    (message,) = CollapseAlarm(start=START).check(START | metrics, 40)
    assert message.startswith(expected)
    assert "The generator is collapsing. Lower --adversarial.learning-rate" in message


@pytest.mark.parametrize(
    ("kind", "quiet", "ringing"),
    [
        ("unique", 0.5 * 0.97, 0.48),
        ("entropy", 2.0, 1.99),
        ("nll_test", 6.0, 6.01),
        ("length", 1.26, 1.28),
        ("length", 0.74, 0.72),  # the start is 0.02 off
    ],
)
def test_thresholds_are_relative_to_the_start(kind: str, quiet: float, ringing: float) -> None:
    alarm = CollapseAlarm(CollapseConfig(unique=0.5, entropy=0.5, nll_test=1.0, length=0.25), START)
    assert alarm.check(START | {kind: quiet}, 1) == []
    assert len(alarm.check(START | {kind: ringing}, 2)) == 1


def test_each_kind_warns_once() -> None:
    alarm = CollapseAlarm(start=START)
    assert len(alarm.check(START | {"unique": 0.1}, 1)) == 1
    assert alarm.check(START | {"unique": 0.01}, 2) == []
    (message,) = alarm.check({"unique": 0.01, "entropy": 0.1, "nll_test": 5.0}, 3)
    assert "entropy" in message
    assert alarm.check({"unique": 0.01, "entropy": 0.1, "nll_test": 5.0}, 4) == []


def test_the_first_metrics_are_the_start_if_none_are_given() -> None:
    alarm = CollapseAlarm()
    assert alarm.check({"unique": 0.2}, 0) == []
    assert alarm.check({"unique": 0.2, "entropy": 0.0, "bleu_4": 0.0}, 1) == []  # entropy was not measured at the start
    assert len(alarm.check({"unique": 0.1}, 2)) == 1


def test_improvement_is_no_collapse() -> None:
    assert CollapseAlarm(start=START).check({"unique": 1.0, "entropy": 9.0, "nll_test": 1.0}, 1) == []
    assert CollapseAlarm(start=START | {"length": 1.4}).check({"length": 1.0}, 1) == []
    assert CollapseAlarm(start=START | {"length": 0.6}).check({"length": 1.3}, 1) == []


def test_the_share_of_maximal_length_is_named_only_if_it_was_measured() -> None:
    (message,) = CollapseAlarm(start={"length": 1.0}).check({"length": 2.0, "full_length": 1.0}, 1)
    assert "2.00 times as long" in message
    assert "maximal" not in message


@pytest.mark.parametrize("stop", [True, False])
def test_it_stops_only_if_asked_and_only_after_a_warning(stop: bool) -> None:
    alarm = CollapseAlarm(CollapseConfig(stop=stop), START)
    alarm.check(START, 1)
    assert not alarm.should_stop
    alarm.check(START | {"unique": 0.0}, 2)
    assert alarm.should_stop is stop


def test_an_alarm_continues_from_a_saved_state() -> None:
    alarm, resumed = CollapseAlarm(start=START), CollapseAlarm()
    alarm.check(START | {"unique": 0.1}, 1)
    resumed.load_training_state(alarm.training_state())
    assert resumed.check(START | {"unique": 0.1}, 2) == []
    assert len(resumed.check(START | {"entropy": 0.1}, 3)) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"unique": 1.5}, "unique must be at most 1, got 1.5"),
        ({"entropy": -0.1}, "entropy must be at least 0, got -0.1"),
        ({"nll_test": -1.0}, "nll_test must be at least 0, got -1.0"),
        ({"length": -0.1}, "length must be at least 0, got -0.1"),
        ({"unique": math.nan}, "unique must be at least 0 and at most 1, got nan"),
    ],
)
def test_invalid_thresholds_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CollapseAlarm(CollapseConfig(**values))


# The best generator


def test_the_criterion_is_the_sum_of_both_nlls_or_self_bleu_less_bleu() -> None:
    assert criterion({"nll_oracle": 3.0, "nll_test": 2.5, "bleu_4": 9.0, "self_bleu_4": 0.0}) == 5.5
    assert criterion({"nll_test": 2.5, "bleu_4": 0.25, "self_bleu_4": 0.75}) == 0.5
    with pytest.raises(ValueError, match=r"nll_oracle \+ nll_test or self_bleu_4 - bleu_4, got \['nll_test'\]"):
        criterion({"nll_test": 1.0})


def test_each_new_best_is_saved() -> None:
    saved: list[int] = []
    keeper = BestKeeper(lambda: saved.append(step))
    offers = [(3.0, True), (4.0, False), (2.0, True), (2.0, False), (math.nan, False), (1.0, True)]
    for step, (nll, better) in enumerate(offers):
        assert keeper.offer({"nll_oracle": nll, "nll_test": 1.0}, step) is better
    assert saved == [0, 2, 5]
    assert (keeper.best, keeper.step) == (2.0, 5)
    resumed = BestKeeper(saved.clear)
    resumed.load_training_state(keeper.training_state())
    assert not resumed.offer({"nll_oracle": 1.5, "nll_test": 1.0}, 6)


# On a generator


def train(**settings: Any) -> tuple[list[dict[str, float]], list[str], BestKeeper]:
    """Metrics of 60 updates on a tiny oracle, with a constant reward; what the alarm says; what was best."""
    game = oracle_game(6, 12, n_real=1000, reward="rollout", n_rollouts=1, reward_model="constant")
    env = SequenceVectorEnv(game, 32, autoreset_mode="SameStep")
    agent = Reinforce("GeneratorPolicy", env, seed=0, policy_kwargs={"embedding_dim": 8, "hidden_dim": 8}, **settings)
    pretrain(agent.generator, game.real_sequences, PretrainConfig(epochs=3), torch.Generator().manual_seed(0))
    assert game.oracle is not None
    oracle = game.oracle
    held_out, _ = oracle.sample(500, 6, torch.Generator().manual_seed(1))
    history: list[dict[str, float]] = []
    messages: list[str] = []
    alarm, keeper = CollapseAlarm(), BestKeeper(lambda: None)

    def evaluate(step: int) -> None:
        samples, _ = agent.generator.sample(500, 6, torch.Generator().manual_seed(2))
        metrics = {
            "nll_oracle": mean_nll(oracle, samples),
            "nll_test": mean_nll(agent.generator, held_out),
            "entropy": mean_nll(agent.generator, samples),
            "unique": unique_share(samples.numpy()),
        }
        history.append(metrics)
        messages.extend(alarm.check(metrics, step))
        keeper.offer(metrics, step)

    evaluate(0)
    agent.learn(60 * 32 * 6, callback=EvaluationCallback(evaluate, every=10))
    return history, messages, keeper


@pytest.mark.rounding
def test_a_constant_reward_without_a_baseline_at_a_high_learning_rate_rings() -> None:
    history, messages, keeper = train(learning_rate=0.3, baseline="none")
    assert history[-1]["unique"] < 0.6 * history[0]["unique"]
    kinds = [kind for kind in ("distinct", "entropy is", "NLL_test is") if any(kind in message for message in messages)]
    assert kinds == ["distinct", "entropy is", "NLL_test is"]
    assert len(messages) == 3
    assert keeper.step is not None
    assert keeper.step < 60
    assert keeper.best == min(map(criterion, history)) < criterion(history[-1])


@pytest.mark.rounding
def test_a_small_learning_rate_and_a_baseline_do_not_ring() -> None:
    """The control; the entropy bonus makes the generator move all the same."""
    history, messages, _ = train(learning_rate=1e-3, baseline="leave-one-out", ent_coef=0.01)
    assert messages == []
    assert history[-1] != history[0]
