"""What happens between the generator's updates: retraining the discriminator, evaluating, showing progress."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from stable_baselines3.common.callbacks import BaseCallback
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from agents.reinforce import Reinforce


class BetweenUpdatesCallback(BaseCallback):
    """Calls `between_updates(n)` once after the `n`-th update of the model's `learn`."""

    def __init__(self) -> None:
        super().__init__()
        self._updates_before = 0
        self._updates_seen = 0

    def between_updates(self, n_updates: int) -> None:
        """Do what is due after `n_updates` updates, counted from the start of `learn`."""
        raise NotImplementedError

    def _on_training_start(self) -> None:
        self._updates_before = self.model._n_updates
        self._updates_seen = 0

    def _on_rollout_start(self) -> None:
        self._after_update()

    def _on_training_end(self) -> None:
        self._after_update()

    def _after_update(self) -> None:
        n_updates = self.model._n_updates - self._updates_before
        if n_updates > self._updates_seen:  # the last update is followed by both a rollout's start and the training's end
            self._updates_seen = n_updates
            self.between_updates(n_updates)

    def _on_step(self) -> bool:
        return True


class DiscriminatorCallback(BetweenUpdatesCallback):
    """Retrains the reward model on fresh sequences of the generator (paper, Algorithm 1, lines 13 to 16).

    Args:
        g_steps: generator updates between two retrainings.
        d_steps: fits in one retraining, each against newly written sequences.
        n_generated: sequences that the generator writes for each fit.
    """

    model: "Reinforce"

    def __init__(self, g_steps: int = 1, d_steps: int = 5, n_generated: int = 10_000) -> None:
        super().__init__()
        if min(g_steps, d_steps, n_generated) < 1:
            raise ValueError(f"g_steps, d_steps and n_generated must be at least 1, got {g_steps}, {d_steps}, {n_generated}.")
        self.g_steps = g_steps
        self.d_steps = d_steps
        self.n_generated = n_generated

    def between_updates(self, n_updates: int) -> None:
        """Retrain after every `g_steps` updates."""
        if n_updates % self.g_steps:
            return
        for _ in range(self.d_steps):
            metrics = self.model.retrain_reward_model(self.n_generated)
        for name, value in metrics.items():
            self.logger.record(f"discriminator/{name}", value)


class EvaluationCallback(BetweenUpdatesCallback):
    """Calls `evaluate(n_updates)` every so many updates, and after the last one.

    Args:
        evaluate: what to do; it logs as it likes.
        every: updates between two evaluations.
    """

    def __init__(self, evaluate: Callable[[int], None], every: int) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1 update, got {every}.")
        self.evaluate = evaluate
        self.every = every
        self._evaluated_at = 0

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._evaluated_at = 0

    def between_updates(self, n_updates: int) -> None:
        """Evaluate if it is time."""
        if n_updates % self.every == 0:
            self._evaluate(n_updates)

    def _on_training_end(self) -> None:
        super()._on_training_end()
        self._evaluate(self.model._n_updates - self._updates_before)

    def _evaluate(self, n_updates: int) -> None:
        if n_updates > self._evaluated_at:
            self._evaluated_at = n_updates
            self.evaluate(n_updates)


class OnceCallback(BetweenUpdatesCallback):
    """Calls `action()` once, as soon as there were so many updates.

    Args:
        action: what to do.
        after: updates.
    """

    def __init__(self, action: Callable[[], None], after: int) -> None:
        super().__init__()
        self.action = action
        self.after = after
        self._done = False

    def between_updates(self, n_updates: int) -> None:
        """Do it if it is time."""
        if n_updates >= self.after and not self._done:
            self._done = True
            self.action()


class ProgressCallback(BetweenUpdatesCallback):
    """A progress bar over updates, with the time that remains; none where there is no terminal."""

    def __init__(self, total: int) -> None:
        super().__init__()
        self.bar = tqdm(total=total, desc="adversarial", unit="update", disable=None)

    def between_updates(self, n_updates: int) -> None:
        """Move the bar."""
        self.bar.update(n_updates - self.bar.n)

    def _on_training_end(self) -> None:
        super()._on_training_end()
        self.bar.close()
