"""Custom reward functions: values, everything that can go wrong, and loading by name."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from seqgan_env.rewards.custom import (
    FunctionReward,
    MissingReward,
    RewardError,
    as_reward_model,
    describe,
    find_culprit,
    load_function,
)
from tests.small import Ordinal, V

TOKENS = torch.tensor([[0, 1, 2, 3, 4], [5, 5, V, V, V], [3, V, V, V, V]])
LENGTHS = torch.tensor([5, 2, 1])


def test_a_function_gets_decoded_sequences_without_padding() -> None:
    seen: list[Any] = []

    def function(sequences: list[Any]) -> list[float]:
        seen.extend(sequences)
        return [1.0, 2.0, 3.0]

    assert FunctionReward(function).score(TOKENS, LENGTHS).tolist() == [1, 2, 3]
    assert FunctionReward(function, decode=lambda ids: "-".join(map(str, ids))).score(TOKENS, LENGTHS).dtype == torch.float32
    assert seen == [[0, 1, 2, 3, 4], [5, 5], [3], "0-1-2-3-4", "5-5", "3"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, 2.0], r"returned values of shape \(2,\), expected \(3,\): one for each sequence"),
        ([[1.0], [2.0], [3.0]], r"returned values of shape \(3, 1\), expected \(3,\)"),
        ([1.0, math.nan, 3.0], r"returned nan for \[5, 5\]; rewards must be finite"),
        ([1.0, 2.0, -math.inf], r"returned -inf for \[3\]"),
        (1.0, r"returned values of shape \(\), expected \(3,\)"),
        (None, r"must return 3 numbers, one for each sequence, got None \(NoneType\)"),
        (["a", "b", "c"], r"must return 3 numbers, .* got \['a', 'b', 'c'\] \(list\)"),
        ([1.0, [2.0], 3.0], r"must return 3 numbers"),
    ],
)
def test_a_function_with_invalid_values_is_refused(values: Any, message: str) -> None:
    with pytest.raises(RewardError, match=message):
        FunctionReward(lambda sequences: values).score(TOKENS, LENGTHS)


def test_a_function_of_one_sequence() -> None:
    assert FunctionReward(len, batched=False).score(TOKENS, LENGTHS).tolist() == [5, 2, 1]
    tensors = FunctionReward(lambda sequence: torch.tensor(2.0 * len(sequence)), batched=False)
    assert tensors.score(TOKENS, LENGTHS).tolist() == [10, 4, 2]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.5", r"must return one number, got '0\.5' \(str\) for the sequence \[5, 5\]"),
        (None, r"must return one number, got None \(NoneType\) for the sequence \[5, 5\]\. If it takes a list"),
        ([1.0, 2.0], r"must return one number, got \[1\.0, 2\.0\] \(list\)"),
        (math.nan, r"returned nan for \[5, 5\]"),
    ],
)
def test_one_wrong_value_is_shown_with_its_sequence(value: Any, message: str) -> None:
    reward = FunctionReward(lambda sequence: value if sequence == [5, 5] else 1.0, batched=False)
    with pytest.raises(RewardError, match=message):
        reward.score(TOKENS, LENGTHS)


def half(sequence: list[int]) -> float:
    if len(sequence) == 2:
        raise KeyError("no such half")
    return 0.5


def halves(sequences: list[list[int]]) -> list[float]:
    return [half(sequence) for sequence in sequences]


@pytest.mark.parametrize(("function", "batched"), [(half, False), (halves, True)])
def test_a_function_that_raises_shows_the_sequence_and_the_cause(function: Any, batched: bool) -> None:
    with pytest.raises(RewardError, match=r"raised KeyError for the sequence \[5, 5\]: 'no such half'") as caught:
        FunctionReward(function, batched=batched).score(TOKENS, LENGTHS)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_function_that_raises_only_for_a_batch() -> None:
    def few(sequences: list[Any]) -> list[float]:
        if len(sequences) > 2:
            raise MemoryError("too many")
        return [0.0] * len(sequences)

    with pytest.raises(
        RewardError, match="raised MemoryError for the batch of 3 sequences, but for none that was tried alone"
    ):
        FunctionReward(few).score(TOKENS, LENGTHS)


def test_ctrl_c_is_not_reported_as_an_error_of_the_function() -> None:
    def interrupted(sequences: list[Any]) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FunctionReward(interrupted).score(TOKENS, LENGTHS)


@pytest.mark.parametrize("bad", [0, 1, 499, 500, 999])
def test_the_culprit_is_found_in_few_calls(bad: int) -> None:
    calls = []

    def function(sequences: list[int]) -> None:
        calls.append(len(sequences))
        if bad in sequences:
            raise ValueError

    assert find_culprit(function, list(range(1000))) == bad
    assert len(calls) <= 2 * math.ceil(math.log2(1000)) + 1


def test_a_long_sequence_is_shortened_in_messages() -> None:
    tokens = torch.zeros(1, 5000, dtype=torch.int64)
    with pytest.raises(RewardError) as caught:
        FunctionReward(lambda sequences: [math.nan]).score(tokens, torch.tensor([5000]))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("batched", [True, False])
def test_a_function_is_not_called_for_no_sequences(batched: bool) -> None:
    def function(sequences: Any) -> Any:
        raise AssertionError

    none = torch.empty(0, 5, dtype=torch.int64)
    assert FunctionReward(function, batched=batched).score(none, none[:, 0]).shape == (0,)


def test_an_object_that_is_not_callable_is_refused() -> None:
    with pytest.raises(TypeError, match="must be callable, got str"):
        FunctionReward("os:system")  # type: ignore[arg-type]


def test_a_function_becomes_a_reward_model_and_a_model_stays() -> None:
    model = Ordinal()
    assert as_reward_model(model, None, batched=True) is model
    assert as_reward_model(len, None, batched=False).score(TOKENS, LENGTHS).tolist() == [5, 2, 1]


# By name


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_rewards_of_mine.py").write_text("def length(text):\n    return len(text)\n\nLIMIT = 3\n")
    (tmp_path / "broken_rewards_of_mine.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "some_rewards_of_mine"


def test_a_function_is_loaded_by_its_name(module: str) -> None:
    function = load_function(f"{module}:length")
    assert function("abc") == 3
    assert describe(FunctionReward(function, batched=False)) == {"name": f"{module}:length", "batched": False}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("length", r"must be package\.module:function, such as my_rewards:length; got 'length'"),
        (":length", "got ':length'"),
        ("some_rewards_of_mine:", "got 'some_rewards_of_mine:'"),
        ("no_such_module_here:f", r"cannot be imported: ModuleNotFoundError: .*PYTHONPATH=\."),
        ("broken_rewards_of_mine:f", "cannot be imported: ZeroDivisionError: division by zero"),
        ("some_rewards_of_mine:width", r"has no 'width'\. It has length\."),
    ],
)
@pytest.mark.usefixtures("module")
def test_an_unknown_name_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_function(name)


def test_a_name_of_another_object_is_refused(module: str) -> None:
    with pytest.raises(ValueError, match=r"is not a function, but of type int\. Name a function"):
        load_function(f"{module}:LIMIT")


def test_a_missing_reward_says_what_is_missing() -> None:
    missing = MissingReward("mine:length", batched=False)
    told = r"mine:length, which is not in its folder.* --objective mine:length .* load_function\('mine:length'\)"
    with pytest.raises(RewardError, match=told):
        missing.score(TOKENS, LENGTHS)
    assert describe(missing) == {"name": "mine:length", "batched": False}
    assert describe(Ordinal()) == {"name": "Ordinal", "batched": True}
