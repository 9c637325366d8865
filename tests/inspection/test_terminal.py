"""The table and the stepping view, the latter through a pseudo-terminal with keys."""

import io
import os
import pty
import re
import select
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType
from torch import Tensor

from seqgan_env.data.corpus import Vocabulary
from seqgan_env.inspection.terminal import StepView, render_table, step_through
from seqgan_env.inspection.trace import EpisodeTrace
from seqgan_env.inspection.tracing import trace_batch, trace_episode
from tests.inspection.hostile import hostile_game
from tests.programs import LIMIT
from tests.small import END, small_game, small_policy

pytestmark = pytest.mark.rounding
POEM = Vocabulary(("床", "前", "<end>", "月", "a", "光"), end_token=END, kind="characters")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|4[0-7]|9[0-7]|38|48)\b[0-9;]*m")


def centred(rewards: Tensor, lengths: Tensor) -> Tensor:
    return rewards - rewards.mean()


@pytest.fixture
def trace() -> EpisodeTrace:
    game = small_game(vocabulary=POEM, end_token=END, reward="shaped")
    return trace_batch(game, small_policy(), seed=0, tokens=[[0, 4, 3, 5, 1]], advantage_fn=centred)[0]


def printed(renderable: RenderableType, width: int = 110, height: int = 40) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False, _environ={})
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_table_has_every_token_with_its_numbers(trace: EpisodeTrace) -> None:
    lines = printed(render_table(trace)).splitlines()
    for step in trace.steps:
        (line,) = [line for line in lines if line.startswith(f" {step.prefix_length + 1} ")]
        assert trace.name(step.token) in line
        assert f"{step.q:.4f}" in line
        assert f"{step.reward:+.4f}" in line
        assert f"{step.advantage:+.4f}" in line
    assert f"R {trace.sequence_reward:.4f}" in lines[0]
    assert "reward contract shaped, γ 1" in lines[0]


def test_a_narrow_table_keeps_its_digits(trace: EpisodeTrace) -> None:
    text = printed(render_table(trace, 80), width=80)
    assert "…" not in text
    assert all(f"{step.advantage:+.4f}" in text for step in trace.steps)


def test_wide_characters_line_up(trace: EpisodeTrace) -> None:
    lines = printed(render_table(trace)).splitlines()
    rows = [line for line in lines if re.match(r" [1-5] ", line)]
    assert len({cell_len(row[: row.index("%")]) for row in rows}) == 1
    assert len({len(row[: row.index("%")]) for row in rows}) == 2  # the ASCII token takes one cell where others take two


def test_without_advantages_there_is_no_column_for_them() -> None:
    text = printed(render_table(trace_episode(small_game(), small_policy(), seed=0)))
    assert "reward" in text
    assert "advantage" not in text


def test_negative_rewards_have_bars_and_signs_of_their_own(trace: EpisodeTrace) -> None:
    text = printed(StepView(trace, position=[step.reward < 0 for step in trace.steps].index(True)))
    assert "reward -" in text
    assert re.search(r"the gradient makes it (less likely|likelier)", text)


def test_a_view_fits_its_screen(trace: EpisodeTrace) -> None:
    game = small_game(n_rollouts=60)
    crowded = trace_episode(game, small_policy(), seed=0)
    for view in (StepView(crowded, 1), StepView(crowded, 1, completions=True), StepView(trace, 2)):
        for width, height in ((100, 24), (60, 18)):
            lines = printed(view, width, height).splitlines()
            assert len(lines) <= height
            assert "q quit" in lines[-1] or width < 80


def test_the_chosen_token_is_shown_wherever_it_ranks() -> None:
    trace = trace_episode(small_game(), small_policy(), seed=0, top_k=1)
    last_ranked = max(trace.steps, key=lambda step: step.rank)
    text = printed(StepView(trace, last_ranked.prefix_length))
    assert re.search(rf" {last_ranked.rank} +{last_ranked.token} .*◂ chosen", text)


def test_no_token_reaches_the_terminal_as_a_command() -> None:
    trace = trace_episode(hostile_game(), small_policy(), seed=0, tokens=[4, 5, 3, 0, 1])
    for renderable in (render_table(trace), StepView(trace), StepView(trace, 1, completions=True)):
        text = printed(renderable)
        assert "\x1b" not in text
        assert "\u2028" not in text
    assert r"\x1b[31m" in printed(render_table(trace))
    assert "∅" in printed(render_table(trace))


@pytest.mark.parametrize("plain", [False, True])
def test_without_a_terminal_the_table_is_printed(trace: EpisodeTrace, plain: bool) -> None:
    console = Console(file=io.StringIO(), width=110, force_terminal=plain, _environ={"TERM": "xterm"})
    step_through(trace, plain=plain, console=console, keyboard=io.StringIO())
    text = _CONTROL.sub("", console.file.getvalue())  # type: ignore[attr-defined]
    assert text == printed(render_table(trace))


class Terminal:
    """The far end of a pseudo-terminal: types keys, and waits for what the view draws."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.raw = ""

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def wait_for(self, *texts: str) -> None:
        """Read on until all of the texts are in what was drawn since the last call."""
        drawn, deadline = b"", time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            if select.select([self._descriptor], [], [], 0.05)[0]:
                drawn += os.read(self._descriptor, 65536)
            plain = _CONTROL.sub("", drawn.decode(errors="ignore"))
            if all(text in plain for text in texts):
                self.raw += drawn.decode(errors="ignore")
                return
        pytest.fail(f"The terminal never showed {texts}; it showed:\n{plain}")


@pytest.fixture
def start(trace: EpisodeTrace) -> Iterator[Callable[..., tuple[Terminal, threading.Thread, int]]]:
    """Starts the view in a pseudo-terminal: its far end, the thread that it runs in, and its own end."""
    with ExitStack() as stack:

        def start(**environment: str) -> tuple[Terminal, threading.Thread, int]:
            far, near = pty.openpty()
            stack.callback(os.close, far)
            keyboard = stack.enter_context(os.fdopen(os.dup(near), "r"))
            screen = stack.enter_context(os.fdopen(near, "w"))
            console = Console(file=screen, width=100, height=30, _environ={"TERM": "xterm-256color", **environment})
            thread = threading.Thread(
                target=step_through, args=(trace,), kwargs={"console": console, "keyboard": keyboard}, daemon=True
            )
            thread.start()
            return Terminal(far), thread, near

        yield start


def test_keys_step_through_the_episode(
    trace: EpisodeTrace, start: Callable[..., tuple[Terminal, threading.Thread, int]]
) -> None:
    terminal, thread, _ = start()
    terminal.wait_for("token 1 of 5", "[床]      a        月", "◂ chosen", "q quit")
    for keys, position in (
        ("n", 2),
        ("\x1b[C", 3),
        ("nn", 5),
        ("n", 5),
        ("b", 4),
        ("\x1b[D", 3),
        ("g", 1),
        ("b", 1),
        ("G", 5),
    ):
        terminal.type(keys)
        terminal.wait_for(f"token {position} of 5", f"Q {trace.steps[position - 1].q:.4f}")
    terminal.type("c")
    terminal.wait_for("nothing to complete")
    terminal.type("g")
    terminal.wait_for("Completions 1–4 of 4, best first", f"{max(c.score for c in trace.steps[0].completions):.4f}")
    terminal.type("j\x1b[B")
    terminal.wait_for("Completions 3–4 of 4")
    terminal.type("k")
    terminal.wait_for("Completions 2–4 of 4")
    terminal.type("?c")  # a key without a meaning does nothing
    terminal.wait_for("The policy's likeliest tokens")
    terminal.type("q")
    thread.join(LIMIT)
    assert not thread.is_alive()


def test_the_terminal_is_left_as_it_was(start: Callable[..., tuple[Terminal, threading.Thread, int]]) -> None:
    terminal, thread, near = start()
    terminal.wait_for("q quit")
    during = termios.tcgetattr(near)
    assert not during[3] & (termios.ECHO | termios.ICANON)
    terminal.type("q")
    terminal.wait_for("")
    thread.join(LIMIT)
    assert termios.tcgetattr(near)[3] & termios.ECHO
    assert termios.tcgetattr(near)[3] & termios.ICANON


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color_is_honoured(
    environment: dict[str, str], coloured: bool, start: Callable[..., tuple[Terminal, threading.Thread, int]]
) -> None:
    terminal, thread, _ = start(**environment)
    terminal.wait_for("q quit")
    terminal.type("q")
    thread.join(LIMIT)
    assert bool(_COLOUR.search(terminal.raw)) == coloured
