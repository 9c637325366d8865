"""The examples of docs/data.md run as they stand, one after the other."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_examples_of_the_data_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "data.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) == 5
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    exec(compile("\n".join(examples), "data.md", "exec"), {})
