"""Fits whose steps torch.compile fuses: the function that it compiles, without and with the compiler, against plain fits."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from seqgan_env.rewards import discriminator
from seqgan_env.rewards.discriminator import DiscriminatorReward
from seqgan_env.rewards.text_cnn import TextCNN, TextCNNConfig
from seqgan_env.support import device as devices
from seqgan_env.support.device import fused
from seqgan_env.support.training_step import adamw_step
from tests.recordings import FIT_SETTINGS, FIT_SIZES, Emulated, forms_for_gpus, values_of
from tests.small import seeded

pytestmark = pytest.mark.usefixtures("with_bfloat16")

V, T = 11, 6


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A CPU fits as a GPU would, without compiling; the list has the names of the functions that were to be compiled."""
    asked: list[str] = []

    def note(function: Callable[..., Any]) -> Callable[..., Any]:
        asked.append(function.__name__)
        return function

    monkeypatch.setattr(discriminator, "fused", note)
    with forms_for_gpus():
        yield asked


def reward(device: str = "cpu", **config: Any) -> DiscriminatorReward:
    return DiscriminatorReward(TextCNN(V, T, TextCNNConfig(**FIT_SIZES | config), device=device))


def fit(model: DiscriminatorReward, n: int = 29) -> list[dict[str, float]]:
    """Two fits of several passes, the last batch of which is smaller."""
    made = []
    for seed in (1, 2):
        tokens = torch.randint(V, (n, T), generator=seeded(seed)).to(model.discriminator.device)
        made.append(model.fit(tokens[:15], tokens[15:] % 4))
    return made


def counts(model: DiscriminatorReward) -> set[float]:
    """The numbers of steps that Adam has counted for each parameter."""
    return {state["step"].item() for state in model.optimizer.state.values()}


def test_adam_is_torchs() -> None:
    ours, theirs = (torch.randn(7, 3, generator=seeded(), dtype=torch.float64) for _ in range(2))
    optimizer = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.3)
    moments, count = [(torch.zeros_like(ours), torch.zeros_like(ours))], torch.zeros((), dtype=torch.float64)
    for step in range(5):
        theirs.grad = torch.randn(7, 3, generator=seeded(step), dtype=torch.float64)
        optimizer.step()
        count += 1
        adamw_step([ours], [theirs.grad], moments, count, torch.tensor(0.1, dtype=torch.float64), 0.3)
        torch.testing.assert_close(ours, theirs)
    adamw_step([ours], [theirs.grad], moments, count, torch.tensor(0.1, dtype=torch.float64), 0.0)
    optimizer.step()
    assert not torch.allclose(ours, theirs)  # the control: another decay, and a step that is not counted


@pytest.mark.parametrize("settings", FIT_SETTINGS)
def test_the_step_to_compile_is_the_plain_one(as_on_a_gpu: list[str], settings: str) -> None:
    plain, compiled = (reward(**FIT_SETTINGS[settings], compile=asked) for asked in (False, True))
    start = values_of(plain.discriminator)
    expected = fit(plain)
    assert not as_on_a_gpu
    found = fit(compiled)
    assert set(as_on_a_gpu) == {"fit_step"}
    for one, plain_one in zip(found, expected, strict=True):
        assert one == pytest.approx(plain_one, rel=1e-3)
    assert counts(compiled) == counts(plain) == {2 * 3 * 4}
    moved = (values_of(plain.discriminator) - start).abs().mean()
    difference = (values_of(compiled.discriminator) - values_of(plain.discriminator)).abs().mean()
    assert difference < (1e-2 if settings == "bfloat16" else 1e-4) * moved


def test_a_fit_in_another_order_is_detected(as_on_a_gpu: list[str]) -> None:
    """The negative control of the test above."""
    plain, compiled = (reward(compile=asked) for asked in (False, True))
    start = values_of(plain.discriminator)
    fit(plain)
    compiled.discriminator.rng.manual_seed(9)
    fit(compiled)
    moved = (values_of(plain.discriminator) - start).abs().mean()
    assert (values_of(compiled.discriminator) - values_of(plain.discriminator)).abs().mean() > 0.05 * moved


def test_the_step_to_compile_is_recorded(emulated: type[Emulated], as_on_a_gpu: list[str]) -> None:
    """Once, beside the plain steps of both sizes."""
    recorded, plain = reward(compile=True), reward()
    start = values_of(plain.discriminator)
    fit(recorded)
    fit(plain)
    assert emulated.made == 3 + 2
    moved = (values_of(plain.discriminator) - start).abs().mean()
    assert (values_of(recorded.discriminator) - values_of(plain.discriminator)).abs().mean() < 1e-4 * moved


@pytest.mark.parametrize(
    ("settings", "asks"), [({}, False), ({"compile": True}, True), ({"compile": True, "batch_size": 30}, False)]
)
def test_steps_of_whole_batches_are_compiled_on_request(as_on_a_gpu: list[str], settings: dict[str, Any], asks: bool) -> None:
    fit(reward(**settings))
    assert bool(as_on_a_gpu) == asks


def test_a_cpu_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discriminator, "fused", lambda function: pytest.fail("it was asked for"))
    fit(reward(compile=True))


def test_a_failing_compiler_warns_and_the_function_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def call(*_: Any) -> Any:
            raise RuntimeError("Cannot find a working compiler\nand more")

        return call

    def double(x: Tensor) -> Tensor:
        return 2 * x

    monkeypatch.setattr(torch, "compile", fails)
    function = fused(double)
    with pytest.warns(UserWarning, match=r"^Compiling double failed: Cannot find a working compiler\. It runs without"):
        assert function(torch.ones(1)).item() == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert function(torch.ones(1)).item() == 2  # said once
    devices.fused.cache_clear()


def test_running_out_of_memory_does_not_count_as_a_compiler_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch, "compile", lambda function, **_: fails)
    with pytest.raises(torch.OutOfMemoryError):
        fused(lambda x: x)(torch.ones(1))
    devices.fused.cache_clear()


@pytest.mark.slow
def test_a_compiled_fit_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's compiler for CPUs, which makes C++ of the same operators."""
    plain, compiled = reward(dropout=0.4), reward(dropout=0.4, compile=True)
    start = values_of(plain.discriminator)
    with forms_for_gpus(), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # it would say so if it had failed
        warnings.filterwarnings("default", module="torch")
        fit(plain)
        fit(compiled)
    moved = (values_of(plain.discriminator) - start).abs().mean()
    assert (values_of(compiled.discriminator) - values_of(plain.discriminator)).abs().mean() < 1e-4 * moved
    assert counts(compiled) == counts(plain)


@pytest.mark.gpu
@pytest.mark.parametrize("settings", ["dropout", "bfloat16"])
def test_on_a_gpu_a_compiled_fit_is_the_plain_one(settings: str) -> None:
    plain, compiled, other = (reward("cuda", **FIT_SETTINGS[settings], compile=asked) for asked in (False, True, True))
    start = values_of(plain.discriminator)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("default", module="torch")
        fit(plain)
        fit(compiled)
        other.discriminator.rng.manual_seed(9)
        fit(other)
    moved = (values_of(plain.discriminator) - start).abs().mean()
    differences = [(values_of(one.discriminator) - values_of(plain.discriminator)).abs().mean() for one in (compiled, other)]
    assert differences[0] < 0.03 * moved
    assert differences[1] > 0.05 * moved
    assert counts(compiled) == counts(plain)
