"""Tune hyper-parameters with Optuna, on any number of machines: `python examples/sweep.py --storage sweep.journal`.

All processes started with the same storage work on the same study, one trial at a time each. It needs the extra sweeps:
`pip install -e ".[sweeps]"`.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import optuna
import tyro
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

import train
from agents.experiment.config import TrainConfig
from seqgan_env.support.errors import NumericalFault


@dataclass(frozen=True)
class Config:
    """Search for settings of the preset quick that end with a low NLL_oracle + NLL_test."""

    storage: str = "runs/sweep.journal"
    """The storage that processes share: a file in a shared folder, or the URL of a database."""
    study: str = "seqgan"
    """The study's name in the storage."""
    trials: int = 20
    """Trials of this process, one after another."""
    seed: int = 0
    """Seed of this process's trials; give each process a different one."""
    out: Path = Path("runs/sweep")
    """The folder for the runs."""


def search(base: TrainConfig, config: Config) -> optuna.Study:
    """Run this process's trials, each a whole run of `base` with other settings; return the study."""
    study = optuna.create_study(
        study_name=config.study,
        storage=storage(config.storage),
        sampler=optuna.samplers.TPESampler(seed=config.seed),
        load_if_exists=True,
    )
    study.optimize(lambda trial: objective(base, trial, config.out), n_trials=config.trials, catch=NumericalFault)
    return study


def objective(base: TrainConfig, trial: optuna.Trial, out: Path) -> float:
    """A run's last NLL_oracle + NLL_test, nats per token: quality and coverage together."""
    adversarial = dataclasses.replace(
        base.adversarial,
        learning_rate=trial.suggest_float("adversarial.learning_rate", 3e-4, 1e-2, log=True),
        entropy_coef=trial.suggest_float("adversarial.entropy_coef", 1e-4, 1e-1, log=True),
        likelihood_steps=trial.suggest_int("adversarial.likelihood_steps", 0, 2),
    )
    discriminator = dataclasses.replace(
        base.discriminator, learning_rate=trial.suggest_float("discriminator.learning_rate", 1e-4, 1e-2, log=True)
    )
    metrics = train.main(
        dataclasses.replace(base, adversarial=adversarial, discriminator=discriminator, out=out), f"trial-{trial.number}"
    )
    return metrics["adversarial/nll_oracle"] + metrics["adversarial/nll_test"]


def storage(name: str) -> BaseStorage:
    """The storage at a URL, or a journal in a file."""
    if "://" in name:
        return RDBStorage(name)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(name))


if __name__ == "__main__":
    asked = tyro.cli(Config, description=__doc__)
    best = search(train.command_line(["quick"])[0], asked).best_trial
    print(f"Best so far: trial {best.number}, NLL_oracle + NLL_test {best.value:.3f}, with {best.params}")
