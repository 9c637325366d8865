"""Turn a corpus's records into numbers in one pass, then into the ids of a vocabulary."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from seqgan_env.data.file_formats import Record
from seqgan_env.data.subwords import SubwordTokenizer, load_subwords, train_bpe
from seqgan_env.data.vocabulary import END, JOINERS, PICTURES, UNKNOWN, Kind, Vocabulary, split_line

Tokenizer = Literal["words", "characters", "integers", "bpe"]
Records = Iterable[tuple[int, Record]]
Tokenized = Iterator[tuple[int, Sequence[str] | Sequence[int]]]
Finished = tuple[Vocabulary, npt.NDArray[np.intc] | None]

OUTSIDE = -1
"""The number of a token that a given vocabulary has no id for."""
MOST_UNKNOWN = 0.5
"""With a larger share of unknown tokens, the vocabulary does not fit the text."""
DEFAULT_BPE_SIZE = 1000
SMALLEST_BPE = 258  # 256 bytes, one merge, an end token
_MOST_INFERRED = 1_000_000  # a larger id is more likely a mistake
_MOST_IDS = 2**31 - 1  # ids are stored in 32 bits
_MOST_DIGITS = 20  # longer ids exceed any vocabulary; Python refuses to read thousands of digits
_CHUNK = 1000  # lines per call of the subword tokenizer


class Coder:
    """Turns records into numbers, then maps the numbers to ids.

    Attributes:
        unit: the word for tokens in messages.
        numbers: the number of each token; looking up a new token gives it a number, or raises a ValueError.
    """

    unit: str
    numbers: Any

    def tokenize(self, records: Records) -> Tokenized:
        """The tokens of each record, with its line number."""
        raise NotImplementedError

    def finish(self, counts: npt.NDArray[np.int64], needs_end: bool) -> Finished:
        """The vocabulary, and the id of each number (None: the numbers are the ids).

        Args:
            counts: how often each number occurred.
            needs_end: whether some sequence is shorter than the maximum, so that it needs an end token.

        Raises:
            ValueError: the tokens do not fit the requested vocabulary.
        """
        raise NotImplementedError


class SpellingCoder(Coder):
    """Words or characters; the vocabulary lists them by falling count, then by spelling."""

    def __init__(self, kind: Kind, min_count: int, vocab_size: int | None) -> None:
        self.unit = self.kind = kind
        self.joiner = JOINERS[kind]
        self.numbers: dict[str, int] = _FirstSeen(self.joiner)
        self._min_count, self._vocab_size = min_count, vocab_size

    def tokenize(self, records: Records) -> Tokenized:
        """Words between white space, or the code points of the stripped line; a list of tokens is used as it is."""
        for number, record in records:
            if isinstance(record, str):
                yield number, split_line(record.strip(), self.joiner)
            elif self.joiner and not (record and isinstance(record[0], int)):
                yield number, record
            else:
                held, instead = ("ids", "'integers'") if record and isinstance(record[0], int) else ("tokens", "'words'")
                raise TypeError(
                    f"Line {number} is a list of {held}, which tokenizer={self.unit!r} does not read; use tokenizer={instead}."
                )

    def finish(self, counts: npt.NDArray[np.int64], needs_end: bool) -> Finished:
        """Keep the tokens that are not rare; the end token, and the unknown token if one is needed, come last."""
        spellings = list(self.numbers)
        order = sorted(range(len(spellings)), key=lambda number: (-counts[number], spellings[number]))
        kept = [number for number in order if counts[number] >= self._min_count]
        any_unknown = len(kept) < len(order)
        tokens = (*(spellings[number] for number in kept), END, *([UNKNOWN] if any_unknown else []))
        _check_size(len(tokens), self._vocab_size)
        new_ids = np.full(len(spellings), len(kept) + 1, dtype=np.intc)
        new_ids[kept] = np.arange(len(kept))
        return Vocabulary(tokens, len(kept), len(kept) + 1 if any_unknown else None, self.kind), new_ids


class KnownCoder(SpellingCoder):
    """Words or characters of a given vocabulary; in characters, `PICTURES` are read as the characters they stand for."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__(vocabulary.kind, 1, None)
        unknown = OUTSIDE if vocabulary.unknown_token is None else vocabulary.unknown_token
        stand_for = {picture: vocabulary.ids[sign] for sign, picture in PICTURES.items() if sign in vocabulary.ids}
        self.numbers = _Known(stand_for | vocabulary.ids, unknown)
        self._vocabulary = vocabulary

    def finish(self, counts: npt.NDArray[np.int64], needs_end: bool) -> Finished:
        """The given vocabulary."""
        return self._vocabulary, None


class IntegerCoder(Coder):
    """Integers are their own ids; the vocabulary has the declared size, or reaches to the largest id."""

    unit = "ids"

    def __init__(self, vocab_size: int | None, vocabulary: Vocabulary | None) -> None:
        self._vocabulary = vocabulary
        self._vocab_size = vocab_size if vocabulary is None else vocabulary.size
        if self._vocab_size is not None and self._vocab_size > _MOST_IDS:
            raise ValueError(f"vocab_size must be at most {_MOST_IDS:,}, got a larger one.")
        self.numbers: dict[str | int, int] = _Integers(self._vocab_size)

    def tokenize(self, records: Records) -> Tokenized:
        """Ids between white space; a list of ids is used as it is."""
        for number, record in records:
            yield number, record.split() if isinstance(record, str) else record

    def finish(self, counts: npt.NDArray[np.int64], needs_end: bool) -> Finished:
        """The end token, if a sequence needs one, is the last id."""
        used = len(counts)
        if self._vocabulary is not None:
            end = self._vocabulary.end_token
            if needs_end and end is None:
                raise ValueError(
                    "some sequences are shorter than sequence_length, but the given vocabulary has no end token, because all "
                    "sequences of its own corpus have one length. Read that corpus with a larger sequence_length."
                )
        else:
            end = (used if self._vocab_size is None else self._vocab_size - 1) if needs_end else None
        if end is not None and end < used and counts[end]:
            raise ValueError(
                f"sequences have unequal lengths, so the id {end} is the end token, but it also occurs in the data. "
                f"Declare vocab_size={end + 2} or more, which includes the end token."
            )
        if self._vocabulary is not None:
            return self._vocabulary, None
        size = self._vocab_size or used + needs_end
        tokens = tuple(END if index == end else str(index) for index in range(size))
        return Vocabulary(tokens, end, kind="integers"), None


class SubwordCoder(Coder):
    """Subwords, with their tokenizer's ids."""

    unit = "tokens"

    def __init__(self, tokenizer: SubwordTokenizer, vocab_size: int | None, vocabulary: Vocabulary | None) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary or _subword_vocabulary(tokenizer)
        self._letters: set[str] = set()
        self.numbers = range(self._vocabulary.size)
        _check_size(self._vocabulary.size, vocab_size)

    def tokenize(self, records: Records) -> Tokenized:
        """The tokenizer's ids of each line, computed for many lines at once.

        Raises:
            ValueError: the tokenizer fails, or silently drops characters.
        """
        rest = iter(records)
        while chunk := list(islice(rest, _CHUNK)):
            lines = [self._line(number, record) for number, record in chunk]
            if self._tokenizer.may_drop:
                self._letters.update(*lines)
            numbers = [number for number, _ in chunk]
            yield from zip(numbers, self._encode(numbers, lines), strict=True)
        dropped = self._tokenizer.drops(sorted(self._letters))
        if dropped:
            raise ValueError(
                f"the tokenizer has no token for {len(dropped)} of {len(self._letters)} characters, {dropped[:10]} among "
                "them, and no unknown token: it would silently drop them. Use one that was trained on such text, or "
                "tokenizer='bpe'."
            )

    def finish(self, counts: npt.NDArray[np.int64], needs_end: bool) -> Finished:
        """All of the tokenizer's tokens, even those that do not occur."""
        return self._vocabulary, None

    @staticmethod
    def _line(number: int, record: Record) -> str:
        if isinstance(record, str):
            return record.strip()
        raise TypeError(
            f"Line {number} is a list, but a subword tokenizer reads strings; use tokenizer='words' for tokens or "
            "'integers' for ids."
        )

    def _encode(self, numbers: Sequence[int], lines: Sequence[str]) -> list[list[int]]:
        try:
            return self._tokenizer.encode(lines)
        except ValueError as error:
            if len(lines) == 1:
                raise ValueError(f"line {numbers[0]}: {error}") from error
        middle = len(lines) // 2  # bisect to find the first line that fails
        return self._encode(numbers[:middle], lines[:middle]) + self._encode(numbers[middle:], lines[middle:])


def make_coder(
    records: Callable[[], Records],
    tokenizer: Tokenizer | str | Path,
    min_count: int,
    vocab_size: int | None,
    vocabulary: Vocabulary | None,
) -> Coder:
    """The coder for the arguments of `read_corpus`; `"bpe"` reads the records once to learn its tokens.

    Raises:
        FileNotFoundError: there is no tokenizer of that name, and no such file.
        ImportError: the tokenizer needs a library that is not installed.
        ValueError: the arguments contradict each other, or the file is not a tokenizer.
    """
    if vocabulary is not None:
        if tokenizer not in ("words", vocabulary.kind) or min_count != 1 or vocab_size is not None:
            raise ValueError(
                f"A vocabulary (of {vocabulary.kind}) was given, which fixes tokenizer, min_count and vocab_size; leave "
                f"them out, got tokenizer={str(tokenizer)!r}, min_count={min_count}, vocab_size={vocab_size}."
            )
        if vocabulary.kind == "subwords":
            return SubwordCoder(vocabulary.subword_tokenizer, None, vocabulary)
        return IntegerCoder(None, vocabulary) if vocabulary.kind == "integers" else KnownCoder(vocabulary)
    if tokenizer in ("words", "characters"):
        return SpellingCoder("words" if tokenizer == "words" else "characters", min_count, vocab_size)
    if min_count != 1:
        raise ValueError(
            f"min_count={min_count} is for 'words' and 'characters'; with tokenizer={str(tokenizer)!r} leave it out."
        )
    if tokenizer == "integers":
        return IntegerCoder(vocab_size, None)
    if tokenizer != "bpe":
        return SubwordCoder(load_subwords(tokenizer), vocab_size, None)
    size = DEFAULT_BPE_SIZE if vocab_size is None else vocab_size
    if size < SMALLEST_BPE:
        raise ValueError(
            f"tokenizer='bpe' needs a vocab_size of at least {SMALLEST_BPE} (256 bytes, one merge and the end token), "
            f"got {size}."
        )
    lines = (SubwordCoder._line(number, record) for number, record in records())
    return SubwordCoder(train_bpe(lines, size - 1), None, None)


def _subword_vocabulary(tokenizer: SubwordTokenizer) -> Vocabulary:
    pieces = tokenizer.pieces
    return Vocabulary((*pieces, END), len(pieces), tokenizer.unknown_token, "subwords", tokenizer.json)


def _check_size(size: int, expected: int | None) -> None:
    if expected not in (None, size):
        raise ValueError(f"The text has a vocabulary of {size}, but vocab_size={expected} was given. Leave it out.")


class _FirstSeen(dict[str, int]):
    """Numbers spellings in the order in which they appear."""

    def __init__(self, joiner: str) -> None:
        super().__init__()
        self._joiner = joiner

    def __missing__(self, spelling: str) -> int:
        if self._joiner and spelling.split() != [spelling]:
            raise ValueError(
                f"the token {spelling!r} is empty or contains white space, which separates words in a line. Use another "
                "character, such as an underscore."
            )
        number = self[spelling] = len(self)
        return number


class _Known(dict[str, int]):
    """The ids of a vocabulary's spellings; all other spellings share one id."""

    def __init__(self, ids: dict[str, int], unknown: int) -> None:
        super().__init__(ids)
        self._unknown = unknown

    def __missing__(self, spelling: str) -> int:
        self[spelling] = self._unknown
        return self._unknown


class _Integers(dict[str | int, int]):
    """The ids that integers, or their spellings, stand for."""

    def __init__(self, vocab_size: int | None) -> None:
        self._limit, self._declared = vocab_size or _MOST_INFERRED, vocab_size is not None

    def __missing__(self, token: str | int) -> int:
        if isinstance(token, str) and not (token.isascii() and token.isdigit()):
            raise ValueError(f"{token[:60]!r} is not a token id. Ids are whole numbers from 0, separated by white space.")
        index = int(token.lstrip("0")[: _MOST_DIGITS + 1] or "0") if isinstance(token, str) else int(token)
        if index < 0:
            raise ValueError(f"the id {_shown(index)} is negative. Ids are whole numbers from 0.")
        if index >= self._limit:
            raise ValueError(
                f"the id {_shown(index)} is beyond the vocabulary of {self._limit:,} tokens, whose ids are 0 ... "
                f"{self._limit - 1}. "
                + ("Raise vocab_size, or correct the data." if self._declared else "If it is intended, declare vocab_size.")
            )
        self[token] = index
        return index


def _shown(number: int) -> str:
    return str(number) if abs(number) < 10**_MOST_DIGITS else f"of more than {_MOST_DIGITS} digits"
