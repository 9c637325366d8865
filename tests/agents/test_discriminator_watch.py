"""When the watch warns that the discriminator no longer teaches the generator."""

import dataclasses

import pytest

from agents.discriminator_watch import DiscriminatorWatch
from agents.experiment.config import AdversarialConfig
from seqgan_env.rewards.text_cnn import TextCNNConfig


def told(accuracies: list[float], patience: int = 3) -> list[int]:
    """The indices of the accuracies at which the watch warns."""
    watch = DiscriminatorWatch(patience)
    return [at for at, accuracy in enumerate(accuracies) if watch.check(accuracy) is not None]


@pytest.mark.parametrize("accuracy", [1.0, 0.999, 0.995, 0.5, 0.49, 0.51])
def test_warns_once_a_state_has_lasted(accuracy: float) -> None:
    assert told([0.8, accuracy, accuracy, accuracy, accuracy, accuracy, accuracy, accuracy]) == [3]


@pytest.mark.parametrize("accuracy", [0.994, 0.9, 0.6, 0.511, 0.489, 0.3, 0.0])
def test_other_accuracies_do_not_warn(accuracy: float) -> None:
    assert told([accuracy] * 20) == []


def test_another_accuracy_in_between_restarts_the_count() -> None:
    assert told([1.0, 1.0, 0.8, 1.0, 1.0, 0.8, 1.0, 1.0, 1.0]) == [8]


def test_always_right_and_at_chance_are_counted_separately() -> None:
    assert told([1.0, 1.0, 0.5, 0.5, 1.0, 1.0]) == []
    assert told([1.0, 1.0, 1.0, 0.5, 0.5, 0.5]) == [2, 5]


def test_a_state_that_returns_warns_again() -> None:
    assert told([0.5, 0.5, 0.5, 0.5, 0.7, 0.5, 0.5, 0.5]) == [2, 7]


@pytest.mark.parametrize(
    ("accuracy", "meaning"),
    [
        (1.0, r"right about nearly every sequence in 2 retrainings in a row \(now 100.0%\)"),
        (0.5, r"at chance .*now 50.0%"),
    ],
)
def test_the_message_says_what_it_means_and_what_to_change(accuracy: float, meaning: str) -> None:
    watch = DiscriminatorWatch(2)
    watch.check(accuracy)
    message = watch.check(accuracy)
    assert message is not None
    with pytest.raises(AssertionError, match=meaning):
        raise AssertionError(message)
    options = [word.strip("(),.:;") for word in message.split() if word.startswith(("--", "(--"))]
    assert len(options) >= 3
    known = {
        f"--{group}.{field.name.replace('_', '-')}"
        for group, config in (("adversarial", AdversarialConfig), ("discriminator", TextCNNConfig))
        for field in dataclasses.fields(config)
    }
    assert set(options) <= known, "the message names a setting that does not exist"


def test_a_watch_without_patience_is_refused() -> None:
    with pytest.raises(ValueError, match="patience must be at least 1 retraining, got 0"):
        DiscriminatorWatch(0)
