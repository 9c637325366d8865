"""`python -m seqgan_env sample`: write any number of a generator's samples to a file."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
import tyro
from torch import Tensor
from tqdm.auto import tqdm

from seqgan_env.data.file_formats import format_of
from seqgan_env.data.vocabulary import Vocabulary, lines_of, one_line
from seqgan_env.models.sampling import Mask, sample_sequences
from seqgan_env.models.token_model import TokenModel
from seqgan_env.rewards.custom import load_function
from seqgan_env.saved_game import LAST, load_checkpoints, load_game
from seqgan_env.support import seeds
from seqgan_env.support.atomic_files import STANDARD_OUTPUT, text_output
from seqgan_env.support.settings import PositiveInt, Seed, Temperature, check_number

_CHUNK = 1000  # sequences in memory at once; fixed, because the draws of a seed depend on it


@dataclass(frozen=True)
class Sample:
    """Write samples of a run's generator to a file, one sequence per line."""

    run: Path
    """The run's folder."""
    out: Path
    """The file to write; an existing one is overwritten. - is standard output."""
    n: Annotated[PositiveInt, tyro.conf.arg(aliases=["-n"])] = 10_000
    """How many sequences."""
    temperature: Temperature = 1.0
    """Divides the logits: below 1 samples are safer and more alike, above 1 more varied."""
    prefix: str = ""
    """The beginning of every sequence, including white space at its ends: text, or token ids for an oracle's run."""
    mask: str | None = None
    """A custom function, module:name, that limits the tokens: maps the token ids so far (k,) to a bool per token, whether it
    may follow."""
    seed: Seed = 0
    """Draws the tokens."""
    format: Literal["text", "jsonl"] | None = None
    """text: one sequence per line, line ends inside it written as ␤; jsonl: objects with tokens, text, length, and nll in nats
    per token. By default the file's name decides: .jsonl or .ndjson, else text."""
    checkpoint: str = LAST
    """The generator to sample from."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """Where to compute."""

    def __call__(self) -> None:
        """Sample, and write line by line.

        Raises:
            ValueError: a number is out of range, the prefix cannot be continued, the mask is invalid or allows no token, or a
                file is damaged.
            OSError: the run or checkpoint does not exist, or the file cannot be written.
        """
        game = load_game(self.run, self.device)
        (generator,) = load_checkpoints(self.run, game, [self.checkpoint]).values()
        mask = None if self.mask is None else load_function(self.mask)
        prefix, mask = begin_with(self.prefix, game.vocabulary, game.sequence_length, mask)
        rng = torch.Generator(game.device).manual_seed(self.seed + seeds.SAMPLES)
        chunks = sample_with(
            generator, self.n, game.sequence_length, rng, temperature=self.temperature, prefix=prefix, mask=mask
        )
        line_of = (
            _json_lines(generator, game.vocabulary)
            if self._format() == "jsonl"
            else _text_lines(game.vocabulary, game.vocab_size)
        )
        chunks = chain([next(chunks)], chunks)  # fail before the file is overwritten, if sampling is impossible
        with text_output(self.out) as file, tqdm(total=self.n, desc="sampling", unit="sequence", disable=None) as bar:
            for tokens in chunks:
                file.writelines(line + "\n" for line in line_of(tokens))
                bar.update(len(tokens))
        if self.out != STANDARD_OUTPUT:
            print(f"{self.n:,} sequences in {self.out}")

    def _format(self) -> str:
        """The requested format, or the one that the file's name stands for."""
        format = self.format or format_of(self.out)
        if format == "csv":
            raise ValueError(f"--out {self.out}: CSV cannot be written. Use a name ending in .txt or .jsonl, or --format.")
        return format


def sample_with(
    generator: TokenModel,
    n: int,
    length: int,
    rng: torch.Generator,
    *,
    temperature: float = 1.0,
    prefix: Sequence[int] = (),
    mask: Mask | None = None,
) -> Iterator[Tensor]:
    """Sample from a generator with a temperature, prefix and mask, in chunks, so that any number fits into memory.

    Args:
        generator: writes the sequences.
        n: how many sequences.
        length: the maximum number of tokens in a sequence.
        rng: on the generator's device; the same seed gives the same sequences.
        temperature: divides the logits.
        prefix: ids that every sequence starts with, fewer than `length`.
        mask: maps a prefix `(k,)` to the tokens that may follow, `(vocab_size,)` bool.

    Returns:
        An iterator over sequences `(m, length)` int64, `n` in all, padded with the vocabulary size.

    Raises:
        ValueError: `n` is below 1, or the temperature is out of range. While iterating: the prefix cannot be continued, or
            the mask allows no token.
    """
    if n < 1:
        raise ValueError(f"The number of sequences must be at least 1, got {n}.")
    check_number("temperature", temperature, Temperature)

    def parts() -> Iterator[Tensor]:
        for start in range(0, n, _CHUNK):
            yield sample_sequences(
                generator,
                min(_CHUNK, n - start),
                length,
                generator.vocab_size,
                rng,
                end_token=generator.end_token,
                inverse_temperature=1 / temperature,
                prefix=prefix,
                mask=mask,
            )[0]

    return parts()


def encode_prefix(prefix: str, vocabulary: Vocabulary | None) -> list[int]:
    """The ids of a prefix: text in the vocabulary, or without a vocabulary ids separated by spaces.

    Raises:
        ValueError: a token is not in the vocabulary, or is not an id.
    """
    if vocabulary is None:
        try:
            return [int(token) for token in prefix.split()]
        except ValueError as error:
            raise ValueError(
                f"The run has no text, so a prefix is token ids separated by spaces, such as '3 14'; got {prefix!r}."
            ) from error
    try:
        ids = vocabulary.encode(prefix)
    except ValueError as error:
        raise ValueError(f"The prefix {prefix!r} cannot be continued: {error}") from error
    if vocabulary.unknown_token in ids:
        raise ValueError(
            f"The prefix {prefix!r} has tokens that the run's vocabulary does not have; it reads {vocabulary.decode(ids)!r}."
        )
    return ids


def begin_with(
    text: str, vocabulary: Vocabulary | None, length: int, mask: Mask | None = None
) -> tuple[list[int], Mask | None]:
    """The fixed ids and the mask with which all sampled texts begin exactly with a given text.

    A subword tokenizer may join the end of the text with what follows. The tokens of "the " are "the" and " ", but no text
    continues them with "cat", because " cat" is one token. So the last tokens are drawn, not fixed: either the text's own, or
    one that covers the rest of it. The same holds for words if the text ends with a space: another word must follow.

    Args:
        text: the beginning, or token ids separated by spaces if there is no vocabulary.
        vocabulary: of the run.
        length: the maximum number of tokens in a sequence.
        mask: further limits on the tokens, if any.

    Returns:
        The fixed ids, and the mask for drawing the others.

    Raises:
        ValueError: a token is not in the vocabulary, or is not an id; or no sequence begins with the text, or it is too long.
    """
    ids = encode_prefix(text, vocabulary)
    if not text or vocabulary is None or vocabulary.kind == "integers":
        return ids, mask
    is_whole, subwords = vocabulary.decode(ids).startswith(text), vocabulary.kind == "subwords"
    if is_whole and not subwords:
        return ids, mask
    start = last = len(ids) - is_whole
    if last >= length:
        raise ValueError(f"The prefix {text!r} takes {last + 1} tokens, more than the {length} of a sequence; shorten it.")
    limits = {last: _covering(text, ids[:last], vocabulary)}
    if not limits[last].any():
        raise ValueError(
            f"No sequence begins with {text!r}: in the run's {vocabulary.kind} it reads {vocabulary.decode(ids)!r}. Use that."
        )
    longest = max(map(len, vocabulary.tokens)) if subwords else 0
    for position in reversed(range(last)):
        if len(text) - len(vocabulary.decode(ids[:position])) > longest:
            break
        limits[position] = _covering(text, ids[:position], vocabulary)
        if limits[position].any():
            start = position
        limits[position][ids[position]] = True

    def limited(prefix: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        allowed = np.ones(vocabulary.size, dtype=np.bool_) if mask is None else mask(prefix)
        open_yet = start <= len(prefix) <= last and prefix.tolist() == ids[: len(prefix)]
        return allowed & limits[len(prefix)] if open_yet else allowed

    return ids[:start], limited


def _covering(text: str, ids: list[int], vocabulary: Vocabulary) -> npt.NDArray[np.bool_]:
    """The tokens that, appended to some ids, spell the beginning of a text or more: `(vocab_size,)` bool."""
    return np.array([vocabulary.decode([*ids, token]).startswith(text) for token in range(vocabulary.size)])


def _text_lines(vocabulary: Vocabulary | None, pad: int) -> Callable[[Tensor], list[str]]:
    return lambda tokens: [one_line(text) for text in lines_of(tokens, vocabulary, pad)]


def _json_lines(generator: TokenModel, vocabulary: Vocabulary | None) -> Callable[[Tensor], list[str]]:
    """Sequences as JSON objects; tokens, length and likelihood include the end token."""
    pad = generator.vocab_size

    def lines(tokens: Tensor) -> list[str]:
        texts = [None] * len(tokens) if vocabulary is None else lines_of(tokens, vocabulary, pad)
        written = [[token for token in row if token != pad] for row in tokens.tolist()]
        return [
            json.dumps({"tokens": ids, "text": text, "length": len(ids), "nll": nll}, ensure_ascii=False)
            for ids, text, nll in zip(written, texts, generator.nll(tokens).tolist(), strict=True)
        ]

    return lines
