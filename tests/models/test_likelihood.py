"""Maximum likelihood and scheduled sampling."""

import dataclasses
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from seqgan_env.models.likelihood import LikelihoodTraining, PretrainConfig, log_prob_with_own_tokens, pretrain
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.oracle import seeded_oracle
from tests.recordings import forms_for_gpus

CONFIG = PretrainConfig(epochs=4, batch_size=32)


CHANGES: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 50,
    "shuffle": False,
    "learning_rate": 0.02,
    "final_learning_rate": 0.001,
    "max_grad_norm": 0.01,
    "scheduled_sampling": True,
}


def new_generator(seed: int = 0) -> TokenLSTM:
    return TokenLSTM(12, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def real() -> torch.Tensor:
    return seeded_oracle(0, 12).sample(300, 6, torch.Generator().manual_seed(1))[0]


def trained(real: torch.Tensor, config: PretrainConfig = CONFIG, seed: int = 0) -> TokenLSTM:
    generator = new_generator()
    pretrain(generator, real, config, torch.Generator().manual_seed(seed))
    return generator


def same(a: TokenLSTM, b: TokenLSTM) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "end token": ({"end_token": 2}, {}),
    "end token and dropout": ({"end_token": 2, "dropout": 0.3}, {}),
    "two layers": ({"n_layers": 2, "dropout": 0.2}, {}),
    "tied": ({"tied": True, "end_token": 2}, {}),
    "decay": ({}, {"final_learning_rate": 0.001}),
}
"""The generator's arguments and the training's settings."""


@pytest.mark.parametrize("case", FORMS)
def test_an_epoch_in_the_forms_for_gpus_is_the_same(real: torch.Tensor, case: str) -> None:
    arguments, settings = FORMS[case]
    config = dataclasses.replace(CONFIG, **settings)
    real = real[:80]  # two whole batches and a smaller one
    if "end_token" in arguments:
        ended = (real == 2).cumsum(dim=1)
        real = real.masked_fill((ended > 0) & ~((ended == 1) & (real == 2)), 12)
        assert (real == 12).any()
    policies = [TokenLSTM(12, 8, 8, generator=torch.Generator().manual_seed(0), **arguments) for _ in range(3)]
    losses = []
    for policy, form, seed in zip(policies, (nullcontext, forms_for_gpus, forms_for_gpus), (0, 0, 1), strict=True):
        training = LikelihoodTraining(policy, real, config, torch.Generator().manual_seed(seed))
        with form():
            losses.append([training.train_epoch() for _ in range(2)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    found, for_gpus, control = (torch.cat([p.detach().flatten() for p in policy.parameters()]) for policy in policies)
    assert (found - for_gpus).abs().max() < 1e-5
    assert (found - control).abs().max() > 1e-3


@pytest.mark.parametrize("form", [nullcontext, forms_for_gpus], ids=["for CPUs", "for GPUs"])
@pytest.mark.parametrize("arguments", [{}, {"n_layers": 2}, {"tied": True, "end_token": 2}])
def test_gradients_lie_in_memory_as_the_parameters_do(real: torch.Tensor, arguments: dict[str, Any], form: Any) -> None:
    """Torch's fused optimisers need it, and steps keep the gradients as they come."""
    policy = TokenLSTM(12, 8, 8, generator=torch.Generator().manual_seed(0), **arguments)
    with form():
        gradients = torch.autograd.grad(policy.log_likelihood(real[:7]), list(policy.parameters()))
    for gradient, parameter in zip(gradients, policy.parameters(), strict=True):
        assert gradient.stride() == parameter.stride()


@pytest.mark.rounding
def test_likelihood_of_held_out_sequences_rises(real: torch.Tensor) -> None:
    held_out = seeded_oracle(0, 12).sample(300, 6, torch.Generator().manual_seed(2))[0]
    another_language = seeded_oracle(1, 12).sample(300, 6, torch.Generator().manual_seed(2))[0]
    before, after = new_generator(), trained(real, dataclasses.replace(CONFIG, epochs=8))
    assert after.nll(held_out).mean() < before.nll(held_out).mean() - 0.2
    assert after.nll(another_language).mean() > before.nll(another_language).mean()  # it learned this language, not any


def test_same_seed_same_parameters(real: torch.Tensor) -> None:
    assert same(trained(real), trained(real))
    assert not same(trained(real), trained(real, seed=1))


def test_without_shuffling_every_epoch_reads_the_sequences_in_their_order(real: torch.Tensor) -> None:
    config = dataclasses.replace(CONFIG, shuffle=False)
    expected = new_generator()
    optimizer = torch.optim.Adam(expected.parameters(), lr=config.learning_rate)
    for batch in real.split(config.batch_size) * config.epochs:
        optimizer.zero_grad()
        (-expected.log_prob(batch).mean()).backward()
        torch.nn.utils.clip_grad_norm_(expected.parameters(), config.max_grad_norm)
        optimizer.step()
    for seed in (0, 1):
        generator = trained(real, config, seed)
        torch.testing.assert_close(dict(generator.named_parameters()), dict(expected.named_parameters()), atol=1e-4, rtol=0)
    shuffled = trained(real)
    assert (shuffled.embedding.weight - expected.embedding.weight).abs().max() > 1e-2


def test_global_random_state_is_left_alone(real: torch.Tensor) -> None:
    state = torch.get_rng_state()
    trained(real, dataclasses.replace(CONFIG, scheduled_sampling=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_the_reported_loss_is_the_mean_over_all_tokens(real: torch.Tensor) -> None:
    """300 sequences in batches of 32: the last batch is short and must count by its size."""
    losses: list[float] = []
    config = dataclasses.replace(CONFIG, epochs=1, learning_rate=1e-30)
    generator = new_generator()
    pretrain(generator, real, config, torch.Generator(), lambda _, loss: losses.append(loss))
    assert losses == [pytest.approx(generator.nll(real).mean().item(), abs=1e-5)]


def test_after_epoch_can_stop(real: torch.Tensor) -> None:
    epochs: list[int] = []
    pretrain(new_generator(), real, CONFIG, torch.Generator(), lambda epoch, _: epochs.append(epoch) or epoch < 2)
    assert epochs == [1, 2]


def test_scheduled_sampling_changes_training_from_the_second_epoch_on(real: torch.Tensor) -> None:
    one = dataclasses.replace(CONFIG, epochs=1)
    scheduled = dataclasses.replace(CONFIG, scheduled_sampling=True)
    assert same(trained(real, one), trained(real, dataclasses.replace(one, scheduled_sampling=True)))
    assert not same(trained(real), trained(real, scheduled))


def test_scheduled_sampling_with_true_tokens_only_is_maximum_likelihood(real: torch.Tensor) -> None:
    generator = trained(real)
    padded = real.clone()
    padded[:, 4:] = 12
    fed_true = log_prob_with_own_tokens(generator, padded, 0.0, torch.Generator().manual_seed(0))
    fed_own = log_prob_with_own_tokens(generator, padded, 1.0, torch.Generator().manual_seed(0))
    assert torch.allclose(fed_true, generator.log_prob(padded), atol=1e-5)
    assert torch.allclose(fed_own[:, 0], generator.log_prob(padded)[:, 0], atol=1e-5)  # nothing was fed yet
    assert not torch.allclose(fed_own[:, 1:4], fed_true[:, 1:4], atol=1e-3)


def test_fewer_sequences_than_a_batch_are_refused(real: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="Only 20 sequences for batches of 32: use more data, or a smaller batch"):
        trained(real[:20])


@pytest.mark.parametrize(
    ("field", "value"),
    list(CHANGES.items()),
)
def test_every_field_has_an_effect(real: torch.Tensor, field: str, value: Any) -> None:
    assert not same(trained(real), trained(real, dataclasses.replace(CONFIG, **{field: value})))


def test_every_field_is_tested() -> None:
    unseen = {"precision"}  # what it changes, if anything, depends on the processor
    assert {field.name for field in dataclasses.fields(PretrainConfig)} - unseen == set(CHANGES)


def test_the_configured_precision_applies_only_to_learning(real: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    hidden = TokenLSTM.hidden

    def noting(self: TokenLSTM, tokens: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return hidden(self, tokens)

    monkeypatch.setattr(TokenLSTM, "hidden", noting)
    generator = trained(real, dataclasses.replace(CONFIG, precision="medium"))
    assert set(seen) == {"medium"}
    generator.nll(real)
    assert seen[-1] == "highest"
    with pytest.raises(ValueError, match="precision must be one of"):
        trained(real, dataclasses.replace(CONFIG, precision="low"))  # type: ignore[arg-type]


def test_the_learning_rate_falls_geometrically_to_its_final_value(real: torch.Tensor) -> None:
    config = dataclasses.replace(CONFIG, learning_rate=0.01, final_learning_rate=0.0001)
    rates: dict[PretrainConfig, list[float]] = {config: [], CONFIG: []}
    for one, seen in rates.items():
        training = LikelihoodTraining(new_generator(), real, one, torch.Generator())
        training.run(lambda *_, seen=seen, training=training: seen.append(training.optimizer.param_groups[0]["lr"]))  # type: ignore[misc]
    assert rates[config] == pytest.approx([0.01 ** (1 + epoch / 4) for epoch in (1, 2, 3, 4)])
    assert rates[CONFIG] == [CONFIG.learning_rate] * 4
