"""How an episode is drawn: cut to a screen, as text, in columns."""

import re

import numpy as np
import pytest
from rich.cells import cell_len
from rich.text import Text

from seqgan_env.rendering import draw_step, draw_strip, show


def test_a_long_episode_is_cut_to_the_rows_around_its_last_token() -> None:
    text = draw_step(np.arange(300), np.zeros(300), 250, 300, None).plain
    lines = text.splitlines()
    assert len(lines) == 7
    assert lines[-2].endswith("[249]")
    assert max(map(len, lines)) <= 100


def test_tokens_reach_the_terminal_as_text_and_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["床", "\x1b[31m", "[red]", "前"]
    strip = draw_strip(names, [0.5] * 4, 3)
    show(Text("\n").join(strip))
    tokens, rewards = capsys.readouterr().out.splitlines()
    assert tokens == "床      \\x1b[31m  [red]   [前]"
    assert [cell_len(tokens[: tokens.index(token)]) for token in ("\\x1b", "[red]", "[前]")] == [
        match.start() for match in re.finditer(r"\+", rewards)
    ][1:]
