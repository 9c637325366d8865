"""An episode in the terminal: a table, or a view to step through with single keys."""

import math
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TextIO

from rich.bar import Bar
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from seqgan_env.inspection.trace import EpisodeTrace, TracedStep
from seqgan_env.rendering import draw_strip, printable, short_name, signed

_BAR_WIDTH = 18
_WIDE = 100
_ROWS_BELOW = 3  # lines of the view below its list: a title, a blank line and the help

# A key press as a terminal sends it: an escape sequence, or one character.
_KEY = re.compile(r"\x1b(?:\[|O)[0-9;]*[A-Za-z~]|.", re.DOTALL)
_ACTIONS = {
    "next": ("n", "l", " ", "\x1b[C", "\x1bOC"),
    "back": ("b", "p", "h", "\x7f", "\x1b[D", "\x1bOD"),
    "first": ("g", "0", "\x1b[H", "\x1bOH", "\x1b[1~"),
    "last": ("G", "$", "\x1b[F", "\x1bOF", "\x1b[4~"),
    "completions": ("c", "\r", "\n"),
    "down": ("j", "\x1b[B", "\x1bOB"),
    "up": ("k", "\x1b[A", "\x1bOA"),
    "quit": ("q", "\x04"),
}
_ACTION_OF = {key: action for action, keys in _ACTIONS.items() for key in keys}
_HELP = "→ n next   ← b back   g first   G last   c completions   ↑ ↓ scroll   q quit"


def render_table(trace: EpisodeTrace, width: int = _WIDE) -> RenderableType:
    """The whole episode: a summary, and one row per token; on wide screens also bars of Q."""
    scale = _span(step.q for step in trace.steps)
    with_advantages = any(step.advantage is not None for step in trace.steps)
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("#", justify="right", style="dim")
    table.add_column("token", no_wrap=True)
    for heading in ("p", "rank", "entropy", "Q", "± se"):
        table.add_column(heading, justify="right", no_wrap=True)
    if width >= _WIDE:
        table.add_column(f"Q from {scale[0]:.2g} to {scale[1]:.2g}", width=_BAR_WIDTH, no_wrap=True)
    for heading in ("reward", "advantage")[: 1 + with_advantages]:
        table.add_column(heading, justify="right", no_wrap=True)
    for step in trace.steps:
        thought = (_token(trace, step.token), _percent(math.exp(step.log_prob)), str(step.rank), f"{step.entropy:.2f}")
        worth = (f"{step.q:.4f}", _spread(step), *((_bar(step.q, scale),) if width >= _WIDE else ()), signed(step.reward))
        advantage = () if step.advantage is None else (signed(step.advantage),)
        table.add_row(str(step.prefix_length + 1), *thought, *worth, *advantage)
    value = f"Q ± se: mean score of {trace.n_rollouts} completions and its standard error; for the last token R itself."
    if not any(step.completions for step in trace.steps):
        value = "Q: the reward model's own score of each token; no prefix was completed."
    legend = f"p, rank, entropy (nats): the policy's. {value}"
    return Group(_header(trace), Text(""), table, Text(""), Text(legend, style="dim"))


@dataclass(frozen=True)
class StepView:
    """One token of an episode, filling the screen: the policy's probabilities, and the token's value.

    Args:
        trace: the episode.
        position: of the token, from 0.
        completions: show the completions behind Q instead of the policy's likeliest tokens.
        scroll: how many completions to skip at the top.
    """

    trace: EpisodeTrace
    position: int = 0
    completions: bool = False
    scroll: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the view (rich's protocol)."""
        trace, step = self.trace, self.trace.steps[self.position]
        strip = _strip(trace, self.position, options.max_width)
        top = Group(_header(trace), Text(""), strip, Text(""), _facts(trace, step), Text(""))
        rows = (options.height or console.height) - len(console.render_lines(top, options.update(height=None))) - _ROWS_BELOW
        yield top
        yield (
            _completions(trace, step, self.scroll, max(1, rows)) if self.completions else _likeliest(trace, step, max(1, rows))
        )
        yield Text("")
        yield Text(_HELP, style="dim", no_wrap=True, overflow="ellipsis")

    def after(self, action: str) -> "StepView":
        """The view after one of the user's actions."""
        last = len(self.trace.steps) - 1
        if action in ("down", "up"):
            furthest = max(0, len(self.trace.steps[self.position].completions) - 1)
            scroll = self.scroll + (1 if action == "down" else -1)
            return replace(self, scroll=min(max(scroll, 0), furthest)) if self.completions else self
        if action == "completions":
            return replace(self, completions=not self.completions, scroll=0)
        position = {"next": self.position + 1, "back": self.position - 1, "first": 0, "last": last}[action]
        return replace(self, position=min(max(position, 0), last), scroll=0)


def step_through(
    trace: EpisodeTrace, *, plain: bool = False, console: Console | None = None, keyboard: TextIO | None = None
) -> None:
    """Let the user step through an episode with keys until they quit; without a terminal, or if `plain`, print the table.

    Args:
        trace: the episode.
        plain: always print the table.
        console: where to draw; standard output by default.
        keyboard: where keys come from; standard input by default.
    """
    console = Console() if console is None else console
    keyboard = sys.stdin if keyboard is None else keyboard
    if plain or console.is_dumb_terminal or not (console.is_terminal and keyboard.isatty() and _has_termios()):
        console.print(render_table(trace, console.width))
        return
    view = StepView(trace)
    with suppress(KeyboardInterrupt), _single_keys(keyboard) as keys, console.screen() as screen:
        screen.update(view)
        for key in keys:
            action = _ACTION_OF.get(key)
            if action == "quit":
                break
            if action is not None:
                view = view.after(action)
                screen.update(view)


def _has_termios() -> bool:
    """Whether the system can read single keys; Windows has no termios."""
    try:
        import termios  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def _single_keys(keyboard: TextIO) -> Iterator[Iterator[str]]:
    """The keys of a terminal one by one, without echo, until it closes; restores the terminal's mode afterwards."""
    import termios
    import tty

    descriptor = keyboard.fileno()
    before = termios.tcgetattr(descriptor)

    def read() -> Iterator[str]:
        while data := os.read(descriptor, 64):
            yield from _KEY.findall(data.decode(errors="ignore"))

    try:
        tty.setcbreak(descriptor)
        yield read()
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


# --- parts of the views ----------------------------------------------------------------------------------------------


def _header(trace: EpisodeTrace) -> Text:
    facts = [f"R {trace.sequence_reward:.4f}"]
    if trace.discriminator_probability is not None:
        facts.append(f"D(real) {trace.discriminator_probability:.4f}")
    if trace.oracle_nll is not None:
        facts.append(f"oracle NLL {trace.oracle_nll:.3f} nats/token")
    facts += [f"reward contract {trace.reward_contract}, γ {trace.gamma:g}", f"N {trace.n_rollouts}"]
    return Text.assemble(("episode  ", "bold"), " · ".join(facts))


def _strip(trace: EpisodeTrace, position: int, width: int) -> RenderableType:
    """The sequence with its rewards; the current token is in brackets."""
    names, rewards = [trace.name(token) for token in trace.tokens], [step.reward for step in trace.steps]
    heading = Text(f"token {position + 1} of {len(trace.steps)}, rewards below", style="bold")
    return Group(heading, *draw_strip(names, rewards, position, width))


def _facts(trace: EpisodeTrace, step: TracedStep) -> RenderableType:
    thought = [
        _labelled("token", _token(trace, step.token)),
        _labelled("p", f"{_percent(math.exp(step.log_prob))} (log p {step.log_prob:.2f})"),
        _labelled("rank", f"{step.rank} of {trace.vocab_size}"),
        _labelled("entropy", f"{step.entropy:.2f} nats"),
    ]
    worth = [_labelled("Q", f"{step.q:.4f} {_spread(step)}"), _labelled("reward", signed(step.reward))]
    if step.advantage is not None:
        effect = f" ({_effect(step.advantage)})"
        worth.append(_labelled("advantage", signed(step.advantage).append(effect)))
    return Group(Text("   ").join(thought), Text("   ").join(worth))


def _likeliest(trace: EpisodeTrace, step: TracedStep, rows: int) -> RenderableType:
    """The policy's likeliest tokens, always including the chosen one."""
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(justify="right", style="dim")
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_column(width=_BAR_WIDTH)
    table.add_column()
    shown = [(rank, token, p) for rank, (token, p) in enumerate(step.top_k[:rows], start=1)]
    if step.token not in (token for _, token, _ in shown):
        shown = [*shown[: max(0, rows - 1)], (step.rank, step.token, math.exp(step.log_prob))]
    for rank, token, p in shown:
        chosen = token == step.token
        cells = (str(rank), _token(trace, token), _percent(p), _bar(p, (0.0, step.top_k[0][1])), "◂ chosen" if chosen else "")
        table.add_row(*cells, style="bold" if chosen else None)
    return _titled("The policy's likeliest tokens", table)


def _completions(trace: EpisodeTrace, step: TracedStep, scroll: int, rows: int) -> RenderableType:
    if not step.completions:
        return Text("The last token completes the sequence itself, so there is nothing to complete: its Q is the reward R.")
    best_first = sorted(step.completions, key=lambda completion: -completion.score)
    shown = best_first[scroll : scroll + rows]
    title = f"Completions {scroll + 1}–{scroll + len(shown)} of {len(best_first)}, best first; their mean score is Q"
    table = Table(box=None, padding=(0, 1), show_header=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(width=_BAR_WIDTH)
    table.add_column(no_wrap=True, overflow="ellipsis")
    scale = _span(completion.score for completion in best_first)
    for completion in shown:
        names = (printable(trace.name(token)) for token in completion.tokens)
        table.add_row(f"{completion.score:.4f}", _bar(completion.score, scale), Text(f"… {trace.joiner.join(names)}"))
    return _titled(title, table)


# --- small pieces ----------------------------------------------------------------------------------------------------


def _titled(title: str, table: Table) -> RenderableType:
    return Group(Text(title, style="bold", no_wrap=True, overflow="ellipsis"), table)


def _token(trace: EpisodeTrace, token: int) -> Text:
    return short_name(printable(trace.name(token)))


def _labelled(label: str, value: str | Text) -> Text:
    return Text.assemble((f"{label} ", "dim"), value)


def _spread(step: TracedStep) -> str:
    """The standard error of Q as text."""
    if not step.completions:
        return "= R"
    return "± ?" if step.q_standard_error is None else f"± {step.q_standard_error:.4f}"


def _effect(advantage: float) -> str:
    """How the gradient changes the probability of an action with this advantage."""
    return (
        "the gradient makes it likelier"
        if advantage > 0
        else "the gradient makes it less likely"
        if advantage < 0
        else "no change"
    )


def _percent(p: float) -> str:
    return f"{p:.1%}" if p >= 0.0005 else f"{p * 100:.1g}%"


def _span(values: Iterable[float]) -> tuple[float, float]:
    """The range of some values and zero."""
    listed = [0.0, *values]
    return min(listed), max(listed)


def _bar(value: float, scale: tuple[float, float]) -> Bar:
    """A bar from zero to the value, on a scale that contains both."""
    low, high = scale
    return Bar(high - low or 1.0, min(value, 0.0) - low, max(value, 0.0) - low, width=_BAR_WIDTH, color="cyan")
