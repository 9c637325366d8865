"""Does adversarial training help? `SEQGAN_DATA=... python -m benchmarks.learning` runs the experiments of `docs/learning.md`.

Each row is a generator: a likelihood start, alone or followed by an adversarial phase. Its temperature is swept at inference,
and rows are compared by their curves of quality (NLL_oracle of samples) against coverage (NLL_test of held-out real
sequences), because a colder generator always has a lower NLL_oracle. Rows are paired by seed: they share the real sequences
and the start. Each finished run is a line of `learning.jsonl`; if you call the program again, it continues with the others.
`--size small` uses a small oracle for quick iteration; do not draw conclusions from it alone.
"""

import dataclasses
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from agents.experiment.config import OracleConfig
from agents.experiment.make_task import make_oracle_task
from agents.experiment.presets import PRESETS
from benchmarks.finished_runs import FinishedRuns, Key, side_by_side, with_needs
from benchmarks.learning_report import Result, Sweep, against_controls, draw, draw_gains, levers_table, tables
from benchmarks.rejection import rejection_sweep
from benchmarks.run_folders import NO_UPDATES, ORACLE, newest_run, run_in
from seqgan_env.evaluation.run_logs import read_log
from seqgan_env.metrics.temperature import INVERSE_TEMPERATURES, mean_nll, temperature_sweep
from seqgan_env.models.generators import GeneratorConfig
from seqgan_env.models.token_model import TokenModel
from seqgan_env.rendering import spell_what_cannot_be_encoded
from seqgan_env.rewards.density_ratio import DensityRatioReward
from seqgan_env.saved_game import HELD_OUT, LAST, LIKELIHOOD, MIDDLE, load_game, load_generator, load_sequences
from seqgan_env.support import seeds

Size = Literal["full", "small"]

UNIFORM, PUBLISHED, REGULARISED = "uniform", "likelihood, published", "likelihood, regularised"
STARTS = (PUBLISHED, REGULARISED)
OURS = f"{REGULARISED}; density ratio"
DENSITY = f"{REGULARISED}; the ratio's density itself"
REJECTION = f"{REGULARISED}; rejection by the density ratio"
BOTH = f"{REGULARISED}; density ratio, then rejection by it"
AVERAGED = f"{REGULARISED}; density ratio, averaged parameters"
WITHOUT_TRAINING = (DENSITY, REJECTION, BOTH, AVERAGED)
"""Rows made from what our best agent's run leaves."""
CONTROLS = {model: f"{REGULARISED}; {model} in its place" for model in ("constant", "random")}
"""The controls do not score tokens, and averaging completions would remove most of the differences in a random reward, so
their contract is `"terminal"`."""

REDUCED_PUBLISHED: dict[str, Any] = {
    "updates": 30,
    "batch_size": 64,
    "n_rollouts": 4,
    "scaling": "probability",
    "learning_rate": 0.01,
    "final_learning_rate": None,
    "baseline": "none",
    "entropy_coef": 0.0,
    "rollout_lag": 0.8,
    "d_pretrain_steps": 20,
    "g_steps": 1,
    "d_steps": 1,
    "n_generated": 2000,
}
"""The published update (Adam at 0.01, batches of 64, no baseline, D itself) at a size that takes a minute: 30 updates with 4
completions, each followed by one fit of 2,000 + 2,000 sequences of the preset's lighter, regularised discriminator."""

RATIO_LEVERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "without the start": ({}, {"with_start": False}),
    "two models": ({}, {"n_models": 2}),
    "never retrained": ({"g_steps": 1_000_000}, {}),
    "returns of whole sequences": ({"reward": "shaped"}, {}),
    "no entropy penalty": ({"entropy_coef": 0.0}, {}),
    "entropy bonus": ({"entropy_coef": 0.15}, {}),
    "held to the start": ({"kl_coef": 0.15}, {}),
    "batches of 64": ({"batch_size": 64}, {}),
    "batches of 512": ({"batch_size": 512}, {}),
    "step size 0.003": ({"learning_rate": 3e-3, "final_learning_rate": 3e-4}, {}),
    "no baseline": ({"baseline": "none"}, {}),
    "likelihood steps": ({"likelihood_steps": 1}, {}),
}
"""Changes of the preset `paper-cpu`, and of its density ratio."""

CNN: dict[str, Any] = {
    "reward_model": "discriminator",
    "scaling": "centred",
    "entropy_coef": 0.0,
    "updates": 20,
    "n_rollouts": 2,
    "n_generated": 2000,
    "d_pretrain_steps": 20,
    "g_steps": 1,
}
"""A discriminator of whole sequences in place of the ratio, with more and shorter fits, and fewer updates."""
CNN_LEVERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no weight decay": ({}, {"weight_decay": 0.0}),
    "no dropout": ({}, {"dropout": 0.0}),
    "embedding of 4": ({}, {"embedding_dim": 4}),
    "windows of one token": ({}, {"widths": (1,), "n_filters": (64,)}),
    "five times the fits": ({"d_pretrain_steps": 100, "d_steps": 5}, {}),
    "D": ({"scaling": "probability"}, {}),
    "log D": ({"scaling": "log"}, {}),
    "ratio, MaliGAN's weights": ({"scaling": "ratio", "baseline": "maligan"}, {}),
    "rank": ({"reward_model": "rank"}, {}),
    "entropy penalty": ({"entropy_coef": -0.02}, {}),
    "entropy bonus": ({"entropy_coef": 0.02}, {}),
    "batches of 512": ({"batch_size": 512}, {}),
    "step size 0.003": ({"learning_rate": 3e-3, "final_learning_rate": 3e-4}, {}),
    "held to the start": ({"kl_coef": 0.15}, {}),
    "likelihood steps": ({"likelihood_steps": 1}, {}),
}
"""Changes of `CNN`, and of the discriminator itself."""

SMALL_RATIO: dict[str, Any] = {"model": GeneratorConfig(embedding_dim=64, hidden_dim=64, dropout=0.5), "epochs": 4}
"""Changes of the density ratio on the small oracle."""


@dataclass(frozen=True)
class Row:
    """A generator: its start, and the changes that its adversarial phase makes to the preset `paper-cpu`."""

    start: str
    changes: dict[str, Any] = field(default_factory=dict)
    """Changes of `AdversarialConfig`."""
    ratio: dict[str, Any] = field(default_factory=dict)
    """Changes of its `DensityRatioConfig`."""
    discriminator: dict[str, Any] = field(default_factory=dict)
    """Changes of its `TextCNNConfig`."""
    needs: tuple[str, ...] = ()
    """The rows that must be finished first."""
    lever: bool = False
    """Whether it is shown as a single lever, not among the rows of the protocol."""


def _rows() -> dict[str, Row]:
    def after(start: str, changes: dict[str, Any], **parts: Any) -> Row:
        return Row(start, changes, needs=(start,), **parts)

    rows = {UNIFORM: Row(UNIFORM)} | {start: Row(start, NO_UPDATES) for start in STARTS}
    for start in STARTS:
        for model in ("discriminator", "constant", "random"):
            rows[f"{start}; reduced published update, {model}"] = after(start, {**REDUCED_PUBLISHED, "reward_model": model})
    rows[f"{PUBLISHED}; PG-BLEU"] = after(PUBLISHED, {**REDUCED_PUBLISHED, "reward_model": "bleu"})
    rows[OURS] = after(REGULARISED, {})
    for name in WITHOUT_TRAINING:
        rows[name] = Row(REGULARISED, needs=(REGULARISED, OURS), lever=name != DENSITY)
    for model, name in CONTROLS.items():
        rows[name] = after(REGULARISED, {"reward_model": model, "reward": "terminal"})
    rows[f"{PUBLISHED}; density ratio"] = after(PUBLISHED, {}, lever=True)
    for name, (changes, ratio) in RATIO_LEVERS.items():
        rows[f"{REGULARISED}; density ratio, {name}"] = after(REGULARISED, changes, ratio=ratio, lever=True)
    rows[f"{REGULARISED}; CNN"] = after(REGULARISED, CNN, lever=True)
    for name, (changes, discriminator) in CNN_LEVERS.items():
        rows[f"{REGULARISED}; CNN, {name}"] = after(REGULARISED, CNN | changes, discriminator=discriminator, lever=True)
    return rows


ROWS = _rows()


@dataclass(frozen=True)
class Config:
    """Run the protocol over several seeds."""

    size: Size = "full"
    """The published oracle, or a small one, different for each seed."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds of the real sequences and of the run."""
    rows: tuple[str, ...] = tuple(name for name, row in ROWS.items() if not row.lever)
    """The rows to run, with the rows that they need; by default all except the levers."""
    levers: bool = False
    """Run the levers, too."""
    data: Path = field(default_factory=lambda: Path(os.environ.get("SEQGAN_DATA", ".")))
    """The folder with the published oracle; by default the environment variable SEQGAN_DATA."""
    n_samples: int = 10_000
    """Samples per temperature, and held-out sequences."""
    out: Path = Path("runs/learning")
    """The folder for run folders, `learning.jsonl` and pictures."""
    jobs: int = 2
    """Parallel runs, with one thread each."""
    report_only: bool = False
    """Only print the tables and draw the pictures of the finished runs."""


def main(config: Config) -> None:
    """Do the unfinished runs, print the tables, draw the pictures.

    Raises:
        ValueError: a row is unknown.
    """
    unknown = [name for name in config.rows if name not in ROWS]
    if unknown:
        raise ValueError(f"There are no rows {unknown}; there are {list(ROWS)}.")
    out = config.out / config.size
    file = FinishedRuns(out / "learning.jsonl", Result)
    results = [result for result in file.read() if result.seed in config.seeds and result.n_samples == config.n_samples]
    rows = dict.fromkeys(config.rows + tuple(name for name in ROWS if config.levers))
    wanted = with_needs([(name, seed) for seed in config.seeds for name in rows], _needs)
    if not config.report_only:
        finished = {(result.row, result.seed) for result in results}
        left = [one for one in wanted if one not in finished]
        results += file.append(side_by_side(run, [(*one, config) for one in left], config.jobs, _needs))
    if not results:
        print(f"No run is finished in {file.path}.")
        return
    asked_for = {name for name, _ in wanted}
    shown = [name for name in ROWS if name in asked_for]
    protocol = [name for name in shown if not ROWS[name].lever]
    print(tables(results, protocol))
    print(against_controls(results, OURS, CONTROLS))
    print(draw(results, protocol, out / "learning.png"))
    levers = [name for name in shown if ROWS[name].lever]
    if levers:
        print("\n" + levers_table(results, [OURS, *levers]))
        print(draw_gains(results, [OURS, *levers], OURS, out / "levers.png"))


def _needs(key: Key) -> list[Key]:
    return [(name, *key[1:]) for name in ROWS[key[0]].needs]


def settings(name: str, seed: int, config: Config) -> OracleConfig:
    """The settings of a row: those of the preset `paper-cpu` with the row's changes."""
    row = ROWS[name]
    preset = PRESETS["paper-cpu"][0]
    assert isinstance(preset, OracleConfig)
    pretrain, generator = preset.pretrain, preset.generator
    if row.start == PUBLISHED:
        paper = PRESETS["paper"][0]
        pretrain = dataclasses.replace(paper.pretrain, epochs=40, shuffle=True)  # the figures of docs/learning.md are of this
        generator = paper.generator
    oracle: dict[str, Any] = {"oracle_params": config.data / ORACLE}
    changes, ratio = row.changes, row.ratio
    if config.size == "small":
        changes, ratio = {"updates": 60, "n_generated": 1000} | changes, SMALL_RATIO | ratio
        oracle = {"vocab_size": 500, "oracle_seed": seed, "n_real": 1000}  # as few tokens to a parameter
        pretrain = dataclasses.replace(pretrain, epochs=100)
        if row.start == REGULARISED:
            generator = GeneratorConfig(embedding_dim=64, hidden_dim=64, dropout=0.5)
    return dataclasses.replace(
        preset,
        seed=seed,
        device="cpu",
        pretrain=pretrain,
        generator=generator,
        discriminator=dataclasses.replace(preset.discriminator, **row.discriminator),
        adversarial=dataclasses.replace(
            preset.adversarial, density_ratio=dataclasses.replace(preset.adversarial.density_ratio, **ratio), **changes
        ),
        evaluation=dataclasses.replace(
            preset.evaluation,
            n_samples=2000,
            n_held_out=config.n_samples,
            every_epochs=10,
            every_updates=50,
            sweep=False,
        ),
        **oracle,
    )


def run(name: str, seed: int, config: Config) -> Result:
    """Measure one row with one seed."""
    make = run_uniform if name == UNIFORM else run_without_training if name in WITHOUT_TRAINING else run_training
    return dataclasses.replace(make(name, seed, config), n_samples=config.n_samples)


def run_training(name: str, seed: int, config: Config) -> Result:
    """Do one run, and sweep its temperature."""
    begun = time.monotonic()
    run_config, start = settings(name, seed, config), ROWS[name].start
    if name != start:
        run_config = dataclasses.replace(run_config, start_from=_folder(start, seed, config) / f"{LIKELIHOOD}.safetensors")
    folder = run_in(_parent(name, seed, config), run_config, "paper-cpu")
    seconds = time.monotonic() - begun
    log = read_log(folder / "progress.csv")
    accuracy, loss = (
        next((float(line[key]) for line in reversed(log) if line.get(key)), math.nan)
        for key in ("adversarial/discriminator_accuracy", "adversarial/discriminator_loss")
    )
    generator = load_generator(folder / f"{LAST}.safetensors", load_game(folder))
    return Result(name, seed, sweep_of(generator, folder, seed, config.n_samples), accuracy, loss, seconds)


def run_uniform(name: str, seed: int, config: Config) -> Result:
    """Uniformly drawn tokens, equal at every temperature."""
    task = make_oracle_task(settings(PUBLISHED, seed, config))
    oracle, shape = task.game.oracle, (config.n_samples, task.game.sequence_length)
    assert oracle is not None
    tokens = torch.randint(oracle.vocab_size, shape, generator=_rng(seed))
    own = mean_nll(oracle, tokens), math.log(oracle.vocab_size)
    return Result(name, seed, [(alpha, *own) for alpha in INVERSE_TEMPERATURES])


def run_without_training(name: str, seed: int, config: Config) -> Result:
    """Rows made from our best agent's run: its density, its discriminator, its parameters along the way."""
    torch.set_num_threads(1)
    folder = _folder(OURS, seed, config)
    game = load_game(folder)
    ratio, oracle = game.reward_model, game.oracle
    assert isinstance(ratio, DensityRatioReward)
    assert oracle is not None
    if name == DENSITY:
        n_samples = max(1, config.n_samples // 5)  # sampling a mixture is slow
        return Result(name, seed, sweep_of(ratio.density, folder, seed, n_samples))
    generator = load_generator(folder / f"{LIKELIHOOD if name == REJECTION else LAST}.safetensors", game)
    if name == AVERAGED:
        middle = load_generator(folder / f"{MIDDLE}.safetensors", game).state_dict()
        generator.load_state_dict({key: (value + middle[key]) / 2 for key, value in generator.state_dict().items()})
        return Result(name, seed, sweep_of(generator, folder, seed, config.n_samples))
    ratio.attach_policy(generator)
    held_out, rng = load_sequences(folder / HELD_OUT)[: config.n_samples], _rng(seed)
    return Result(name, seed, rejection_sweep(generator, ratio.log_odds, oracle, held_out, rng, config.n_samples))


def sweep_of(generator: TokenModel, folder: Path, seed: int, n_samples: int) -> Sweep:
    """Sweep a generator's temperature, with the oracle and the held-out sequences in a run's folder."""
    torch.set_num_threads(1)
    game, held_out = load_game(folder), load_sequences(folder / HELD_OUT)[:n_samples]
    assert game.oracle is not None
    length = game.sequence_length
    points = temperature_sweep(generator, game.oracle, held_out, _rng(seed), n_samples=n_samples, length=length)
    return [(point.inverse_temperature, point.nll_oracle, point.nll_test) for point in points]


def _rng(seed: int) -> torch.Generator:
    """The generator of a row's samples, independent of all random numbers of a run."""
    return torch.Generator().manual_seed(seed + seeds.LEARNING_BENCHMARK)


def _parent(name: str, seed: int, config: Config) -> Path:
    plain = "".join(letter if letter.isalnum() else "-" for letter in name).replace("--", "-")
    return config.out / config.size / f"{plain}-seed{seed}"


def _folder(name: str, seed: int, config: Config) -> Path:
    """The folder of a finished run."""
    return newest_run(_parent(name, seed, config))


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
