"""The oracle: the published one scores 5.75 nats per token, and a bad file only raises a ValueError."""

import contextlib
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_env.models.oracle import PARAMETER_NAMES, load_oracle, seeded_oracle
from tests.oracle_files import HIDDEN, VOCAB, Arrays, parameters, write_npz
from tests.small import seeded


def swap_gates(arrays: Arrays, one: str, other: str) -> Arrays:
    """The same arrays with two gates' parameters exchanged."""
    swapped = dict(arrays)
    for part in "WUb":
        swapped[f"{one}_{part}"], swapped[f"{other}_{part}"] = arrays[f"{other}_{part}"], arrays[f"{one}_{part}"]
    return swapped


def write_pickle(path: Path, content: object, protocol: int = 3) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.fixture
def npz(tmp_path: Path) -> Callable[[Arrays], Path]:
    return lambda arrays: write_npz(tmp_path / "oracle.npz", arrays)


@pytest.fixture
def pkl(tmp_path: Path) -> Callable[[object], Path]:
    return lambda content: write_pickle(tmp_path / "oracle.pkl", content)


def nll_by_hand(arrays: Arrays, sequence: list[int]) -> float:
    """Nats per token by the published program's equations: start token 0, gates sigmoid(x W + h U + b)."""

    def gate(name: str) -> np.ndarray:
        return x @ arrays[f"{name}_W"] + h @ arrays[f"{name}_U"] + arrays[f"{name}_b"]

    def sigmoid(values: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-values))

    h = c = np.zeros(HIDDEN)
    total = 0.0
    for last, token in zip([0, *sequence], sequence, strict=False):
        x = arrays["embedding"][last]
        c = sigmoid(gate("forget")) * c + sigmoid(gate("input")) * np.tanh(gate("cell"))
        h = sigmoid(gate("output")) * np.tanh(c)
        logits = h @ arrays["logits_W"] + arrays["logits_b"]
        total += np.log(np.exp(logits).sum()) - logits[token]
    return total / len(sequence)


# The parameters and what they mean


def test_a_loaded_oracle_follows_the_published_equations(npz: Callable[[Arrays], Path]) -> None:
    arrays, sequence = parameters(), [4, 0, 2, 2, 1, 3]
    nll = load_oracle(npz(arrays)).nll(torch.tensor([sequence])).item()
    assert nll == pytest.approx(nll_by_hand(arrays, sequence), abs=1e-5)
    for gates in (("input", "forget"), ("forget", "output"), ("output", "cell")):
        assert nll != pytest.approx(nll_by_hand(swap_gates(arrays, *gates), sequence), abs=1e-2)


def test_npz_and_pickle_hold_the_same_oracle(npz: Callable[[Arrays], Path], pkl: Callable[[object], Path]) -> None:
    arrays = parameters()
    from_npz, from_pickle = load_oracle(npz(arrays)), load_oracle(pkl(list(arrays.values())))
    assert_same_parameters(from_npz, from_pickle)


def assert_same_parameters(one: torch.nn.Module, other: torch.nn.Module) -> None:
    torch.testing.assert_close(dict(one.named_parameters()), dict(other.named_parameters()), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [">f4", "<f8"])
def test_a_pickle_in_another_byte_order_or_precision_is_converted(dtype: str, pkl: Callable[[object], Path]) -> None:
    oracle = load_oracle(pkl([array.astype(dtype) for array in parameters().values()]))
    assert_same_parameters(oracle, load_oracle(pkl(list(parameters().values()))))


def test_a_pickle_of_column_major_arrays_is_read_as_such(pkl: Callable[[object], Path]) -> None:
    oracle = load_oracle(pkl([np.asfortranarray(array) for array in parameters().values()]))
    assert_same_parameters(oracle, load_oracle(pkl(list(parameters().values()))))


def test_an_oracle_is_frozen(npz: Callable[[Arrays], Path]) -> None:
    for oracle in (load_oracle(npz(parameters())), seeded_oracle(0, VOCAB)):
        assert not oracle.training
        assert not any(parameter.requires_grad for parameter in oracle.parameters())


@pytest.mark.usefixtures("global_generators_at_rest")
def test_a_seed_is_a_language() -> None:
    oracle, again, other = seeded_oracle(0, 50), seeded_oracle(0, 50), seeded_oracle(1, 50)
    assert_same_parameters(oracle, again)
    assert not torch.equal(oracle.output.weight, other.output.weight)
    assert oracle.output.weight.std().item() == pytest.approx(1, abs=0.1)


# The published oracle


def test_the_published_oracle_is_the_same_from_both_files(data_folder: Path) -> None:
    from_npz = load_oracle(data_folder / "seqgan_paper_oracle.npz")
    assert_same_parameters(from_npz, load_oracle(data_folder / "target_params_py3.pkl"))
    assert (from_npz.vocab_size, from_npz.hidden_dim) == (5000, 32)


def test_the_published_oracle_scores_5_75_nats_on_its_own_samples(data_folder: Path, tmp_path: Path) -> None:
    published = data_folder / "seqgan_paper_oracle.npz"
    oracle = load_oracle(published)
    tokens, _ = oracle.sample(2_500, 20, seeded(1))
    assert oracle.nll(tokens).mean().item() == pytest.approx(5.75, abs=0.03)

    with np.load(published) as arrays:
        swapped = load_oracle(write_npz(tmp_path / "swapped.npz", swap_gates(dict(arrays), "forget", "input")))
    assert swapped.nll(tokens).mean().item() > 6.5  # the negative control: gates in another order are another language


# Bad files


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.npz", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"No oracle file at {path}"):
            load_oracle(path)


NAN = np.full((HIDDEN, VOCAB), np.nan, dtype=np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits_W": NAN}, "logits_W has values that are not finite"),
        ({"input_U": np.full((HIDDEN, HIDDEN), np.inf)}, "input_U has values that are not finite"),
        ({"input_U": np.full((HIDDEN, HIDDEN), 1e300)}, "input_U has values that are not finite"),  # so in float32
        ({"logits_b": np.zeros(VOCAB, dtype=np.int64)}, "logits_b has values that are not finite numbers"),
        ({"cell_W": np.zeros((2, 2))}, r"cell_W has shape \(2, 2\), expected \(3, 4\)"),
        ({"logits_b": np.zeros(VOCAB + 1)}, r"logits_b has shape \(6,\), expected \(5,\)"),
        ({"embedding": np.zeros(7)}, r"embedding has shape \(7,\)"),
        ({"input_b": np.float32(0)}, r"input_b has shape \(\)"),
    ],
)
def test_wrong_arrays_are_named(changes: Arrays, message: str, npz: Callable[[Arrays], Path]) -> None:
    with pytest.raises(ValueError, match=message):
        load_oracle(npz(parameters(**changes)))


def test_every_fault_is_named_at_once(npz: Callable[[Arrays], Path]) -> None:
    with pytest.raises(ValueError, match=r"cell_W has shape.*logits_W has values"):
        load_oracle(npz(parameters(cell_W=np.zeros((2, 2)), logits_W=NAN)))


def test_missing_arrays_are_named(npz: Callable[[Arrays], Path]) -> None:
    arrays = parameters()
    del arrays["forget_U"], arrays["logits_b"]
    with pytest.raises(ValueError, match="lacks forget_U, logits_b; expected embedding"):
        load_oracle(npz(arrays))


def test_an_npz_of_objects_is_refused(npz: Callable[[Arrays], Path]) -> None:
    with pytest.raises(ValueError, match=r"not an \.npz file of plain arrays"):
        load_oracle(npz(parameters(logits_b=np.array([{}] * VOCAB))))


OBJECTS = np.array([1.0, {"a": 1}], dtype=object)


@pytest.mark.parametrize(
    "content",
    [
        parameters(),
        list(range(len(PARAMETER_NAMES))),
        [[1.0, 2.0]] * len(PARAMETER_NAMES),
        [OBJECTS] * len(PARAMETER_NAMES),
        [np.arange(3)] * len(PARAMETER_NAMES),
        [np.array(["a"])] * len(PARAMETER_NAMES),
        [np.float32(1)] * len(PARAMETER_NAMES),
        {"os": os.system},
        tuple(parameters().values()),
        None,
    ],
    ids=["dict", "ints", "lists", "object arrays", "int arrays", "text arrays", "scalars", "function", "tuple", "none"],
)
@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_of_anything_but_float_arrays_is_refused(content: object, protocol: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a pickle of only float arrays"):
        load_oracle(write_pickle(tmp_path / "oracle.pkl", content, protocol))


def test_a_pickle_with_too_few_arrays_is_refused(pkl: Callable[[object], Path]) -> None:
    with pytest.raises(ValueError, match="holds 14 arrays; expected 15: embedding"):
        load_oracle(pkl(list(parameters().values())[:-1]))


class Hostile:
    """Runs a shell command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("hidden", [True, False], ids=["behind arrays", "alone"])
def test_nothing_in_a_pickle_is_executed(protocol: int, hidden: bool, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    content = [*list(parameters().values())[:-1], Hostile(marker)] if hidden else Hostile(marker)
    path = write_pickle(tmp_path / "oracle.pkl", content, protocol)
    with pytest.raises(ValueError, match="not a pickle of only float arrays"):
        load_oracle(path)
    assert not marker.exists()

    pickle.loads(path.read_bytes())  # the payload is live: Python's own reader executes it
    assert marker.exists()


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_refused(suffix: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / f"oracle{suffix}"
    whole = write_npz(path, parameters()) if suffix == ".npz" else write_pickle(path, list(parameters().values()))
    data = whole.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match=f"oracle{suffix} is "):
        load_oracle(path)


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (b"R", "its stack runs empty"),
        (b"K\1K\2a", "appends to something that is not a list"),
        (b"K\1K\2b", "sets the state of something that is not an array"),
        (b"cos\nsystem\n)R", "calls os system"),
        (b"cnumpy\ndtype\n)R", "calls numpy dtype"),
        (b"cnumpy\ndtype\nX\2\0\0\0f4\x85R(K\3X\1\0\0\0|tb", r"its byte order is '\|'"),
        (b"cnumpy.core.multiarray\n_reconstruct\n)R(K\1)NNNtb", "an array in it has no plain data"),
        (b"K\1", "its content is not a list of arrays"),
    ],
)
def test_the_message_names_the_content_of_a_pickle(opcodes: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "oracle.pkl"
    path.write_bytes(b"\x80\3" + opcodes + b".")
    with pytest.raises(ValueError, match=message):
        load_oracle(path)


def load_bytes(data: bytes, suffix: str) -> None:
    """Load a file with this content; it may raise a ValueError, and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"oracle{suffix}"
        path.write_bytes(data)
        with contextlib.suppress(ValueError):
            load_oracle(path)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([b"", b"PK\3\4", b"\x80\3]("]), st.binary(max_size=200), st.sampled_from([".npz", ".pkl"]))
def test_random_bytes_are_refused(start: bytes, data: bytes, suffix: str) -> None:
    load_bytes(start + data, suffix)


@settings(max_examples=50, deadline=None)
@given(position=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_pickle_with_a_damaged_byte_is_read_or_refused(position: float, byte: int) -> None:
    data = bytearray(pickle.dumps(list(parameters().values()), protocol=3))
    data[int(position * len(data))] = byte
    load_bytes(bytes(data), ".pkl")


def test_a_deeply_nested_pickle_is_refused() -> None:
    load_bytes(b"\x80\3)" + b"\x85" * 100_000 + b")R.", ".pkl")
