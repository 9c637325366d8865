"""How training scales: `python -m benchmarks.scaling` times one and two processes here, and projects 8 and 64 GPUs.

Each process has one thread. One and two processes alternate, so that other work on the machine slows both; the best turn
counts.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import tyro
from stable_baselines3.common.logger import Logger
from torch import Tensor, nn

from agents.experiment.config import TrainConfig
from agents.experiment.make_agent import make_agent
from agents.experiment.make_task import make_task
from agents.experiment.presets import PRESETS
from agents.experiment.torchrun import TorchWorkers, connected
from seqgan_env.models.generators import make_generator
from seqgan_env.models.likelihood import LikelihoodTraining, PretrainConfig
from seqgan_env.rewards.text_cnn import TextCNN
from seqgan_env.support.process_group import Workers

Times = dict[str, dict[str, float]]
"""By phase: seconds, seconds spent in exchanges (including waiting for the other process), and the number of exchanges."""
PHASES = {"likelihood": "steps of likelihood", "fit": "steps of the discriminator", "updates": "updates of the policy"}


@dataclass(frozen=True)
class Config:
    """Time one and two processes at the size of quick."""

    repeats: int = 3
    """Turns for each number of processes."""
    steps: int = 40
    """Steps of each phase per turn."""


@dataclass(frozen=True)
class Link:
    """The connection between GPUs: assumptions, not measurements."""

    n: int
    name: str
    bandwidth: float
    """Bytes per second that a ring all-reduce moves through each GPU's link."""
    latency: float
    """Seconds of a small all-reduce."""


LINKS = (
    Link(8, "8 GPUs, one machine, NVLink", 300e9, 30e-6),
    Link(64, "64 GPUs, eight machines, InfiniBand 400 Gb/s a GPU", 40e9, 100e-6),
)
GPU_FLOPS = 20e12
"""Floating-point operations per second that a GPU sustains on these networks: assumed, not measured."""
PAPER_FLOPS = {"likelihood": 1.28e9, "fit": 5.2e9, "updates": 0.6e12}
"""Floating-point operations of a step at the paper's sizes and batch of 64; counted, see `docs/scaling.md`."""


class TimedWorkers(TorchWorkers):
    """Records how long exchanges take."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.exchanges = 0

    def gather(self, own: Tensor, n: int) -> Tensor:
        """See `Workers.gather`."""
        return self._timed(lambda: super(TimedWorkers, self).gather(own, n))

    def sum_gradients(self, parameters: Iterable[nn.Parameter], numbers: Tensor) -> Tensor:
        """See `Workers.sum_gradients`."""
        return self._timed(lambda: super(TimedWorkers, self).sum_gradients(parameters, numbers))

    def _timed(self, exchange: Callable[[], Tensor]) -> Tensor:
        start = time.perf_counter()
        result = exchange()
        self.seconds += time.perf_counter() - start
        self.exchanges += 1
        return result


def main(config: Config) -> None:
    """Time, and print both tables."""
    turns: dict[tuple[int, int], list[Times]] = {(1, 1): [], (2, 1): [], (2, 2): []}
    for _ in range(config.repeats):
        for (n, factor), times in turns.items():
            times.append(launch(n, config.steps, factor))
    print(measured({case: best(times) for case, times in turns.items()}, config.steps))
    print()
    print(projected())


def launch(n: int, steps: int, factor: int) -> Times:
    """The first process's times, with `n` processes and `factor` times the batch."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "times.json"
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"]
        subprocess.run(
            [*launcher, "-m", "benchmarks.scaling", str(out), str(steps), str(factor)],
            check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        times: Times = json.loads(out.read_text())
        return times


def work(out: Path, steps: int, factor: int) -> None:
    """The work of each process, started by torchrun: some steps of each phase."""
    torch.set_num_threads(1)
    with connected() as workers:
        times = phases(sized(factor, steps), workers, steps)
        if workers.is_first:
            out.write_text(json.dumps(times))


def sized(factor: int, steps: int) -> TrainConfig:
    """The preset quick on the CPU, with larger batches and enough data for the steps."""
    quick = PRESETS["quick"][0]
    pretrain: PretrainConfig = dataclasses.replace(quick.pretrain, epochs=1, batch_size=factor * quick.pretrain.batch_size)
    adversarial = dataclasses.replace(quick.adversarial, batch_size=factor * quick.adversarial.batch_size, updates=steps)
    discriminator = dataclasses.replace(quick.discriminator, batch_size=factor * quick.discriminator.batch_size)
    n_real = steps * pretrain.batch_size
    changes: dict[str, Any] = {"n_real": n_real, "pretrain": pretrain, "adversarial": adversarial}
    return dataclasses.replace(quick, device="cpu", discriminator=discriminator, **changes)


def phases(config: TrainConfig, workers: Workers, steps: int) -> Times:
    """Times of each phase."""
    timed = TimedWorkers() if workers.count > 1 else workers
    task = make_task(config)
    agent = make_agent(config, task.game)
    agent.set_logger(Logger(None, []))
    task.game.share_work(timed)
    rng = torch.Generator().manual_seed(0)
    likelihood = LikelihoodTraining(agent.generator, task.game.real_sequences, config.pretrain, rng, timed)
    n_generated = steps * config.discriminator.batch_size // 2
    tokens = steps * config.adversarial.batch_size * task.game.sequence_length
    return {
        "likelihood": clock(likelihood.run, timed),
        "fit": clock(lambda: agent.retrain_reward_model(n_generated), timed),
        "updates": clock(lambda: agent.learn(tokens), timed),
    }


def clock(action: Callable[[], object], workers: Workers) -> dict[str, float]:
    """Time an action, from the moment when all workers are ready."""
    workers.together()
    seconds, exchanges = (workers.seconds, workers.exchanges) if isinstance(workers, TimedWorkers) else (0.0, 0)
    start = time.perf_counter()
    action()
    result = {"seconds": time.perf_counter() - start, "exchange": 0.0, "exchanges": 0.0}
    if isinstance(workers, TimedWorkers):
        result |= {"exchange": workers.seconds - seconds, "exchanges": float(workers.exchanges - exchanges)}
    return result


def best(turns: list[Times]) -> Times:
    """Each phase's fastest turn."""
    return {phase: min((turn[phase] for turn in turns), key=lambda times: times["seconds"]) for phase in PHASES}


def measured(cases: dict[tuple[int, int], Times], steps: int) -> str:
    """The table of the times measured here."""
    lines = [
        "| phase | processes | batch | steps a second | sequences a second, against one process | time in exchanges |",
        "|---|---|---|---|---|---|",
    ]
    for phase, label in PHASES.items():
        alone = cases[1, 1][phase]["seconds"]
        for (n, factor), times in cases.items():
            seconds, exchange = times[phase]["seconds"], times[phase]["exchange"]
            speed = f"{steps / seconds:.1f} | {factor * alone / seconds:.2f}"
            lines.append(f"| {label} | {n} | x {factor} | {speed} | {exchange / seconds:.0%} |")
    return "\n".join(lines)


def volume(n_parameters: int, n: int) -> float:
    """Bytes that each of `n` processes sends, and receives, in a ring all-reduce of float32 gradients."""
    return n_parameters * 4 * 2 * (n - 1) / n


def paper_parameters() -> dict[str, int]:
    """The number of parameters whose gradients each phase's step sums, at the paper's sizes."""
    config = PRESETS["paper"][0]
    generator = make_generator(config.generator, 5000, sequence_length=20, generator=torch.Generator().manual_seed(0))
    n_generator, n_discriminator = size(generator), size(TextCNN(5000, 20, config.discriminator))
    return {"likelihood": n_generator, "fit": n_discriminator, "updates": n_generator}


def size(module: nn.Module) -> int:
    """The number of parameters in a network."""
    return sum(parameter.numel() for parameter in module.parameters())


def projected() -> str:
    """The table of projections for the paper's sizes: the same batch on more GPUs, and a batch of 64 on each."""
    lines = [
        "| step | GPUs | sent by each, MB | all-reduce, ms | compute of a batch of 64, ms | speed-up, batch of 64 shared "
        "| efficiency, 64 on each |",
        "|---|---|---|---|---|---|---|",
    ]
    for phase, n_parameters in paper_parameters().items():
        compute = PAPER_FLOPS[phase] / GPU_FLOPS
        for link in LINKS:
            sent = volume(n_parameters, link.n)
            exchange = link.latency + sent / link.bandwidth
            shared = compute / (compute / link.n + exchange)
            cells = f"{sent / 1e6:.1f} | {1e3 * exchange:.2f} | {1e3 * compute:.2f} | {shared:.1f}"
            lines.append(f"| {PHASES[phase]} | {link.n} | {cells} | {compute / (compute + exchange):.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if "WORLD_SIZE" in os.environ:
        work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(tyro.cli(Config, description=__doc__))
