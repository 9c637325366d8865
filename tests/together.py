"""What each process of `tests/experiment/test_torchrun.py` does, started by torchrun: `-m tests.together CASE FOLDER`."""

import contextlib
import dataclasses
import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import agents.reinforce
import train
from agents.experiment import results
from agents.experiment.config import CheckpointConfig, TrainConfig
from agents.experiment.run import Run
from agents.experiment.torchrun import TorchWorkers, connected, is_restarted
from seqgan_env.models.generators import GeneratorConfig
from seqgan_env.models.likelihood import PretrainConfig
from seqgan_env.policy_gradient import advantages
from seqgan_env.rewards.density_ratio import DensityRatioConfig, DensityRatioReward
from seqgan_env.saved_game import LAST, save_game
from seqgan_env.support.process_group import Workers
from tests.run_folders import blank_pictures
from tests.tiny_runs import TINY, oracle_config, text_config

KILLED_AFTER = 5


def everything(out: Path) -> TrainConfig:
    """A tiny run in which much can go wrong: dropout in both networks, lag, entropy, likelihood steps, batches of odd sizes.

    The last batch of likelihood training is a single sequence, which two processes cannot share.
    """
    adversarial = dataclasses.replace(
        TINY["adversarial"],
        baseline="leave-one-out",
        rollout_lag=0.5,
        likelihood_steps=1,
        entropy_coef=0.01,
        kl_coef=0.1,
        n_generated=21,
        final_learning_rate=1e-3,
    )
    discriminator = dataclasses.replace(TINY["discriminator"], l2=0.1, learning_rate=1e-2)
    generator = dataclasses.replace(TINY["generator"], dropout=0.2)
    return oracle_config(
        out, n_real=65, adversarial=adversarial, discriminator=discriminator, generator=generator, checkpoint=RARELY
    )


def sentences(out: Path) -> TrainConfig:
    """A text, whose sequences end early, by scheduled sampling and a ranker; the baseline is of the whole batch."""
    pretrain = PretrainConfig(epochs=3, batch_size=16, scheduled_sampling=True)
    adversarial = dataclasses.replace(TINY["adversarial"], reward_model="rank", baseline="batch", rollout_lag=0.0)
    adversarial = dataclasses.replace(adversarial, loss_reduction="sum", max_grad_norm=0.1)
    return text_config(out, pretrain=pretrain, adversarial=adversarial, checkpoint=RARELY)


def ratio(out: Path) -> TrainConfig:
    """A discriminator that learns a density, with dropout, in batches of odd sizes; every token is scored."""
    model = GeneratorConfig(embedding_dim=3, hidden_dim=3, dropout=0.2)
    density_ratio = DensityRatioConfig(n_models=2, model=model, batch_size=9)
    adversarial = dataclasses.replace(TINY["adversarial"], reward_model="density-ratio", density_ratio=density_ratio)
    return oracle_config(out, n_real=65, adversarial=adversarial, checkpoint=RARELY)


RARELY = CheckpointConfig(every_rounds=10_000, every_minutes=10_000.0)
CONFIGS: dict[str, Callable[[Path], TrainConfig]] = {"everything": everything, "sentences": sentences, "ratio": ratio}


class ApartWorkers(TorchWorkers):
    """A deliberate fault: processes do not exchange gradients."""

    def sum_gradients(self, parameters: Any, numbers: Tensor) -> Tensor:
        """Sum nothing."""
        return numbers


def advantages_apart(returns: Tensor, lengths: Tensor, baseline: Any) -> Tensor:
    """A deliberate fault: each half of the batch has its own baseline."""
    halves = zip(returns.chunk(2), lengths.chunk(2), strict=True)
    return torch.cat([advantages(*half, baseline) for half in halves])


def write_weights(run: Run) -> None:
    """Write only the weights of a run's results, which takes no time."""
    run.folder.save_weights(LAST, run.agent.generator, run.game)
    save_game(run.game, run.folder.path)


def digest(run: Run) -> str:
    """A checksum of all parameters."""
    agent, model = run.agent, run.game.reward_model
    network = model.density if isinstance(model, DensityRatioReward) else getattr(model, "discriminator", model)
    modules = [agent.generator, agent.rollout_policy, network]  # type: ignore[attr-defined]
    sums = hashlib.sha256()
    for module in modules:
        for parameter in module.parameters():
            sums.update(parameter.detach().numpy().tobytes())
    return sums.hexdigest()


@contextlib.contextmanager
def noting_rounds(notes: list[str], after: Callable[[int], None] = lambda n: None) -> Iterator[None]:
    """Note a checksum after each round."""
    original = Run.round_done

    def round_done(self: Run) -> None:
        original(self)
        notes.append(digest(self))
        after(len(notes))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "round_done", round_done)
        yield


def run(name: str, config: TrainConfig, workers: Workers, folder: Path, after: Callable[[int], None] = lambda n: None) -> None:
    """A run, and a file with this process's checksums."""
    notes: list[str] = []
    with noting_rounds(notes, after):
        metrics = train.train(Run.start(config, name, workers))
    (folder / f"{name}-{workers.rank}.json").write_text(json.dumps({"rounds": notes, "metrics": metrics}))


def compare(folder: Path) -> None:
    """All configs, and the first with a fault each; which files each process opened for writing."""
    opened: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and set(str(arguments[1])) & set("wax+"):
            opened.append(arguments[0])

    sys.addaudithook(note)
    with connected() as workers:
        for name, make in CONFIGS.items():
            run(name, make(folder / name), workers, folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(results, "write_results", write_weights)
            run("apart", everything(folder / "apart"), ApartWorkers(), folder)
            patch.setattr(agents.reinforce, "advantages", advantages_apart)
            run("baseline", everything(folder / "baseline"), workers, folder)
        (folder / f"opened-{workers.rank}.json").write_text(json.dumps(opened))


def be_killed(folder: Path) -> None:
    """The second process is killed in the first life of a run."""

    def after(rounds: int) -> None:
        if rounds == KILLED_AFTER and os.environ["RANK"] == "1" and not is_restarted():
            os.kill(os.getpid(), signal.SIGKILL)

    notes: list[str] = []
    with noting_rounds(notes, after):
        train.main(everything(folder / "killed"), "killed")
    (folder / f"killed-{os.environ['RANK']}.json").write_text(json.dumps({"rounds": notes}))


@contextlib.contextmanager
def in_double_precision() -> Iterator[None]:
    """Use float64, so that the split of rows over processes cannot round to another token, as it sometimes does in float32."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with blank_pictures(), in_double_precision():
        {"compare": compare, "be_killed": be_killed}[sys.argv[1]](Path(sys.argv[2]))
