"""How the discriminator of the preset `paper` learns against a likelihood start: `python -m benchmarks.judge`.

Its parameters start as published or as by default (`--discriminator.initial-parameters`). Both see the same sequences in the
same order: the real ones, and for each fit of 3 passes as many newly generated ones. The generator stands still. Each
measurement is a line of `judge.jsonl`; called again, the program goes on with the seeds that are left.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro
from torch import Tensor

from agents.experiment.config import OracleConfig
from agents.experiment.make_task import Task, make_oracle_task, separation
from agents.experiment.presets import PRESETS
from benchmarks.finished_runs import FinishedRuns, spread
from benchmarks.run_folders import ORACLE
from seqgan_env.models.generators import make_generator
from seqgan_env.models.likelihood import pretrain
from seqgan_env.models.token_model import TokenModel
from seqgan_env.rendering import spell_what_cannot_be_encoded
from seqgan_env.rewards.discriminator import DiscriminatorReward
from seqgan_env.rewards.text_cnn import InitialParameters, TextCNN
from seqgan_env.saved_game import load_generator
from seqgan_env.support import seeds


@dataclass(frozen=True)
class Config:
    """Train the discriminator from both starts, and print what it knows."""

    seeds: tuple[int, ...] = (0,)
    """Seeds of the real sequences, of both networks and of their training."""
    passes: tuple[int, ...] = (3, 6, 9, 15, 30, 60, 90, 120, 150)
    """The passes after which to measure, multiples of 3; the last one ends the training."""
    starts: tuple[InitialParameters, ...] = ("closed-gates", "published")
    """The discriminator's initial parameters."""
    epochs: int = 25
    """Epochs of maximum likelihood of the generator."""
    generator: Path | None = None
    """A file of generator weights to take in place of training one, such as runs/paper-…/generator_likelihood.safetensors."""
    data: Path = field(default_factory=lambda: Path(os.environ.get("SEQGAN_DATA", ".")))
    """The folder with the published oracle; by default the environment variable SEQGAN_DATA."""
    device: str = "auto"
    """Where to compute."""
    n_samples: int = 9_984
    """Held-out real sequences, and as many generated ones, to measure with."""
    out: Path = Path("runs/judge")
    """The folder for `judge.jsonl`."""
    table_only: bool = False
    """Only print the table of what is finished."""


@dataclass(frozen=True)
class Result:
    """One discriminator after some passes."""

    start: InitialParameters
    """Its initial parameters."""
    seed: int
    passes: int
    loss: float
    """Mean over the last pass, in training, nats; with the penalty's gradient, but without its value."""
    accuracy: float
    """In training, over the last pass."""
    held_out_accuracy: float
    held_out_loss: float
    """Cross-entropy on held-out real and new generated sequences, nats."""
    d_generated: float
    """Mean probability of being real, of generated sequences: the reward."""
    d_generated_sd: float
    """Its standard deviation over sequences."""
    d_real: float
    """Mean probability of being real, of held-out real sequences."""


def main(config: Config) -> None:
    """Measure the seeds that are left, and print the table.

    Raises:
        ValueError: a number of passes is not a multiple of those of a fit.
    """
    file = FinishedRuns(config.out / "judge.jsonl", Result)
    results = {_key(one): one for one in file.read() if one.seed in config.seeds}
    for seed in () if config.table_only else config.seeds:
        left = [start for start in config.starts if (start, seed, max(config.passes)) not in results]
        if left:
            results |= {_key(one): one for one in file.append(measure(seed, left, config))}
    print(table(list(results.values())))


def _key(one: Result) -> tuple[InitialParameters, int, int]:
    return one.start, one.seed, one.passes


def settings(seed: int, config: Config) -> OracleConfig:
    """The settings of a seed: those of the preset `paper`."""
    paper = PRESETS["paper"][0]
    assert isinstance(paper, OracleConfig)
    return dataclasses.replace(
        paper,
        seed=seed,
        device=config.device,
        oracle_params=config.data / ORACLE,
        pretrain=dataclasses.replace(paper.pretrain, epochs=config.epochs),
        evaluation=dataclasses.replace(paper.evaluation, n_samples=config.n_samples, n_held_out=config.n_samples),
    )


def measure(seed: int, starts: Sequence[InitialParameters], config: Config) -> Iterator[Result]:
    """Train a discriminator from each start, and measure it after each of `config.passes`."""
    paper = settings(seed, config)
    per_fit = paper.discriminator.epochs
    if any(passes % per_fit for passes in config.passes):
        raise ValueError(f"A fit makes {per_fit} passes: measure after multiples of {per_fit}, got {config.passes}.")
    task = make_oracle_task(paper)
    generator = likelihood_start(task, paper, config.generator)
    for start in starts:
        network = TextCNN(
            task.game.vocab_size,
            task.game.sequence_length,
            dataclasses.replace(paper.discriminator, initial_parameters=start),
            seed=seed,
            device=task.game.device,
        )
        judge = DiscriminatorReward(network)
        rng = torch.Generator(task.game.device).manual_seed(seed + seeds.PROGRESS)

        def write(n: int, rng: torch.Generator = rng) -> Tensor:
            return generator.sample(n, task.game.sequence_length, rng)[0]

        judged = write(config.n_samples)
        for fit in range(1, max(config.passes) // per_fit + 1):
            in_training = judge.fit(task.game.real_sequences, write(paper.adversarial.n_generated))
            if fit * per_fit in config.passes:
                real, generated = judge.log_odds(task.held_out), judge.log_odds(judged)
                held_out = separation(real, generated)
                probabilities = torch.sigmoid(generated)
                result = Result(
                    start,
                    seed,
                    fit * per_fit,
                    in_training["loss"],
                    in_training["accuracy"],
                    held_out["discriminator_accuracy"],
                    held_out["discriminator_loss"],
                    probabilities.mean().item(),
                    probabilities.std().item(),
                    torch.sigmoid(real).mean().item(),
                )
                print(result, flush=True)
                yield result


def likelihood_start(task: Task, paper: OracleConfig, path: Path | None) -> TokenModel:
    """The generator in a file, or one trained by maximum likelihood."""
    game = task.game
    if path is not None:
        return load_generator(path, game)
    initial = torch.Generator().manual_seed(paper.seed)
    generator = make_generator(
        paper.generator, game.vocab_size, sequence_length=game.sequence_length, generator=initial, device=game.device
    )
    pretrain(generator, game.real_sequences, paper.pretrain, torch.Generator(game.device).manual_seed(paper.seed))
    return generator


def table(results: Sequence[Result]) -> str:
    """A row for each start and number of passes: means ± standard deviations over seeds, if there are several."""
    lines = [
        "| passes | start | loss in training | accuracy in training | held-out accuracy | held-out cross-entropy "
        "| D of generated: mean | sd | D of held-out real: mean | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows = sorted({(one.passes, one.start) for one in results})
    for passes, start in rows:
        same = [one for one in results if (one.passes, one.start) == (passes, start)]
        names = ("loss", "accuracy", "held_out_accuracy", "held_out_loss", "d_generated", "d_generated_sd", "d_real")
        of_each = ([getattr(one, name) for one in same] for name in names)
        numbers = [spread(values) if len(values) > 1 else f"{values[0]:.3f}" for values in of_each]
        lines.append(f"| {passes} | {start} | " + " | ".join(numbers) + f" | {len(same)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
