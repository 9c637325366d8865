"""Names of a run's phases, and of the files in its folder."""

from enum import Enum


class Phase(str, Enum):
    """What a run goes through, in this order."""

    LIKELIHOOD = "likelihood"
    DISCRIMINATOR = "discriminator"
    ADVERSARIAL = "adversarial"
    FINISHED = "finished"

    @property
    def prefix(self) -> str:
        """What the names of its metrics begin with in logs, and what checkpoints call it beside them."""
        return "pretraining" if self is Phase.LIKELIHOOD else self.value

    @property
    def after(self) -> "Phase":
        """The next phase."""
        phases = list(Phase)
        return phases[phases.index(self) + 1]


MEASURED = {phase.prefix: phase for phase in (Phase.LIKELIHOOD, Phase.ADVERSARIAL)}
"""The phases in which the generator is measured, by their prefixes."""


# Files; those of the game and the generators are in `seqgan_env.saved_game`.
CONFIG = "config.json"
"""The settings, and the preset that they came from."""
PROGRESS = "progress.csv"
"""All metrics, a row for each epoch and each update."""
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
