"""A game whose tokens try to get out of the page or the terminal that shows them."""

from typing import Any

from seqgan_env.data.corpus import Vocabulary
from seqgan_env.game import SequenceGame
from tests.small import END, small_game

HOSTILE = (
    "</script><script>window.pwned = 1</script>",
    "<img src=x onerror=window.pwned=1>",
    "&amp;",
    "\u2028",
    "\x1b[31m",
    "",
)


def hostile_game(**changes: Any) -> SequenceGame:
    return small_game(vocabulary=Vocabulary(HOSTILE, end_token=END), end_token=END, **changes)
