"""Warn when the discriminator no longer teaches: it is nearly always right, or it only guesses."""

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.logger import Logger
from tqdm.auto import tqdm

_ALWAYS_RIGHT = 0.995
_CHANCE, _MARGIN = 0.5, 0.01


class DiscriminatorWatch:
    """Watches the discriminator's accuracy after each retraining.

    Args:
        patience: how many retrainings in a row a state must last to be reported.

    Raises:
        ValueError: patience is below 1.
    """

    def __init__(self, patience: int = 20) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1 retraining, got {patience}.")
        self.patience = patience
        self._state: str | None = None
        self._in_a_row = 0

    def note(self, metrics: Mapping[str, float], logger: Logger) -> None:
        """Log the metrics of a retraining, and print the message of `check` about the accuracy, if any."""
        for name, value in metrics.items():
            logger.record(f"discriminator/{name}", value)
        message = self.check(metrics["accuracy"]) if "accuracy" in metrics else None
        if message is not None:
            tqdm.write(message)

    def check(self, accuracy: float) -> str | None:
        """Record an accuracy in [0, 1]; return a message once a state has lasted for `patience` retrainings, else None.

        A state that lasts is reported once; one that comes back is reported again.
        """
        state = _state_of(accuracy)
        self._in_a_row = self._in_a_row + 1 if state == self._state else 1
        self._state = state
        if state is None or self._in_a_row != self.patience:
            return None
        return _MESSAGES[state].format(n=self.patience, accuracy=accuracy)

    def training_state(self) -> dict[str, Any]:
        """The last state and its duration; see `seqgan_env.support.state_dicts`."""
        return {"state": self._state, "in_a_row": self._in_a_row}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned."""
        self._state, self._in_a_row = state["state"], state["in_a_row"]


def _state_of(accuracy: float) -> str | None:
    if accuracy >= _ALWAYS_RIGHT:
        return "always right"
    # An accuracy is a share of counted sequences: do not let rounding put 0.51 outside.
    return "chance" if abs(accuracy - _CHANCE) <= _MARGIN + 1e-9 else None


_MESSAGES = {
    "always right": (
        "The discriminator was right about nearly every sequence in {n} retrainings in a row (now {accuracy:.1%}). It "
        "separates real from generated sequences so easily that its rewards hardly differ between better and worse ones, so "
        "the generator has little to learn from. Let it learn less (a smaller --discriminator.learning-rate, fewer "
        "--adversarial.d-steps, more dropout), scale the reward as log (--adversarial.scaling log), or pretrain the generator "
        "for longer."
    ),
    "chance": (
        "The discriminator was at chance in {n} retrainings in a row (now {accuracy:.1%}): it cannot tell generated sequences "
        "from real ones, and its rewards are noise to the generator. Unless the generator is perfect, let the discriminator "
        "learn more (a larger --discriminator.learning-rate, more --adversarial.d-steps or --adversarial.n-generated), or "
        "make it larger (--discriminator.n-filters). Data with little variety can cause this, too."
    ),
}
