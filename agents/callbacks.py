"""What happens between the generator's updates: retraining the discriminator, evaluating, showing progress."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from tqdm.auto import tqdm

from agents.discriminator_watch import DiscriminatorWatch

if TYPE_CHECKING:
    from agents.experiment.players import Player


def every_callback(callback: BaseCallback) -> Iterator[BaseCallback]:
    """A callback and all that it holds."""
    yield callback
    held = [getattr(callback, name, None) for name in ("callback", "callback_on_new_best")]
    for inner in [*getattr(callback, "callbacks", []), *held]:
        if isinstance(inner, BaseCallback):
            yield from every_callback(inner)


class BetweenUpdatesCallback(BaseCallback):
    """Calls `between_updates(n)` once after the `n`-th update of the model's `learn`: a batch played, and learned from."""

    def __init__(self) -> None:
        super().__init__()
        self._first = 0
        self._n_updates = 0
        self._model_updates = 0
        self._goes_on = True

    def go_on_after(self, n_updates: int) -> None:
        """Let the next `learn` count on from here, as one that goes on with an earlier one."""
        self._first = n_updates

    def between_updates(self, n_updates: int) -> None:
        """Do what is due after `n_updates` updates, counted from the start of `learn`."""
        raise NotImplementedError

    def _on_training_start(self) -> None:
        self._n_updates, self._first = self._first, 0
        self._goes_on = True
        self._model_updates = self.model._n_updates

    def _on_rollout_start(self) -> None:
        self._after_update()

    def _on_training_end(self) -> None:
        self._after_update()

    def _after_update(self) -> None:
        if self.model._n_updates > self._model_updates:  # PPO counts each of its passes; the last update is looked at twice
            self._model_updates = self.model._n_updates
            self._n_updates += 1
            self.between_updates(self._n_updates)

    def _on_step(self) -> bool:
        return self._goes_on


class DiscriminatorCallback(BetweenUpdatesCallback):
    """Retrains the reward model on fresh sequences of the generator (paper, Algorithm 1, lines 13 to 16).

    Args:
        g_steps: generator updates between two retrainings.
        d_steps: fits in one retraining, each against newly written sequences.
        n_generated: sequences that the generator writes for each fit.
        watch: says when the discriminator has stopped being a teacher; by default one that has seen nothing yet.
    """

    model: "Player"  # type: ignore[assignment]

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
        for name, value in metrics.items():
            self.logger.record(f"discriminator/{name}", value)
        message = self.watch.check(metrics["accuracy"]) if "accuracy" in metrics else None
        if message is not None:
            tqdm.write(message)


class EvaluationCallback(BetweenUpdatesCallback):
    """Calls `evaluate(n_updates)` every so many updates, and after the last one.

    Args:
        evaluate: what to do; it logs as it likes, and ends `learn` by returning false.
        every: updates between two evaluations.
        last: the last update's number, if it is known: its evaluation then comes before the callbacks after this one, not at
            the end of `learn`.
    """

    def __init__(self, evaluate: Callable[[int], bool | None], every: int, last: int | None = None) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"every must be at least 1 update, got {every}.")
        self.evaluate = evaluate
        self.every = every
        self.last = last
        self._evaluated_at = 0

    def _on_training_start(self) -> None:
        super()._on_training_start()
        self._evaluated_at = 0

    def between_updates(self, n_updates: int) -> None:
        """Evaluate if it is time."""
        if n_updates % self.every == 0 or n_updates == self.last:
            self._evaluate(n_updates)

    def _on_training_end(self) -> None:
        super()._on_training_end()
        self._evaluate(self._n_updates)

    def _evaluate(self, n_updates: int) -> None:
        if n_updates > self._evaluated_at:
            self._evaluated_at = n_updates
            if self.evaluate(n_updates) is False:
                self._goes_on = False


class OnceCallback(BetweenUpdatesCallback):
    """Calls `action()` after one update.

    Args:
        action: what to do.
        after: the update's number.
    """

    def __init__(self, action: Callable[[], None], after: int) -> None:
        super().__init__()
        self.action = action
        self.after = after

    def between_updates(self, n_updates: int) -> None:
        """Do it if it is time."""
        if n_updates == self.after:
            self.action()


class RoundCallback(BetweenUpdatesCallback):
    """Calls `round_done()` after every update; the last in the list, it sees what the others have done."""

    def __init__(self, round_done: Callable[[], None]) -> None:
        super().__init__()
        self.round_done = round_done

    def between_updates(self, n_updates: int) -> None:
        """Say so."""
        self.round_done()


class ProgressCallback(BetweenUpdatesCallback):
    """Moves a progress bar on with each update, and closes it at the end.

    Args:
        bar: over the updates.
    """

    def __init__(self, bar: "tqdm[None]") -> None:
        super().__init__()
        self.bar = bar

    def between_updates(self, n_updates: int) -> None:
        """Move the bar."""
        self.bar.update(n_updates - self.bar.n)

    def _on_training_end(self) -> None:
        super()._on_training_end()
        self.bar.close()


class TokenBarCallback(ProgressBarCallback):
    """SB3's progress bar where `num_timesteps` counts tokens, of which some rows write fewer than others."""

    def _on_step(self) -> bool:
        self.pbar.update(self.model.num_timesteps - self.model._num_timesteps_at_start - self.pbar.n)
        return True
