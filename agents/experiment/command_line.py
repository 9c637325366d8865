"""The command line of train.py."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from agents.experiment.config import TrainConfig, flags
from agents.experiment.presets import PRESETS
from agents.experiment.run import Terminated
from agents.experiment.run_folder import FolderInUse
from seqgan_env.rendering import spell_what_cannot_be_encoded
from seqgan_env.support.errors import NumericalFault, OutOfMemory, room_for
from seqgan_env.support.settings import in_flags

_DESCRIPTION = (
    "SeqGAN (Yu et al., AAAI 2017, Algorithm 1) on the synthetic oracle or on a text: `python train.py --help`. A run that "
    "was stopped goes on with: python train.py --resume FOLDER."
)


def command_line(arguments: list[str]) -> tuple[TrainConfig, str]:
    """The config of a new run, and the name of its preset."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["quick", *arguments]
    presets = tyro.extras.subcommand_type_from_defaults(
        {name: config for name, (config, _) in PRESETS.items()},
        {name: description for name, (_, description) in PRESETS.items()},
    )
    config: TrainConfig = tyro.cli(presets, args=arguments, description=_DESCRIPTION)
    return config, arguments[0]


@dataclass(frozen=True)
class Resume:
    """Go on with a run that was stopped."""

    resume: Path
    """The run's folder, such as runs/quick-..."""
    from_best: bool = False
    """Go back to the best checkpoint; what came after it is lost."""
    objective: str | None = None
    """The run's --adversarial.objective again, if it has one: its code is run."""
    threads: int | None = None
    """Threads on a CPU; by default as many as before. Another number rounds otherwise, which changes figures."""
    clear_lock: bool = False
    """Take the folder although a process on another machine noted that it works on it."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """Where to compute from now on; random numbers are others than on the device before. By default as the run began."""
    data: Path | None = None
    """Where the run's --data is now, if it was moved."""
    tokenizer: Path | None = None
    """Where the tokenizer.json of its --tokenizer is now."""
    oracle_params: Path | None = None
    """Where its --oracle-params are now."""
    start_from: Path | None = None
    """Where the weights of its --start-from are now."""


def resume_line(arguments: list[str]) -> Resume | None:
    """Which run to resume, and how; None where a new one is asked for."""
    if not any(argument.split("=")[0] == "--resume" for argument in arguments):
        return None
    asked: Resume = tyro.cli(Resume, args=arguments)
    return asked


@contextmanager
def ending_with_a_sentence() -> Iterator[None]:
    """What cannot be done ends the program with a sentence that says why, and signals end it with their codes."""
    spell_what_cannot_be_encoded()
    try:
        with room_for("the run", "the settings of its sizes"):
            yield
    except Terminated:
        sys.exit(143)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, TypeError, ImportError, OSError, FolderInUse, NumericalFault, OutOfMemory) as error:
        sys.exit(f"error: {in_flags(str(error), flags())}")
