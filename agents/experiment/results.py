"""The results of a run: measurements along the way, results at the end, and what remains when it is stopped."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from tqdm.auto import tqdm

from agents.experiment.make_task import judge_discriminator
from agents.experiment.names import SAMPLES, SAMPLES_LIKELIHOOD, Phase
from agents.experiment.report import write_report
from agents.experiment.run import Run
from seqgan_env.data.vocabulary import lines_of, one_line
from seqgan_env.metrics.temperature import SweepPoint, temperature_sweep
from seqgan_env.saved_game import HELD_OUT, LAST, LIKELIHOOD, save_game, save_sequences
from seqgan_env.support import seeds


def evaluate(run: Run, step: int) -> None:
    """Measure the generator after `step` rounds of a phase; in the adversarial phase check for collapse.

    Measuring uses separate random numbers, so its frequency does not affect training.
    """
    phase, game, folder = run.phase, run.game, run.folder

    def look() -> dict[str, float]:
        samples = samples_of(run)
        folder.show_samples(phase, lines_of(samples[:10], game.vocabulary, game.vocab_size))
        metrics = run.task.evaluate(run.agent, samples)
        return metrics | judge_discriminator(run.task, samples) if phase is Phase.ADVERSARIAL else metrics

    metrics = run.workers.of_first(look)
    folder.measure(phase, step, metrics)
    if phase is Phase.ADVERSARIAL:
        if step:
            folder.show_rewards(phase, run.agent.last_played.rewards, run.agent.last_played.lengths)
        run.judge(metrics, step)


def samples_of(run: Run) -> Tensor:
    """The sequences `(n_samples, sequence_length)` for an evaluation."""
    rng = torch.Generator(run.game.device).manual_seed(run.config.seed + seeds.PROGRESS)
    return run.agent.generator.sample(run.config.evaluation.n_samples, run.game.sequence_length, rng)[0]


@contextmanager
def saved_when_stopped(run: Run) -> Iterator[None]:
    """However the block ends, write a checkpoint of the last finished round, and say so; see `save_what_there_is`."""
    try:
        yield
    except BaseException as reason:
        run.hold_off()
        save_what_there_is(run, reason)
        raise


def save_what_there_is(run: Run, reason: BaseException) -> None:
    """Write a checkpoint of the last finished round, and say so; after Ctrl-C also all files of a finished run.

    A new run that ends before it has learned anything leaves nothing, unless it was stopped. Under torchrun only the
    checkpoint is written, because it is chance whether SIGTERM or another process's failure arrives first, and torchrun soon
    kills the processes that it ends.
    """
    if isinstance(reason, Exception) and run.discard_if_nothing_was_learned():
        print(f"Nothing was learned, so {run.folder.path} is removed.", flush=True)
        return
    if isinstance(reason, OSError) or not run.workers.is_first:  # writing is impossible, and the error says what to do
        return
    run.set_back()
    path = run.write_checkpoint()
    stopped = isinstance(reason, KeyboardInterrupt)
    print(f"\n{'Stopped' if stopped else f'Ended by {type(reason).__name__}'}.", flush=True)
    if path is not None:
        print(f"Saved {path}.")
    objective = run.config.adversarial.objective
    again = "" if objective is None else f" --objective {objective}"
    print(f"Resume with: python train.py --resume {run.folder.path}{again}", flush=True)
    if stopped and run.workers.count == 1:
        print("Writing the results so far; Ctrl-C ends at once.", flush=True)
        finish(run)


def keep_likelihood_start(run: Run) -> None:
    """Save the generator with which the adversarial phase starts, and its samples."""
    run.folder.save_weights(LIKELIHOOD, run.agent.generator, run.game)
    run.folder.save_text(SAMPLES_LIKELIHOOD, write_samples(run))
    start = run.folder.last(Phase.LIKELIHOOD)
    if start is not None:
        run.judge(start.metrics, step=0)


def finish(run: Run) -> dict[str, float]:
    """Write the files of a finished run; return the last metrics of both phases, named `phase/metric`."""
    if run.workers.is_first:
        write_results(run)
    last = [run.folder.last(Phase.LIKELIHOOD), run.folder.last(Phase.ADVERSARIAL)]
    return {f"{m.phase.prefix}/{name}": value for m in last if m is not None for name, value in m.metrics.items()}


def write_results(run: Run) -> None:
    """Save everything, draw the pictures, print the table."""
    config, task, folder = run.config, run.task, run.folder
    folder.save_weights(LAST, run.agent.generator, task.game)
    save_game(task.game, folder.path)
    save_sequences(folder.path / HELD_OUT, task.held_out)
    folder.save_text(SAMPLES, write_samples(run))
    folder.draw_learning_curve(task.panels, task.labels, task.floor)
    if config.evaluation.sweep and task.floor is not None and folder.last(Phase.ADVERSARIAL) is not None:
        folder.draw_quality_against_coverage(sweep_both(run), task.floor)
    folder.draw_discriminator()
    write_report(
        folder,
        task.game,
        task.labels,
        task.floor,
        batch_size=config.adversarial.batch_size,
        seed=config.seed,
        baseline=config.adversarial.baseline,
    )
    folder.print_summary(task.labels, task.floor)


def sweep_both(run: Run) -> dict[str, list[SweepPoint]]:
    """The temperature sweeps of the generator after the likelihood phase, and of the current one."""
    config, task = run.config, run.task
    assert task.game.oracle is not None
    start = run.folder.load_generator(LIKELIHOOD, task.game)
    sweeps = {}
    generators = {"maximum likelihood": start, "adversarial": run.agent.generator}
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


def write_samples(run: Run) -> str:
    """Samples of the generator, one sequence per line."""
    return "".join(one_line(text) + "\n" for text in lines_of(samples_of(run), run.game.vocabulary, run.game.vocab_size))
