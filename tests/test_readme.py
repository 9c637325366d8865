"""The documents' examples run as they stand, but for their length."""

import re
from pathlib import Path

import pytest

from tests.run_folders import save_text_run

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "docs/environment.md", "docs/rewards.md")
EXAMPLES = [
    pytest.param(document, example, id=f"{document}-{number}")
    for document in DOCUMENTS
    for number, example in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
    )
]
SHORTER = {
    "64 * 20 * 50": "64 * 20",
    "epochs=5": "epochs=1",
    "n_generated=1000": "n_generated=64",
    "100_000": "1_280",
    "50_000": "1_280",
    "20_000": "40",
    "n_envs=2": "n_envs=1",
}
EXTRAS = {"sb3_contrib": "contrib"}
"""Libraries that an example may need, and the extra that installs each."""


@pytest.mark.parametrize(("document", "example"), EXAMPLES)
def test_example(document: str, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library, extra in EXTRAS.items():
        if re.search(rf"^(from|import) {library}\b", example, re.MULTILINE):
            pytest.importorskip(library, reason=f"{library} is not installed: pip install -e '.[{extra}]'")
    for long, short in SHORTER.items():
        example = example.replace(long, short)
    monkeypatch.chdir(tmp_path)  # what an example writes does not stay
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "runs").mkdir()
    save_text_run(tmp_path / "runs" / "text-20261125-120000")
    exec(compile(example, document, "exec"), {"__name__": "__main__"})


def test_every_document_has_examples_and_every_shortening_a_place() -> None:
    assert {parameters.values[0] for parameters in EXAMPLES} == {*DOCUMENTS}
    assert all(any(long in parameters.values[1] for parameters in EXAMPLES) for long in SHORTER)


def test_every_example_is_found() -> None:
    """A fence that is never closed, or indented, would hide one."""
    opened = sum((ROOT / document).read_text(encoding="utf-8").count("```python") for document in DOCUMENTS)
    assert len(EXAMPLES) == opened >= 7
