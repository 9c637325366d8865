"""Held-out sequences for an evaluation: the run's own, the oracle's, or a custom file's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seqgan_env.data.corpus import naming
from seqgan_env.data.file_formats import Format, read_records
from seqgan_env.data.tokenization import MOST_UNKNOWN, OUTSIDE, Coder, make_coder
from seqgan_env.data.vocabulary import Vocabulary
from seqgan_env.game import SequenceGame
from seqgan_env.metrics.shares import without_end_token
from seqgan_env.saved_game import HELD_OUT, load_sequences
from seqgan_env.support import seeds


@dataclass(frozen=True, eq=False)
class Reference:
    """Real sequences that no model was trained on."""

    source: str
    """Where they come from."""
    sequences: Tensor
    """`(m, sequence_length)` int64 on the game's device, padded with the vocabulary size: those with a likelihood."""
    words: npt.NDArray[np.int64]
    """`(n, length)`: all of them, without end tokens, padded with `pad`; new words have ids from the vocabulary size on."""
    pad: int
    """The vocabulary size plus the number of new words."""
    left_out: int = 0
    """Sequences without a likelihood, because they contain words outside the vocabulary."""
    truncated: int = 0
    """Lines that were longer than a sequence may be, and were cut."""

    def spelled_alike(self, words: npt.NDArray[np.int64], vocab_size: int) -> npt.NDArray[np.int64]:
        """Sequences `(n, length)` padded with the vocabulary size, padded with `pad` instead."""
        return np.where(words == vocab_size, self.pad, words)


def reference_of(
    folder: Path,
    game: SequenceGame,
    text: Path | None,
    n: int,
    seed: int,
    *,
    format: Format | None = None,
    column: str | None = None,
) -> Reference:
    """The held-out sequences to evaluate a run with.

    Args:
        folder: of the run.
        game: the run's game.
        text: a file of sequences, used instead of the run's own.
        n: how many sequences the oracle writes, if the folder has none.
        seed: of the oracle's sequences.
        format: of the text, as in `read_corpus`.
        column: of the text, as in `read_corpus`.

    Raises:
        FileNotFoundError: the run has no held-out sequences, and no oracle to write them.
        ValueError: a text is given for a run without a vocabulary, or a file cannot be read.
    """
    if text is not None:
        if game.vocabulary is None:
            raise ValueError(
                f"--reference {text}: this run has an oracle instead of a text, so it cannot read one. Leave it out."
            )
        return read_reference(text, game, game.vocabulary, format, column)
    if (folder / HELD_OUT).is_file():
        return _of_game(game, load_sequences(folder / HELD_OUT), HELD_OUT)
    if game.oracle is not None:
        rng = torch.Generator(game.device).manual_seed(seed + seeds.REFERENCES)
        return _of_game(game, game.oracle.sample(n, game.sequence_length, rng)[0], f"written by the oracle, seed {seed}")
    raise FileNotFoundError(
        f"{folder} has no {HELD_OUT}, so there is nothing to compare with. Pass --reference FILE, a text that the run was not "
        "trained on, one sequence per line."
    )


def _of_game(game: SequenceGame, sequences: Tensor, source: str) -> Reference:
    if sequences.shape[1] != game.sequence_length or not len(sequences) or int(sequences.max()) > game.vocab_size:
        raise ValueError(
            f"The held-out sequences ({source}) have shape {tuple(sequences.shape)}, but the run's game expects "
            f"rows of {game.sequence_length} ids up to {game.vocab_size}."
        )
    words = without_end_token(sequences.cpu().numpy(), game.end_token, game.vocab_size)
    return Reference(source, sequences.to(game.device), words, game.vocab_size)


def read_reference(
    path: Path, game: SequenceGame, vocabulary: Vocabulary, format: Format | None = None, column: str | None = None
) -> Reference:
    """Read the sequences of a file with a run's vocabulary.

    If the vocabulary has neither a word nor an unknown token for it, the likelihood of its line would be 0, so `sequences`
    leaves the line out. In `words` each such word has a new id, which matches no generated word in BLEU.

    Args:
        path: of the file.
        game: the run's game.
        vocabulary: the run's vocabulary.
        format: as in `read_corpus`.
        column: as in `read_corpus`.

    Raises:
        OSError: the file does not exist.
        ValueError: the file is not UTF-8 or not of the format, or lacks the column; has no lines, or ids outside the
            vocabulary; or no line has a likelihood, for example because the tokenization differs.
    """
    with naming(str(path)):
        coder = make_coder(list, "words", 1, None, vocabulary)
        new_words: dict[str, int] = {}
        lines = coder.tokenize(read_records(path, format, column))
        encoded = [_encode(line, tokens, coder, new_words, vocabulary.size) for line, tokens in lines if tokens]
        if not encoded:
            raise ValueError("no sequences. Expected a text with one sequence per line.")
        length, size = game.sequence_length, vocabulary.size
        known = [ids[:length] for ids in encoded if max(ids[:length]) < size]
        if not known:
            raise ValueError(
                f"every one of its {len(encoded):,} lines has words that the run's vocabulary does not have, such as "
                f"{next(iter(new_words))!r}. Does its tokenization differ from that of the run's training text?"
            )
        _refuse_other_tokenization(encoded, vocabulary)
        coder.finish(np.bincount(np.concatenate(known)), min(map(len, known)) < length)
    with_end = [ids if game.end_token is None or len(ids) == length else [*ids, game.end_token] for ids in known]
    return Reference(
        str(path),
        torch.from_numpy(_pad(with_end, length, size)).to(game.device),
        _pad([ids[:length] for ids in encoded], length, size + len(new_words)),
        size + len(new_words),
        left_out=len(encoded) - len(known),
        truncated=sum(len(ids) > length for ids in encoded),
    )


def _refuse_other_tokenization(encoded: list[list[int]], vocabulary: Vocabulary) -> None:
    n_tokens = sum(map(len, encoded))
    n_unknown = sum(token == vocabulary.unknown_token or token >= vocabulary.size for ids in encoded for token in ids)
    if n_unknown > MOST_UNKNOWN * n_tokens:
        raise ValueError(
            f"{n_unknown:,} of its {n_tokens:,} tokens are not in the run's vocabulary of {vocabulary.size:,}. Does its "
            "tokenization differ from that of the run's training text?"
        )


def _encode(line: int, tokens: Sequence[str] | Sequence[int], coder: Coder, new_words: dict[str, int], size: int) -> list[int]:
    """The ids of a line's tokens; a new word gets the next id from the vocabulary's `size` on, recorded in `new_words`."""
    try:
        ids = [coder.numbers[token] for token in tokens]
    except ValueError as error:
        raise ValueError(f"line {line}: {error}") from error
    return [
        new_words.setdefault(str(token), size + len(new_words)) if index == OUTSIDE else index
        for token, index in zip(tokens, ids, strict=True)
    ]


def _pad(rows: list[list[int]], length: int, pad: int) -> npt.NDArray[np.int64]:
    padded = np.full((len(rows), length), pad, dtype=np.int64)
    for row, ids in zip(padded, rows, strict=True):
        row[: len(ids)] = ids
    return padded
