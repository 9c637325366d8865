"""Draws by Triton: the cases beside this file, in the interpreter and on a GPU; and on a GPU the sizes of experiments."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqgan_env.models import sampling
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.sampling import linear_draws, triton_draws_work
from tests.programs import run_program
from tests.references import outside_of_shares
from tests.small import seeded

FOLDER = Path(__file__).parent


def need_triton() -> None:
    """Skips without it; it is imported only in other processes, which choose between compiler and interpreter."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed: pip install triton")


@pytest.mark.slow
@pytest.mark.parametrize("interpreted", [True, pytest.param(False, marks=pytest.mark.gpu)], ids=["interpreter", "gpu"])
def test_cases(interpreted: bool) -> None:
    need_triton()
    run = run_program(
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::DeprecationWarning",  # of old libraries; this run cannot see how the one around it was called
        FOLDER / "triton_draws_cases.py",
        TRITON_INTERPRET=str(int(interpreted)),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed" in run.stdout


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_without_a_gpu(capability: int, tmp_path: Path) -> None:
    """The interpreter cannot test this: Triton 3.6 fails to compile sums over fewer numbers than a warp has threads."""
    need_triton()
    run = run_program("-W", "error", FOLDER / "triton_draws_compiled.py", capability, TRITON_CACHE_DIR=str(tmp_path))
    assert run.returncode == 0, run.stdout + run.stderr
    assert (run.stdout.count("_sum_blocks"), run.stdout.count("_find_tokens")) == (3, 3)


# What is chosen where


@pytest.fixture
def asked_anew(monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Asks, as if on a GPU, whether Triton works."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    return lambda: triton_draws_work.__wrapped__(torch.device("cuda"), 5, 3)


def test_without_triton_nothing_is_tried(asked_anew: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert not asked_anew()


def test_an_older_gpu_draws_from_logits(asked_anew: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert not asked_anew()


def test_a_failure_of_triton_warns(asked_anew: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "seqgan_env.models.triton_draws", None)
    with pytest.warns(UserWarning, match=r"Triton failed, so tokens are drawn from logits, which is slower: .*triton_draws"):
        assert not asked_anew()


def test_importing_the_package_does_not_import_triton() -> None:
    run = run_program("-c", "import sys, seqgan_env.models.sampling; print('triton' in sys.modules)")
    assert run.stdout.strip() == "False", run.stdout + run.stderr


# On a GPU


def layer(vocab_size: int, width: int, n: int, k: int) -> tuple[nn.Linear, Tensor, Tensor]:
    """A layer, features `(n, width)` and uniforms `(n, k)`."""
    generator = torch.Generator("cuda").manual_seed(vocab_size)
    made = nn.Linear(width, vocab_size, device="cuda").requires_grad_(False)
    made.weight.normal_(std=2 / width**0.5, generator=generator)
    made.bias.normal_(generator=generator)
    features = torch.randn(n, width, generator=generator, device="cuda")
    return made, features, torch.rand(n, k, generator=generator, device="cuda")


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("vocab_size", "width", "n", "k"),
    [
        (5000, 32, 10_240, 1),
        (50, 32, 10_240, 1),
        (50_000, 64, 2048, 1),
        (20_000, 600, 1024, 1),
        (5000, 32, 64, 16),
        (5000, 32, 1, 10_000),
    ],
)
def test_at_full_size_only_edges_differ(vocab_size: int, width: int, n: int, k: int) -> None:
    from seqgan_env.models.triton_draws import TritonDraws

    output, features, uniforms = layer(vocab_size, width, n, k)
    drawn = TritonDraws(output.weight, output.bias)(features, uniforms)
    outside = [
        outside_of_shares(tokens, nn.functional.linear(x.double(), output.weight.double(), output.bias.double()), u)
        for tokens, x, u in zip(drawn.split(512), features.split(512), uniforms.split(512), strict=True)
    ]
    beyond = torch.cat(outside)
    assert beyond.max() < 1e-6
    assert (beyond > 0).double().mean() < 0.003
    shifted = outside_of_shares(drawn[:512], output(features[:512]), uniforms[:512].flip(1) if k > 1 else 1 - uniforms[:512])
    assert shifted.max() > 0.5  # the control


@pytest.mark.gpu
def test_a_graph_draws_the_same() -> None:
    from seqgan_env.models.triton_draws import TritonDraws

    output, features, uniforms = layer(5000, 32, 300, 2)
    draws = TritonDraws(output.weight, output.bias)
    draws(features, uniforms)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        drawn = draws(features, uniforms)
    for _ in range(2):
        uniforms.copy_(torch.rand(300, 2, device="cuda", generator=torch.Generator("cuda").manual_seed(3)))
        features.neg_()
        graph.replay()
        assert torch.equal(drawn, draws(features, uniforms))


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"inverse_temperature": 1.7}, {"prefix": (3, 1)}], ids=["plain", "colder", "prefix"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_policy_on_a_gpu_writes_the_same_as_from_logits(
    tied: bool, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = TokenLSTM(1000, 32, 32, tied=tied, initial_std=0.5, generator=seeded(), device="cuda").requires_grad_(False)
    assert type(linear_draws(policy, 1.0)).__name__ == "TritonDraws"

    def sample() -> Tensor:
        return sampling.sample_sequences(policy, 2000, 10, 1000, torch.Generator("cuda").manual_seed(0), **options)[0]

    drawn = sample()
    monkeypatch.setattr(sampling, "linear_draws", lambda *_: None)
    assert (drawn != sample()).any(dim=1).double().mean() < 0.01


@pytest.mark.gpu
def test_other_dtypes_are_drawn_from_logits() -> None:
    policy = TokenLSTM(100, 4, 4, generator=seeded(), device="cuda")
    assert linear_draws(policy.double(), 1.0) is None
