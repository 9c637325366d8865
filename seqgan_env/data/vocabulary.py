"""Vocabularies: the id of each token, and how to encode lines as ids and decode ids to lines."""

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
"""The string between two tokens of a line, by the kind of vocabulary."""

PICTURES = {"\n": "␤", "\r": "␍", "\0": "␀"}
"""Replacements for characters that a line of a text file cannot contain."""


@dataclass(frozen=True)
class Vocabulary:
    """The id of each token, from 0 to `size` - 1.

    The end token and the unknown token are ids, not spellings: a line with the word "<end>" in it does not end there.

    Raises:
        ImportError: `subwords` is given, but the library that reads it is not installed.
        ValueError: a special token's id is out of range, two tokens have the same spelling, or the kind is unknown or does
            not fit the tokens.
    """

    tokens: tuple[str, ...]
    """The spelling of each id."""
    end_token: int | None
    """Ends a sequence that is shorter than the maximum; None if all sequences have one length."""
    unknown_token: int | None = None
    """Replaces tokens that have no id; without it, such tokens are an error."""
    kind: Kind = "words"
    """How a line is split: `"words"`, `"characters"`, `"integers"` (each spelled as its own id) or `"subwords"`."""
    subwords: str | None = None
    """The subword tokenizer as JSON; None for the other kinds."""

    def __post_init__(self) -> None:
        """Check the fields, which may come from a file."""
        special = [token for token in (self.end_token, self.unknown_token) if token is not None]
        if len(set(special)) < len(special) or not all(0 <= token < self.size for token in special):
            raise ValueError(
                f"end_token and unknown_token must be two ids of 0 ... {self.size - 1}, got {self.end_token} and "
                f"{self.unknown_token}."
            )
        if self.kind not in JOINERS:
            raise ValueError(f"kind must be one of {', '.join(map(repr, JOINERS))}, got {self.kind!r}.")
        if (self.kind == "subwords") != (self.subwords is not None):
            raise ValueError(f"subwords must be given if kind='subwords', and must not otherwise; got kind={self.kind!r}.")
        if self.kind == "integers" and not _are_ids(self.tokens, self.end_token):
            raise ValueError("A vocabulary of integers must spell each token, except the end token, as its own id.")
        if self.subwords is not None and self.tokens != (*self.subword_tokenizer.pieces, END):
            raise ValueError("tokens must be the pieces of the subwords tokenizer, then the end token, but they are not.")
        if self.subwords is None and len(self.ids) < self.size - len(special):
            raise ValueError("A vocabulary must spell each token differently, but some tokens have the same spelling.")

    @property
    def size(self) -> int:
        """The number of tokens, including the end token and the unknown token."""
        return len(self.tokens)

    @property
    def pad(self) -> int:
        """The padding id, `size`; no token has it."""
        return self.size

    @property
    def joiner(self) -> str:
        """The string between two tokens of a line: a space for words and integers, empty for the other kinds."""
        return JOINERS[self.kind]

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of each spelling, except the end token and the unknown token."""
        special = (self.end_token, self.unknown_token)
        return {token: index for index, token in enumerate(self.tokens) if index not in special}

    @cached_property
    def subword_tokenizer(self) -> SubwordTokenizer:
        """The tokenizer that `subwords` holds."""
        assert self.subwords is not None
        return SubwordTokenizer(self.subwords)

    def encode(self, line: str) -> list[int]:
        """The ids of a line's tokens, without an end token. Characters and subwords keep white space at both ends.

        Raises:
            ValueError: a token is not in the vocabulary, which has no unknown token.
        """
        if self.subwords is not None:
            return self.subword_tokenizer.encode([line])[0]
        ids = []
        for token in split_line(line, self.joiner):
            index = self.ids.get(token, self.unknown_token)
            if index is None:
                raise ValueError(
                    f"{token!r} is not in the vocabulary of {self.size} tokens, which has no unknown token. "
                    "read_corpus(min_count=2) or more adds one, if the corpus has tokens that rare."
                )
            ids.append(index)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The line of some ids, up to the first end token or padding.

        Raises:
            ValueError: an id before that belongs to no token.
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
        """The vocabulary as a JSON object, ASCII only."""
        fields: dict[str, Any] = {name: getattr(self, name) for name in ("tokens", "end_token", "unknown_token", "kind")}
        if self.subwords is not None:
            fields["subwords"] = self.subwords
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> "Vocabulary":
        """The vocabulary that `to_json` wrote; older files lack its kind, which is then guessed.

        Raises:
            ImportError: the vocabulary is of subwords, and the library that reads them is not installed.
            ValueError: the text was not written by `to_json`.
        """
        try:
            fields = json.loads(text)
            tokens, subwords = fields["tokens"], fields.get("subwords")
            if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
                raise TypeError("its tokens are not a list of strings")
            if not isinstance(subwords, str | None):
                raise TypeError("its subwords are not a string")
            end, unknown = (None if index is None else int(index) for index in (fields["end_token"], fields["unknown_token"]))
            kind = fields["kind"] if "kind" in fields else _guessed_kind(tokens, end, fields["joiner"], subwords)
            return cls(tuple(tokens), end, unknown, kind, subwords)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"Not a vocabulary as written by Vocabulary.to_json: {error}") from error


def split_line(line: str, joiner: str) -> list[str]:
    """The tokens of a line: words between white space, or each code point."""
    return line.split() if joiner else list(line)


def one_line(text: str) -> str:
    """A sequence's text as one line of a text file: `PICTURES` replace its line ends."""
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
    """The kind of a vocabulary whose file does not state it."""
    if subwords is not None:
        return "subwords"
    if joiner not in JOINERS.values():
        raise ValueError(f"its joiner is neither ' ' (words) nor '' (characters), but {joiner!r}")
    if _are_ids(tokens, end_token):
        return "integers"
    return "words" if joiner else "characters"
