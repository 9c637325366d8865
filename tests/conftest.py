"""What several test files share."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # the tests' tensors are so small that threads only wait for each other


@pytest.fixture
def data_folder() -> Path:
    """The folder of the published data, which lies outside the project."""
    folder = os.environ.get("SEQGAN_DATA")
    if folder is None:
        pytest.skip("SEQGAN_DATA does not name the folder of the published data")
    return Path(folder)


@pytest.fixture
def global_generators_at_rest() -> Iterator[None]:
    """Fails the test if a global random generator has moved by its end."""
    torch_before, numpy_before, python_before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    yield
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert str(np.random.get_state()) == str(numpy_before)  # noqa: NPY002
    assert random.getstate() == python_before


@pytest.fixture(params=[pytest.param(1, id="few"), pytest.param(25, id="many", marks=pytest.mark.fuzz)])
def times(request: pytest.FixtureRequest) -> int:
    """How many times the usual number of cases a fuzz test runs: once by default, many times under the marker."""
    number: int = request.param
    return number
