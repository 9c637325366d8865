"""Subword tokenizers in the format of Hugging Face's library `tokenizers`, which is imported only when needed."""

import importlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any


class SubwordTokenizer:
    """Splits lines into tokens and joins them again, as a tokenizer file says; it never adds special tokens.

    Args:
        text: the tokenizer as JSON, the content of a `tokenizer.json`. Nothing in it is executed.

    Raises:
        ImportError: the library is not installed.
        ValueError: not the JSON of a tokenizer.
    """

    def __init__(self, text: str) -> None:
        library = _library()
        try:
            self._tokenizer = library.Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"not a tokenizer in the format of the library tokenizers: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._is_byte_level = type(self._tokenizer.decoder).__name__ == "ByteLevel"

    @property
    def json(self) -> str:
        """The tokenizer as JSON."""
        return str(self._tokenizer.to_str())

    @property
    def pieces(self) -> tuple[str, ...]:
        """The spelling of each id; an id that the tokenizer does not use is spelled `<unused id>`."""
        ids: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        spellings = {index: piece for piece, index in ids.items()}
        return tuple(self._readable(index, spellings.get(index)) for index in range(max(spellings, default=-1) + 1))

    @property
    def unknown_token(self) -> int | None:
        """The id of the unknown token, if any."""
        model = json.loads(self.json)["model"]
        if model.get("unk_token") is not None:
            return self._tokenizer.token_to_id(model["unk_token"])  # type: ignore[no-any-return]
        index = model.get("unk_id")
        return None if index is None else int(index)

    @cached_property
    def may_drop(self) -> bool:
        """Whether encoding may drop characters that have no token, because there is no unknown token either."""
        return self.unknown_token is None and not self._is_byte_level

    def drops(self, characters: Iterable[str]) -> list[str]:
        """The given characters, except white space, that encode to no token."""
        return [letter for letter in characters if not letter.isspace() and not self.encode([letter])[0]]

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The ids of each line's tokens.

        Raises:
            ValueError: the tokenizer fails on a line.
        """
        try:
            return [coded.ids for coded in self._tokenizer.encode_batch_fast(list(lines), add_special_tokens=False)]
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"the tokenizer fails: {error}") from error

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids; bytes that are not UTF-8 become U+FFFD."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def _readable(self, index: int, piece: str | None) -> str:
        if piece is None:
            return f"<unused {index}>"
        text = self.decode([index]) if self._is_byte_level else piece
        return piece if "\ufffd" in text else text


def load_subwords(path: str | Path) -> SubwordTokenizer:
    """Read a `tokenizer.json`.

    Raises:
        FileNotFoundError: the file does not exist.
        ImportError: the library is not installed.
        ValueError: the file is not a tokenizer.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"No tokenizer file at {str(path)!r}. tokenizer must be 'words', 'characters', 'integers', 'bpe' or the path of a "
            "tokenizer.json."
        )
    try:
        return SubwordTokenizer(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def train_bpe(lines: Iterable[str], vocab_size: int) -> SubwordTokenizer:
    """Learn a byte-level BPE tokenizer (Sennrich et al., 2016; over bytes as in Radford et al., 2019).

    It can encode any text, unknown parts byte by byte. The order of the lines does not matter.

    Args:
        lines: read once, one at a time.
        vocab_size: the maximum number of tokens, including the 256 bytes.

    Raises:
        ImportError: the library is not installed.
    """
    library = _library()
    byte_level = library.pre_tokenizers.ByteLevel
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=byte_level.alphabet(), special_tokens=[], show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    return SubwordTokenizer(tokenizer.to_str())


def _library() -> Any:
    try:
        return importlib.import_module("tokenizers")
    except ImportError as error:
        raise ImportError(
            "This tokenizer needs the library tokenizers, which is not installed: pip install 'seqgan-env[tokenizers]', or "
            "pip install -e '.[tokenizers]' in the project's folder. 'words', 'characters' and 'integers' need nothing."
        ) from error
