"""Imports run one way, and nothing in the project depends on the folder that it was written in."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "seqgan_env"
# A part, which is a folder or a module at the top, imports only parts before it; a new one gets its place here.
ORDER = (
    "support",
    "data",
    "models",
    "metrics",
    "policy_gradient",
    "rewards",
    "game_rules",
    "observations",
    "game",
    "games",
    "rendering",
    "game_environment",
    "sequence_env",
    "vector_env",
    "saved_game",
    "inspection",
    "evaluation",
    "commands",
    "__main__",
    "__init__",
)
LARGEST_FOLDER = 15
PLAYERS = {"agents", "stable_baselines3", "sb3_contrib", "train"}
TEXT_SUFFIXES = (".py", ".md", ".txt", ".ipynb", ".toml", ".cfg")
MODULES = sorted(path.relative_to(ROOT).with_suffix("") for path in (ROOT / PACKAGE).rglob("*.py"))
FOLDERS = sorted(
    {folder for name in (PACKAGE, "agents") for folder in (ROOT / name).rglob("") if (folder / "__init__.py").exists()}
)


def imported(source: str) -> Iterator[str]:
    """The modules that a module imports, anywhere in it, by their full names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([PACKAGE] * bool(node.level) + [node.module] * bool(node.module))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def arrows_against_the_order(part: str, source: str) -> list[str]:
    """A part's imports that do not come before it in the order; its own modules are allowed."""
    allowed = {*ORDER[: ORDER.index(part)], part}
    wrong = []
    for name in imported(source):
        top, _, inner = name.partition(".")
        first = inner.partition(".")[0]
        if top in PLAYERS or (name == PACKAGE and part != "__init__") or (top == PACKAGE and first in {*ORDER} - allowed):
            wrong.append(name)
    return wrong


def arrows_within(folder: Path) -> dict[str, set[str]]:
    """Which modules of a folder each of them imports."""
    package = ".".join(folder.relative_to(ROOT).parts)
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    names = {module: {*imported((folder / f"{module}.py").read_text())} for module in modules}
    return {module: {other for other in modules if f"{package}.{other}" in names[module]} for module in modules}


def test_every_part_has_its_place_in_the_order() -> None:
    assert {module.parts[1] for module in MODULES} == {*ORDER}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_imports_run_down_the_order(module: Path) -> None:
    source = (ROOT / module).with_suffix(".py").read_text()
    assert arrows_against_the_order(module.parts[1], source) == []


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_within_a_folder_imports_make_no_circle(folder: Path) -> None:
    TopologicalSorter(arrows_within(folder)).prepare()  # raises CycleError


def test_a_circle_is_detected() -> None:
    """The negative control of the test above."""
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_no_folder_is_too_large(folder: Path) -> None:
    assert len([*folder.glob("*.py")]) <= LARGEST_FOLDER


@pytest.mark.parametrize(
    "statement",
    [
        "import agents",
        "from agents.policy import GeneratorPolicy",
        "from stable_baselines3 import PPO",
        "def f():\n    import train",
        "from seqgan_env.game import SequenceGame",
        "from seqgan_env import game",
        "from seqgan_env import TokenLSTM",
        "from . import rewards",
        "from .rewards.discriminator import TextCNN",
        "import seqgan_env.vector_env",
        "import seqgan_env",
    ],
)
def test_an_arrow_against_the_order_is_detected(statement: str) -> None:
    """The negative control of the test above."""
    assert arrows_against_the_order("metrics", statement)


@pytest.mark.parametrize(
    "statement",
    [
        "import torch",
        "import seqgan_env.models.oracle",
        "from seqgan_env.models.sampling import Mask",
        "from seqgan_env.metrics import bleu",
    ],
)
def test_an_arrow_along_the_order_is_fine(statement: str) -> None:
    assert arrows_against_the_order("metrics", statement) == []


def test_players_import_the_game_but_not_the_training_program() -> None:
    for path in (ROOT / "agents").rglob("*.py"):
        assert not {name.partition(".")[0] for name in imported(path.read_text())} & {"train"}, path


def imported_tests(source: str) -> set[str]:
    """The test modules that a module imports."""
    parts = [name.split(".") for name in imported(source)]
    return {inner for first, *others in parts if first == "tests" for inner in others if inner.startswith("test_")}


def test_no_test_module_imports_another() -> None:
    """Shared code has its own modules, such as `tests.small`."""
    importing = {path: imported_tests(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("*.py")}
    assert {path: names for path, names in importing.items() if names} == {}


@pytest.mark.parametrize("statement", ["from tests.models.test_lstm import V", "from tests import test_train"])
def test_an_import_of_a_test_module_is_detected(statement: str) -> None:
    """The negative control of the test above."""
    assert imported_tests(statement)


def test_no_file_names_the_shared_folder() -> None:
    beside = "../" + "shared"
    folders = ("seqgan_env", "agents", "tests", "benchmarks", "examples", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in TEXT_SUFFIXES]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    assert len(files) > 20
    naming = [path for path in files if beside in path.read_text(encoding="utf-8", errors="ignore")]
    assert naming == []
