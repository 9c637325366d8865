"""`python -m seqgan_env sample`: what a run's generator writes, to a file, as much as one likes."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor
from tqdm.auto import tqdm

from seqgan_env.reward_functions import load_function
from seqgan_env.sampling import Mask, sample_sequences
from seqgan_env.storage import LAST, load_checkpoints, load_game
from seqgan_env.token_model import TokenModel
from seqgan_env.vocabulary import Vocabulary, lines_of

_CHUNK = 1000  # sequences that are held at once; one number, because the draws of a seed depend on it

_SEED_OFFSET = 6_000_003  # samples shall not share the random numbers that wrote the oracle's training data


@dataclass(frozen=True)
class Sample:
    """Write what a run's generator samples to a file, a sequence a line."""

    run: Path
    """The run's folder."""
    out: Path
    """The file to write; it is overwritten."""
    n: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 10_000
    """How many sequences."""
    temperature: float = 1.0
    """Divides the logits: below 1 the samples are safer and more alike, above 1 wilder."""
    prefix: str = ""
    """What every sequence starts with: text, or the token ids of an oracle's run."""
    mask: str | None = None
    """A function of your own, module:name, of what is written: token ids (k,) to a bool for each token, whether it may
    follow."""
    seed: int = 0
    """Draws the tokens."""
    format: Literal["text", "jsonl"] = "text"
    """text: sequences alone; jsonl: objects with tokens, text, length, and nll in nats per token."""
    checkpoint: str = LAST
    """Which generator writes."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """Where to compute."""

    def __call__(self) -> None:
        """Sample, and write line by line.

        Raises:
            ValueError: numbers out of range, a prefix that cannot be gone on with, a mask that is none or allows nothing, or
                damaged files.
            OSError: no such run or checkpoint, or the file cannot be written.
        """
        game = load_game(self.run, self.device)
        (generator,) = load_checkpoints(self.run, game, [self.checkpoint]).values()
        prefix = encode_prefix(self.prefix, game.vocabulary)
        rng = torch.Generator(game.device).manual_seed(self.seed + _SEED_OFFSET)
        mask = None if self.mask is None else load_function(self.mask)
        chunks = sample_with(
            generator, self.n, game.sequence_length, rng, temperature=self.temperature, prefix=prefix, mask=mask
        )
        line_of = (
            _json_lines(generator, game.vocabulary)
            if self.format == "jsonl"
            else _text_lines(game.vocabulary, game.vocab_size)
        )
        with (
            self.out.open("w", encoding="utf-8", newline="\n") as file,
            tqdm(total=self.n, desc="sampling", unit="sequence", disable=None) as bar,
        ):
            for tokens in chunks:
                file.writelines(line + "\n" for line in line_of(tokens))
                bar.update(len(tokens))
        print(f"{self.n:,} sequences in {self.out}")


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
    """Sample from a generator, on conditions; a part at a time, so that any number fits into memory.

    Args:
        generator: what writes.
        n: how many sequences.
        length: the most tokens of a sequence.
        rng: on the generator's device; the same one samples the same sequences.
        temperature: divides the logits.
        prefix: ids that every sequence starts with, fewer than `length`.
        mask: maps a prefix `(k,)` to the tokens that may follow, `(vocab_size,)` bool.

    Returns:
        An iterator over sequences `(m, length)` int64, `n` in all, padded with the vocabulary size.

    Raises:
        ValueError: fewer than one sequence, or a temperature that is not positive; and, once sequences are asked for, a
            prefix that cannot be gone on with, or a mask that allows nothing.
    """
    if n < 1:
        raise ValueError(f"The number of sequences must be at least 1, got {n}.")
    if not 0 < temperature < math.inf:
        raise ValueError(f"The temperature must be positive and finite, got {temperature}. Near 0, samples become greedy.")

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
    """The ids of a prefix: of its text by the vocabulary; without one, ids separated by spaces.

    Raises:
        ValueError: tokens that the vocabulary does not have, or that are no ids.
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
        raise ValueError(f"The prefix {prefix!r} cannot be gone on with: {error}") from error
    if vocabulary.unknown_token in ids:
        raise ValueError(
            f"The prefix {prefix!r} has tokens that the run's vocabulary does not have; it reads {vocabulary.decode(ids)!r}."
        )
    return ids


def _text_lines(vocabulary: Vocabulary | None, pad: int) -> Callable[[Tensor], list[str]]:
    return lambda tokens: lines_of(tokens, vocabulary, pad)


def _json_lines(generator: TokenModel, vocabulary: Vocabulary | None) -> Callable[[Tensor], list[str]]:
    """Sequences as JSON objects; the end token is among the tokens, and counts in the length and the likelihood."""
    pad = generator.vocab_size

    def lines(tokens: Tensor) -> list[str]:
        texts = [None] * len(tokens) if vocabulary is None else lines_of(tokens, vocabulary, pad)
        written = [[token for token in row if token != pad] for row in tokens.tolist()]
        return [
            json.dumps({"tokens": ids, "text": text, "length": len(ids), "nll": nll}, ensure_ascii=False)
            for ids, text, nll in zip(written, texts, generator.nll(tokens).tolist(), strict=True)
        ]

    return lines
