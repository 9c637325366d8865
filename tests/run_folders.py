"""Run folders as train.py leaves them, without training or without drawing."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from seqgan_env.game import SequenceGame
from seqgan_env.games import oracle_game, text_game
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.saved_game import HELD_OUT, LAST, LIKELIHOOD, save_game, save_generator, save_sequences
from tests.small import seeded

LINES = ["a man rides a horse", "a cat sits", "the cat sits on a mat", "a man", "the horse sits on the man"] * 3
HELD_OUT_LINES = ["a man sits", "the cat rides a horse", "a cat"]


@contextlib.contextmanager
def blank_pictures() -> Iterator[None]:
    """Runs write their pictures without content, where it is not looked at: to draw it takes as long as a tiny run does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "draw", lambda *_: None)
        yield


def starts_with_a(text: str) -> bool:
    """A checker, found by its name."""
    return text.startswith("a")


def save_generators(game: SequenceGame, folder: Path) -> None:
    for seed, name in enumerate((LIKELIHOOD, LAST)):
        generator = TokenLSTM(game.vocab_size, 4, 6, end_token=game.end_token, initial_std=0.5, generator=seeded(seed))
        save_generator(generator, folder / f"{name}.safetensors", game)


def save_text_run(folder: Path) -> SequenceGame:
    folder.mkdir(exist_ok=True)
    game = text_game(LINES, reward_model="constant")
    save_game(game, folder)
    save_generators(game, folder)
    assert game.vocabulary is not None
    held_out = torch.full((len(HELD_OUT_LINES), game.sequence_length), game.vocab_size)
    for row, line in zip(held_out, HELD_OUT_LINES, strict=True):
        ids = [*game.vocabulary.encode(line), game.vocabulary.end_token]
        row[: len(ids)] = torch.tensor(ids)
    save_sequences(folder / HELD_OUT, held_out)
    return game


def save_oracle_run(folder: Path) -> SequenceGame:
    folder.mkdir(exist_ok=True)
    game = oracle_game(5, 9, n_real=40, reward_model="constant")
    save_game(game, folder)
    save_generators(game, folder)
    return game
