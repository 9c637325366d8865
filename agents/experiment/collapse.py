"""Watches training for a generator that collapses, onto few sequences or onto one length, and keeps the best one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from seqgan_env.support.settings import Range, UnitFloat, check_settings


@dataclass(frozen=True)
class CollapseConfig:
    """When to say that the generator collapses, each measured against the start of the adversarial phase."""

    unique: UnitFloat = 0.8
    """Warn when the share of distinct samples is below this much of what it was."""
    entropy: UnitFloat = 0.75
    """Warn when the policy's entropy is below this much of what it was."""
    nll_test: Annotated[float, Range(least=0)] = 0.3
    """Warn when NLL_test is higher than it was by more than this, in nats per token."""
    length: Annotated[float, Range(least=0)] = 0.1
    """Warn when the mean length is farther from that of real sequences than it was, by more than this share of the latter."""
    stop: bool = False
    """End the adversarial phase at the first warning."""


class CollapseAlarm:
    """Compares metrics with those at the start; tells each kind of collapse once.

    The metrics, as far as they are there: `unique`, the share of distinct samples; `entropy` of the policy in nats per token,
    which the mean NLL of its own samples estimates; `nll_test` of held-out sequences in nats per token; `length`, the mean
    length of samples divided by that of real sequences, and `full_length`, the share of samples of maximal length, which its
    message names.

    Args:
        config: when to warn, and whether to stop.
        start: metrics at the start of the adversarial phase; by default those that the first `check` is given.

    Raises:
        ValueError: a setting out of its range.
    """

    def __init__(self, config: CollapseConfig = CollapseConfig(), start: Mapping[str, float] | None = None) -> None:
        check_settings(config)
        self.config = config
        self._start = None if start is None else dict(start)
        self._told: list[str] = []

    @property
    def should_stop(self) -> bool:
        """Whether it has warned, and is to end the training then."""
        return self.config.stop and bool(self._told)

    def check(self, metrics: Mapping[str, float], step: int) -> list[str]:
        """Messages about what has newly collapsed.

        Args:
            metrics: see the class.
            step: the update after which they were measured, for the message.
        """
        if self._start is None:
            self._start = dict(metrics)
        messages = []
        for kind, message in _MESSAGES.items():
            if kind not in self._told and kind in metrics and kind in self._start:
                now, before = metrics[kind], self._start[kind]
                if self._has_collapsed(kind, now, before):
                    self._told.append(kind)
                    told = message.format(now=now, before=before)
                    if kind == "length" and "full_length" in metrics and "full_length" in self._start:
                        told += _AT_LIMIT.format(now=metrics["full_length"], before=self._start["full_length"])
                    messages.append(f"After {step} updates: {told}{_ADVICE}")
        return messages

    def _has_collapsed(self, kind: str, now: float, before: float) -> bool:
        """Whether a metric is worse than it was by more than is allowed; NaN is, too."""
        if kind == "nll_test":
            return not now <= before + self.config.nll_test
        if kind == "length":
            return not abs(now - 1) <= abs(before - 1) + self.config.length
        return not now >= (self.config.unique if kind == "unique" else self.config.entropy) * before

    def training_state(self) -> dict[str, Any]:
        """What it compares with and has told; see `seqgan_env.support.state_dicts`."""
        return {"start": self._start, "told": list(self._told)}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `training_state` was taken down."""
        self._start = None if state["start"] is None else dict(state["start"])
        self._told = list(state["told"])


_MESSAGES = {
    "unique": "only {now:.0%} of the samples are distinct ({before:.0%} at the start of the adversarial phase)",
    "entropy": (
        "the policy's entropy is {now:.2f} nats per token ({before:.2f} at the start of the adversarial phase): it is nearly "
        "certain of what it writes"
    ),
    "nll_test": (
        "NLL_test is {now:.2f} nats per token ({before:.2f} at the start of the adversarial phase): the generator no longer "
        "writes what the held-out sequences have"
    ),
    "length": (
        "samples are {now:.2f} times as long as real sequences in the mean ({before:.2f} at the start of the adversarial "
        "phase)"
    ),
}
_AT_LIMIT = ", and {now:.0%} of them take the maximal length ({before:.0%})"
_ADVICE = (
    ". The generator is collapsing. Lower --adversarial.learning-rate, raise --adversarial.entropy-coef or "
    "--adversarial.likelihood-steps, or take --adversarial.baseline leave-one-out if there is none; --collapse.stop ends "
    "the adversarial phase here and keeps the best generator."
)


def criterion(metrics: Mapping[str, float]) -> float:
    """How good a generator is, quality and coverage together; lower is better.

    With an oracle NLL_oracle + NLL_test, in nats per token; for text Self-BLEU-4 - BLEU-4.

    Raises:
        ValueError: neither pair of metrics is there.
    """
    if metrics.keys() >= {"nll_oracle", "nll_test"}:
        return metrics["nll_oracle"] + metrics["nll_test"]
    if metrics.keys() >= {"bleu_4", "self_bleu_4"}:
        return metrics["self_bleu_4"] - metrics["bleu_4"]
    raise ValueError(f"The best generator is chosen by nll_oracle + nll_test or self_bleu_4 - bleu_4, got {sorted(metrics)}.")


class BestKeeper:
    """Saves a generator whenever it is better, by `criterion`, than all before it.

    Args:
        save: writes the generator as it is.
    """

    def __init__(self, save: Callable[[], None]) -> None:
        self._save = save
        self.best = math.inf
        """The lowest criterion so far."""
        self.step: int | None = None
        """The update after which it was measured; None before the first."""

    def offer(self, metrics: Mapping[str, float], step: int) -> bool:
        """Save the generator if it is the best so far; whether it was. A criterion that is no number is not."""
        value = criterion(metrics)
        if not value < self.best:
            return False
        self.best, self.step = value, step
        self._save()
        return True

    def training_state(self) -> dict[str, Any]:
        """What is best so far; see `seqgan_env.support.state_dicts`."""
        return {"best": self.best, "step": self.step}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Go on where `training_state` was taken down."""
        self.best, self.step = state["best"], state["step"]
