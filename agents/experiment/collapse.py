"""Detect a generator that collapses onto few sequences or one length, and keep the best generator."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from seqgan_env.support.settings import Range, UnitFloat, check_settings


@dataclass(frozen=True)
class CollapseConfig:
    """Limits for warnings about collapse, each relative to the start of the adversarial phase."""

    unique: UnitFloat = 0.8
    """Warn if the share of distinct samples falls below this fraction of its start."""
    entropy: UnitFloat = 0.75
    """Warn if the policy's entropy falls below this fraction of its start."""
    nll_test: Annotated[float, Range(least=0)] = 0.3
    """Warn if NLL_test rises by more than this, in nats per token."""
    length: Annotated[float, Range(least=0)] = 0.1
    """Warn if the mean length moves away from that of real sequences by more than this share of it."""
    stop: bool = False
    """End the adversarial phase at the first warning."""


class CollapseAlarm:
    """Compares metrics with those at the start, and reports each kind of collapse once.

    It uses these metrics, if given: `unique`, the share of distinct samples; `entropy` of the policy in nats per token, which
    the mean NLL of its own samples estimates; `nll_test` of held-out sequences in nats per token; `length`, the mean length of
    samples divided by that of real sequences; and `full_length`, the share of samples with maximal length, for its message.

    Args:
        config: when to warn, and whether to stop.
        start: metrics at the start of the adversarial phase; by default those of the first `check`.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(self, config: CollapseConfig = CollapseConfig(), start: Mapping[str, float] | None = None) -> None:
        check_settings(config)
        self.config = config
        self._start = None if start is None else dict(start)
        self._told: list[str] = []

    @property
    def should_stop(self) -> bool:
        """Whether it has warned, and should then end the training."""
        return self.config.stop and bool(self._told)

    def check(self, metrics: Mapping[str, float], step: int) -> list[str]:
        """Messages about new kinds of collapse.

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
        """Whether a metric has worsened by more than the limit; NaN counts as worse."""
        if kind == "nll_test":
            return not now <= before + self.config.nll_test
        if kind == "length":
            return not abs(now - 1) <= abs(before - 1) + self.config.length
        return not now >= (self.config.unique if kind == "unique" else self.config.entropy) * before

    def training_state(self) -> dict[str, Any]:
        """The start's metrics and the reported kinds; see `seqgan_env.support.state_dicts`."""
        return {"start": self._start, "told": list(self._told)}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned."""
        self._start = None if state["start"] is None else dict(state["start"])
        self._told = list(state["told"])


_MESSAGES = {
    "unique": "only {now:.0%} of the samples are distinct ({before:.0%} at the start of the adversarial phase)",
    "entropy": (
        "the policy's entropy is {now:.2f} nats per token ({before:.2f} at the start of the adversarial phase): it is nearly "
        "deterministic"
    ),
    "nll_test": (
        "NLL_test is {now:.2f} nats per token ({before:.2f} at the start of the adversarial phase): the generator no longer "
        "covers the held-out sequences"
    ),
    "length": (
        "samples are on average {now:.2f} times as long as real sequences ({before:.2f} at the start of the adversarial phase)"
    ),
}
_AT_LIMIT = ", and {now:.0%} of them have the maximal length ({before:.0%})"
_ADVICE = (
    ". The generator is collapsing. Lower --adversarial.learning-rate, raise --adversarial.entropy-coef or "
    "--adversarial.likelihood-steps, or use --adversarial.baseline leave-one-out if there is none; --collapse.stop ends "
    "the adversarial phase here and keeps the best generator."
)


def criterion(metrics: Mapping[str, float]) -> float:
    """One number for a generator's quality and coverage together; lower is better.

    With an oracle NLL_oracle + NLL_test, in nats per token; for text Self-BLEU-4 - BLEU-4.

    Raises:
        ValueError: neither pair of metrics is given.
    """
    if metrics.keys() >= {"nll_oracle", "nll_test"}:
        return metrics["nll_oracle"] + metrics["nll_test"]
    if metrics.keys() >= {"bleu_4", "self_bleu_4"}:
        return metrics["self_bleu_4"] - metrics["bleu_4"]
    raise ValueError(f"The best generator is chosen by nll_oracle + nll_test or self_bleu_4 - bleu_4, got {sorted(metrics)}.")


class BestKeeper:
    """Saves the generator whenever its `criterion` is the best so far.

    Args:
        save: writes the current generator.
    """

    def __init__(self, save: Callable[[], None]) -> None:
        self._save = save
        self.best = math.inf
        """The lowest criterion so far."""
        self.step: int | None = None
        """The update after which it was measured; None before the first."""

    def offer(self, metrics: Mapping[str, float], step: int) -> bool:
        """Save the generator if it is the best so far, and return whether it is. A NaN criterion never is."""
        value = criterion(metrics)
        if not value < self.best:
            return False
        self.best, self.step = value, step
        self._save()
        return True

    def training_state(self) -> dict[str, Any]:
        """The best result so far; see `seqgan_env.support.state_dicts`."""
        return {"best": self.best, "step": self.step}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned."""
        self.best, self.step = state["best"], state["step"]
