"""A short run gives the pinned figures: a change of results is a decision, never an accident."""

import json

import numpy as np
import pytest

from tests.golden.run import FILE, golden_run
from tests.programs import run_program

pytestmark = pytest.mark.rounding
TOLERANCE = 1e-4
"""Relative: another processor's rounding stays below, a change of the algorithm does not."""


def pinned() -> dict[str, list[float]]:
    figures: dict[str, list[float]] = json.loads(FILE.read_text(encoding="utf-8"))["figures"]
    return figures


def differences(figures: dict[str, list[float]]) -> dict[str, float]:
    """The largest difference of each figure from the pinned ones, relative to the largest pinned value."""
    expected = pinned()
    assert figures.keys() == expected.keys()
    largest = {name: np.abs(np.subtract(figures[name], expected[name])).max() for name in expected}
    return {name: float(largest[name] / np.abs(expected[name]).max()) for name in expected}


def test_the_golden_run_gives_the_pinned_figures() -> None:
    assert {name: value for name, value in differences(golden_run()).items() if value > TOLERANCE} == {}


@pytest.mark.parametrize("changes", [{"seed": 1}, {"n_rollouts": 5}], ids=["another seed", "one more rollout"])
def test_a_real_change_is_orders_of_magnitude_larger(changes: dict[str, int]) -> None:
    """The negative control."""
    wrong = differences(golden_run(**changes))
    rewards = [value for name, value in wrong.items() if name.startswith("rewards of update")]
    assert min(rewards) > 100 * TOLERANCE
    assert max(wrong.values()) > 500 * TOLERANCE


def test_what_comes_before_rollouts_does_not_depend_on_them() -> None:
    wrong = differences(golden_run(n_rollouts=5))
    assert wrong["likelihood losses"] < TOLERANCE
    assert wrong["REINFORCE loss"] > 100 * TOLERANCE


@pytest.mark.parametrize("threads", ["1", "2"])
def test_the_number_of_threads_does_not_matter(threads: str) -> None:
    script = "import json; from tests.golden.run import golden_run; print(json.dumps(golden_run()))"
    done = run_program("-c", script, OMP_NUM_THREADS=threads)
    assert done.returncode == 0, done.stderr
    assert max(differences(json.loads(done.stdout)).values()) <= TOLERANCE
