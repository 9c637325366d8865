"""Non-finite numbers are caught and named at the step where they appear."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents.reinforce import Reinforce
from seqgan_env.game import SequenceGame
from seqgan_env.models.likelihood import PretrainConfig, pretrain
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.token_model import TokenModel
from seqgan_env.rewards.density_ratio import DensityRatioReward
from seqgan_env.rewards.discriminator import DiscriminatorReward
from seqgan_env.rewards.ranking import RankReward
from seqgan_env.support.errors import (
    NumericalFault,
    OutOfMemory,
    StepRecord,
    check_finite,
    check_gradients,
    check_parameters,
    room_for,
)
from seqgan_env.support.training_step import gradient_norm
from seqgan_env.vector_env import SequenceVectorEnv
from tests.small import Ordinal, T, V, real_sequences, seeded, small_discriminator, small_game, small_policy

WRONG = [math.nan, math.inf, -math.inf]
N = 8


# --- the checks themselves -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, -1e38, torch.zeros(3), torch.tensor(1e38), torch.zeros(0), torch.tensor([1, 2])])
def test_finite_values_pass(value: Tensor | float) -> None:
    check_finite("a number", value, "a phase", 1)


@pytest.mark.parametrize("value", WRONG)
def test_a_non_finite_number_is_named_with_phase_and_step(value: float) -> None:
    with pytest.raises(
        NumericalFault, match=rf"In likelihood training, step 17, the loss is not finite: it is {value}\. Go back"
    ):
        check_finite("the loss", value, "likelihood training", 17)


def test_non_finite_values_of_a_tensor_are_counted() -> None:
    tensor = torch.zeros(40, 50)
    tensor[3, 4:6] = math.nan
    tensor[0, 0], tensor[1, 1], tensor[2, 2] = math.inf, -math.inf, math.inf
    with pytest.raises(NumericalFault, match=r"of its 2,000 values, 2 are NaN and 3 infinite"):
        check_finite("the rewards", tensor, "a phase", 1)


@pytest.mark.parametrize("value", WRONG)
def test_the_parameter_with_the_fault_is_named(value: float) -> None:
    policy = small_policy()
    check_parameters(policy, "a phase", 1)
    policy.lstm.get_parameter("weight_hh_l0")[2, 1] = value
    with pytest.raises(NumericalFault, match=r"step 5, the parameter lstm.weight_hh_l0 is not finite: of its 64 values"):
        check_parameters(policy, "a phase", 5)


def test_an_overflowing_norm_of_finite_gradients_is_a_fault() -> None:
    module = nn.Linear(1, 1)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, 3e38)
    with pytest.raises(NumericalFault, match="the norm of the gradient is not finite: it is inf"):
        check_gradients(module, gradient_norm(module), "a phase", 1)


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize(("column", "name"), [(0, "the loss"), (1, "the norm")])
def test_a_record_names_the_first_step(value: float, column: int, name: str) -> None:
    record = StepRecord(["the loss", "the norm"], 10, "a phase")
    for step in range(8):
        values = [torch.tensor(1.0), torch.tensor(2.0)]
        if step == 4:
            values[column] = torch.tensor(value)
        if step > 4:
            values = [torch.tensor(math.nan)] * 2
        record.note(*values)
    with pytest.raises(NumericalFault, match=rf"In a phase, step 105, {name} is not finite: it is {value}"):
        record.check(steps_before=100)


def test_steps_to_come_are_no_fault_of_a_record() -> None:
    record = StepRecord(["the loss"], 3, "a phase")
    record.check()
    record.note(torch.tensor(1.0))
    record.check()


# --- where they stand ------------------------------------------------------------------------------------------------


class FailsAt(Ordinal):
    """A reward model that goes wrong at its `at`-th call."""

    def __init__(self, at: int, value: float) -> None:
        self.at, self.value, self.calls = at, value, 0

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        self.calls += 1
        rewards = super().score(tokens, lengths)
        if self.calls == self.at:
            rewards[0] = self.value
        return rewards


def agent_of(reward_model: object, **options: object) -> Reinforce:
    game = small_game(reward_model=reward_model, reward="terminal")
    return Reinforce("GeneratorPolicy", SequenceVectorEnv(game, N, autoreset_mode="SameStep"), 1e-3, seed=0, **options)  # type: ignore[arg-type]


def parameters_of(agent: Reinforce) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in agent.generator.parameters()]


@pytest.mark.parametrize("value", WRONG)
def test_a_reward_is_caught_at_the_update_where_it_appears(value: float) -> None:
    healthy, agent = agent_of(Ordinal()), agent_of(FailsAt(3, value))
    healthy.learn(2 * N * T)
    with pytest.raises(
        NumericalFault, match=r"In adversarial training, step 3, the batch of rewards is not finite: of its 40"
    ):
        agent.learn(10 * N * T)
    for after_two_updates, left in zip(parameters_of(healthy), parameters_of(agent), strict=True):
        assert torch.equal(after_two_updates, left), "the update with the fault moved the generator"


@pytest.mark.parametrize("value", WRONG)
def test_a_gradient_is_caught_at_the_update_where_it_appears(value: float) -> None:
    healthy, agent = agent_of(Ordinal()), agent_of(Ordinal())
    healthy.learn(2 * N * T)
    calls = 0

    def spoil(gradient: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        return torch.full_like(gradient, value) if calls == 3 else None

    agent.generator.output.bias.register_hook(spoil)
    with pytest.raises(NumericalFault, match=r"step 3, the gradient of generator.output.bias is not finite: of its 6 values"):
        agent.learn(10 * N * T)
    for after_two_updates, left in zip(parameters_of(healthy), parameters_of(agent), strict=True):
        assert torch.equal(after_two_updates, left)


def test_a_parameter_is_caught_before_the_generator_writes_with_it() -> None:
    agent = agent_of(Ordinal())
    agent.learn(2 * N * T)
    with torch.no_grad():
        agent.generator.embedding.weight[1, 1] = math.nan
    with pytest.raises(NumericalFault, match=r"In adversarial training, step 3, the parameter embedding.weight is not finite"):
        agent.learn(10 * N * T, reset_num_timesteps=False)


def test_the_loss_of_an_agent_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = agent_of(Ordinal())
    monkeypatch.setattr("agents.reinforce.policy_gradient_loss", lambda log_probs, *_: log_probs.sum() * math.inf)
    with pytest.raises(NumericalFault, match=r"In adversarial training, step 1, the policy's loss is not finite"):
        agent.learn(N * T)


def test_the_loss_of_an_interleaved_likelihood_step_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = agent_of(Ordinal(), likelihood_steps=1)
    whole = type(agent.generator).log_likelihood

    def log_likelihood(self: TokenModel, tokens: Tensor) -> Tensor:
        return whole(self, tokens) * math.nan

    monkeypatch.setattr(type(agent.generator), "log_likelihood", log_likelihood)
    with pytest.raises(NumericalFault, match=r"In adversarial training, step 1, the likelihood's loss is not finite"):
        agent.learn(N * T)


def test_the_norm_of_the_gradient_is_logged() -> None:
    agent = agent_of(Ordinal())
    agent.learn(N * T)
    norm = agent.logger.name_to_value.get("train/grad_norm") or agent._n_updates
    assert norm > 0


def spoil_before(module: nn.Module, call: int) -> None:
    """Make the module's first parameter NaN before its forward pass of this number."""
    seen = 0

    def hook(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == call:
            with torch.no_grad():
                next(module.parameters()).fill_(math.nan)

    module.register_forward_pre_hook(hook)


def test_likelihood_training_names_the_step_and_reports_no_finished_epoch() -> None:
    generator = copy.deepcopy(small_policy()).requires_grad_(True)
    epochs: list[int] = []
    spoil_before(generator.output, 7)  # 20 sequences in batches of 8 are 3 steps an epoch: the 7th is the first of epoch 3
    with pytest.raises(NumericalFault, match=r"In likelihood training, step 7, the loss is not finite: it is nan"):
        pretrain(generator, real_sequences(), PretrainConfig(epochs=5, batch_size=8), seeded(), lambda n, _: epochs.append(n))
    assert epochs == [1, 2]


def test_likelihood_training_names_a_gradient() -> None:
    generator = copy.deepcopy(small_policy()).requires_grad_(True)
    calls = 0

    def spoil(gradient: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        return gradient * math.inf if calls == 5 else None

    generator.output.bias.register_hook(spoil)
    with pytest.raises(NumericalFault, match=r"In likelihood training, step 5, the norm of the gradient is not finite"):
        pretrain(generator, real_sequences(), PretrainConfig(epochs=5, batch_size=8), seeded())


def discriminator() -> DiscriminatorReward:
    return small_discriminator(epochs=2)


def fit(model: DiscriminatorReward) -> dict[str, float]:
    return model.fit(real_sequences(), real_sequences(seed=9))  # 40 sequences in batches of 8, twice: 10 steps


@pytest.mark.parametrize("step", [1, 4, 10])
def test_a_discriminators_loss_is_caught_and_the_network_scores_without_dropout_afterwards(step: int) -> None:
    model, calls = discriminator(), 0

    def spoil(_: nn.Module, __: object, logits: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        return logits * math.nan if calls == step else None

    handle = model.discriminator.output.register_forward_hook(spoil)
    with pytest.raises(
        NumericalFault, match=rf"In a fit of the discriminator, step {step}, the loss is not finite: it is nan"
    ):
        fit(model)
    handle.remove()
    assert not model.discriminator.training


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (4, r"step 5, the loss is not finite"),  # the gradient of step 4 made the parameters that step 5 computes with
        (10, r"step 10, the norm of the gradient is not finite"),
    ],
)
def test_a_discriminators_gradient_is_caught(step: int, message: str) -> None:
    model, calls = discriminator(), 0

    def spoil(gradient: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        return gradient * math.nan if calls == step else None

    model.discriminator.output.bias.register_hook(spoil)
    with pytest.raises(NumericalFault, match=message):
        fit(model)


def test_a_discriminators_parameter_is_caught_at_the_first_step() -> None:
    model = discriminator()
    with torch.no_grad():
        model.discriminator.highway_gate.bias[0] = math.nan
    with pytest.raises(NumericalFault, match=r"In a fit of the discriminator, step 1, the loss is not finite"):
        fit(model)


def test_a_discriminators_gradient_norm_is_that_of_its_last_step() -> None:
    model, norms = discriminator(), []
    network = model.discriminator

    def step(*_: object) -> None:
        norms.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).norm().item())

    model.optimizer.register_step_pre_hook(step)
    assert fit(model)["grad_norm"] == pytest.approx(norms[-1])
    assert norms[-1] != pytest.approx(norms[-2])
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize("train", [fit, lambda model: pretrain_once()], ids=["discriminator", "likelihood"])
def test_healthy_training_passes(train: Callable[[DiscriminatorReward], object]) -> None:
    train(discriminator())


def pretrain_once() -> None:
    generator = copy.deepcopy(small_policy()).requires_grad_(True)
    pretrain(generator, real_sequences(), PretrainConfig(epochs=2, batch_size=8), seeded())


# --- memory ----------------------------------------------------------------------------------------------------------


class TestMemory:
    def test_completions_that_fit_no_machine(self) -> None:
        """By torch's own error on a CPU: nothing is simulated."""
        game = small_game(reward="rollout", n_rollouts=10**12)
        with pytest.raises(OutOfMemory, match=r"completions of a batch. Lower the environment's rows .* n_rollouts, 1,000"):
            values_of(game)

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to\nmore"),
            RuntimeError("CUDA error: out of memory"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
            MemoryError(),
        ],
    )
    def test_errors_of_a_gpu_and_of_python_name_the_setting(self, error: Exception) -> None:
        with (
            pytest.raises(OutOfMemory, match=r"for a fit. Lower its batch_size, 64. \(") as caught,
            room_for("a fit", "its batch_size, 64"),
        ):
            raise error
        assert "\n" not in str(caught.value)
        assert caught.value.__cause__ is error

    @pytest.mark.gpu
    def test_the_error_of_a_real_gpu_names_the_setting(self) -> None:
        message = r"for a fit\. Lower its batch_size, 64\. \(CUDA out of memory"
        with pytest.raises(OutOfMemory, match=message), room_for("a fit", "its batch_size, 64"):
            torch.empty(1 << 45, dtype=torch.uint8, device="cuda")

    @pytest.mark.parametrize("error", [RuntimeError("sizes do not match"), ValueError("no"), OutOfMemory("told already")])
    def test_other_errors_pass_unchanged(self, error: Exception) -> None:
        with pytest.raises(type(error)) as caught, room_for("a fit", "its batch_size, 64"):
            raise error
        assert caught.value is error

    @pytest.mark.parametrize(
        ("phase", "message"),
        [
            (lambda real: small_discriminator().fit(real, real), "a fit of the discriminator. Lower its batch_size, 8"),
            (lambda real: ranker(real).fit(real, real), "a fit of the ranker. Lower its batch_size, 8"),
            (lambda real: density_ratio().fit(real, real), "a fit of the density ratio. Lower its batch_size, 20"),
            (lambda real: pretrain(learner(), real, SHORT, seeded()), "likelihood training. Lower its batch_size, 4"),
            (lambda _: agent().learn(N * T), "an update of the policy. Lower the batch, of 8 episodes"),
        ],
    )
    def test_every_learning_phase_names_its_setting(
        self, phase: Callable[[Tensor], object], message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.Tensor, "backward", no_memory)
        monkeypatch.setattr(torch.autograd, "grad", no_memory)
        with pytest.raises(OutOfMemory, match=message):
            phase(real_sequences())

    def test_steps_of_likelihood_name_their_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one = agent(likelihood_steps=1)
        monkeypatch.setattr(type(one.generator), "log_likelihood", no_memory)
        with pytest.raises(OutOfMemory, match=r"steps of likelihood\. Lower likelihood_batch_size, 64"):
            one.learn(N * T)

    def test_scores_name_their_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(DensityRatioReward, "token_scores", no_memory)
        with pytest.raises(OutOfMemory, match=r"the scores of a batch\. Lower the environment's rows"):
            values_of(small_game(reward="rollout", reward_model=density_ratio()))


SHORT = PretrainConfig(epochs=1, batch_size=4)


def no_memory(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def learner() -> TokenLSTM:
    return small_policy().float().requires_grad_(True)


def ranker(real: Tensor) -> RankReward:
    return RankReward(small_discriminator().discriminator, real)


def density_ratio() -> DensityRatioReward:
    return DensityRatioReward(V, T, learner())


def agent(**settings: Any) -> Reinforce:
    return Reinforce(env=SequenceVectorEnv(small_game(), N, autoreset_mode="SameStep"), seed=0, **settings)  # type: ignore[arg-type]


def values_of(game: SequenceGame) -> Tensor:
    real = real_sequences()
    return game.action_values(real, torch.full((len(real),), T), torch.arange(len(real)), range(T))
