"""One valid file for each reader, to be damaged, and what comes of reading it."""

import json
import pickle
import warnings
from pathlib import Path

from seqgan_env.data.corpus import read_corpus
from seqgan_env.games import text_game
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.oracle import load_oracle
from seqgan_env.saved_game import (
    load_game,
    load_generator,
    load_weights,
    save_game,
    save_generator,
    save_weights,
)
from tests.oracle_files import parameters, write_npz
from tests.small import SMALL_CNN, seeded

DOCUMENTED = (ValueError, OSError)
LINES = ["a b c", "c b a d", "d d", "a c e"]
GAME = text_game(LINES, discriminator=SMALL_CNN)


def write_files(folder: Path) -> dict[str, Path]:
    """One valid file for each reader."""
    files = {name: folder / name for name in ("corpus.txt", "corpus.csv", "corpus.jsonl", "oracle.npz", "oracle.pkl")}
    files["corpus.txt"].write_text("\n".join(LINES), encoding="utf-8")
    files["corpus.csv"].write_text("text\n" + "\n".join(LINES), encoding="utf-8")
    files["corpus.jsonl"].write_text("\n".join(json.dumps({"text": line}) for line in LINES), encoding="utf-8")
    write_npz(files["oracle.npz"], parameters())
    files["oracle.pkl"].write_bytes(pickle.dumps(list(parameters().values()), protocol=3))
    save_game(GAME, folder)
    sized = TokenLSTM(GAME.vocab_size, 3, 3, generator=seeded())
    save_generator(sized, folder / "generator.safetensors", GAME)
    save_weights(sized, folder / "weights.safetensors")
    names = ("game.json", "real.safetensors", "discriminator.safetensors", "generator.safetensors", "weights.safetensors")
    return files | {name: folder / name for name in names}


def read(name: str, path: Path) -> None:
    """Read a file by the reader that it is for."""
    if name.startswith("corpus"):
        read_corpus(path, **({} if name.endswith("txt") else {"column": "text"}))
    elif name.startswith("oracle"):
        load_oracle(path)
    elif name.startswith("generator"):
        load_generator(path, GAME)
    elif name.startswith("weights"):
        load_weights(TokenLSTM(GAME.vocab_size, 3, 3, generator=seeded()), path)
    else:
        load_game(path.parent)


NAMES = (
    "corpus.txt",
    "corpus.csv",
    "corpus.jsonl",
    "oracle.npz",
    "oracle.pkl",
    "game.json",
    "real.safetensors",
    "discriminator.safetensors",
    "generator.safetensors",
    "weights.safetensors",
)


def outcome(name: str, path: Path) -> str:
    """`read`, or the documented error that came of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", ".*(are a single token|words are distinct)")  # is said of what can be read
            read(name, path)
    except DOCUMENTED as error:
        return type(error).__name__
    except BaseException as error:
        raise AssertionError(f"{name}: undocumented {error!r}") from error
    return "read"
