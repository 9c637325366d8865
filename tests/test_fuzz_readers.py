"""Damaged, wrong and hostile files for every reader may raise a documented error, and nothing else.

`pytest -m fuzz tests/test_fuzz_readers.py` runs 25 times as many, other ones each time.
"""

import json
import pickle
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from seqgan_env.games import oracle_game
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.oracle import load_oracle
from seqgan_env.saved_game import (
    load_game,
    save_game,
    spellings,
)
from tests.small import SMALL_CNN, seeded
from tests.valid_files import GAME, NAMES, outcome, write_files

EXAMPLES = 1500
ODD_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 1, 2, 10**9, 10**12, 10**400, 1.5, float("nan"), float("inf"), "", "a", [], {}, [[]], [10**12]]),
    st.text(max_size=3),
    st.lists(st.integers(-2, 10**12), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def generator_weights() -> dict[str, torch.Tensor]:
    weights = TokenLSTM(GAME.vocab_size, 3, 3, generator=seeded()).state_dict()
    return {name: value.contiguous() for name, value in weights.items()}


def fuzz(
    name: str, folder: Path, damage: st.SearchStrategy[Callable[[bytes], bytes]], examples: int, derandomize: bool
) -> Counter[str]:
    """Damage a valid file in so many ways, and read it."""
    path = write_files(folder)[name]
    valid, seen = path.read_bytes(), Counter[str]()
    assert outcome(name, path) == "read", "the file is not valid before it is damaged"

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=derandomize,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(damage)
    def run(change: Callable[[bytes], bytes]) -> None:
        path.write_bytes(change(valid))
        seen[outcome(name, path)] += 1

    run()
    return seen


# --- damage ----------------------------------------------------------------------------------------------------------


def flip(bits: list[int]) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        damaged = bytearray(data)
        for bit in bits:
            damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
        return bytes(damaged)

    return change


def splice(at: float, removed: int, inserted: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(at * len(data))] + inserted + data[int(at * len(data)) + removed :]


BYTES = st.one_of(
    st.binary(max_size=100).map(lambda data: lambda _: data),
    st.floats(0, 1).map(lambda share: lambda data: data[: int(share * len(data))]),
    st.lists(st.integers(0, 2**16), min_size=1, max_size=4).map(flip),
    st.lists(st.integers(0, 2400), min_size=1, max_size=2).map(flip),  # in the head, where formats are told
    st.builds(splice, st.floats(0, 1), st.integers(0, 9), st.binary(max_size=9)),
)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_bytes(name: str, tmp_path: Path, times: int) -> None:
    seen = fuzz(name, tmp_path, BYTES, EXAMPLES // 15 * times, times == 1)
    print(f"\n{name}: {dict(seen)}")
    assert sum(seen.values()) >= EXAMPLES // 15 * times
    assert seen["ValueError"] > 0


def replace_in(tree: Any, path: list[int], value: Any) -> Any:
    """The JSON value with one nested value replaced."""
    if not path or not isinstance(tree, dict | list) or not tree:
        return value
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    copied = tree.copy()
    copied[keys[path[0] % len(keys)]] = replace_in(copied[keys[path[0] % len(keys)]], path[1:], value)
    return copied


def other_json(path: list[int], value: Any) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps(replace_in(json.loads(data), path, value)).encode()


OTHER_JSON = st.builds(other_json, st.lists(st.integers(0, 30), min_size=1, max_size=3), ODD_VALUES)


def other_header(path: list[int], value: Any) -> Callable[[bytes], bytes]:
    """A change to the JSON at the head of a .safetensors file."""

    def change(data: bytes) -> bytes:
        (length,) = struct.unpack("<Q", data[:8])
        header = json.dumps(replace_in(json.loads(data[8 : 8 + length]), path, value)).encode()
        return struct.pack("<Q", len(header)) + header + data[8 + length :]

    return change


@pytest.mark.slow
def test_json_of_other_types(tmp_path: Path, times: int) -> None:
    seen = fuzz("game.json", tmp_path, OTHER_JSON, EXAMPLES // 5 * times, times == 1)
    print(f"\ngame.json: {dict(seen)}")
    assert seen["ValueError"] > 0.5 * sum(seen.values())


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("safetensors")])
def test_safetensors_of_other_headers(name: str, tmp_path: Path, times: int) -> None:
    headers = st.builds(other_header, st.lists(st.integers(0, 30), min_size=1, max_size=3), ODD_VALUES)
    seen = fuzz(name, tmp_path, headers, EXAMPLES // 30 * times, times == 1)
    assert seen["ValueError"] > 0.5 * sum(seen.values())


def test_generators_that_describe_themselves_otherwise(tmp_path: Path, times: int) -> None:
    weights = generator_weights()

    @settings(max_examples=EXAMPLES // 10 * times, deadline=None, database=None, derandomize=times == 1)
    @given(
        st.sampled_from([*"kehdnts", "embedding_dim", "hidden_dim", "n_layers", "sequence_length", "kind", "tokens"]),
        ODD_VALUES,
    )
    def run(key: str, value: Any) -> None:
        of_game = {"kind": "lstm", "embedding_dim": 3, "hidden_dim": 3, "tokens": spellings(GAME)}
        description = json.dumps({**of_game, key: value})
        save_file(weights, tmp_path / "generator.safetensors", {"generator": description})
        outcome("generator.safetensors", tmp_path / "generator.safetensors")

    run()


def test_undocumented_errors_are_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a reader that lets an IndexError out of damaged files."""

    whole = load_oracle

    def careless(path: Path) -> None:
        try:
            whole(path)
        except ValueError as error:
            raise IndexError("out of range") from error

    monkeypatch.setattr("tests.valid_files.load_oracle", careless)
    with pytest.raises(AssertionError, match=r"oracle.npz: undocumented IndexError"):
        fuzz("oracle.npz", tmp_path, BYTES, 100, True)


# --- small files that ask for much ------------------------------------------------------------------------------------


def peak_megabytes(call: Callable[[], object]) -> float:
    """How far the process's peak resident size exceeds its size before the call."""
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # set the peak back to what there is now

    def value(key: str) -> int:
        return int(re.findall(rf"^{key}:\s+(\d+) kB$", status.read_text(), re.MULTILINE)[0])

    before = value("VmRSS")
    call()
    return (value("VmHWM") - before) / 1024


def bomb_npz(path: Path) -> None:
    """Zeros of 128 MB in half a megabyte; the test lowers the limit to fit."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("embedding.npy", "w", force_zip64=True) as member,
    ):
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (2**25,)})  # type: ignore[arg-type]
        for _ in range(32):
            member.write(bytes(2**22))


def declaring_npz(path: Path) -> None:
    """A header that declares 10^12 values, and no values."""
    with zipfile.ZipFile(path, "w") as archive, archive.open("embedding.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})  # type: ignore[arg-type]


def sharing_pickle(path: Path) -> None:
    """A thousand arrays that share 4 MB."""
    array = np.ones(2**20, np.float64)
    one = pickle.dumps([array], protocol=3)
    opening, closing = one.index(b"cnumpy"), one.rindex(b"e.") if one.endswith(b"e.") else one.rindex(b"a.")
    data_at = one.index(array.tobytes())
    put = one.index(b"q", data_at + array.nbytes)
    again = one[opening : data_at - 5] + b"h" + one[put + 1 : put + 2] + one[put + 2 : closing]
    path.write_bytes(one[:opening].replace(b"]", b"](") + one[opening:closing] + again * 1000 + b"e.")


def wide_generator(path: Path) -> None:
    """A description of recurrent weights of 640 GB."""
    weights = generator_weights()
    save_file(weights, path, {"generator": json.dumps({"embedding_dim": 3, "hidden_dim": 200_000})})


def game_with(**changes: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        description = json.loads(path.read_text(encoding="utf-8"))
        for key, value in changes.items():
            description[key] = description[key] | value if isinstance(value, dict) and description[key] else value
        path.write_text(json.dumps(description))

    return write


def uneven_corpus(path: Path) -> None:
    """A line of 300,000 tokens among as many of one: padded to the longest, 720 GB."""
    path.write_text("a\n" * 300_000 + "b " * 300_000)


def deep_json(path: Path) -> None:
    path.write_text("[" * 200_000)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("oracle.npz", bomb_npz),
        ("oracle.npz", declaring_npz),
        ("oracle.pkl", sharing_pickle),
        ("generator.safetensors", wide_generator),
        ("game.json", game_with(vocab_size=10**9)),
        ("game.json", game_with(discriminator={"embedding_dim": 10**9})),
        ("game.json", game_with(discriminator={"n_filters": [10**5, 10**5]})),
        ("game.json", game_with(oracle={"embedding_dim": 10**6, "hidden_dim": 10**6})),
        ("game.json", game_with(sequence_length=10**12)),
        ("game.json", deep_json),
        ("corpus.txt", uneven_corpus),
        ("corpus.jsonl", deep_json),
    ],
)
def test_small_files_that_declare_large_sizes_are_refused(
    name: str, write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seqgan_env.models.oracle.MOST_BYTES", 2**24)
    path = write_files(tmp_path)[name]
    write(path)
    size = path.stat().st_size / 2**20
    assert size < 20
    seen: list[str] = []
    peak = peak_megabytes(lambda: seen.append(outcome(name, path)))
    assert seen == ["ValueError"]
    assert peak < 100 + 15 * size, f"took {peak:.0f} MB"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")
def test_a_peak_is_detected() -> None:
    """The negative control of the measure."""
    assert peak_megabytes(lambda: np.ones(2**25)) > 200


def test_an_oracle_game_survives_its_own_folder(tmp_path: Path) -> None:
    """The limits above do not refuse a saved game with an oracle."""
    game = oracle_game(4, 7, n_real=6, discriminator=SMALL_CNN)
    save_game(game, tmp_path)
    assert torch.equal(load_game(tmp_path).real_sequences, game.real_sequences)
