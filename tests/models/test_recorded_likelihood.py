"""Epochs of likelihood whose steps are recorded, emulated on a CPU or on a GPU, against plain epochs."""

import dataclasses
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqgan_env.models.likelihood import LikelihoodTraining, PretrainConfig
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.support.cuda_graphs import without_graphs
from seqgan_env.support.errors import NumericalFault
from seqgan_env.support.process_group import Workers
from seqgan_env.support.state_dicts import detached, load_module_state, module_state
from tests.recordings import (
    SHAPES_ON_A_GPU,
    RecordedOn,
    forms_for_gpus,
    steps_that_may_not_wait,
    steps_without_values,
    values_of,
    without_values,
)
from tests.small import seeded

V, T = 11, 4
CONFIG = PretrainConfig(epochs=3, batch_size=8, learning_rate=0.02)
Case = tuple[dict[str, Any], dict[str, Any], int]
CASES: dict[str, Case] = {
    "plain": ({}, {}, 21),
    "whole batches": ({}, {}, 16),
    "dropout": ({"dropout": 0.3}, {}, 21),
    "end token": ({"end_token": 2}, {}, 21),
    "end token and dropout": ({"end_token": 2, "dropout": 0.3}, {}, 21),
    "decay": ({}, {"final_learning_rate": 0.001}, 21),
    "two layers": ({"n_layers": 2, "dropout": 0.2}, {}, 21),
    "tied": ({"tied": True, "hidden_dim": 4}, {}, 21),
    "in order": ({}, {"shuffle": False}, 21),
    "clipped": ({}, {"max_grad_norm": 0.01}, 21),
    "other precision": ({}, {"precision": "high"}, 21),
}
"""The generator's arguments, the training's settings, and the number of sequences."""


def policy_of(on: RecordedOn, seed: int = 0, vocab_size: int = V, **arguments: Any) -> TokenLSTM:
    sizes = {"embedding_dim": 4, "hidden_dim": 5} | arguments
    return TokenLSTM(vocab_size, **sizes, initial_std=0.5, generator=seeded(seed), device=on.device)


def sequences(on: RecordedOn, n: int, end_token: int | None = None, vocab_size: int = V, length: int = T) -> Tensor:
    """Random ones; with an end token they have all lengths."""
    tokens = torch.randint(3, vocab_size, (n, length), generator=seeded(1))
    if end_token is not None:
        last, positions = torch.randint(length, (n, 1), generator=seeded(2)), torch.arange(length)
        tokens = tokens.masked_fill(positions == last, end_token).masked_fill(positions > last, vocab_size)
    return tokens.to(on.device)


def training_of(on: RecordedOn, policy: TokenLSTM, real: Tensor, seed: int = 0, **settings: Any) -> LikelihoodTraining:
    return LikelihoodTraining(policy, real, dataclasses.replace(CONFIG, **settings), on.generator(seed))


def losses_of(training: LikelihoodTraining) -> list[float]:
    losses: list[float] = []
    training.run(lambda _, loss: losses.append(loss))
    return losses


@pytest.mark.parametrize("case", CASES)
def test_recorded_epochs_equal_plain_epochs(recorded_on: RecordedOn, case: str) -> None:
    """Each size of a batch is recorded once, however many epochs there are."""
    arguments, settings, n = CASES[case]
    real = sequences(recorded_on, n, arguments.get("end_token"))
    recorded, plain, other = (policy_of(recorded_on, **arguments) for _ in range(3))
    start = values_of(plain)
    losses = losses_of(training_of(recorded_on, recorded, real, **settings))
    assert recorded_on.made == (1 if n % CONFIG.batch_size == 0 else 2)
    with without_graphs():
        made = recorded_on.made
        expected = losses_of(training_of(recorded_on, plain, real, **settings))
        losses_of(training_of(recorded_on, other, real.roll(1, 0), seed=1, **settings))
        assert recorded_on.made == made
    assert losses == pytest.approx(expected, rel=1e-5 if recorded_on.device == "cpu" else 1e-3)
    assert recorded_on.alike(values_of(recorded), values_of(plain), start)
    assert not recorded_on.alike(values_of(recorded), values_of(other), start)  # the negative control


@pytest.mark.gpu
@pytest.mark.parametrize(("vocab_size", "length"), SHAPES_ON_A_GPU)
@pytest.mark.parametrize("end_token", [None, 2], ids=["whole", "end token"])
def test_recorded_epochs_equal_plain_epochs_at_other_shapes(
    counted: type[Any], vocab_size: int, length: int, end_token: int | None
) -> None:
    on = RecordedOn("cuda", counted)
    real = sequences(on, 40, end_token, vocab_size, length)
    recorded, plain = (policy_of(on, vocab_size=vocab_size, end_token=end_token, dropout=0.2) for _ in range(2))
    start = values_of(plain)
    losses = losses_of(training_of(on, recorded, real, batch_size=16))
    assert on.made == 2
    with without_graphs():
        assert losses == pytest.approx(losses_of(training_of(on, plain, real, batch_size=16)), rel=1e-3)
    assert on.alike(values_of(recorded), values_of(plain), start)


# Resuming


@pytest.mark.parametrize("n_steps", [1, 4, 5, 7])
@pytest.mark.parametrize("settings", [{"final_learning_rate": 0.001}], ids=["decay"])
def test_training_continues_from_the_middle_of_an_epoch(
    recorded_on: RecordedOn, n_steps: int, settings: dict[str, Any]
) -> None:
    """After plain steps, after recorded ones, and with a smaller last batch; also without recordings."""
    real = sequences(recorded_on, 21)
    policies = [policy_of(recorded_on, seed, dropout=0.3) for seed in (0, 1, 2)]
    start, saved = values_of(policies[0]), []
    whole = training_of(recorded_on, policies[0], real, **settings)

    def save() -> None:
        step = whole.finished_epochs * 3 + whole.training_state()["finished_steps"]
        if step == n_steps:
            saved.append(detached({"training": whole.training_state(), "policy": module_state(policies[0])}))

    while whole.finished_epochs < CONFIG.epochs:
        last = whole.train_epoch(save)
    for policy, context in zip(policies[1:], (nullcontext(), without_graphs()), strict=True):
        with context:
            training = training_of(recorded_on, policy, real, seed=5, **settings)
            (state,) = detached(saved)
            load_module_state(policy, state["policy"])
            training.load_training_state(state["training"])
            assert losses_of(training)[-1] == pytest.approx(last, rel=1e-5 if recorded_on.device == "cpu" else 1e-3)
        assert recorded_on.alike(values_of(policy), values_of(policies[0]), start)


def test_a_saved_state_has_no_device_settings(recorded_on: RecordedOn) -> None:
    training = training_of(recorded_on, policy_of(recorded_on), sequences(recorded_on, 21), final_learning_rate=0.001)
    training.train_epoch()
    training.train_epoch()
    assert isinstance(training.optimizer.param_groups[0]["lr"], Tensor)  # a recorded step reads it
    state = training.training_state()
    (group,) = state["optimizer"]["param_groups"]
    assert not {"capturable", "fused", "foreach"} & set(group)
    numbers = [*group.values(), *state["schedule"].values()]
    assert not any(
        isinstance(number, Tensor) for value in numbers for number in (value if isinstance(value, list) else [value])
    )
    assert group["lr"] == pytest.approx(0.02 * (0.001 / 0.02) ** (2 / 3), rel=1e-5)


def test_an_epoch_leaves_no_gradients_of_a_recording(recorded_on: RecordedOn) -> None:
    policy = policy_of(recorded_on)
    losses_of(training_of(recorded_on, policy, sequences(recorded_on, 16)))
    assert all(parameter.grad is None for parameter in policy.parameters())


# What is recorded anew


def move_a_parameter(policy: TokenLSTM) -> None:
    policy.embedding.weight.data = policy.embedding.weight.detach().clone()


def load(policy: TokenLSTM) -> None:
    policy.load_state_dict({name: 0.9 * value for name, value in policy.state_dict().items()})


def resize(policy: TokenLSTM) -> None:
    """To twice as many tokens."""
    weight, output = policy.embedding.weight.detach(), policy.output
    assert isinstance(output, nn.Linear)
    policy.vocab_size = 2 * V
    policy.embedding.weight = nn.Parameter(torch.cat([weight[:-1], 0.5 * weight]))
    output.weight = nn.Parameter(torch.cat([output.weight.detach(), 0.5 * output.weight.detach()]))
    output.bias = nn.Parameter(torch.cat([output.bias.detach(), 0.5 * output.bias.detach()]))


def nothing(policy: TokenLSTM) -> None: ...


@pytest.mark.parametrize("change", [nothing, move_a_parameter, load, resize])
def test_a_generator_that_changes_between_trainings_is_recorded_anew(
    recorded_on: RecordedOn, change: Callable[[TokenLSTM], None]
) -> None:
    """Each training has its own tensors, so each one records."""
    policies = recorded, plain = [policy_of(recorded_on) for _ in range(2)]
    for policy in policies:
        with nullcontext() if policy is recorded else without_graphs():
            losses_of(training_of(recorded_on, policy, sequences(recorded_on, 16)))
            change(policy)
            start = values_of(policy)
            losses_of(training_of(recorded_on, policy, sequences(recorded_on, 16, vocab_size=policy.vocab_size)))
    assert recorded_on.made >= 1 if change in (nothing, load) else recorded_on.made == 2
    assert recorded_on.alike(values_of(recorded), values_of(plain), start)


@pytest.mark.parametrize("change", [nothing, move_a_parameter])
def test_a_parameter_that_moves_between_epochs_is_recorded_anew(
    recorded_on: RecordedOn, change: Callable[[TokenLSTM], None]
) -> None:
    policies = recorded, plain = [policy_of(recorded_on) for _ in range(2)]
    start = values_of(plain)
    for policy in policies:
        training = training_of(recorded_on, policy, sequences(recorded_on, 24), epochs=4)
        with nullcontext() if policy is recorded else without_graphs():
            for _ in range(2):
                training.train_epoch()
            before = recorded_on.made
            change(policy)
            losses_of(training)
        if policy is recorded:
            assert (before, recorded_on.made) == (1, 1 if change is nothing else 2)
    assert recorded_on.alike(values_of(recorded), values_of(plain), start)


@pytest.mark.gpu
def test_an_optimiser_that_has_taken_other_steps_can_be_recorded(counted: type[Any]) -> None:
    """Torch's Adam without `fused` counts its steps on the CPU."""
    on = RecordedOn("cuda", counted)
    policies = recorded, plain = [policy_of(on) for _ in range(2)]
    real, start = sequences(on, 16), values_of(plain)
    for policy in policies:
        optimizer = torch.optim.Adam(policy.parameters(), lr=0.02)
        for context in (without_graphs(), nullcontext() if policy is recorded else without_graphs()):
            with context:
                losses_of(LikelihoodTraining(policy, real, CONFIG, on.generator(), optimizer=optimizer))
    assert on.made == 1
    assert on.alike(values_of(recorded), values_of(plain), start)


@pytest.mark.gpu
def test_a_generator_that_moves_to_a_gpu_is_recorded_there(counted: type[Any]) -> None:
    on, cpu = RecordedOn("cuda", counted), RecordedOn("cpu", counted)
    policies = recorded, plain = [policy_of(cpu, dropout=0.3) for _ in range(2)]
    for policy in policies:
        losses_of(training_of(cpu, policy, sequences(cpu, 16)))
        policy.to("cuda")
        start = values_of(policy)
        with nullcontext() if policy is recorded else without_graphs():
            losses_of(training_of(on, policy, sequences(on, 16)))
        assert counted.made == 1  # type: ignore[attr-defined]
    assert on.alike(values_of(recorded), values_of(plain), start)
    recorded.to("cpu")
    assert math.isfinite(losses_of(training_of(cpu, recorded, sequences(cpu, 16)))[-1])


# Plain steps, and faults


class TwoProcesses(Workers):
    """The first of two processes, whose other one has no sequences."""

    count = 2


class Own(TokenLSTM):
    """A subclass, whose methods may do anything."""


@pytest.mark.parametrize("why", ["hook", "hook of gradients", "two processes", "subclass", "own optimiser"])
def test_epochs_that_may_not_be_recorded_are_plain(recorded_on: RecordedOn, why: str) -> None:
    policy, calls = policy_of(recorded_on), []
    optimizer: torch.optim.Optimizer | None = None
    if why == "hook":
        policy.output.register_forward_hook(lambda *_: calls.append(1))
    elif why == "hook of gradients":
        policy.embedding.weight.register_hook(lambda gradient: calls.append(1))
    elif why == "subclass":
        policy.__class__ = Own
    elif why == "own optimiser":  # which has no form for recordings
        optimizer = torch.optim.SGD(policy.parameters(), lr=0.01)
    workers = TwoProcesses() if why == "two processes" else Workers()
    real = sequences(recorded_on, 21)
    training = LikelihoodTraining(policy, real, CONFIG, recorded_on.generator(), workers, optimizer=optimizer)
    assert all(map(math.isfinite, losses_of(training)))
    assert recorded_on.made == 0
    assert len(calls) == (9 if "hook" in why else 0)


def test_steps_of_scheduled_sampling_are_plain(recorded_on: RecordedOn) -> None:
    policy = policy_of(recorded_on)
    losses_of(training_of(recorded_on, policy, sequences(recorded_on, 16), scheduled_sampling=True))
    assert recorded_on.made == 0


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_step_that_is_not_finite_is_reported_with_its_number(recorded_on: RecordedOn, epoch: int) -> None:
    """The second step of an epoch, plain or recorded, reads a token whose embedding is not finite."""
    real = sequences(recorded_on, 21) % (V - 1)
    for context in (nullcontext(), without_graphs()):
        policy, tokens = policy_of(recorded_on), real.clone()
        training = training_of(recorded_on, policy, tokens, shuffle=False)
        with context:
            for _ in range(epoch):
                training.train_epoch()
            with torch.no_grad():
                policy.embedding.weight[V - 1] = math.nan
            tokens[9, 1] = V - 1
            said = f"In likelihood training, step {3 * epoch + 2}, the loss is not finite: it is nan"
            with pytest.raises(NumericalFault, match=said):
                training.train_epoch()
    assert recorded_on.made == (0 if epoch == 0 else 2)


# A step never waits for the host


@pytest.mark.gpu
@pytest.mark.parametrize("arguments", [{}, {"end_token": 2, "dropout": 0.3}, {"n_layers": 2}], ids=str)
def test_steps_of_likelihood_never_wait_for_a_gpu(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch raises an error if a step would wait."""
    steps = steps_that_may_not_wait(monkeypatch, "seqgan_env.models.likelihood")
    on = RecordedOn("cuda", Any)
    real = sequences(on, 21, arguments.get("end_token"))
    losses_of(training_of(on, policy_of(on, **arguments), real, final_learning_rate=0.001))
    assert len(steps) == 9


@pytest.mark.parametrize(
    "arguments", [{}, {"end_token": 2, "dropout": 0.3}, {"n_layers": 2, "tied": True, "hidden_dim": 4}], ids=str
)
def test_steps_of_likelihood_never_wait_for_the_host(arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps of an epoch, on tensors without values."""
    steps = steps_without_values(monkeypatch, "seqgan_env.models.likelihood")
    policy = without_values(policy_of(RecordedOn("cpu", Any), **arguments))
    real = torch.empty(21, T, dtype=torch.int64, device="meta")
    training = LikelihoodTraining(policy, real, CONFIG, torch.Generator())
    with forms_for_gpus(), pytest.raises(RuntimeError, match="nonzero"):  # of the check after the epoch
        training.train_epoch()
    assert steps == [("likelihood", size, CONFIG) for size in (8, 8, 5)]
