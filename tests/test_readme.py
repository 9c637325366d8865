"""The README's examples run as they stand, but for their length."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
SHORTER = {"64 * 20 * 50": "64 * 20", "epochs=5": "epochs=1", "n_generated=1000": "n_generated=64", "100_000": "1_280"}


@pytest.mark.parametrize("example", EXAMPLES, ids=[re.findall(r"Text|Reinforce|PPO", example)[0] for example in EXAMPLES])
def test_example(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for long, short in SHORTER.items():
        example = example.replace(long, short)
    monkeypatch.chdir(tmp_path)  # what an example writes does not stay
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    exec(compile(example, "README.md", "exec"), {})


def test_there_are_examples_and_all_of_them_are_shortened() -> None:
    assert len(EXAMPLES) == 3
    assert all(any(long in example for example in EXAMPLES) for long in SHORTER)
