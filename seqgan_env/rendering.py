"""Draw a sequence of tokens with their rewards as text, for `render()` and for the episode inspector."""

import io
import sys
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.text import Text

from seqgan_env.data.corpus import Vocabulary

RENDER_MODES = ["ansi", "human", "rgb_array"]
_WIDTH = 100  # of text outside a terminal
_LONGEST_NAME = 24
_MOST_ROWS = 3  # rows of tokens; of a long sequence, those around the marked token are shown


def check_render_mode(mode: str | None) -> None:
    """Raise a ValueError for an unknown mode."""
    if mode is not None and mode not in RENDER_MODES:
        raise ValueError(f"render_mode must be one of {RENDER_MODES} or None, got {mode!r}.")


def draw_step(
    tokens: npt.NDArray[np.int64],
    rewards: npt.NDArray[np.float64],
    length: int,
    sequence_length: int,
    vocabulary: Vocabulary | None,
) -> Text:
    """The progress of an episode, and the sequence so far with each token's reward, the last token marked.

    Args:
        tokens: `(sequence_length,)`; only the first `length` are used.
        rewards: `(sequence_length,)`.
        length: of the prefix.
        sequence_length: the maximum number of tokens in the episode.
        vocabulary: names the tokens.
    """
    heading = Text(f"token {length} of at most {sequence_length}", style="bold")
    if length == 0:
        return heading.append("  (empty prefix)", style="not bold")
    names = [str(token) if vocabulary is None else vocabulary.tokens[token] for token in tokens[:length]]
    return Text("\n").join([heading, *draw_strip(names, rewards[:length].tolist(), length - 1)])


def draw_strip(names: Sequence[str], rewards: Sequence[float], marked: int, width: int = _WIDTH) -> list[Text]:
    """Lines with tokens side by side and their rewards below; at most a few rows, those around the marked token.

    Args:
        names: the tokens' texts.
        rewards: one per token.
        marked: index of the token in brackets; those after it are dim.
        width: of the screen, in cells.
    """
    rows: list[tuple[Text, Text]] = [(Text(), Text())]
    row_of_marked = 0
    for index, (name, reward) in enumerate(zip(names, rewards, strict=True)):
        top = short_name(printable(name))
        if index == marked:
            top = Text.assemble("[", top, "]", style="bold reverse")
        elif index > marked:
            top.stylize("dim")
        bottom = signed(reward, 3)
        cells = max(top.cell_len, bottom.cell_len)
        if rows[-1][0].cell_len + cells > width and rows[-1][0]:
            rows.append((Text(), Text()))
        if index == marked:
            row_of_marked = len(rows) - 1
        for line, part in zip(rows[-1], (top, bottom), strict=True):
            line.append_text(part).append(" " * (cells - part.cell_len + 2))
    first = max(0, min(row_of_marked - 1, len(rows) - _MOST_ROWS))
    lines = [line for row in rows[first : first + _MOST_ROWS] for line in row]
    for line in lines:
        line.rstrip()
    return lines


def rendered(text: Text, mode: str) -> str | npt.NDArray[np.uint8] | None:
    """A drawing in a render mode: as text, as an image, or printed ("human")."""
    if mode == "ansi":
        return text.plain
    if mode == "rgb_array":
        return as_image(text)
    show(text)
    return None


def show(text: Text) -> None:
    """Print a drawing, as render mode "human" does; in colour if the terminal supports it and `NO_COLOR` is not set."""
    Console(highlight=False).print(text, soft_wrap=True)


def as_image(text: Text) -> npt.NDArray[np.uint8]:
    """A drawing as an image `(height, width, 3)`, of the same size for every step and game."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # imported late, because it is slow and rarely needed
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH * 0.09, (2 * _MOST_ROWS + 1) * 0.2), dpi=100)
    canvas = FigureCanvasAgg(figure)
    figure.text(0.01, 0.97, text.plain, family="monospace", size=10, va="top", parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # drawn as boxes
        canvas.draw()  # type: ignore[no-untyped-call]
    image: npt.NDArray[np.uint8] = np.array(canvas.buffer_rgba())[..., :3]  # type: ignore[no-untyped-call]
    return image


def short_name(name: str) -> Text:
    """A name shortened to fit a column; never read as markup."""
    text = Text(name)
    text.truncate(_LONGEST_NAME, overflow="ellipsis")
    return text


def spell_what_cannot_be_encoded() -> None:
    """Make printing escape characters that the terminal's encoding lacks, in this process, instead of crashing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def printable(name: str) -> str:
    """A token's text with control and invisible characters escaped."""
    if not name or name.isspace():
        return "␣" * len(name) or "∅"
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in name)


def signed(value: float, digits: int = 4) -> Text:
    """A number with its sign, coloured by it."""
    return Text(f"{value:+.{digits}f}", style="green" if value > 0 else "red" if value < 0 else "")
