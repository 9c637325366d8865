"""What several test files share.

What holds for every test, so that the suite passes on any machine, beside other work:
- What learns is compared with a control or its own start, and the difference exceeds what is asserted by three standard
  deviations or more, over five seeds and on two instruction sets; where it does not, the task is made easier, not the
  threshold lower. Such a test is marked `rounding`.
- Nothing asserts how long something takes by the clock: what has to be fast is compared with itself at another size, or may
  take a hundred times its CPU time. What waits for another process waits for an event (`tests.programs.wait_until`).
- Programs run in processes of their own, by `tests.programs`, only where the process is the point; else by `main(config)`.
- A finished run is shared by the tests that read it: a fixture of the module.
"""

import os
import random
import shutil
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch

from seqgan_env.support import cuda_graphs, precision
from tests.recordings import Emulated, RecordedOn, forms_for_gpus
from tests.run_folders import blank_pictures, save_oracle_run, save_text_run

# The tests' tensors are so small that threads only wait for each other, here and in the processes that tests start.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
hypothesis.settings.register_profile("suite", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("suite")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` skip where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Slow tests are not traced for coverage, which doubles their time: quick ones reach the same lines."""
    tracer = sys.gettrace()
    # Emulated recordings write every operator down, which takes twice as long if each line of it is traced.
    if item.get_closest_marker("slow") or {"emulated", "recorded_on"} & {*getattr(item, "fixturenames", ())}:
        sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


@pytest.fixture
def data_folder() -> Path:
    """The folder of the published data, which lies outside the project."""
    folder = os.environ.get("SEQGAN_DATA")
    if folder is None:
        pytest.skip("SEQGAN_DATA does not name the folder of the published data")
    return Path(folder)


@pytest.fixture(scope="module")
def runs_without_pictures() -> Iterator[None]:
    """For modules that read what runs leave, but not their pictures."""
    with blank_pictures():
        yield


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    save_text_run(folder)
    return folder


@pytest.fixture(scope="module")
def oracle_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    save_oracle_run(folder)
    return folder


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


class _PoolOfThisProcess:
    """Stands in for a `ProcessPoolExecutor`."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> "_PoolOfThisProcess":
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def runs_of_no_time(monkeypatch: pytest.MonkeyPatch, in_this_process: None) -> Callable[..., list[tuple[Any, ...]]]:
    """Puts `make(*arguments)` in the place of a benchmark's `run`; the list has the arguments of all calls."""

    def put(benchmark: ModuleType, make: Callable[..., Any]) -> list[tuple[Any, ...]]:
        called: list[tuple[Any, ...]] = []

        def run(*arguments: Any) -> Any:
            called.append(arguments)
            return make(*arguments)

        monkeypatch.setattr(benchmark, "run", run)
        return called

    return put


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that `benchmarks.finished_runs` would give to processes of their own."""
    monkeypatch.setattr("benchmarks.finished_runs.ProcessPoolExecutor", _PoolOfThisProcess)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """Headless Chromium; the tests skip where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install selenium")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("Chromium and its driver are not installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,900"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox does not start for root, who runs containers
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture
def emulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Emulated]]:
    """Recordings on the CPU, emulated, of what a GPU would compute, in the forms for GPUs."""
    monkeypatch.setattr(cuda_graphs, "Recording", Emulated)
    monkeypatch.setattr(cuda_graphs, "can_record", lambda device: True)
    monkeypatch.setattr("seqgan_env.models.sampling.linear_draws", lambda *_: None)  # a way for CPUs
    monkeypatch.setattr(cuda_graphs, "failed", False)
    monkeypatch.setattr(Emulated, "made", 0)
    monkeypatch.setattr(Emulated, "living", weakref.WeakSet())
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)  # its LSTM keeps what is no tensor
    with forms_for_gpus():
        yield Emulated


@pytest.fixture
def with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that has it, or a GPU; others make the same products, slower."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[cuda_graphs.Recording]:
    """Recordings on a GPU; `made` is their number."""

    class Counted(cuda_graphs.Recording):
        made = 0

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            Counted.made += 1

    monkeypatch.setattr(cuda_graphs, "Recording", Counted)
    return Counted


@pytest.fixture(params=[pytest.param("cpu", id="emulated"), pytest.param("cuda", id="gpu", marks=pytest.mark.gpu)])
def recorded_on(request: pytest.FixtureRequest) -> RecordedOn:
    """Emulated recordings on a CPU, and those of a GPU."""
    kind = request.getfixturevalue("emulated" if request.param == "cpu" else "counted")
    return RecordedOn(request.param, kind)
