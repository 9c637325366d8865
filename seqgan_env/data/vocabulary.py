"""Which token has which id, and how a line becomes ids and ids a line."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from torch import Tensor

from seqgan_env.data.subwords import SubwordTokenizer

END = "<end>"
UNKNOWN = "<unk>"
Kind = Literal["words", "characters", "integers", "subwords"]
JOINERS: dict[str, str] = {"words": " ", "characters": "", "integers": " ", "subwords": ""}
"""What stands between two tokens of a line, by the kind of vocabulary."""

PICTURES = {"\n": "␤", "\r": "␍", "\0": "␀"}
"""What stands in a line of a text file for the characters that no such line can hold."""


@dataclass(frozen=True)
class Vocabulary:
    """Which token has which id, from 0 to `size` - 1.

    The end token and the unknown token are ids, not spellings: a line with the word "<end>" in it does not end there.

    Raises:
        ImportError: `subwords` are given, but the library that reads them is not installed.
        ValueError: ids of no token, two tokens spelled alike, an unknown kind, or tokens that are not of that kind.
    """

    tokens: tuple[str, ...]
    """The spelling of each id."""
    end_token: int | None
    """Ends a sequence that is shorter than the longest possible; None where all sequences have one length."""
    unknown_token: int | None = None
    """Stands for whatever has no id of its own; without one, that is an error."""
    kind: Kind = "words"
    """How a line becomes tokens: `"words"`, `"characters"`, `"integers"` (each spelled as its own id) or `"subwords"`."""
    subwords: str | None = None
    """The tokenizer of subwords, as JSON; None for the other kinds."""

    def __post_init__(self) -> None:
        """Check what may come from a file."""
        special = [token for token in (self.end_token, self.unknown_token) if token is not None]
        if len(set(special)) < len(special) or not all(0 <= token < self.size for token in special):
            raise ValueError(
                f"end_token and unknown_token must be two ids of 0 ... {self.size - 1}, got {self.end_token} and "
                f"{self.unknown_token}."
            )
        if self.kind not in JOINERS:
            raise ValueError(f"kind must be one of {', '.join(map(repr, JOINERS))}, got {self.kind!r}.")
        if (self.kind == "subwords") != (self.subwords is not None):
            raise ValueError(f"subwords holds the tokenizer of kind='subwords', and of no other; got kind={self.kind!r}.")
        if self.kind == "integers" and not _are_ids(self.tokens, self.end_token):
            raise ValueError("A vocabulary of integers must spell each token, except the end token, as its own id.")
        if self.subwords is not None and self.tokens != (*self.subword_tokenizer.pieces, END):
            raise ValueError("subwords must be the tokenizer of these tokens, the end token last; it is another's.")
        if self.subwords is None and len(self.ids) < self.size - len(special):
            raise ValueError("A vocabulary must spell each token differently, but some tokens are spelled alike.")

    @property
    def size(self) -> int:
        """The number of tokens, the end token and the unknown token included."""
        return len(self.tokens)

    @property
    def pad(self) -> int:
        """The id that fills sequences up; no token has it."""
        return self.size

    @property
    def joiner(self) -> str:
        """What stands between two tokens of a line: a space between words or integers, nothing in the other kinds."""
        return JOINERS[self.kind]

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each spelling, but for the end token and the unknown token."""
        special = (self.end_token, self.unknown_token)
        return {token: index for index, token in enumerate(self.tokens) if index not in special}

    @cached_property
    def subword_tokenizer(self) -> SubwordTokenizer:
        """The tokenizer that `subwords` holds."""
        assert self.subwords is not None
        return SubwordTokenizer(self.subwords)

    def encode(self, line: str) -> list[int]:
        """The ids of a line's tokens, without an end token; of characters and subwords, white space at its ends counts.

        Raises:
            ValueError: a token that the vocabulary does not have, where it has no unknown token.
        """
        if self.subwords is not None:
            return self.subword_tokenizer.encode([line])[0]
        ids = []
        for token in split_line(line, self.joiner):
            index = self.ids.get(token, self.unknown_token)
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
        written = []
        for index in map(int, ids):
            if index in (self.end_token, self.pad):
                break
            if not 0 <= index < self.size:
                raise ValueError(f"No token has the id {index}; tokens are 0 ... {self.size - 1}, and {self.pad} pads.")
            written.append(index)
        if self.subwords is not None:
            return self.subword_tokenizer.decode(written)
        return self.joiner.join([self.tokens[index] for index in written])

    def to_json(self) -> str:
        """The vocabulary as a JSON object, in ASCII."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in ("tokens", "end_token", "unknown_token", "kind")}
        if self.subwords is not None:
            fields["subwords"] = self.subwords
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> "Vocabulary":
        """The vocabulary that `to_json` wrote; older ones do not hold its kind, which is guessed.

        Raises:
            ImportError: it is of subwords, and the library that reads these is not installed.
            ValueError: it did not write this.
        """
        try:
            fields = json.loads(text)
            tokens, subwords = fields["tokens"], fields.get("subwords")
            if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
                raise TypeError("its tokens are not a list of strings")
            if not isinstance(subwords, str | None):
                raise TypeError("its subwords are no string")
            end, unknown = (None if index is None else int(index) for index in (fields["end_token"], fields["unknown_token"]))
            kind = fields["kind"] if "kind" in fields else _guessed_kind(tokens, end, fields["joiner"], subwords)
            return cls(tuple(tokens), end, unknown, kind, subwords)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"Not a vocabulary as written by Vocabulary.to_json: {error}") from error


def split_line(line: str, joiner: str) -> list[str]:
    """The tokens of a line: what white space separates, or each code point."""
    return line.split() if joiner else list(line)


def one_line(text: str) -> str:
    """A sequence's text as one line of a text file: `PICTURES` stand for its line ends, by which files are parted."""
    for character, picture in PICTURES.items():
        text = text.replace(character, picture)
    return text


def lines_of(tokens: Tensor, vocabulary: Vocabulary | None, pad: int) -> list[str]:
    """Sequences `(n, length)` as text, or as token ids separated by spaces; see `one_line` for text files."""
    if vocabulary is not None:
        return [vocabulary.decode(row) for row in tokens.tolist()]
    return [" ".join(str(token) for token in row if token != pad) for row in tokens.tolist()]


def _are_ids(tokens: Iterable[str], end_token: int | None) -> bool:
    return all(token == str(index) for index, token in enumerate(tokens) if index != end_token)


def _guessed_kind(tokens: Iterable[str], end_token: int | None, joiner: str, subwords: str | None) -> Kind:
    """The kind of a vocabulary in a file that does not say it."""
    if subwords is not None:
        return "subwords"
    if joiner not in JOINERS.values():
        raise ValueError(f"its joiner is neither ' ' (words) nor '' (characters), but {joiner!r}")
    if _are_ids(tokens, end_token):
        return "integers"
    return "words" if joiner else "characters"
