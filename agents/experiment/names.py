"""Names of runs, of their phases, and of the files in their folders."""

import re
from enum import Enum

from seqgan_env.evaluation.run_logs import ADVERSARIAL_PREFIX, LIKELIHOOD_PREFIX

_RUN_NAME = re.compile(r"\w[\w.+=,-]{0,49}")  # with the time, in any alphabet, less than the 255 bytes of a file's name


def check_run_name(name: str, option: str) -> None:
    """Refuse a name that would be awkward as a folder's on a command line.

    Raises:
        ValueError: the message names the option.
    """
    if not _RUN_NAME.fullmatch(name):
        raise ValueError(
            f"{option} must be up to 50 letters, digits and signs of _ . + = , - that begin with a letter or digit, "
            f"got {name!r}."
        )


class Phase(str, Enum):
    """What a run goes through, in this order."""

    LIKELIHOOD = "likelihood"
    DISCRIMINATOR = "discriminator"
    ADVERSARIAL = ADVERSARIAL_PREFIX
    FINISHED = "finished"

    @property
    def prefix(self) -> str:
        """What the names of its metrics begin with in logs, and what checkpoints call it beside them."""
        return LIKELIHOOD_PREFIX if self is Phase.LIKELIHOOD else self.value

    @property
    def after(self) -> "Phase":
        """The next phase."""
        phases = list(Phase)
        return phases[phases.index(self) + 1]


MEASURED = {phase.prefix: phase for phase in (Phase.LIKELIHOOD, Phase.ADVERSARIAL)}
"""The phases in which the generator is measured, by their prefixes."""


# Files; the settings and the log are named in `seqgan_env.evaluation.run_logs`, the game and the generators in
# `seqgan_env.saved_game`.
CHECKPOINTS = "checkpoints"
"""The folder of what a run can be resumed from."""
BEST_CHECKPOINT = "best.safetensors"
"""In it, the one with the best generator."""
LAUNCH = "launch.json"
"""Which call of torchrun began the run."""
LOCK, LOCK_HOLDER = "run.lock", "run.holder.json"
"""Who works on the folder."""
SAMPLES, SAMPLES_LIKELIHOOD = "samples.txt", "samples_likelihood.txt"
"""What the generator writes at the end, and what it wrote after the likelihood phase."""
LEARNING_CURVE, QUALITY_COVERAGE, DISCRIMINATOR = "learning_curve.png", "quality_coverage.png", "discriminator.png"
"""Pictures."""
REPORT = "report.html"
"""The run on one page."""
