"""`python -m seqgan_env inspect`: episodes of a run, token by token, in the terminal or on a page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seqgan_env.inspection.page import write_html
from seqgan_env.inspection.saved_runs import trace_checkpoints
from seqgan_env.inspection.terminal import step_through
from seqgan_env.policy_gradient import Baseline
from seqgan_env.rewards.custom import load_function
from seqgan_env.saved_game import LAST, LIKELIHOOD, STAGES, load_checkpoints, load_game
from seqgan_env.support.atomic_files import STANDARD_OUTPUT
from seqgan_env.support.settings import PositiveInt, Seed


@dataclass(frozen=True)
class Inspect:
    """Step through episodes of a run token by token, in the terminal or on a page for the browser."""

    run: Path
    """The run's folder."""
    checkpoint: str | None = None
    """The generator that writes and completes; by default the last one, on a page also the one after likelihood."""
    seed: Seed = 0
    """Draws tokens and completions."""
    episodes: PositiveInt = 1
    """How many episodes to show."""
    batch: PositiveInt = 64
    """How many episodes form the batch for the advantages."""
    baseline: Baseline = "leave-one-out"
    """What is subtracted from returns."""
    html: Path | None = None
    """Write a page to this file; - is standard output."""
    objective: str | None = None
    """The run's --adversarial.objective, if it has one; its code is executed."""
    plain: bool = False
    """Print tables, even if keys would work."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """Where to compute."""

    def __call__(self) -> None:
        """Trace the batch, and show its first episodes.

        Raises:
            ValueError: numbers do not fit, files are damaged, or the objective is missing or not needed.
            OSError: the run or checkpoint does not exist, or the page cannot be written.
        """
        if self.episodes > self.batch:
            raise ValueError(f"--episodes must be at most --batch, got {self.episodes} and {self.batch}.")
        game = load_game(self.run, self.device, own_reward=None if self.objective is None else load_function(self.objective))
        names = [self.checkpoint] if self.checkpoint else [LAST] if self.html is None else [LIKELIHOOD, LAST]
        generators = load_checkpoints(self.run, game, names)
        traces = trace_checkpoints(game, generators, self.batch, seed=self.seed, baseline=self.baseline)
        shown = [(number, name, traces[name][number]) for number in range(self.episodes) for name in generators]
        if self.html is None:
            for _, _, trace in shown:
                step_through(trace, plain=self.plain)
            return
        titles = [f"Episode {number + 1}, {STAGES.get(name, name)}" for number, name, _ in shown]
        write_html([trace for _, _, trace in shown], self.html, titles)
        if self.html != STANDARD_OUTPUT:
            print(f"Open {self.html.resolve()}")
