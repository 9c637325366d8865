"""Work with finished runs of train.py: inspect episodes, sample from the generator, evaluate it, compare runs."""

import os
import sys
from collections.abc import Callable, Sequence

import tyro

from seqgan_env.commands.compare import Compare
from seqgan_env.commands.evaluate import Evaluate
from seqgan_env.commands.inspect import Inspect
from seqgan_env.commands.sample import Sample
from seqgan_env.rendering import spell_what_cannot_be_encoded
from seqgan_env.support.errors import OutOfMemory, room_for
from seqgan_env.support.settings import check_settings, flag, flags_of, in_flags

COMMANDS: dict[str, Callable[..., Callable[[], object]]] = {
    "inspect": Inspect,
    "sample": Sample,
    "evaluate": Evaluate,
    "compare": Compare,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the requested command; on an error, exit with a sentence that says why."""
    spell_what_cannot_be_encoded()
    command = tyro.extras.subcommand_cli_from_dict(COMMANDS, prog="python -m seqgan_env", description=__doc__, args=arguments)
    try:
        check_settings(command, flag)
        with room_for("this", "the number of sequences"):
            command()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of standard output, such as `head`, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError, ImportError, OutOfMemory) as error:
        sys.exit(f"error: {in_flags(str(error), flags_of(type(command)))}")


if __name__ == "__main__":
    main()
