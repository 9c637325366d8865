"""An untrusted file runs no code, writes nowhere else, and its content is shown as text."""

import ast
import io
import os
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train
from agents.experiment.run_folder import RunFolder
from seqgan_env.saved_game import load_checkpoints
from tests.pages import Scripts
from tests.tiny_runs import only_run, oracle_config
from tests.valid_files import GAME, NAMES, outcome, write_files

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "seqgan_env").rglob("*.py"), *(ROOT / "agents").rglob("*.py"), ROOT / "train.py"])

# --- nothing of ours unpickles or evaluates ---------------------------------------------------------------------------

UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}


def dotted(node: ast.expr) -> str:
    """The name of what is called: `torch.load`, or `load` where the rest is not plain."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def keyword(call: ast.Call, name: str) -> Any:
    found = next((word.value for word in call.keywords if word.arg == name), None)
    return found.value if isinstance(found, ast.Constant) else found


def unsafe(source: str) -> Iterator[str]:
    """Calls in a module that could run code from a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"import {name}" for name in modules if name.partition(".")[0] in UNSAFE_MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in UNSAFE_CALLS:
            yield name
        if name in ("torch.load", "torch.jit.load") and keyword(node, "weights_only") is not True:
            yield f"{name} without weights_only=True"
        if name in ("np.load", "numpy.load") and keyword(node, "allow_pickle") not in (False, None):
            yield f"{name} with allow_pickle"
        if any(word.arg == "shell" for word in node.keywords) or name in ("os.system", "os.popen"):
            yield f"{name}: a shell"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_can_run_code_from_a_file(path: Path) -> None:
    assert list(unsafe(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml",
        "def f():\n    from cloudpickle import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=safe)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=trust)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
    ],
)
def test_unsafe_calls_are_detected(source: str) -> None:
    """The negative control of the test above."""
    assert list(unsafe(source))


@pytest.mark.parametrize("source", ["torch.load(p, weights_only=True)", "np.load(p, allow_pickle=False)", "model.eval()"])
def test_safe_calls_are_allowed(source: str) -> None:
    assert list(unsafe(source)) == []


# --- pickles in the place of every file that is read -------------------------------------------------------------------


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.mkdir, (str(self.marker),)  # type: ignore[return-value]


def plain_pickle(payload: Payload) -> bytes:
    return pickle.dumps(payload)


def pickle_of_the_first_protocol(payload: Payload) -> bytes:
    return pickle.dumps(payload, protocol=0)


def torch_file(payload: Payload) -> bytes:
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    return buffer.getvalue()


def object_arrays(payload: Payload) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, embedding=np.array([payload], dtype=object))
    return buffer.getvalue()


def run_it(data: bytes) -> None:
    """What a careless program would do with the bytes."""
    if not data.startswith(b"PK"):
        pickle.loads(data)
    elif b"embedding.npy" in data:
        np.load(io.BytesIO(data), allow_pickle=True)["embedding"]
    else:
        torch.load(io.BytesIO(data), weights_only=False)


FORMS = [plain_pickle, pickle_of_the_first_protocol, torch_file, object_arrays]


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train.main(oracle_config(folder))
    return only_run(folder)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NAMES)
def test_a_pickle_in_a_files_place_is_refused_and_not_run(name: str, form: Callable[[Payload], bytes], tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    path = write_files(tmp_path)[name]
    path.write_bytes(form(Payload(marker)))
    if not (name == "corpus.txt" and form is pickle_of_the_first_protocol):  # which is text, and read as such
        assert outcome(name, path) == "ValueError"
    else:
        assert outcome(name, path) == "read"
    assert not marker.exists()

    run_it(path.read_bytes())  # the payload is live
    assert marker.exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["config.json", "checkpoint"])
def test_a_pickle_in_a_run_that_is_resumed_is_refused_and_not_run(
    kind: str, form: Callable[[Payload], bytes], a_run: Path, tmp_path: Path
) -> None:
    marker, folder = tmp_path / "executed", tmp_path / "run"
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    (folder / "config.json").write_bytes((a_run / "config.json").read_bytes())
    path = folder / "config.json" if kind == "config.json" else checkpoints / "round-00000001.safetensors"
    path.write_bytes(form(Payload(marker)))
    with pytest.raises(ValueError, match=r"\w{3}"):
        train.resume(folder)
    assert not marker.exists()


# --- nothing is written elsewhere ---------------------------------------------------------------------------------------

LEAVING = ["../escaped", "/tmp/escaped", "a/b", "..", ".", "", "..\\escaped", "a\0b"]


@pytest.mark.parametrize("name", LEAVING)
def test_a_runs_name_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must not contain folders"):
        RunFolder.create(tmp_path / "runs", name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LEAVING)
def test_a_runs_files_stay_in_its_folder(name: str, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "runs", "run")
    before = {path for path in tmp_path.rglob("*")}
    generator = GAME.search.policy
    for write in (
        lambda: run.save_text(name, "text"),
        lambda: run.save_weights(name, generator, GAME),  # type: ignore[arg-type]
        lambda: run.load_generator(name, GAME),
    ):
        with pytest.raises(ValueError, match="must not contain folders"):
            write()
    run.close()
    assert {path for path in tmp_path.rglob("*")} <= before


def test_a_plain_name_is_accepted(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "quick")
    run.save_text("samples.txt", "a b")
    run.close()
    assert (run.path / "samples.txt").read_text() == "a b"


@pytest.mark.parametrize("name", ["../generator", "/etc/generator", "..", "x/../generator"])
def test_checkpoints_are_read_only_from_the_run(name: str, tmp_path: Path) -> None:
    write_files(tmp_path)
    inner = tmp_path / "inner"
    inner.mkdir()
    with pytest.raises(FileNotFoundError, match="No checkpoint"):
        load_checkpoints(inner, GAME, [name])


# --- what came from data is shown as text; the report's samples and TensorBoard are in experiment/test_report.py ----------


def test_cells_of_the_report_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunFolder, "summary", lambda *_: [("<script>alert(1)</script>", "<b>", '"', "&")])
    train.main(oracle_config(tmp_path))
    page = (only_run(tmp_path) / "report.html").read_text(encoding="utf-8")
    (table,) = re.findall("<table>.*?</table>", page, re.DOTALL)
    assert set(Scripts(table).tags) == {"table", "tr", "th", "td"}
    assert "&lt;script&gt;" in table


def test_a_runs_name_is_text_in_its_report(tmp_path: Path) -> None:
    train.main(oracle_config(tmp_path), "<img src=x onerror=alert(1)>")
    page = (only_run(tmp_path) / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
