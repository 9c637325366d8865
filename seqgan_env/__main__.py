"""What train.py has left: look at episodes, sample from the generator, evaluate it."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from seqgan_env.evaluate_command import Evaluate
from seqgan_env.faults import OutOfMemory, room_for
from seqgan_env.files import STANDARD_OUTPUT
from seqgan_env.inspection_html import write_html
from seqgan_env.inspection_terminal import step_through
from seqgan_env.rendering import spell_what_cannot_be_encoded
from seqgan_env.returns import Baseline
from seqgan_env.reward_functions import load_function
from seqgan_env.run_inspection import trace_checkpoints
from seqgan_env.sample_command import Sample
from seqgan_env.settings import PositiveInt, Seed, check_settings, flag, flags_of, in_flags
from seqgan_env.storage import LAST, LIKELIHOOD, STAGES, load_checkpoints, load_game


@dataclass(frozen=True)
class Inspect:
    """Step through episodes of a run token by token, in the terminal or on a page for the browser."""

    run: Path
    """The run's folder."""
    checkpoint: str | None = None
    """Which generator writes and completes; by default the last one, and on a page the one after likelihood beside it."""
    seed: Seed = 0
    """Draws tokens and completions."""
    episodes: PositiveInt = 1
    """How many episodes to show."""
    batch: PositiveInt = 64
    """How many episodes make the batch that advantages are computed from."""
    baseline: Baseline = "leave-one-out"
    """What is subtracted from returns."""
    html: Path | None = None
    """Write a page to this file; - is standard output."""
    objective: str | None = None
    """The run's --adversarial.objective again, if it has one: its code is run."""
    plain: bool = False
    """Print tables, also where keys could step through."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """Where to compute."""

    def __call__(self) -> None:
        """Trace the batch, and show its first episodes.

        Raises:
            ValueError: numbers that do not fit, damaged files, or an objective that is missing, or of a run that has none.
            OSError: no such run or checkpoint, or the page cannot be written.
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


COMMANDS: dict[str, Callable[..., Callable[[], object]]] = {"inspect": Inspect, "sample": Sample, "evaluate": Evaluate}


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line asks for; what cannot be done ends the program with a sentence that says why."""
    spell_what_cannot_be_encoded()
    command = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="python -m seqgan_env", description=__doc__, args=arguments)
    try:
        check_settings(command, flag)
        with room_for("this", "the number of sequences"):
            command()
        sys.stdout.flush()
    except BrokenPipeError:  # who reads standard output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python will flush once more
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError, ImportError, OutOfMemory) as error:
        sys.exit(f"error: {in_flags(str(error), flags_of(type(command)))}")


if __name__ == "__main__":
    main()
