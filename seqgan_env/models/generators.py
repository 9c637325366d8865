"""Generators by name: their configuration, construction and description in files of weights."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.token_model import TokenModel
from seqgan_env.models.transformer import TokenTransformer
from seqgan_env.support.settings import FewInt, NonNegativeFloat, PositiveInt, Share, Width

GeneratorKind = Literal["lstm", "transformer"]


@dataclass(frozen=True)
class GeneratorConfig:
    """The generator's architecture."""

    kind: GeneratorKind = "lstm"
    """An LSTM, as published, or a small causal Transformer."""
    embedding_dim: Width = 32
    """Width of the token embedding, and of a Transformer's layers."""
    hidden_dim: Width = 32
    """Width of an LSTM's recurrent state, or inside a Transformer's feed-forward layers."""
    n_layers: FewInt = 1
    """Number of layers."""
    n_heads: PositiveInt = 4
    """Attention heads of a Transformer, which divide embedding-dim among them. An LSTM ignores this."""
    dropout: Share = 0.0
    """Share of the features that likelihood training drops; the policy gradient uses no dropout."""
    tied: bool = False
    """Use the embedding as the output layer's weights; an LSTM then needs embedding-dim = hidden-dim."""
    initial_std: NonNegativeFloat = 0.1
    """Standard deviation of the initial parameters."""


class GeneratorMaker(Protocol):
    """A function, or a class derived from `TokenModel`, that makes a generator for a game from these arguments."""

    def __call__(
        self, vocab_size: int, *, sequence_length: int, end_token: int | None, generator: torch.Generator
    ) -> TokenModel:
        """A generator of sequences of at most `sequence_length` tokens; `generator` draws its parameters."""


def make_generator(
    config: GeneratorConfig,
    vocab_size: int,
    *,
    sequence_length: int,
    end_token: int | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> TokenModel:
    """Make the generator that a config describes.

    Args:
        config: kind and sizes.
        vocab_size: number of tokens that can be written.
        sequence_length: the maximum number of tokens in a sequence; an LSTM has no limit.
        end_token: ends a sequence in sampling.
        generator: draws the initial parameters, on the CPU; without it, they are left uninitialised, to be loaded.
        device: of the parameters.

    Raises:
        ValueError: the kind is unknown, or the sizes do not fit each other.
    """
    common: dict[str, Any] = {
        "n_layers": config.n_layers,
        "dropout": config.dropout,
        "tied": config.tied,
        "end_token": end_token,
        "initial_std": config.initial_std,
        "generator": generator,
        "device": device,
    }
    if config.kind == "lstm":
        return TokenLSTM(vocab_size, config.embedding_dim, config.hidden_dim, **common)
    if config.kind == "transformer":
        return TokenTransformer(
            vocab_size,
            config.embedding_dim,
            config.hidden_dim,
            max_length=sequence_length,
            n_heads=config.n_heads,
            **common,
        )
    raise ValueError(f"A generator's kind must be 'lstm' or 'transformer', got {config.kind!r}.")


def describe_generator(generator: TokenModel) -> dict[str, Any]:
    """The fields of a `GeneratorConfig`, and for a Transformer `sequence_length`, that make such a generator again.

    Raises:
        TypeError: it is a custom generator, which has no name.
    """
    if type(generator) is TokenLSTM:
        own: dict[str, Any] = {"kind": "lstm", "n_layers": len(generator.layers)}
    elif type(generator) is TokenTransformer:
        own = {
            "kind": "transformer",
            "n_layers": len(generator.blocks),
            "n_heads": generator.n_heads,
            "sequence_length": generator.max_length,
        }
    else:
        raise TypeError(
            f"A {type(generator).__name__} cannot be recreated by name, unlike a TokenLSTM or a TokenTransformer. "
            "Save its parameters with save_weights, and load them into a new one with load_weights."
        )
    assert isinstance(generator, TokenLSTM | TokenTransformer)
    return own | {
        "embedding_dim": generator.embedding.embedding_dim,
        "hidden_dim": generator.hidden_dim,
        "dropout": generator.dropout.p,
        "tied": generator.tied,
    }
