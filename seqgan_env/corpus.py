"""Real sequences from a file of text: one sequence a line, of words or of characters."""

import json
import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Tokenizer = Literal["words", "characters"]
TooLong = Literal["error", "truncate", "skip"]

END = "<end>"
UNKNOWN = "<unk>"
_JOINERS: dict[Tokenizer, str] = {"words": " ", "characters": ""}
_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Vocabulary:
    """Which token has which id, from 0 to `size` - 1.

    The end token and the unknown token are ids, not spellings: a line with the word "<end>" in it does not end there.

    Raises:
        ValueError: ids of no token, two tokens spelled alike, or an unknown joiner.
    """

    tokens: tuple[str, ...]
    """The spelling of each id."""
    end_token: int
    """Ends a sequence that is shorter than the longest possible."""
    unknown_token: int | None = None
    """Stands for whatever has no id of its own; without one, that is an error."""
    joiner: str = " "
    """What stands between two tokens of a line: " " between words, "" between characters."""

    def __post_init__(self) -> None:
        """Check what may come from a file."""
        special = [self.end_token] if self.unknown_token is None else [self.end_token, self.unknown_token]
        if len(set(special)) < len(special) or not all(0 <= token < self.size for token in special):
            raise ValueError(
                f"end_token and unknown_token must be two ids of 0 ... {self.size - 1}, got {self.end_token} and "
                f"{self.unknown_token}."
            )
        if self.joiner not in _JOINERS.values():
            raise ValueError(f"joiner must be ' ' (words) or '' (characters), got {self.joiner!r}.")
        if len(self._ids) < self.size - len(special):
            raise ValueError("A vocabulary must spell each token differently, but some tokens are spelled alike.")

    @property
    def size(self) -> int:
        """The number of tokens, the end token and the unknown token included."""
        return len(self.tokens)

    @property
    def pad(self) -> int:
        """The id that fills sequences up; no token has it."""
        return self.size

    @cached_property
    def _ids(self) -> dict[str, int]:
        special = (self.end_token, self.unknown_token)
        return {token: index for index, token in enumerate(self.tokens) if index not in special}

    def encode(self, line: str) -> list[int]:
        """The ids of a line's tokens, without an end token.

        Raises:
            ValueError: a token that the vocabulary does not have, where it has no unknown token.
        """
        ids = []
        for token in _tokenize(line, self.joiner):
            index = self._ids.get(token, self.unknown_token)
            if index is None:
                raise ValueError(
                    f"{token!r} is not in the vocabulary of {self.size} tokens, which has no unknown token to stand for it; "
                    "it gets one from read_corpus(min_count=2) or more, if the corpus has tokens so rare."
                )
            ids.append(index)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The line that ids stand for, up to the first end token or padding.

        Raises:
            ValueError: an id before that which is no token's.
        """
        tokens = []
        for index in map(int, ids):
            if index in (self.end_token, self.pad):
                break
            if not 0 <= index < self.size:
                raise ValueError(f"No token has the id {index}; tokens are 0 ... {self.size - 1}, and {self.pad} pads.")
            tokens.append(self.tokens[index])
        return self.joiner.join(tokens)

    def to_json(self) -> str:
        """The vocabulary as a JSON object, in ASCII."""
        fields = {name: getattr(self, name) for name in ("tokens", "end_token", "unknown_token", "joiner")}
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> "Vocabulary":
        """The vocabulary that `to_json` wrote.

        Raises:
            ValueError: it did not write this.
        """
        try:
            fields = json.loads(text)
            tokens, end_token, unknown_token = fields["tokens"], fields["end_token"], fields["unknown_token"]
            if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
                raise TypeError("its tokens are not a list of strings")
            return cls(tuple(tokens), int(end_token), None if unknown_token is None else int(unknown_token), fields["joiner"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"Not a vocabulary as written by Vocabulary.to_json: {error}") from error


@dataclass(frozen=True)
class CorpusReport:
    """What became of the lines that were read."""

    lines: int
    """Lines read."""
    empty: int
    """Lines without a token, left out."""
    truncated: int
    """Lines that were too long, cut."""
    skipped: int
    """Lines that were too long, left out."""
    unknown: int
    """Tokens that were too rare, replaced by the unknown token."""
    duplicates: int
    """Sequences that had come before."""

    def __str__(self) -> str:
        """One paragraph."""
        sequences = self.lines - self.empty - self.skipped
        return (
            f"{self.lines:,} lines read, {sequences:,} sequences kept. Left out: {self.empty:,} empty lines, "
            f"{self.skipped:,} too long ones. Truncated: {self.truncated:,} lines. Replaced by {UNKNOWN}: {self.unknown:,} "
            f"tokens. Repeats of an earlier sequence: {self.duplicates:,}."
        )


@dataclass(frozen=True, eq=False)
class Corpus:
    """Sequences from a file, as token ids."""

    tokens: Tensor
    """`(n, sequence_length)` int64, padded with `vocabulary.pad`."""
    lengths: Tensor
    """`(n,)` int64, the end token counted."""
    vocabulary: Vocabulary
    report: CorpusReport

    def split(self, held_out: float, seed: int) -> tuple["Corpus", "Corpus"]:
        """Part the sequences at random into those to train on and those held out.

        Of sequences that occur more than once (`report.duplicates`) some are likely to be on both sides.

        Args:
            held_out: the share to hold out, between 0 and 1.
            seed: the same seed parts the same corpus in the same way.

        Returns:
            The two parts, at least one sequence each; both keep the vocabulary and the report of the whole.

        Raises:
            ValueError: a share that leaves one of the sides without a sequence.
        """
        n_held_out = round(held_out * len(self.tokens)) if 0 < held_out < 1 else 0
        if not 0 < n_held_out < len(self.tokens):
            raise ValueError(
                f"held_out={held_out} of {len(self.tokens)} sequences leaves one side empty; choose a share between 0 and 1 "
                "that gives each side a sequence."
            )
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(self.tokens)))
        return self._part(order[n_held_out:]), self._part(order[:n_held_out])

    def _part(self, rows: Tensor) -> "Corpus":
        return Corpus(self.tokens[rows], self.lengths[rows], self.vocabulary, self.report)


def read_corpus(
    source: str | Path | Iterable[str],
    *,
    tokenizer: Tokenizer = "words",
    sequence_length: int | None = None,
    min_count: int = 1,
    too_long: TooLong = "error",
) -> Corpus:
    """Read sequences, one a line.

    A sequence of fewer than `sequence_length` tokens gets the end token as its last one, which counts in its length. One of
    exactly `sequence_length` tokens has none: the episode ends there anyway. Ids follow falling count, then spelling; the end
    token and, where some token was too rare, the unknown token come last. What is cut off or skipped is not counted.

    Args:
        source: path of a UTF-8 file, with or without a byte order mark; or the lines themselves. Read once, line by line.
        tokenizer: `"words"` are what white space separates; `"characters"` are the Unicode code points of a line, spaces
            inside it included. Nothing is normalised.
        sequence_length: the most tokens a sequence has; by default as many as the longest line.
        min_count: tokens that occur less often become the unknown token.
        too_long: what to do with a line of more tokens: `"error"`, `"truncate"` it to exactly `sequence_length` tokens,
            without an end token, or `"skip"` it. The report counts them.

    Returns:
        The corpus, in the order of the lines.

    Raises:
        FileNotFoundError: no such file.
        IsADirectoryError: a folder.
        TypeError: lines that are not strings.
        ValueError: a line that is too long, no text in UTF-8, no sequences, or fewer than two distinct tokens; or an argument
            out of range.
    """
    _check_arguments(tokenizer, sequence_length, min_count, too_long)
    name = str(source) if isinstance(source, (str, Path)) else "The given lines"
    numbers: dict[str, int] = {}  # of each spelling, in order of first appearance
    flat = array("q")  # the numbers of all tokens, sequence after sequence
    lengths = array("q")
    excess: list[tuple[int, int]] = []  # line number and length of what is too long
    n_lines = n_empty = 0
    for n_lines, line in enumerate(_lines(source), start=1):
        tokens = _tokenize(line.removeprefix(_BYTE_ORDER_MARK) if n_lines == 1 else line, _JOINERS[tokenizer])
        if not tokens:
            n_empty += 1
            continue
        if sequence_length is not None and len(tokens) > sequence_length:
            excess.append((n_lines, len(tokens)))
            if too_long != "truncate":
                continue
            del tokens[sequence_length:]
        flat.extend([numbers.setdefault(token, len(numbers)) for token in tokens])
        lengths.append(len(tokens))
    if excess and too_long == "error" and sequence_length is not None:
        raise ValueError(_describe_excess(name, excess, tokenizer, sequence_length))
    if not lengths:
        raise ValueError(
            f"{name}: no sequences in {n_lines} lines, of which {n_empty} are blank and {len(excess)} too long (more than "
            f"{sequence_length} {tokenizer}). Expected one sequence a line."
        )
    first_ids = np.frombuffer(flat, dtype=np.int64)
    vocabulary, new_ids, n_unknown = _build_vocabulary(list(numbers), np.bincount(first_ids), min_count, _JOINERS[tokenizer])
    n_distinct = len(np.unique(new_ids))
    if n_distinct < 2:
        raise ValueError(
            f"{name}: {n_distinct} distinct token among {len(flat)}, where at least 2 are needed for a choice "
            f"(tokenizer={tokenizer!r}, min_count={min_count})."
        )
    padded, full_lengths = _pad(new_ids[first_ids], np.array(lengths), sequence_length or max(lengths), vocabulary)
    report = CorpusReport(
        lines=n_lines,
        empty=n_empty,
        truncated=len(excess) if too_long == "truncate" else 0,
        skipped=len(excess) if too_long == "skip" else 0,
        unknown=n_unknown,
        duplicates=len(padded) - len({row.tobytes() for row in padded}),
    )
    return Corpus(torch.from_numpy(padded), torch.from_numpy(full_lengths), vocabulary, report)


def _check_arguments(tokenizer: str, sequence_length: int | None, min_count: int, too_long: str) -> None:
    if tokenizer not in get_args(Tokenizer):
        raise ValueError(f"tokenizer must be 'words' or 'characters', got {tokenizer!r}.")
    if too_long not in get_args(TooLong):
        raise ValueError(f"too_long must be 'error', 'truncate' or 'skip', got {too_long!r}.")
    if min_count < 1 or (sequence_length is not None and sequence_length < 1):
        raise ValueError(f"sequence_length and min_count must be at least 1, got {sequence_length} and {min_count}.")


def _tokenize(line: str, joiner: str) -> list[str]:
    return line.split() if joiner else list(line.strip())


def _lines(source: str | Path | Iterable[str]) -> Iterator[str]:
    """The lines of a file, or those given."""
    if isinstance(source, (str, Path)):
        yield from _lines_of_file(source)
        return
    for number, line in enumerate(source, start=1):
        if not isinstance(line, str):
            raise TypeError(f"Line {number} of the given lines must be a str, got {type(line).__name__}: {str(line)[:60]}.")
        yield line


def _lines_of_file(path: str | Path) -> Iterator[str]:
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder. Expected a text file with one sequence a line.")
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"No file at {str(path)[:200]!r}. Expected a text file with one sequence a line; to pass the lines themselves, "
            "put them in a list."
        )
    with open(path, "rb") as file:
        start = 0
        for number, line in enumerate(file, start=1):
            if b"\0" in line:
                raise ValueError(
                    f"{path} is binary, or text in UTF-16: line {number} has a NUL at byte {start + line.index(0)} of the "
                    "file. Expected UTF-8, one sequence a line."
                )
            try:
                yield line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path} is not UTF-8: line {number} has 0x{line[error.start]:02x} at byte {start + error.start} of the "
                    "file. Convert it, for instance with iconv -f latin1 -t utf-8."
                ) from error
            start += len(line)


def _describe_excess(name: str, excess: list[tuple[int, int]], tokenizer: Tokenizer, limit: int) -> str:
    first, first_length = excess[0]
    longest, longest_length = max(excess, key=lambda item: item[1])
    return (
        f"{name}: line {first} has {first_length} {tokenizer}, more than sequence_length={limit}. Too long are {len(excess)} "
        f"lines; the longest is line {longest} with {longest_length}. Raise sequence_length to {longest_length}, or choose "
        "too_long='truncate' or too_long='skip'."
    )


def _build_vocabulary(
    spellings: list[str], counts: npt.NDArray[np.int64], min_count: int, joiner: str
) -> tuple[Vocabulary, npt.NDArray[np.int64], int]:
    """The vocabulary of spellings with counts, the id that each spelling gets, and how many tokens become unknown."""
    order = sorted(range(len(spellings)), key=lambda number: (-counts[number], spellings[number]))
    kept = [number for number in order if counts[number] >= min_count]
    n_unknown = int(counts[counts < min_count].sum())
    tokens = (*(spellings[number] for number in kept), END, *([UNKNOWN] if n_unknown else []))
    vocabulary = Vocabulary(tokens, len(kept), len(kept) + 1 if n_unknown else None, joiner)
    new_ids = np.full(len(spellings), len(kept) + 1, dtype=np.int64)
    new_ids[kept] = np.arange(len(kept))
    return vocabulary, new_ids, n_unknown


def _pad(
    flat: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], sequence_length: int, vocabulary: Vocabulary
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Lay sequences out as `(n, sequence_length)`, with end tokens where there is room, and count these in the lengths."""
    columns = np.arange(sequence_length)
    padded = np.full((len(lengths), sequence_length), vocabulary.pad, dtype=np.int64)
    padded[columns < lengths[:, None]] = flat
    padded[columns == lengths[:, None]] = vocabulary.end_token
    return padded, np.minimum(lengths + 1, sequence_length)
