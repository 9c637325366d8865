"""What a GPU computes, with graphs, is what a CPU computes, at shapes that take different paths. It may round otherwise.

Both begin with the same parameters and get the same uniforms, so they write the same tokens, except for a draw at the edge of
two: from there on that row differs.
"""

import dataclasses

import pytest
import torch
from torch import Tensor

from seqgan_env.models.likelihood import LikelihoodTraining, PretrainConfig
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.sampling import write_sequences
from seqgan_env.rewards.discriminator import DiscriminatorReward
from seqgan_env.rewards.monte_carlo import MonteCarloSearch
from seqgan_env.rewards.text_cnn import TextCNN, TextCNNConfig, widths_within
from tests.recordings import SHAPES_ON_A_GPU
from tests.small import seeded

pytestmark = pytest.mark.gpu

GPU = "cuda"
shapes = pytest.mark.parametrize(("vocab_size", "length"), SHAPES_ON_A_GPU)
ends = pytest.mark.parametrize("end_token", [None, 3], ids=["whole", "end token"])
CNN = TextCNNConfig(
    widths=(1, 2, 5), n_filters=(8, 9, 7), embedding_dim=6, dropout=0.0, learning_rate=0.01, batch_size=64, epochs=6
)


def policy_of(vocab_size: int, end_token: int | None, device: str, seed: int = 0) -> TokenLSTM:
    return TokenLSTM(
        vocab_size, 8, 16, tied=False, end_token=end_token, initial_std=0.5, generator=seeded(seed), device=device
    )


def sequences(vocab_size: int, length: int, end_token: int | None, n: int = 40) -> Tensor:
    """Random ones; with an end token they have all lengths."""
    tokens = torch.randint(4, vocab_size, (n, length), generator=seeded(1))
    if end_token is not None:
        last = torch.randint(length, (n, 1), generator=seeded(2))
        positions = torch.arange(length)
        tokens = tokens.masked_fill(positions == last, end_token).masked_fill(positions > last, vocab_size)
    return tokens


def share_of_same_rows(a: Tensor, b: Tensor) -> float:
    return (a.cpu() == b.cpu()).all(dim=1).float().mean().item()


def parameters(module: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().cpu().flatten() for parameter in module.parameters()])


@shapes
@ends
@torch.no_grad()
def test_the_same_tokens_are_written(vocab_size: int, length: int, end_token: int | None) -> None:
    uniforms = torch.rand((200, length), generator=seeded())
    here, there, other = (
        write_sequences(policy, given.to(policy.device), (), vocab_size, end_token, 1.3, None)[0]
        for policy, given in [
            (policy_of(vocab_size, end_token, "cpu"), uniforms),
            (policy_of(vocab_size, end_token, GPU), uniforms),
            (policy_of(vocab_size, end_token, GPU), uniforms.flip(0)),
        ]
    )
    assert share_of_same_rows(here, there) > 0.8
    assert share_of_same_rows(here, other) < 0.5  # what chance and short sequences make equal


@shapes
@ends
def test_completions_are_the_same(vocab_size: int, length: int, end_token: int | None) -> None:
    tokens = sequences(vocab_size, length, end_token, 4)
    lengths, keys = (tokens < vocab_size).sum(dim=1), torch.arange(4)
    positions = range(min(40, max(0, length - 20)), min(60, length))

    def values(device: str, seed: int = 0, calls: int = 1) -> Tensor:
        def score(tokens: Tensor, lengths: Tensor) -> Tensor:
            return (tokens.float() / vocab_size).mean(dim=1)

        search = MonteCarloSearch(policy_of(vocab_size, end_token, device, seed), score, 4, vocab_size, end_token=end_token)
        for _ in range(calls):  # the first is plain, the second records, and later ones replay
            found = search.action_values(tokens.to(device), lengths.to(device), keys.to(device), positions)
        return found.cpu()

    here = values("cpu")
    assert (values(GPU, calls=3) - here).abs().mean() < 3e-3
    if length > 1:
        assert (values(GPU, seed=1) - here).abs().mean() > 2 * (values(GPU) - here).abs().mean()


@shapes
@ends
def test_log_probabilities_are_the_same(vocab_size: int, length: int, end_token: int | None) -> None:
    tokens = sequences(vocab_size, length, end_token)
    here, there = (policy_of(vocab_size, end_token, device).log_prob(tokens.to(device)) for device in ("cpu", GPU))
    torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n", [48, 40], ids=["whole batches", "a smaller last batch"])
@shapes
@ends
def test_epochs_of_likelihood_learn_the_same(vocab_size: int, length: int, end_token: int | None, n: int) -> None:
    real = sequences(vocab_size, length, end_token, n)
    config = PretrainConfig(epochs=4, batch_size=16, learning_rate=1e-3, shuffle=False)
    policies, losses = [policy_of(vocab_size, end_token, device) for device in ("cpu", GPU)], []
    start = parameters(policies[0])
    for policy in policies:
        training = LikelihoodTraining(policy, real.to(policy.device), config, torch.Generator(policy.device).manual_seed(0))
        losses.append([training.train_epoch() for _ in range(config.epochs)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    here, there = map(parameters, policies)
    assert (here - there).abs().mean() < 0.05 * (here - start).abs().mean()


@shapes
def test_fits_learn_the_same(vocab_size: int, length: int) -> None:
    """The whole batch in each step, in any order: devices shuffle otherwise."""
    real, generated = sequences(vocab_size, length, None, 40), sequences(vocab_size, length, None, 24).flip(0)
    networks = [TextCNN(vocab_size, length, widths_within(length, CNN), device=device) for device in ("cpu", GPU)]
    start, found = parameters(networks[0]), []
    for network in networks:
        model = DiscriminatorReward(network)
        metrics = [model.fit(real.to(network.device), generated.to(network.device)) for _ in range(3)]
        lengths = torch.full((len(real),), length, device=network.device)
        found.append((metrics, model.score(real.to(network.device), lengths).cpu()))
    (metrics, scores), (metrics_there, scores_there) = found
    for one, other in zip(metrics, metrics_there, strict=True):
        assert other == pytest.approx(one, rel=0.02, abs=1e-3)
    torch.testing.assert_close(scores_there, scores, rtol=0, atol=0.01)
    here, there = map(parameters, networks)
    assert (here - there).abs().mean() < 0.05 * (here - start).abs().mean()


@pytest.mark.parametrize("batch_size", [16, 20], ids=["whole batches", "a smaller last batch"])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_fits_in_small_batches_learn_as_much(batch_size: int, dropout: float) -> None:
    """With another order and other dropout, the loss falls to about the same, from log 2."""
    config = dataclasses.replace(CNN, batch_size=batch_size, dropout=dropout, learning_rate=3e-3, epochs=4)
    real, generated = torch.randint(25, (200, 7), generator=seeded()), torch.randint(20, 50, (200, 7), generator=seeded(1))
    losses = []
    for device in ("cpu", GPU):
        model = DiscriminatorReward(TextCNN(50, 7, config, device=device))
        losses.append([model.fit(real.to(device), generated.to(device))["loss"] for _ in range(2)])
    assert losses[1] == pytest.approx(losses[0], rel=0.5)
    assert max(losses[0][1], losses[1][1]) < 0.3
