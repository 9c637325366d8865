"""SeqGAN (Yu et al., AAAI 2017, Algorithm 1) on the synthetic oracle or on a text: `python train.py --help`."""

import seqgan_env  # noqa: F401 # isort: skip # before torch, whose threads it tells how to wait

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor
from tqdm.auto import tqdm

from agents.experiment.config import TrainConfig, flags, largest_sizes
from agents.experiment.presets import PRESETS
from agents.experiment.report import write_report
from agents.experiment.run_folder import ADVERSARIAL, PRETRAINING
from agents.experiment.run_lock import FolderInUse
from agents.experiment.tasks import judge_discriminator
from agents.experiment.threads import computing_with
from agents.experiment.torchrun import connected
from agents.experiment.training import Phase, Terminated, Training
from seqgan_env.data.vocabulary import lines_of, one_line
from seqgan_env.metrics.temperature import SweepPoint, temperature_sweep
from seqgan_env.rendering import spell_what_cannot_be_encoded
from seqgan_env.rewards.reward_model import learns
from seqgan_env.saved_game import HELD_OUT, LAST, LIKELIHOOD, MIDDLE, save_game, save_sequences
from seqgan_env.support import seeds
from seqgan_env.support.cuda_graphs import without_graphs
from seqgan_env.support.errors import NumericalFault, OutOfMemory, room_for
from seqgan_env.support.settings import in_flags


def main(config: TrainConfig, name: str = "run") -> dict[str, float]:
    """Train as the paper's Algorithm 1 does; return the last metrics of both phases, named `phase/metric`."""
    with connected() as workers, room_for("the run", f"its sizes, such as {largest_sizes(config)}"):
        training = Training.start(config, name, workers)
        print(
            f"{name}: {len(training.task.game.real_sequences):,} real sequences, threads: {training.threads}, "
            f"writing to {training.run.path}"
        )
        return train(training)


def resume(folder: Path, **how: Any) -> dict[str, float]:
    """Go on with a run that was stopped, from its newest checkpoint; see `main` and `Training.resume`."""
    with connected() as workers:
        return train(Training.resume(folder, workers, **how))


def train(training: Training) -> dict[str, float]:
    """Take a run to its end, wherever it stands."""
    graphs = nullcontext() if training.config.cuda_graphs else without_graphs()
    with training, computing_with(training.threads), graphs:
        try:
            if training.phase is Phase.LIKELIHOOD:
                train_by_likelihood(training)
            if training.phase is Phase.DISCRIMINATOR:
                train_discriminator(training)
            if training.phase is Phase.ADVERSARIAL:
                train_adversarially(training)
        except BaseException as reason:
            training.hold_off()
            save_what_there_is(training, reason)
            raise
        return finish(training)


def train_by_likelihood(training: Training) -> None:
    """Algorithm 1, lines 2 and 3: the generator learns real sequences, and the rollout policy begins as the generator."""
    config, run, epochs = training.config, training.run, training.likelihood.config.epochs
    if config.start_from is not None:
        training.take_weights(config.start_from)
    if epochs == 0:
        evaluate(training, PRETRAINING, 0)
        run.logger.dump(0)
    bar = rounds_left(training, "epoch", epochs)
    for epoch in bar:
        loss = training.likelihood.train_epoch(training.step_done)
        bar.set_postfix(loss=f"{loss:.3f}")
        run.logger.record("pretraining/loss", loss)
        if epoch % config.evaluation.every_epochs == 0 or epoch == epochs:
            evaluate(training, PRETRAINING, epoch)
        run.logger.dump(epoch)
        training.round_done()
    training.agent.sync_rollout_policy()
    run.save_weights(LIKELIHOOD, training.agent.generator, training.task.game)
    run.save_text("samples_likelihood.txt", write_samples(training))
    start = run.last(PRETRAINING)
    if start is not None:
        training.judge(start.metrics, step=0)
    training.phase_done()


def train_discriminator(training: Training) -> None:
    """Algorithm 1, lines 4 and 5: the discriminator learns to tell real sequences from the generator's."""
    settings = training.config.adversarial
    bar = rounds_left(training, "fit", settings.d_pretrain_steps if learns(training.task.game.reward_model) else 0)
    for _ in bar:
        metrics = training.agent.retrain_reward_model(settings.n_generated)
        bar.set_postfix({name: f"{value:.3f}" for name, value in metrics.items()})
        training.round_done()
    training.phase_done()


def train_adversarially(training: Training) -> None:
    """Algorithm 1, lines 6 to 17: the generator learns from rewards, and the discriminator from what it then writes."""
    agent, run, settings = training.agent, training.run, training.config.adversarial
    has_discriminator = learns(training.task.game.reward_model)
    agent.begin(settings.updates)
    for update in rounds_left(training, "update", settings.updates):
        if training.alarm.should_stop:
            break
        agent.update()
        if update % training.config.evaluation.every_updates == 0 or update == settings.updates:
            evaluate(training, ADVERSARIAL, update)
        if update == settings.updates // 2:
            run.save_weights(MIDDLE, agent.generator, agent.game)
        if has_discriminator and update % settings.g_steps == 0:
            for _ in range(settings.d_steps):
                metrics = agent.retrain_reward_model(settings.n_generated)
            training.watch.note(metrics, run.logger)
        training.round_done()
    if training.alarm.should_stop:
        training.take_best()
    if settings.updates:
        run.logger.dump(agent.num_timesteps)
    training.phase_done()


def rounds_left(training: Training, unit: str, total: int) -> "tqdm[int]":
    """The numbers of a phase's rounds that are left, with a bar that tells the time they take; none without a terminal."""
    done, phase = training.rounds, training.phase.value
    hidden = None if done < total else True  # None: shown where there is a terminal
    return tqdm(range(done + 1, total + 1), initial=done, total=total, desc=phase, unit=unit, disable=hidden)


def evaluate(training: Training, phase: str, step: int) -> None:
    """Measure the generator, with random numbers apart from the training's; in the adversarial phase look for collapse."""
    task, agent, run = training.task, training.agent, training.run

    def look() -> dict[str, float]:
        samples = samples_of(training)
        run.show_samples(phase, lines_of(samples[:10], task.game.vocabulary, task.game.vocab_size))
        metrics = task.evaluate(agent, samples)
        return metrics | judge_discriminator(task, samples) if phase == ADVERSARIAL else metrics

    metrics = training.workers.of_first(look)
    run.measure(phase, step, metrics)
    if phase == ADVERSARIAL:
        run.show_rewards(phase, agent.last_played.rewards, agent.last_played.lengths)
        training.judge(metrics, step)


def samples_of(training: Training) -> Tensor:
    """The sequences `(n_samples, sequence_length)` that an evaluation looks at."""
    game, config = training.task.game, training.config
    rng = torch.Generator(game.device).manual_seed(config.seed + seeds.PROGRESS)
    return training.agent.generator.sample(config.evaluation.n_samples, game.sequence_length, rng)[0]


def save_what_there_is(training: Training, reason: BaseException) -> None:
    """Write a checkpoint of the last finished round, and say so; after Ctrl-C, also all that a finished run leaves.

    A new run that ends before it has learned anything leaves nothing, unless it was stopped. Under torchrun nothing is written
    but the checkpoint: whether SIGTERM or the failure of another process is heard of first is chance, and torchrun's patience
    with those that it ends is short.
    """
    if isinstance(reason, Exception) and training.discard_if_nothing_was_learned():
        print(f"Nothing was learned, so {training.run.path} is removed.", flush=True)
        return
    if isinstance(reason, OSError) or not training.workers.is_first:  # nothing can be written, and the error says what to do
        return
    training.set_back()
    path = training.write_checkpoint()
    stopped = isinstance(reason, KeyboardInterrupt)
    print(f"\n{'Stopped' if stopped else f'Ended by {type(reason).__name__}'}.", flush=True)
    if path is not None:
        print(f"Saved {path}.")
    objective = training.config.adversarial.objective
    again = "" if objective is None else f" --objective {objective}"
    print(f"Go on with: python train.py --resume {training.run.path}{again}", flush=True)
    if stopped and training.workers.count == 1:
        print("Drawing what there is; Ctrl-C ends at once.", flush=True)
        finish(training)


def finish(training: Training) -> dict[str, float]:
    """Write what a finished run leaves; return the last metrics of both phases."""
    if training.workers.is_first:
        write_results(training)
    last = [training.run.last(PRETRAINING), training.run.last(ADVERSARIAL)]
    return {f"{m.phase}/{name}": value for m in last if m is not None for name, value in m.metrics.items()}


def write_results(training: Training) -> None:
    """Save everything, draw the pictures, print the table."""
    config, task, run = training.config, training.task, training.run
    run.save_weights(LAST, training.agent.generator, task.game)
    save_game(task.game, run.path)
    save_sequences(run.path / HELD_OUT, task.held_out)
    run.save_text("samples.txt", write_samples(training))
    run.draw_learning_curve(task.panels, task.labels, task.floor)
    if config.evaluation.sweep and task.floor is not None and run.last(ADVERSARIAL) is not None:
        run.draw_quality_against_coverage(sweep_both(training), task.floor)
    run.draw_discriminator()
    write_report(
        run,
        task.game,
        task.labels,
        task.floor,
        batch_size=config.adversarial.batch_size,
        seed=config.seed,
        baseline=config.adversarial.baseline,
    )
    run.print_summary(task.labels, task.floor)


def sweep_both(training: Training) -> dict[str, list[SweepPoint]]:
    """The temperature sweep of the generator as pretraining left it, and as it is now."""
    config, task = training.config, training.task
    assert task.game.oracle is not None
    pretrained = training.run.load_generator(LIKELIHOOD, task.game)
    sweeps = {}
    generators = {"maximum likelihood": pretrained, "adversarial": training.agent.generator}
    for name, generator in tqdm(generators.items(), desc="temperature sweep", unit="generator", disable=None):
        rng = torch.Generator(task.game.device).manual_seed(config.seed + seeds.FINAL_SWEEP)
        sweeps[name] = temperature_sweep(
            generator,
            task.game.oracle,
            task.held_out,
            rng,
            n_samples=config.evaluation.n_samples,
            length=task.game.sequence_length,
        )
    return sweeps


def write_samples(training: Training) -> str:
    """What the generator writes, a sequence a line."""
    game = training.task.game
    return "".join(one_line(text) + "\n" for text in lines_of(samples_of(training), game.vocabulary, game.vocab_size))


def command_line(arguments: list[str]) -> tuple[TrainConfig, str]:
    """The config and the preset's name that the command line asks for."""
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments = ["quick", *arguments]
    presets = tyro.extras.subcommand_type_from_defaults(
        {name: config for name, (config, _) in PRESETS.items()},
        {name: description for name, (_, description) in PRESETS.items()},
    )
    description = f"{__doc__} A run that was stopped goes on with: python train.py --resume FOLDER."
    config: TrainConfig = tyro.cli(presets, args=arguments, description=description)
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

    def __call__(self) -> None:
        """Go on."""
        how = dict(vars(self))
        resume(how.pop("resume"), **how)


def run_command(arguments: list[str]) -> None:
    """Do what the command line asks for."""
    if any(argument.split("=")[0] == "--resume" for argument in arguments):
        tyro.cli(Resume, args=arguments)()
    else:
        main(*command_line(arguments))


def program(arguments: list[str]) -> None:
    """Do what the command line asks for; what cannot be done ends the program with a sentence that says why."""
    spell_what_cannot_be_encoded()
    try:
        with room_for("the run", "the settings of its sizes"):
            run_command(arguments)
    except Terminated:
        sys.exit(143)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, TypeError, ImportError, OSError, FolderInUse, NumericalFault, OutOfMemory) as error:
        sys.exit(f"error: {in_flags(str(error), flags())}")


if __name__ == "__main__":
    program(sys.argv[1:])
