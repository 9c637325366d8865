"""How much the details matter in which the preset `paper` differs from the published code.

All are measured on one likelihood start, which is trained here or read from a file. Those that need a policy gradient use
rewards of 0.5, as a discriminator gives them that tells nothing apart. docs/results.md has the figures.
"""

import dataclasses
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro
from torch import Tensor

from agents.experiment.make_task import Task, make_oracle_task
from benchmarks.judge import Config as JudgeConfig
from benchmarks.judge import likelihood_start, settings
from seqgan_env.metrics.temperature import mean_nll
from seqgan_env.models.likelihood import pretrain
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.rendering import spell_what_cannot_be_encoded
from seqgan_env.rewards.discriminator import loss_and_sums
from seqgan_env.rewards.text_cnn import TextCNN

EPSILON, BETA_2 = 1e-8, 0.999
"""Adam's, in both frameworks."""
FLOOR = math.log(1e-20)
"""The published code's lowest log-probability, nats."""


@dataclass(frozen=True)
class Config:
    """Measure what the details change."""

    seed: int = 0
    """Seed of the real sequences and of the networks."""
    epochs: int = 25
    """Epochs of maximum likelihood of the generator."""
    generator: Path | None = None
    """A file of generator weights to take in place of training one."""
    bias_epochs: int = 5
    """Epochs of likelihood with one and with two biases in the LSTM; 0 leaves this out."""
    data: Path = field(default_factory=lambda: Path(os.environ.get("SEQGAN_DATA", ".")))
    """The folder with the published oracle; by default the environment variable SEQGAN_DATA."""
    device: str = "auto"
    """Where to compute."""


def main(config: Config) -> None:
    """Print a line for each figure."""
    for line in lines(config):
        print(line, flush=True)


def lines(config: Config) -> Iterator[str]:
    """The figures, each as a line of text."""
    judge = JudgeConfig(epochs=config.epochs, data=config.data, device=config.device)
    paper = settings(config.seed, judge)
    task = make_oracle_task(paper)
    game = task.game
    generator = likelihood_start(task, paper, config.generator)
    assert isinstance(generator, TokenLSTM)
    rng = torch.Generator(game.device).manual_seed(config.seed)
    written, _ = generator.sample(paper.adversarial.batch_size, game.sequence_length, rng)
    real = game.real_sequences

    share = (real == 0).float().mean().item()
    yield f"start token: token 0, whose embedding the published start shares, is {share:.4%} of the real tokens"
    for name, tokens in (("real sequences", real), ("a batch of its own", written)):
        with torch.no_grad():
            log_probs = generator.log_prob(tokens)
        below = (log_probs < FLOOR).float().mean().item()
        yield f"floor: {below:.3%} of the log-probabilities of {name} lie below log 1e-20; the lowest is {log_probs.min():.1f}"
    for name, tokens, scale in (
        ("likelihood, a mean", real[: paper.pretrain.batch_size], 1 / real[: paper.pretrain.batch_size].numel()),
        ("policy gradient, a sum", written, 0.5),
        ("policy gradient, a mean", written, 0.5 / written.numel()),
    ):
        ours, published, gradient = norms_of(generator, tokens, scale)
        yield f"norm that is clipped, {name}: {ours:.4g} here, {published:.4g} by look-ups, {published / ours:.3f} times"
        yield f"epsilon, {name}: {epsilon_effect(gradient, paper.adversarial.max_grad_norm / ours)}"
    network = TextCNN(game.vocab_size, game.sequence_length, paper.discriminator, seed=config.seed, device=game.device)
    gradient = discriminator_gradient(network, real[:32], written[:32])
    yield f"epsilon, discriminator's first step: {epsilon_effect(gradient, 1.0)}"
    if config.bias_epochs:
        yield from _biases(task, config)


def norms_of(model: TokenLSTM, tokens: Tensor, scale: float) -> tuple[float, float, Tensor]:
    """The norm of a loss's gradient, the same as TensorFlow's global norm counts it, and the gradient itself, flat.

    TensorFlow has a gradient for each look-up of an embedding row, and adds up their squares before it adds up themselves. It
    has one bias where torch's LSTM has two.

    Args:
        model: whose gradient is taken.
        tokens: `(n, length)` int64.
        scale: the loss is minus this, times the log-likelihood of the tokens in nats.
    """
    looked_up: list[Tensor] = []

    def keep(_: object, __: object, embedded: Tensor) -> None:
        embedded.retain_grad()
        looked_up.append(embedded)

    model.zero_grad()
    model.train()  # cuDNN differentiates recurrent layers only so; there is no dropout
    hook = model.embedding.register_forward_hook(keep)
    (-scale * model.log_prob(tokens).sum()).backward()  # type: ignore[no-untyped-call]
    hook.remove()
    model.eval()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    squares = {name: gradient.square().sum().item() for name, gradient in gradients.items()}
    ours = sum(squares.values())
    del squares["embedding.weight"], squares["lstm.bias_hh_l0"]
    grads = [embedded.grad for embedded in looked_up if embedded.grad is not None]
    published = sum(squares.values()) + sum(gradient.square().sum().item() for gradient in grads)
    flat = torch.cat([gradient.flatten() for gradient in gradients.values()])
    return math.sqrt(ours), math.sqrt(published), flat


def epsilon_effect(gradient: Tensor, clip: float) -> str:
    """What TensorFlow's place of epsilon changes in Adam's first step, on which it differs most.

    With b = 1 - 0.999^t, torch divides by sqrt(v / b) + epsilon, TensorFlow in effect by sqrt(v / b) + epsilon / sqrt(b).
    """
    moved = gradient[gradient != 0].double().abs() * min(1.0, clip)
    ours, theirs = (moved / (moved + epsilon) for epsilon in (EPSILON, EPSILON / math.sqrt(1 - BETA_2)))
    off = ((ours - theirs).norm() / ours.norm()).item()
    smaller = (theirs < 0.9 * ours).float().mean().item()
    return f"the step differs by {off:.2%} of its norm; {smaller:.2%} of the coordinates that move do so by 10% or more less"


def discriminator_gradient(network: TextCNN, real: Tensor, generated: Tensor) -> Tensor:
    """The gradient of a step's loss on these sequences, flat."""
    tokens = torch.cat([real, generated])
    is_real = torch.arange(len(tokens), device=tokens.device) < len(real)
    kept = network.train().kept_features(len(tokens))
    loss, _ = loss_and_sums(network.eval(), tokens, is_real, kept, network.output.weight.dtype)
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, list(network.parameters()))])


def _biases(task: Task, config: Config) -> Iterator[str]:
    """Likelihood training with torch's two biases, each of which Adam moves by a whole step, and with one."""
    paper = settings(config.seed, JudgeConfig(data=config.data, device=config.device))
    untrained = dataclasses.replace(paper, pretrain=dataclasses.replace(paper.pretrain, epochs=0))
    game, oracle = task.game, task.game.oracle
    assert oracle is not None
    for n in (2, 1):
        model = likelihood_start(task, untrained, None)
        model.get_parameter("lstm.bias_hh_l0").requires_grad_(n == 2)
        trained = dataclasses.replace(paper.pretrain, epochs=config.bias_epochs)
        pretrain(model, game.real_sequences, trained, torch.Generator(game.device).manual_seed(config.seed))
        samples, _ = model.sample(len(task.held_out), game.sequence_length, torch.Generator(game.device).manual_seed(1))
        figures = f"NLL_oracle {mean_nll(oracle, samples):.3f}, NLL_test {mean_nll(model, task.held_out):.3f}"
        yield f"LSTM with {n} trained bias(es), {config.bias_epochs} epochs of likelihood: {figures}"


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
