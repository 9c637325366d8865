"""Read real sequences from a file or from Python objects: text, token ids, CSV or JSONL, in one pass, with a report."""

import os
import sys
import warnings
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from seqgan_env.data.file_formats import Format, Record, read_records
from seqgan_env.data.tokenization import MOST_UNKNOWN, OUTSIDE, Coder, Tokenizer, make_coder
from seqgan_env.data.vocabulary import UNKNOWN, Vocabulary

__all__ = ["Corpus", "CorpusReport", "Format", "Tokenizer", "TooLong", "Unknown", "Vocabulary", "read_corpus"]

TooLong = Literal["error", "truncate", "skip"]
Unknown = Literal["error", "skip"]

_MUCH_PADDING = 1 << 27  # token ids (1 GB): a larger corpus that is almost all padding is refused
_NEARLY_ALL = 0.9  # if this share of sequences has a single token, the tokenizer is probably the wrong one
_TELLING_SEQUENCES, _TELLING_TOKENS = 10, 1000  # with fewer, do not judge the tokenizer


@dataclass(frozen=True)
class CorpusReport:
    """What was read, kept and left out. A line is a CSV row or an item of an iterable, too. End tokens are not counted."""

    lines: int
    """Lines read."""
    empty: int
    """Empty lines, left out."""
    truncated: int
    """Lines that were too long and were truncated."""
    skipped: int
    """Lines that were too long and were left out."""
    unknown: int
    """Tokens replaced by the unknown token: too rare, or not in the given vocabulary."""
    duplicates: int
    """Sequences that repeat an earlier one."""
    outside: int
    """Lines left out because the given vocabulary has no id for one of their tokens."""
    sequences: int
    """Sequences kept."""
    tokens: int
    """Tokens kept."""
    vocabulary_size: int
    """Tokens in the vocabulary, including the end token and the unknown token."""
    shortest: int
    """Tokens in the shortest sequence."""
    median: float
    """Median number of tokens."""
    longest: int
    """Tokens in the longest sequence."""

    @property
    def unknown_share(self) -> float:
        """The share of tokens that are the unknown token, from 0 to 1."""
        return self.unknown / self.tokens

    def __str__(self) -> str:
        """One paragraph."""
        return (
            f"{self.lines:,} lines read, {self.sequences:,} sequences of {self.tokens:,} tokens kept, {self.shortest:,} to "
            f"{self.longest:,} long (median {self.median:,g}); vocabulary: {self.vocabulary_size:,}. Left out: {self.empty:,} "
            f"empty lines, {self.skipped:,} too long ones, {self.outside:,} with tokens outside the vocabulary. Truncated: "
            f"{self.truncated:,} lines. Replaced by {UNKNOWN}: {self.unknown:,} tokens ({self.unknown_share:.2%}). Repeats of "
            f"an earlier sequence: {self.duplicates:,}."
        )


@dataclass(frozen=True, eq=False)
class Corpus:
    """Sequences as token ids."""

    tokens: Tensor
    """`(n, sequence_length)` int64, padded with `vocabulary.pad`."""
    lengths: Tensor
    """`(n,)` int64, including the end token."""
    vocabulary: Vocabulary
    report: CorpusReport

    def split(self, held_out: float, seed: int) -> tuple["Corpus", "Corpus"]:
        """Split the sequences at random into a training part and a held-out part; no sequence is in both.

        All repeats of a sequence (`report.duplicates`) go to the same part. Each distinct sequence is equally likely to be
        held out, unless it occurs too often to fit into the held-out part.

        Args:
            held_out: the share to hold out, between 0 and 1. If repeats do not fit, the held-out part is a little smaller;
                if no distinct sequence fits, the rarest one is held out.
            seed: the same seed splits the same corpus in the same way.

        Returns:
            The training part and the held-out part, with at least one sequence each. Both keep the vocabulary and the
            report of the whole corpus.

        Raises:
            ValueError: the share leaves one part empty, or there are fewer than two distinct sequences.
        """
        n = len(self.tokens)
        n_held_out = round(held_out * n) if 0 < held_out < 1 else 0
        if not 0 < n_held_out < n:
            raise ValueError(
                f"held_out={held_out} of {n} sequences leaves one side empty; choose a share between 0 and 1 that gives each "
                "side a sequence."
            )
        seen: dict[bytes, int] = {}
        first = np.array([seen.setdefault(row.tobytes(), number) for number, row in enumerate(self.tokens.numpy())])
        if len(seen) == 1:
            raise ValueError(f"All {n} sequences are the same, so any held-out sequence would also be in the training part.")
        repeats = np.bincount(first, minlength=n)
        order = np.random.default_rng(seed).permutation(n)
        distinct = order[repeats[order] > 0]
        held, room = np.zeros(n, dtype=np.bool_), n_held_out
        for number in distinct:
            if repeats[number] <= room:
                held[number] = True
                room -= repeats[number]
        if room == n_held_out:
            held[min(distinct, key=repeats.__getitem__)] = True
        aside = held[first[order]]
        return self._part(order[~aside]), self._part(order[aside])

    def _part(self, rows: npt.NDArray[np.int64]) -> "Corpus":
        chosen = torch.from_numpy(rows)
        return Corpus(self.tokens[chosen], self.lengths[chosen], self.vocabulary, self.report)


def read_corpus(
    source: str | Path | Iterable[Any],
    *,
    tokenizer: Tokenizer | str | Path = "words",
    sequence_length: int | None = None,
    min_count: int = 1,
    too_long: TooLong = "error",
    vocab_size: int | None = None,
    format: Format | None = None,
    column: str | None = None,
    vocabulary: Vocabulary | None = None,
    unknown: Unknown = "error",
) -> Corpus:
    """Read sequences, one per line.

    A sequence shorter than `sequence_length` gets an end token, which counts in its length. A sequence of exactly
    `sequence_length` tokens gets none, because the episode ends there anyway.

    Words and characters get ids by falling count, then by spelling; the end token and the unknown token (if some token is
    too rare) come last. Integers are their own ids; if a sequence is shorter than `sequence_length`, the end token is the
    last id. Subwords keep their tokenizer's ids, followed by the end token.

    Args:
        source: path of a UTF-8 file, with or without a byte order mark; or an iterable of strings, lists of tokens, or lists
            or arrays of ids. With `column` also an iterable of mappings that hold one of these, a mapping of columns, or a
            data frame. It is read once, line by line; `"bpe"` reads it twice, and keeps an iterator in memory.
        tokenizer: `"words"` splits at white space; `"characters"` takes each Unicode code point of a line, spaces inside
            it included; `"integers"` reads token ids separated by white space; `"bpe"` learns a byte-level BPE tokenizer
            from the source. Anything else is the path of a `tokenizer.json` of the library tokenizers. Only such a file
            normalises the text.
        sequence_length: the maximum number of tokens in a sequence; by default the length of the longest line.
        min_count: words or characters that occur less often become the unknown token.
        too_long: what to do with a longer line: `"error"`, `"truncate"` it to exactly `sequence_length` tokens without an
            end token, or `"skip"` it. The report counts such lines.
        vocab_size: the number of tokens, including the end token. For integers all ids must be smaller; by default it
            follows from the largest id. For `"bpe"` it is the maximum to learn, 1,000 by default. For the others it is
            only checked.
        format: `"text"`, `"csv"` (with a header) or `"jsonl"`; by default the file's suffix decides.
        column: the CSV or table column, or the JSONL field, that holds the sequences. A JSONL field may be a list of tokens
            or ids.
        vocabulary: reuse another corpus's vocabulary and its tokenizer, as for a held-out file.
        unknown: what to do with a line that has a token outside the given vocabulary, if that has no unknown token:
            `"error"`, or `"skip"` it.

    Returns:
        The corpus, in the order of the lines. Tokens that are cut off or skipped are not counted.

    Warns:
        UserWarning: nearly every sequence is a single token, or words occur less than twice on average. Another tokenizer
            probably fits better.

    Raises:
        FileNotFoundError: the file does not exist.
        ImportError: the tokenizer needs a library that is not installed.
        IsADirectoryError: the path is a folder.
        TypeError: an item is not a sequence, or is not of the kind that the tokenizer reads.
        ValueError: a line is too long or not UTF-8; there are no sequences, or fewer than two distinct tokens; a column is
            missing; an id is invalid or too large; more than half of the tokens are unknown; or an argument is out of
            range.
    """
    _check_arguments(sequence_length, min_count, too_long, unknown)
    name = str(source) if isinstance(source, (str, Path)) else "The given lines"
    if tokenizer == "bpe" and vocabulary is None:
        source = _readable_twice(source)

    def records() -> Iterator[tuple[int, Record]]:
        return read_records(source, format, column)

    with naming(name):
        coder = make_coder(records, tokenizer, min_count, vocab_size, vocabulary)
        read = _read(coder, records(), sequence_length, too_long)
        if read.excess and too_long == "error" and sequence_length is not None:
            raise ValueError(_describe_excess(read.excess, coder.unit, sequence_length))
        if read.n_outside and (unknown == "error" or read.outside_share > MOST_UNKNOWN):
            raise ValueError(_describe_outside(read, coder.unit))
        if not read.lengths:
            raise ValueError(
                f"no sequences in {read.n_lines} lines, of which {read.n_empty} are blank and {len(read.excess)} too long "
                f"(more than {sequence_length} {coder.unit}). Expected one sequence per line."
            )
        numbers, lengths = np.frombuffer(read.flat, dtype=np.intc), np.array(read.lengths)
        width = sequence_length or int(lengths.max())
        vocab, new_ids = coder.finish(np.bincount(numbers), bool((lengths < width).any()))
        flat = numbers if new_ids is None else new_ids[numbers]
        counts = np.bincount(flat)
        n_unknown = 0 if vocab.unknown_token is None else int(counts[vocab.unknown_token :][:1].sum())
        if vocabulary is None and (counts > 0).sum() < 2:
            raise ValueError(
                f"{(counts > 0).sum()} distinct token among {len(flat)}, but a choice needs at least 2 "
                f"(tokenizer={str(tokenizer)!r}, min_count={min_count})."
            )
        if n_unknown > MOST_UNKNOWN * len(flat) and min_count == 1:
            raise ValueError(_describe_unknown(n_unknown, len(flat), vocab))
    padded, full_lengths = _pad(flat, lengths, width, vocab)
    doubt = _doubt(vocab, lengths, int((counts > 0).sum()))
    if doubt and vocabulary is None and sequence_length != 1:
        warnings.warn(f"{name}: {doubt}", stacklevel=2)
    report = CorpusReport(
        lines=read.n_lines,
        empty=read.n_empty,
        truncated=len(read.excess) if too_long == "truncate" else 0,
        skipped=len(read.excess) if too_long == "skip" else 0,
        unknown=n_unknown,
        duplicates=len(padded) - len({row.tobytes() for row in padded}),
        outside=read.n_outside_lines,
        sequences=len(padded),
        tokens=len(flat),
        vocabulary_size=vocab.size,
        shortest=int(lengths.min()),
        median=float(np.median(lengths)),
        longest=int(lengths.max()),
    )
    return Corpus(torch.from_numpy(padded), torch.from_numpy(full_lengths), vocab, report)


def _check_arguments(sequence_length: int | None, min_count: int, too_long: str, unknown: str) -> None:
    if too_long not in get_args(TooLong):
        raise ValueError(f"too_long must be 'error', 'truncate' or 'skip', got {too_long!r}.")
    if unknown not in get_args(Unknown):
        raise ValueError(f"unknown must be 'error' or 'skip', got {unknown!r}.")
    if min_count < 1 or (sequence_length is not None and sequence_length < 1):
        raise ValueError(f"sequence_length and min_count must be at least 1, got {sequence_length} and {min_count}.")


def _readable_twice(source: str | Path | Iterable[Any]) -> str | Path | Iterable[Any]:
    """A source that can be read twice: to learn the tokenizer, then to use it."""
    if isinstance(source, (str, Path)):
        if os.path.exists(source) and not (os.path.isfile(source) or os.path.isdir(source)):
            raise ValueError(f"{source} can be read only once, but tokenizer='bpe' reads it twice. Use a regular file.")
        return source
    return list(source) if isinstance(source, Iterator) else source


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Prefix a ValueError's message with the source's name."""
    try:
        yield
    except ValueError as error:
        if name in str(error):
            raise
        raise ValueError(f"{name}: {error}") from error


@dataclass
class _Read:
    """The result of one pass over the lines."""

    flat: "array[int]" = field(default_factory=lambda: array("i"))
    """The numbers of all tokens, all sequences concatenated."""
    lengths: "array[int]" = field(default_factory=lambda: array("q"))
    excess: list[tuple[int, int]] = field(default_factory=list)
    """Line number and length of each line that is too long."""
    n_lines: int = 0
    n_empty: int = 0
    n_outside: int = 0
    """Tokens that the vocabulary has no id for."""
    n_outside_lines: int = 0
    """Lines with such tokens."""
    n_outside_line_tokens: int = 0
    """All tokens of these lines."""
    first_outside: tuple[int, str] = (0, "")
    """Line number and spelling of the first such token."""

    @property
    def outside_share(self) -> float:
        """The share of all tokens that the vocabulary has no id for."""
        return self.n_outside / (len(self.flat) + self.n_outside_line_tokens)


def _read(coder: Coder, records: Iterable[tuple[int, Record]], sequence_length: int | None, too_long: TooLong) -> _Read:
    """Number all tokens, line by line."""
    read = _Read()
    number_of = coder.numbers.__getitem__
    most = sys.maxsize if sequence_length is None else sequence_length
    for line, tokens in coder.tokenize(records):
        read.n_lines += 1
        if not tokens:
            read.n_empty += 1
            continue
        if len(tokens) > most:
            read.excess.append((line, len(tokens)))
            if too_long != "truncate":
                continue
            tokens = tokens[:most]
        try:
            numbers = list(map(number_of, tokens))
        except ValueError as error:
            raise ValueError(f"line {line}: {error}") from error
        if OUTSIDE in numbers:
            read.first_outside = read.first_outside if read.n_outside else (line, str(tokens[numbers.index(OUTSIDE)]))
            read.n_outside += numbers.count(OUTSIDE)
            read.n_outside_lines += 1
            read.n_outside_line_tokens += len(numbers)
            continue
        read.flat.extend(numbers)
        read.lengths.append(len(numbers))
    return read


def _describe_excess(excess: list[tuple[int, int]], unit: str, limit: int) -> str:
    first, first_length = excess[0]
    longest, longest_length = max(excess, key=lambda item: item[1])
    return (
        f"line {first} has {first_length} {unit}, more than sequence_length={limit}. {len(excess)} lines are too long; "
        f"the longest is line {longest} with {longest_length}. Raise sequence_length to {longest_length}, or choose "
        "too_long='truncate' or too_long='skip'."
    )


def _describe_outside(read: _Read, unit: str) -> str:
    line, spelling = read.first_outside
    advice = (
        "Does the text's tokenization or language differ from the vocabulary's?"
        if read.outside_share > MOST_UNKNOWN
        else "Leave these lines out with unknown='skip', or read the vocabulary's own corpus with min_count=2 or more, which "
        "adds an unknown token."
    )
    return (
        f"{read.n_outside:,} {unit} ({read.outside_share:.1%}) in {read.n_outside_lines:,} of {read.n_lines:,} lines are not "
        f"in the given vocabulary, which has no unknown token; the first is {spelling!r} in line {line}. {advice}"
    )


def _describe_unknown(n_unknown: int, n_tokens: int, vocabulary: Vocabulary) -> str:
    return (
        f"{n_unknown:,} of {n_tokens:,} tokens ({n_unknown / n_tokens:.1%}) are unknown to the vocabulary of "
        f"{vocabulary.size:,} {vocabulary.kind}. Does the text's tokenization or language differ from the vocabulary's? Use "
        "a tokenizer that was made for such text."
    )


def _doubt(vocabulary: Vocabulary, lengths: npt.NDArray[np.int64], n_distinct: int) -> str | None:
    """Why the tokenizer is probably the wrong one, and which one to use; None if it looks right."""
    single, n_tokens, words = int((lengths == 1).sum()), int(lengths.sum()), vocabulary.kind == "words"
    finer = "tokenizer='characters' or 'bpe' (--tokenizer characters, bpe)"
    if len(lengths) >= _TELLING_SEQUENCES and single >= _NEARLY_ALL * len(lengths):
        remedy = {
            "words": f"If no white space separates the tokens, as in DNA, SMILES or Chinese, use {finer}.",
            "subwords": "Use a smaller vocab_size (--vocab-size), which splits lines into more tokens.",
        }.get(vocabulary.kind, "Put all tokens of a sequence on one line.")
        return f"{single:,} of {len(lengths):,} sequences are a single token, so there is no order to learn. {remedy}"
    if words and n_tokens >= _TELLING_TOKENS and 2 * n_distinct > n_tokens:
        return (
            f"{n_distinct:,} of {n_tokens:,} words are distinct: each occurs less than twice on average, too rarely to learn "
            f"from. Use {finer}, or replace rare words with min_count=2 (--min-count 2)."
        )
    return None


def _pad(
    flat: npt.NDArray[np.intc], lengths: npt.NDArray[np.int64], sequence_length: int, vocabulary: Vocabulary
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Lay sequences out as `(n, sequence_length)`; an end token goes where there is room, and counts in the length."""
    cells = len(lengths) * sequence_length
    if cells > _MUCH_PADDING and cells > 100 * len(flat):
        raise ValueError(
            f"{len(lengths):,} sequences of {len(flat) / len(lengths):.1f} tokens on average, padded to {sequence_length:,}, "
            f"would take {cells * 8 / 2**30:.0f} GB. Pass a smaller sequence_length, with too_long='truncate' or "
            "too_long='skip' for longer ones."
        )
    columns = np.arange(sequence_length)
    padded = np.full((len(lengths), sequence_length), vocabulary.pad, dtype=np.int64)
    padded[columns < lengths[:, None]] = flat
    if vocabulary.end_token is not None:
        padded[columns == lengths[:, None]] = vocabulary.end_token
    return padded, np.minimum(lengths + 1, sequence_length)
