"""Callbacks of `learn` for the time between the generator's updates, such as retraining the discriminator."""

from collections.abc import Callable, Iterator
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback

from agents.discriminator_watch import DiscriminatorWatch


def every_callback(callback: BaseCallback) -> Iterator[BaseCallback]:
    """A callback and all callbacks inside it."""
    yield callback
    held = [getattr(callback, name, None) for name in ("callback", "callback_on_new_best")]
    for inner in [*getattr(callback, "callbacks", []), *held]:
        if isinstance(inner, BaseCallback):
            yield from every_callback(inner)


class BetweenUpdatesCallback(BaseCallback):
    """Calls `between_updates(n)` once after the `n`-th update of the model's `learn` (a batch played and learned from)."""

    def __init__(self) -> None:
        super().__init__()
        self._n_updates = 0
        self._model_updates = 0
        self._goes_on = True

    def between_updates(self, n_updates: int) -> None:
        """Called after `n_updates` updates, counted from the start of `learn`."""
        raise NotImplementedError

    def _on_training_start(self) -> None:
        self._n_updates = 0
        self._goes_on = True
        self._model_updates = self.model._n_updates

    def _on_rollout_start(self) -> None:
        self._after_update()

    def _on_training_end(self) -> None:
        self._after_update()

    def _after_update(self) -> None:
        if self.model._n_updates > self._model_updates:  # PPO counts each of its passes, and the last update comes twice
            self._model_updates = self.model._n_updates
            self._n_updates += 1
            self.between_updates(self._n_updates)

    def _on_step(self) -> bool:
        return self._goes_on


class DiscriminatorCallback(BetweenUpdatesCallback):
    """Retrains the reward model on new sequences of the generator (paper, Algorithm 1, lines 13 to 16).

    Args:
        g_steps: generator updates between two retrainings.
        d_steps: fits per retraining, each with newly written sequences.
        n_generated: sequences that the generator writes for each fit.
        watch: reports when the discriminator no longer teaches; by default a new one.
    """

    model: Any  # an agents.player.Player, whose module imports this one

    def __init__(
        self, g_steps: int = 1, d_steps: int = 5, n_generated: int = 10_000, watch: DiscriminatorWatch | None = None
    ) -> None:
        super().__init__()
        if min(g_steps, d_steps, n_generated) < 1:
            raise ValueError(f"g_steps, d_steps and n_generated must be at least 1, got {g_steps}, {d_steps}, {n_generated}.")
        self.g_steps = g_steps
        self.d_steps = d_steps
        self.n_generated = n_generated
        self.watch = watch or DiscriminatorWatch()

    def between_updates(self, n_updates: int) -> None:
        """Retrain after every `g_steps` updates."""
        if n_updates % self.g_steps:
            return
        for _ in range(self.d_steps):
            metrics = self.model.retrain_reward_model(self.n_generated)
        self.watch.note(metrics, self.logger)


class EvaluationCallback(BetweenUpdatesCallback):
    """Calls `evaluate(n_updates)` at regular intervals, and after the last update.

    Args:
        evaluate: the function to call; it may log, and ends `learn` by returning false.
        every: updates between two evaluations.
    """

    def __init__(self, evaluate: Callable[[int], bool | None], every: int) -> None:
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
        """Evaluate if due."""
        if n_updates % self.every == 0:
            self._evaluate(n_updates)

    def _on_training_end(self) -> None:
        super()._on_training_end()
        self._evaluate(self._n_updates)

    def _evaluate(self, n_updates: int) -> None:
        if n_updates > self._evaluated_at:
            self._evaluated_at = n_updates
            if self.evaluate(n_updates) is False:
                self._goes_on = False


class TokenBarCallback(ProgressBarCallback):
    """SB3's progress bar, for a `num_timesteps` that counts tokens, of which some rows write fewer."""

    def _on_step(self) -> bool:
        self.pbar.update(self.model.num_timesteps - self.model._num_timesteps_at_start - self.pbar.n)
        return True
