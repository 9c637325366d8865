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
    "SeqGAN (Yu et al., AAAI 2017, Algorithm 1) on the synthetic oracle or on a text: `python train.py --help`. To "
    "resume a run that was stopped: python train.py --resume FOLDER."
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
    """Resume a run that was stopped."""

    resume: Path
    """The run's folder, such as runs/quick-..."""
    from_best: bool = False
    """Go back to the best checkpoint; everything after it is lost."""
    objective: str | None = None
    """The run's --adversarial.objective, if it has one; its code is executed."""
    threads: int | None = None
    """Threads on a CPU; by default as before. Another number rounds differently, which changes figures."""
    clear_lock: bool = False
    """Take the folder even if a process on another machine is recorded as using it."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """Where to compute from now on; another device draws other random numbers. By default as before."""
    data: Path | None = None
    """The new place of the run's --data, if it was moved."""
    tokenizer: Path | None = None
    """The new place of its --tokenizer's tokenizer.json."""
    oracle_params: Path | None = None
    """The new place of its --oracle-params."""
    start_from: Path | None = None
    """The new place of its --start-from weights."""


def resume_line(arguments: list[str]) -> Resume | None:
    """The run to resume, and how; None for a new run."""
    if not any(argument.split("=")[0] == "--resume" for argument in arguments):
        return None
    asked: Resume = tyro.cli(Resume, args=arguments)
    return asked


@contextmanager
def ending_with_a_sentence() -> Iterator[None]:
    """In this context, errors exit with a sentence that says why, and signals with their exit codes."""
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
