"""SeqGAN (Yu et al., AAAI 2017, Algorithm 1) on the synthetic oracle or on a text: `python train.py --help`."""

import seqgan_env  # noqa: F401 # isort: skip # before torch, whose threads it tells how to wait

import sys
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from agents.experiment.command_line import command_line, ending_with_a_sentence, resume_line
from agents.experiment.config import TrainConfig, largest_sizes
from agents.experiment.names import Phase
from agents.experiment.results import evaluate, finish, keep_likelihood_start, saved_when_stopped
from agents.experiment.run import Run
from agents.experiment.torchrun import connected
from seqgan_env.rewards.reward_model import learns
from seqgan_env.saved_game import MIDDLE
from seqgan_env.support.errors import room_for


def main(config: TrainConfig, name: str = "run") -> dict[str, float]:
    """Train as the paper's Algorithm 1 does; return the last metrics of the likelihood and the adversarial phase.

    They are named `phase/metric`, as in `progress.csv`.
    """
    with connected() as workers, room_for("the run", f"its sizes, such as {largest_sizes(config)}"):
        run = Run.start(config, name, workers)
        print(f"{name}: {len(run.game.real_sequences):,} real sequences, threads: {run.threads}, writing to {run.folder.path}")
        return train(run)


def resume(folder: Path, **how: Any) -> dict[str, float]:
    """Go on with a run that was stopped, from its newest checkpoint; see `main` and `Run.resume`."""
    with connected() as workers:
        return train(Run.resume(folder, workers, **how))


def train(run: Run) -> dict[str, float]:
    """Take a run through the phases that are left of Algorithm 1."""
    with run:
        with saved_when_stopped(run):
            if run.phase is Phase.LIKELIHOOD:
                train_by_likelihood(run)
            if run.phase is Phase.DISCRIMINATOR:
                train_discriminator(run)
            if run.phase is Phase.ADVERSARIAL:
                train_adversarially(run)
        return finish(run)


def train_by_likelihood(run: Run) -> None:
    """Algorithm 1, lines 2 and 3: the generator learns real sequences, and the rollout policy begins as the generator."""
    config, logger, epochs = run.config, run.folder.logger, run.likelihood.config.epochs
    if config.start_from is not None:
        run.take_weights(config.start_from)
    if epochs == 0:
        evaluate(run, 0)
        logger.dump(0)
    bar = rounds_left(run, "epoch", epochs)
    for epoch in bar:
        loss = run.likelihood.train_epoch(run.step_done)
        bar.set_postfix(loss=f"{loss:.3f}")
        logger.record(f"{Phase.LIKELIHOOD.prefix}/loss", loss)
        if epoch % config.evaluation.every_epochs == 0 or epoch == epochs:
            evaluate(run, epoch)
        logger.dump(epoch)
        run.round_done()
    run.agent.sync_rollout_policy()
    keep_likelihood_start(run)
    run.phase_done()


def train_discriminator(run: Run) -> None:
    """Algorithm 1, lines 4 and 5: the discriminator learns to tell real sequences from the generator's."""
    settings = run.config.adversarial
    bar = rounds_left(run, "fit", settings.d_pretrain_steps if learns(run.game.reward_model) else 0)
    for _ in bar:
        metrics = run.agent.retrain_reward_model(settings.n_generated)
        bar.set_postfix({name: f"{value:.3f}" for name, value in metrics.items()})
        run.round_done()
    run.phase_done()


def train_adversarially(run: Run) -> None:
    """Algorithm 1, lines 6 to 17: the generator learns from rewards, the discriminator from what the generator then writes."""
    agent, folder, settings = run.agent, run.folder, run.config.adversarial
    has_discriminator = learns(run.game.reward_model)
    agent.begin(settings.updates)
    if settings.updates and run.rounds == 0:
        evaluate(run, 0)  # of the generator nothing new, but what the discriminator knows when the first reward is given
    for update in rounds_left(run, "update", settings.updates):
        if run.alarm.should_stop:
            break
        agent.update()  # lines 8 to 12: a batch of sequences, their rewards by Monte Carlo search, one step of policy gradient
        if update % run.config.evaluation.every_updates == 0 or update == settings.updates:
            evaluate(run, update)
        if update == settings.updates // 2:
            folder.save_weights(MIDDLE, agent.generator, run.game)
        if has_discriminator and update % settings.g_steps == 0:
            for _ in range(settings.d_steps):  # lines 13 to 16
                metrics = agent.retrain_reward_model(settings.n_generated)
            run.watch.note(metrics, folder.logger)
        run.round_done()
    if run.alarm.should_stop:
        run.take_best()
    if settings.updates:
        folder.logger.dump(agent.num_timesteps)
    run.phase_done()


def rounds_left(run: Run, unit: str, total: int) -> "tqdm[int]":
    """The numbers of the rounds that are left of a phase, with a bar that estimates their time; no bar without a terminal."""
    hidden = None if run.rounds < total else True  # None: shown where there is a terminal
    numbers = range(run.rounds + 1, total + 1)
    return tqdm(numbers, initial=run.rounds, total=total, desc=run.phase.value, unit=unit, disable=hidden)


def program(arguments: list[str]) -> None:
    """Do what the command line asks for; what cannot be done ends the program with a sentence that says why."""
    with ending_with_a_sentence():
        asked = resume_line(arguments)
        if asked is None:
            main(*command_line(arguments))
        else:
            how = dict(vars(asked))
            resume(how.pop("resume"), **how)


if __name__ == "__main__":
    program(sys.argv[1:])
