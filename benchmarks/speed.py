"""How fast is the project at the paper's sizes? `python -m benchmarks` times each piece against the machine's own limit.

The limit is the speed of one large float32 matrix product in the same process with the same threads, timed right before and
after each repeat, so that other work on the machine slows both. A piece's share is its work (`benchmarks.flops`, the plain
algorithm) divided by its time and by the limit; more than 100% means that it avoided work. Environment steps have no such work
and no share. Results go to `benchmarks/results/`, with every repeat.

On a GPU the first repeats compile and record, which a run pays once: they are not counted, and reported as preparation.
"""

import dataclasses
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from gymnasium.envs.toy_text.taxi import TaxiEnv
from gymnasium.vector import AutoresetMode
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tqdm.auto import tqdm

from agents.experiment.config import OracleConfig
from agents.experiment.presets import PRESETS
from benchmarks import flops, growth, memory
from benchmarks.flops import Shape
from benchmarks.growth import Curve, Sizes
from benchmarks.memory import agent_of, game_of
from seqgan_env.game import SequenceGame
from seqgan_env.games import make_game
from seqgan_env.models.likelihood import LikelihoodTraining
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.oracle import seeded_oracle
from seqgan_env.models.token_model import TokenModel
from seqgan_env.rendering import spell_what_cannot_be_encoded
from seqgan_env.rewards.discriminator import DiscriminatorReward
from seqgan_env.rewards.text_cnn import TextCNN
from seqgan_env.sequence_env import SequenceEnv
from seqgan_env.support.cuda_graphs import without_graphs
from seqgan_env.support.device import resolve_device
from seqgan_env.support.precision import products_in
from seqgan_env.vector_env import SequenceVectorEnv

PieceName = Literal[
    "sampling",
    "likelihood",
    "likelihood-text",
    "rewards",
    "generator",
    "discriminator",
    "discriminator-128",
    "discriminator-256",
    "discriminator-1024",
    "env",
    "taxi",
    "env-64",
    "env-1024",
    "play-64",
    "memory",
]
Unit = Literal["s", "steps/s", "MiB"]

LIMIT_SIZES = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the limit's matrices."""
FIT_STEPS = {"cpu": 40, "cuda": 320}
"""Discriminator steps of 64 to time; in fewer, a fit's preparation and its one look at a GPU's sums would weigh too much."""


@dataclass(frozen=True)
class Target:
    """What a piece should reach."""

    kind: Literal["share of the limit", "s", "steps/s", "MiB"]
    bound: float

    @property
    def is_minimum(self) -> bool:
        """Whether more is better."""
        return self.kind in ("share of the limit", "steps/s")

    def __str__(self) -> str:
        bound = f"{self.bound:.0%}" if self.kind == "share of the limit" else quantity([self.bound], self.kind)
        return f"{'≥' if self.is_minimum else '≤'} {bound}"


TARGETS: dict[str, dict[str, Target]] = {
    "cpu": {
        "sampling": Target("share of the limit", 0.40),
        "likelihood": Target("share of the limit", 0.45),
        "rewards": Target("share of the limit", 1.00),
        "discriminator": Target("share of the limit", 0.50),
        "discriminator-128": Target("share of the limit", 0.65),
        "env-64": Target("steps/s", 2e6),
        "memory": Target("MiB", 2048.0),
    },
    "cuda": {
        "sampling": Target("s", 6e-3),
        "likelihood": Target("s", 40e-3),
        "rewards": Target("s", 10e-3),
        "generator": Target("s", 14e-3),
        "discriminator": Target("s", 200e-6),
        "discriminator-256": Target("s", 400e-6),
        "discriminator-1024": Target("s", 1e-3),
        "paper": Target("s", 240.0),
    },
}
"""Targets at the paper's sizes, by kind of device: on a CPU relative to the machine (steps per second on one core), on a GPU
for `GPU_OF_TARGETS`."""
GPU_OF_TARGETS = "NVIDIA H100"
SHARE_OF_TAXI = 0.5
"""The steps a second that one environment should reach under the default contract, beside those of Gymnasium's `Taxi`."""
EPISODES_OF_ONE = 200
"""To time a single environment in."""


@dataclass(frozen=True)
class Config:
    """Time the pieces, print a table, write JSON and the picture of how cost grows."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto uses a GPU if there is one."""
    repeats: int = 5
    """Repeats of each piece, after one warm-up; on a GPU after three, which compile and record."""
    graphs: bool = True
    """On a GPU, replay recorded kernels as a run does; otherwise launch every kernel separately."""
    threads: int | None = None
    """Torch's threads on the CPU; by default its own choice."""
    pieces: tuple[PieceName, ...] | None = None
    """What to time; by default the pieces that suit the device."""
    growth: bool = True
    """On a CPU, also time how cost grows with lengths and completions, which takes most of the time."""
    growth_sizes: Sizes = field(default_factory=Sizes)
    shape: Shape = field(default_factory=Shape)
    limit_size: int | None = None
    """Rows and columns of the limit's matrices; by default 2048 on a CPU, 8192 on a GPU."""
    out: Path = Path("benchmarks/results")
    """The folder for the files; they replace those of an earlier run on the same kind of device."""


# --- what is timed -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A piece that is ready to be timed."""

    run: Callable[[Any], object]
    """The function to time; it gets the result of `prepare`."""
    flop: float | None = None
    """Its work in floating-point operations."""
    prepare: Callable[[], Any] = lambda: None
    """Runs before each repeat, and is not timed."""
    scale: float = 1.0
    """The reported time is this many times the measured one."""
    steps: int | None = None
    """Steps of the environment, if steps per second are reported."""
    measured_over: str = ""


@dataclass(frozen=True)
class Piece:
    """A piece's name in reports, and the function that makes it."""

    label: str
    build: Callable[[Shape, torch.device], Work]


def sampling(shape: Shape, device: torch.device) -> Work:
    """The generator writes sequences."""
    generator, rng = generator_of(shape, device), seeded(device)
    work = flops.sampling(shape, shape.n_samples)
    return Work(lambda _: generator.sample(shape.n_samples, shape.sequence_length, rng), work, measured_over=sequences(shape))


def likelihood(shape: Shape, device: torch.device) -> Work:
    """An epoch of maximum likelihood, on sequences of the oracle."""
    real = written(seeded_oracle(0, shape.vocab_size, device=device), shape.n_samples, shape)
    return likelihood_epoch(shape, real, flops.likelihood(shape, shape.n_samples))


def text_likelihood(shape: Shape, device: torch.device) -> Work:
    """The same on sequences that end early, at random lengths, of a generator with an end token."""
    real = written(seeded_oracle(0, shape.vocab_size, device=device), shape.n_samples, shape)
    length, end_token = shape.sequence_length, 0
    last = torch.randint(length // 2, length, (len(real), 1), generator=seeded(device), device=device)
    positions = torch.arange(length, device=device)
    real = real.masked_fill(positions == last, end_token).masked_fill(positions > last, shape.vocab_size)
    share = (last + 1).float().mean().item() / length
    return likelihood_epoch(shape, real, share * flops.likelihood(shape, shape.n_samples), end_token)


def likelihood_epoch(shape: Shape, real: Tensor, flop: float, end_token: int | None = None) -> Work:
    """The next epoch of a training that goes on, as in a run."""
    config = dataclasses.replace(PRESETS["paper"][0].pretrain, batch_size=shape.batch_size)
    generator = generator_of(shape, real.device, end_token)
    training = LikelihoodTraining(generator, real, config, seeded(real.device))
    return Work(lambda _: training.train_epoch(), flop, measured_over=sequences(shape))


def rewards(shape: Shape, device: torch.device) -> Work:
    """Monte Carlo rewards of a batch. As in a run, each batch meets a newly retrained discriminator."""
    game, generator = game_to_score(shape, device), generator_of(shape, device)
    game.attach_policy(generator)
    tokens = written(generator, shape.batch_size, shape)
    lengths = torch.full_like(tokens[:, 0], shape.sequence_length)
    keys, positions = torch.arange(len(tokens), device=device), range(shape.sequence_length)
    return Work(
        lambda _: game.action_values(tokens, lengths, keys, positions),
        flops.rewards(shape),
        prepare=lambda: game.retrain(tokens[: len(tokens) // 2]),
        measured_over=f"1 batch of {shape.batch_size}",
    )


def generator_step(shape: Shape, device: torch.device) -> Work:
    """Sample a batch, compute its rewards and learn from it; with a newly retrained discriminator, as in `rewards`."""
    game = game_to_score(shape, device)
    agent = agent_of(game, shape)
    tokens = written(agent.generator, shape.batch_size // 2, shape)
    return Work(
        lambda _: agent.learn(shape.batch_size * shape.sequence_length),
        flops.generator_step(shape),
        prepare=lambda: game.retrain(tokens),
        measured_over=f"1 update of {shape.batch_size}",
    )


def game_to_score(shape: Shape, device: torch.device) -> SequenceGame:
    """The paper's game. Its fits between repeats are not timed, so nothing is compiled for them."""
    plain = dataclasses.replace(shape.discriminator, compile=False)
    return game_of(dataclasses.replace(shape, discriminator=plain), device, shape.batch_size)


def discriminator(batch_size: int | None = None) -> Callable[[Shape, torch.device], Work]:
    """A step of the paper's discriminator, with its own batch size or another."""

    def build(shape: Shape, device: torch.device) -> Work:
        config = shape.cnn if batch_size is None else dataclasses.replace(shape.cnn, batch_size=batch_size)
        passes, in_a_pass = fit_plan(shape, config.batch_size, device.type)
        network = TextCNN(shape.vocab_size, shape.sequence_length, dataclasses.replace(config, epochs=passes), device=device)
        reward = DiscriminatorReward(network)
        half = in_a_pass * config.batch_size // 2
        real = written(seeded_oracle(0, shape.vocab_size, device=device), half, shape)
        generated = written(generator_of(shape, device), in_a_pass * config.batch_size - half, shape)
        return Work(
            lambda _: reward.fit(real, generated),
            flops.discriminator_steps(shape.sequence_length, config, passes * in_a_pass),
            scale=1 / (passes * in_a_pass),
            measured_over=f"{f'{passes} x ' if passes > 1 else ''}{in_a_pass} steps of {config.batch_size:,}",
        )

    return build


def fit_plan(shape: Shape, batch_size: int, device: str) -> tuple[int, int]:
    """Passes and steps in a pass to time: few steps on a CPU, on a GPU as many with every batch size."""
    steps = shape.fit_steps or FIT_STEPS[device]
    in_a_pass = max(4, steps * shape.discriminator.batch_size // batch_size)
    return max(1, steps // in_a_pass) if device == "cuda" else 1, in_a_pass


def single_env(shape: Shape, device: torch.device) -> Work:
    """`SequenceEnv.step`, and `reset` at the end of an episode."""
    return steps_of_one(SequenceEnv(constant_game(shape, device)), random_tokens(shape, EPISODES_OF_ONE), shape)


def taxi(shape: Shape, device: torch.device) -> Work:
    """The same of Gymnasium's `Taxi`, for comparison; both without the wrappers of `gym.make`."""
    env = TaxiEnv()
    return steps_of_one(env, random_tokens(shape, EPISODES_OF_ONE) % int(env.action_space.n), shape)


def steps_of_one(env: gym.Env[Any, Any], actions: Tensor, shape: Shape) -> Work:
    """An environment's `step`, and `reset` before each episode of `actions` `(episodes, sequence_length)`."""
    env.reset(seed=0)
    episodes = list(actions.numpy())

    def run(_: Any) -> None:
        for episode in episodes:
            env.reset()
            for action in episode:
                env.step(action)

    return env_work(run, len(episodes), 1, shape)


def vector_env(n: int, episodes: int) -> Callable[[Shape, torch.device], Work]:
    """`SequenceVectorEnv.step` with `n` rows, for several episodes."""

    def build(shape: Shape, device: torch.device) -> Work:
        env = SequenceVectorEnv(constant_game(shape, device), n, autoreset_mode=AutoresetMode.SAME_STEP)
        env.reset(seed=0)
        actions = list(random_tokens(shape, episodes * n).view(episodes, n, -1).transpose(1, 2).flatten(0, 1).numpy())

        def run(_: Any) -> None:
            for step_actions in actions:  # (n,)
                env.step(step_actions)

        return env_work(run, episodes, n, shape)

    return build


def play(n: int, episodes: int) -> Callable[[Shape, torch.device], Work]:
    """`SequenceVectorEnv.play` with `n` rows, for several episodes."""

    def build(shape: Shape, device: torch.device) -> Work:
        env = SequenceVectorEnv(constant_game(shape, device), n, autoreset_mode=AutoresetMode.SAME_STEP)
        env.reset(seed=0)
        batches = random_tokens(shape, episodes * n).to(device).split(n)

        def run(_: Any) -> None:
            for tokens in batches:
                env.play(tokens)

        return env_work(run, episodes, n, shape)

    return build


PIECES: dict[str, Piece] = {
    "sampling": Piece("sampling", sampling),
    "likelihood": Piece("likelihood epoch", likelihood),
    "likelihood-text": Piece("… that ends early", text_likelihood),
    "rewards": Piece("Monte Carlo rewards", rewards),
    "generator": Piece("generator step", generator_step),
    "discriminator": Piece("discriminator step", discriminator()),
    "discriminator-128": Piece("… of 128", discriminator(128)),
    "discriminator-256": Piece("… of 256", discriminator(256)),
    "discriminator-1024": Piece("… of 1,024", discriminator(1024)),
    "env": Piece("steps of one env", single_env),
    "taxi": Piece("… of Gymnasium's Taxi", taxi),
    "env-64": Piece("steps of 64 rows", vector_env(64, 50)),
    "env-1024": Piece("steps of 1,024 rows", vector_env(1024, 20)),
    "play-64": Piece("play, 64 rows", play(64, 200)),
}
SUITABLE: dict[str, tuple[PieceName, ...]] = {
    "cpu": (
        *("sampling", "likelihood", "rewards", "generator", "discriminator", "discriminator-128"),
        *("env", "taxi", "env-64", "env-1024", "play-64", "memory"),
    ),
    "cuda": (
        *("sampling", "likelihood", "likelihood-text", "rewards", "generator"),
        *("discriminator", "discriminator-256", "discriminator-1024"),
    ),
}
"""The default pieces on each kind of device."""


def generator_of(shape: Shape, device: torch.device, end_token: int | None = None) -> TokenLSTM:
    """The paper's generator, untrained."""
    sizes = (shape.vocab_size, shape.embedding_dim, shape.hidden_dim)
    return TokenLSTM(*sizes, end_token=end_token, generator=torch.Generator().manual_seed(0), device=device)


def constant_game(shape: Shape, device: torch.device) -> SequenceGame:
    """A game whose rewards take no time, to measure the environments alone."""
    real = random_tokens(shape, shape.batch_size)
    return make_game(shape.vocab_size, shape.sequence_length, real, reward_model="constant", device=device)


def random_tokens(shape: Shape, n: int) -> Tensor:
    """Random sequences `(n, length)` int64, on the CPU."""
    return torch.randint(shape.vocab_size, (n, shape.sequence_length), generator=torch.Generator().manual_seed(0))


def written(writer: TokenModel, n: int, shape: Shape) -> Tensor:
    """Sequences `(n, length)` from a generator or an oracle."""
    return writer.sample(n, shape.sequence_length, seeded(writer.device))[0]


def seeded(device: torch.device) -> torch.Generator:
    """A random generator on the device."""
    return torch.Generator(device).manual_seed(0)


def sequences(shape: Shape) -> str:
    """How sampling and likelihood report what they measured."""
    return f"{shape.n_samples:,} sequences"


def env_work(run: Callable[[Any], None], episodes: int, n: int, shape: Shape) -> Work:
    """Work counted in steps of the environment."""
    steps = episodes * n * shape.sequence_length
    return Work(run, steps=steps, measured_over=f"{steps:,} steps")


# --- how it is timed -----------------------------------------------------------------------------------------------------


class Limit:
    """The speed of one large product of square float32 matrices, in FLOP/s: the machine's limit at the moment."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.size = size
        self._device = device
        self._factors = [torch.rand(size, size, device=device, generator=seeded(device)) for _ in range(2)]
        self._product = torch.empty(size, size, device=device)
        self.rate()  # warm up

    def rate(self) -> float:
        """Multiply once."""
        with products_in("highest"):  # whatever precision the pieces use
            seconds = clock(lambda: torch.mm(*self._factors, out=self._product), self._device)
        return 2 * self.size**3 / seconds


def clock(action: Callable[[], object], device: torch.device) -> float:
    """Seconds that an action takes, including the GPU's part."""
    synchronize(device)
    start = time.perf_counter()
    action()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until the GPU is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Row:
    """The measurements of one piece."""

    name: str
    label: str
    unit: Unit
    values: list[float]
    """Each repeat's value in that unit."""
    measured_over: str = ""
    flop: float | None = None
    """The work that takes `values` seconds."""
    limits: list[tuple[float, float]] | None = None
    """The limit's speed before and after each repeat, FLOP/s."""
    prepared: float | None = None
    """Seconds of building and warming up."""
    target: Target | None = None

    @property
    def median(self) -> float:
        """The median over repeats."""
        return median(self.values)

    @property
    def shares(self) -> list[float] | None:
        """The share of the limit in each repeat."""
        if self.flop is None or self.limits is None:
            return None
        return [self.flop / value / mean(rates) for value, rates in zip(self.values, self.limits, strict=True)]

    @property
    def share(self) -> float | None:
        """Their median."""
        return None if self.shares is None else median(self.shares)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None if there is no target."""
        if self.target is None:
            return None
        reached = self.share if self.target.kind == "share of the limit" else self.median
        if reached is None:
            return False
        return reached >= self.target.bound if self.target.is_minimum else reached <= self.target.bound

    def as_json(self) -> dict[str, Any]:
        """All fields, raw and derived."""
        worked_out = {"median": self.median, "lowest": min(self.values), "highest": max(self.values)}
        return dataclasses.asdict(self) | worked_out | {"shares": self.shares, "share": self.share, "met": self.met}


def measure(
    name: str, build: Callable[[], Work], device: torch.device, repeats: int, limit: Limit, tick: Callable[[], object]
) -> Row:
    """Build a piece, warm it up, and time it several times; call `tick` after each repeat."""
    start = time.perf_counter()
    work = build()
    for _ in range(n_uncounted(device)):
        clock(partial(work.run, work.prepare()), device)
        tick()
    prepared = time.perf_counter() - start
    seconds, limits = [], []
    for _ in range(repeats):
        with_what = work.prepare()
        before = limit.rate() if work.flop else 0.0
        seconds.append(clock(partial(work.run, with_what), device))
        limits.append((before, limit.rate() if work.flop else 0.0))
        tick()
    label = PIECES[name].label
    if work.steps is not None:
        per_second = [work.steps / taken for taken in seconds]
        return Row(name, label, "steps/s", per_second, work.measured_over, prepared=prepared)
    scaled = [work.scale * taken for taken in seconds]
    flop = None if work.flop is None else work.scale * work.flop
    return Row(name, label, "s", scaled, work.measured_over, flop, None if flop is None else limits, prepared)


def n_uncounted(device: torch.device) -> int:
    """The number of warm-up repeats: on a GPU one that compiles, one that records, and one that replays."""
    return 3 if device.type == "cuda" else 1


def whole_run(rows: Sequence[Row]) -> Row | None:
    """The preset `paper` from the medians of its parts, without evaluations; None if one of them is missing."""
    config = PRESETS["paper"][0]
    assert isinstance(config, OracleConfig)
    adversarial, of_fits = config.adversarial, config.discriminator
    fits = adversarial.d_pretrain_steps + adversarial.updates * adversarial.d_steps
    times = {
        "sampling": fits,
        "likelihood": config.pretrain.epochs,
        "generator": adversarial.updates * adversarial.g_steps,
        "discriminator": fits * of_fits.epochs * -(-(config.n_real + adversarial.n_generated) // of_fits.batch_size),
    }
    medians = {row.name: row.median for row in rows}
    if not medians.keys() >= times.keys():
        return None
    seconds = sum(times[name] * medians[name] for name in times)
    return Row("paper", "preset paper, projected", "s", [seconds], f"{times['discriminator']:,} fit steps, …")


def measure_memory(config: Config, device: torch.device) -> Row:
    """Peak memory of a process that plays the paper's batch."""
    kind: Any = device.type
    mebibytes = memory.peak_of_fresh_process(memory.Config(config.shape, kind, config.threads))
    return Row("memory", "paper batch, resident", "MiB", [mebibytes], "a process of its own")


# --- the command ---------------------------------------------------------------------------------------------------------


def main(config: Config) -> dict[str, Any]:
    """Time everything, write the files, print the tables; return the content of the JSON.

    Raises:
        ValueError: there are no repeats, the device does not exist, or there are too few sizes to fit growth.
    """
    if config.repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {config.repeats}.")
    device = resolve_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    pieces = SUITABLE[device.type] if config.pieces is None else config.pieces
    names = [name for name in PIECES if name in pieces]
    with_memory, with_growth = "memory" in pieces, config.growth and device.type == "cpu"
    limit = Limit(config.limit_size or LIMIT_SIZES[device.type], device)
    total = len(names) * (n_uncounted(device) + config.repeats) + with_memory
    total += n_growth_repeats(config.growth_sizes) if with_growth else 0
    graphs = nullcontext() if config.graphs else without_graphs()
    with graphs, tqdm(total=total, desc="speed", unit="repeat", disable=None) as bar:
        rows = []
        for name in names:
            bar.set_postfix_str(name)
            build = partial(PIECES[name].build, config.shape, device)
            rows.append(measure(name, build, device, config.repeats, limit, bar.update))
        if with_memory:
            bar.set_postfix_str("memory")
            rows.append(measure_memory(config, device))
            bar.update()
        curves = measure_growth(config, device, bar) if with_growth else []
    if config.shape == Shape():
        rows = with_targets(rows, device.type)
    report = report_of(config, device, limit, rows, curves)
    write(report, curves, config.out)
    show(report, rows, curves, Console(width=None if sys.stdout.isatty() else _FILE_WIDTH))
    return report


def with_targets(rows: Sequence[Row], device: str) -> list[Row]:
    """The rows with the targets of that kind of device, or beside another row, and the whole run if it has one."""
    targets = dict(TARGETS[device])
    for row in rows:
        if row.name == "taxi":
            targets["env"] = Target("steps/s", SHARE_OF_TAXI * row.median)
    whole = whole_run(rows) if "paper" in targets else None
    return [dataclasses.replace(row, target=targets.get(row.name)) for row in (*rows, *([whole] if whole else []))]


def measure_growth(config: Config, device: torch.device, bar: "tqdm[None]") -> list[Curve]:
    """Time the pieces at all sizes of the plan."""

    def time_of(name: str, shape: Shape) -> list[float]:
        bar.set_postfix_str(f"{name}, T {shape.sequence_length}, N {shape.n_rollouts}")
        work = PIECES[name].build(shape, device)
        seconds = []
        for _ in range(config.growth_sizes.repeats):
            prepared = work.prepare()
            seconds.append(clock(lambda prepared=prepared: work.run(prepared), device))  # type: ignore[misc]
            bar.update()
        return seconds

    return growth.grow(config.shape, config.growth_sizes, time_of)


def n_growth_repeats(sizes: Sizes) -> int:
    """The number of timings needed to fit growth."""
    return sizes.repeats * sum(len(values) for _, _, values in growth.plan(sizes))


def report_of(
    config: Config, device: torch.device, limit: Limit, rows: Sequence[Row], curves: Sequence[Curve]
) -> dict[str, Any]:
    """The content of the JSON."""
    rates = [rate for row in rows for pair in row.limits or () for rate in pair] or [limit.rate()]
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "device": device.type,
        "graphs": config.graphs and device.type == "cuda",
        "processor": processor_name(device),
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "repeats": config.repeats,
        "shape": dataclasses.asdict(config.shape),
        "limit": {"size": limit.size, "median": median(rates), "lowest": min(rates), "highest": max(rates)},
        "targets_for": GPU_OF_TARGETS if device.type == "cuda" else "any CPU",
        "rows": [row.as_json() for row in rows],
        "growth_sizes": dataclasses.asdict(config.growth_sizes) if curves else None,
        "growth": [curve.as_json() for curve in curves],
    }


def processor_name(device: torch.device) -> str:
    """The name of the processor or GPU."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def write(report: dict[str, Any], curves: Sequence[Curve], folder: Path) -> None:
    """Write the JSON, and the picture if there are curves."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    (folder / f"speed-{report['device']}.json").write_text(text, encoding="utf-8")
    if curves:
        title = f"{report['processor']}, threads: {report['threads']}"
        growth.draw(curves, title, folder / f"growth-{report['device']}.png")


def show(report: dict[str, Any], rows: Sequence[Row], curves: Sequence[Curve], console: Console) -> None:
    """Print the tables."""
    limit = report["limit"]
    typical, spread = quantity([limit["median"]], "FLOP/s"), quantity([limit["lowest"], limit["highest"]], "FLOP/s")
    console.print(f"{report['processor']}, threads: {report['threads']}")
    console.print(f"Limit: float32 product of {limit['size']} x {limit['size']}, median {typical} ({spread})")
    if rows:
        console.print(speed_table(rows, report["device"]))
    if curves:
        console.print(growth_table(curves))


def speed_table(rows: Sequence[Row], device: str) -> Table:
    """A row per piece."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("", no_wrap=True)
    for name in ("median", "lowest – highest", "work", "share"):
        table.add_column(name, justify="right", no_wrap=name != "lowest – highest")
    table.add_column("measured over")
    optional: dict[str, Callable[[Row], str]] = {}
    if device == "cuda":
        optional["prepared in"] = lambda row: "" if row.prepared is None else quantity([row.prepared], "s")
    if any(row.target is not None for row in rows):
        optional[f"target ({GPU_OF_TARGETS})" if device == "cuda" else "target"] = target_cell
    for name in optional:
        table.add_column(name)
    for row in rows:
        work = "" if row.flop is None else quantity([row.flop], "FLOP")
        share = "" if row.share is None else f"{row.share:.0%}"
        spread = quantity([min(row.values), max(row.values)], row.unit) if len(row.values) > 1 else ""
        cells = (row.label, quantity([row.median], row.unit), spread, work, share, row.measured_over)
        table.add_row(*cells, *(cell(row) for cell in optional.values()))
    return table


def growth_table(curves: Sequence[Curve]) -> Table:
    """A row per curve."""
    table = Table("growth", "seconds at each size", box=None, padding=(0, 1), header_style="bold")
    for curve in curves:
        pairs = zip(curve.sizes, curve.seconds, strict=True)
        table.add_row(curve.law, ", ".join(f"{size}: {seconds:.3g}" for size, seconds in pairs))
    return table


def target_cell(row: Row) -> str:
    """The target, and whether it is met."""
    if row.target is None:
        return ""
    return f"{row.target} {'[green]met[/green]' if row.met else '[red]missed[/red]'}"


def quantity(values: Sequence[float], unit: str) -> str:
    """One number, or a range, to three digits: 67.3 GFLOP for 67.3e9."""
    factor, prefix = next((pair for pair in _PREFIXES if max(values) >= pair[0]), _PREFIXES[-1])
    if unit == "MiB" or (unit == "s" and factor > 1):
        factor, prefix = 1.0, ""
    scaled = [value / factor for value in values]
    numbers = [f"{value:.3g}" if value < 999.5 else f"{value:,.0f}" for value in scaled]
    return f"{' – '.join(numbers)} {prefix}{unit}"


_FILE_WIDTH = 130
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
