"""What the details of the published code change: norms and Adam's epsilon by hand."""

import math
from pathlib import Path

import pytest
import torch

from agents.experiment.config import OracleConfig
from benchmarks import published_details
from benchmarks.judge import Config as JudgeConfig
from benchmarks.published_details import Config, epsilon_effect, lines, norms_of
from seqgan_env.models.lstm import TokenLSTM
from tests.small import seeded
from tests.tiny_runs import oracle_config


def test_a_row_counts_as_often_as_it_is_looked_up() -> None:
    """Sequences of one token have one look-up each, of the start token's row: here the same gradient n times."""
    model = TokenLSTM(6, 3, 3, generator=seeded())
    once, n = torch.tensor([[4]]), 5
    ours, published, gradient = norms_of(model, once, 1.0)
    parts = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert gradient.norm().item() == pytest.approx(ours)
    assert published**2 == pytest.approx(ours**2 - parts["lstm.bias_hh_l0"] ** 2, rel=1e-5)
    many, many_published, _ = norms_of(model, once.expand(n, 1), 1.0)
    rest = published**2 - parts["embedding.weight"] ** 2
    assert many == pytest.approx(n * ours, rel=1e-5)
    assert many_published**2 == pytest.approx(n**2 * rest + n * parts["embedding.weight"] ** 2, rel=1e-5)


def test_epsilon_by_hand() -> None:
    """A coordinate as large as TensorFlow's epsilon in effect moves by half a step there."""
    small = 1e-8 / math.sqrt(0.001)
    effect = epsilon_effect(torch.tensor([1.0, small, 0.0]), 1.0)
    ours = small / (small + 1e-8)
    off = (ours - 0.5) / math.sqrt(1 + ours**2)
    assert effect.startswith(f"the step differs by {off:.2%} of its norm; 50.00% of the coordinates")
    assert epsilon_effect(torch.tensor([1.0, 1.0]), 1.0).startswith("the step differs by 0.00% of its norm; 0.00%")
    assert epsilon_effect(torch.tensor([1e6 * small]), 1e-6).startswith(f"the step differs by {(ours - 0.5) / ours:.2%}")


def test_program_has_a_line_for_each_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(seed: int, config: JudgeConfig) -> OracleConfig:
        return oracle_config(Path(), seed=seed)

    monkeypatch.setattr(published_details, "settings", small)
    printed = list(lines(Config(bias_epochs=1, device="cpu")))
    heads = [line.split(",")[0].split(":")[0] for line in printed]
    assert heads[:3] == ["start token", "floor", "floor"]
    assert heads[3:9] == ["norm that is clipped", "epsilon"] * 3
    assert heads[9:] == ["epsilon", "LSTM with 2 trained bias(es)", "LSTM with 1 trained bias(es)"]
    two, one = (line.partition("NLL_oracle")[2] for line in printed[-2:])
    assert two != one
