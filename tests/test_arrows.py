"""Imports run one way, and nothing in the project depends on the folder that it was written in."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "seqgan_env"
# A module imports only modules before it; a new module gets its place here.
ORDER = (
    "overriding",
    "read_only",
    "precision",
    "faults",
    "files",
    "settings",
    "training_state",
    "workers",
    "randomness",
    "cuda_graphs",
    "sampling",
    "linear_log_prob",
    "token_model",
    "recurrent",
    "transformer",
    "generators",
    "mixture",
    "oracle",
    "subwords",
    "vocabulary",
    "corpus_formats",
    "tokenization",
    "corpus",
    "metrics",
    "nearest_neighbours",
    "windows",
    "density_ratio",
    "discriminator",
    "ranking",
    "reward_functions",
    "rewards",
    "monte_carlo",
    "game",
    "returns",
    "rendering",
    "sequence_env",
    "vector_env",
    "storage",
    "episode_trace",
    "inspection",
    "inspection_terminal",
    "inspection_html",
    "run_inspection",
    "sample_command",
    "reference_sequences",
    "evaluation",
    "evaluation_pictures",
    "evaluate_command",
    "__main__",
    "__init__",
)
PLAYERS = {"agents", "stable_baselines3", "sb3_contrib", "train"}
TEXT_SUFFIXES = (".py", ".md", ".txt", ".ipynb", ".toml", ".cfg")
MODULES = sorted(path.stem for path in (ROOT / PACKAGE).glob("*.py"))


def imported(source: str) -> Iterator[str]:
    """The modules that a module imports, anywhere in it, by their full names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join([PACKAGE] * bool(node.level) + [node.module] * bool(node.module))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def arrows_against_the_order(module: str, source: str) -> list[str]:
    """Imports of one of the package's modules that are not before it in the order, and of players."""
    allowed = ORDER[: ORDER.index(module)]
    wrong = []
    for name in imported(source):
        top, _, inner = name.partition(".")
        if top in PLAYERS or (top == PACKAGE and inner.partition(".")[0] in {*MODULES, ""} - {*allowed}):
            wrong.append(name)
    return wrong


def test_every_module_has_its_place_in_the_order() -> None:
    assert [module for module in MODULES if module not in ORDER] == []


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_down_the_order(module: str) -> None:
    source = (ROOT / PACKAGE / f"{module}.py").read_text()
    assert arrows_against_the_order(module, source) == []


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
        "from .discriminator import TextCNN",
        "import seqgan_env.vector_env",
        "import seqgan_env",
    ],
)
def test_an_arrow_against_the_order_is_seen(statement: str) -> None:
    """The negative control of the test above."""
    assert arrows_against_the_order("metrics", statement)


@pytest.mark.parametrize("statement", ["import torch", "import seqgan_env.oracle", "from seqgan_env.sampling import Mask"])
def test_an_arrow_along_the_order_is_fine(statement: str) -> None:
    assert arrows_against_the_order("metrics", statement) == []


def test_players_import_the_game_but_not_the_training_program() -> None:
    for path in (ROOT / "agents").glob("*.py"):
        assert not {name.partition(".")[0] for name in imported(path.read_text())} & {"train"}, path


def test_no_file_names_the_folder_beside_the_project() -> None:
    beside = "../" + "shared"
    folders = ("seqgan_env", "agents", "tests", "benchmarks", "examples", "docs")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in TEXT_SUFFIXES]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    assert len(files) > 20
    naming = [path for path in files if beside in path.read_text(encoding="utf-8", errors="ignore")]
    assert naming == []
