"""Generators by name: what train.py can ask for, and what a file of weights says of itself."""

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
    """The generator's kind and sizes."""

    kind: GeneratorKind = "lstm"
    """An LSTM, as published, or a small causal Transformer."""
    embedding_dim: Width = 32
    """Width of the token embedding; of a Transformer's layers, too."""
    hidden_dim: Width = 32
    """Width of an LSTM's recurrent state, or inside a Transformer's feed-forward parts."""
    n_layers: FewInt = 1
    """Layers."""
    n_heads: PositiveInt = 4
    """Attention heads of a Transformer; they share embedding-dim. An LSTM has none."""
    dropout: Share = 0.0
    """Share of the features that maximum likelihood sets to 0; the policy gradient uses none."""
    tied: bool = False
    """The output layer's weights are the embedding's; an LSTM then needs embedding-dim = hidden-dim."""
    initial_std: NonNegativeFloat = 0.1
    """Standard deviation of the initial parameters."""


class GeneratorMaker(Protocol):
    """Makes a generator for a game: a function, or a class derived from `TokenModel` with such arguments."""

    def __call__(
        self, vocab_size: int, *, sequence_length: int, end_token: int | None, generator: torch.Generator
    ) -> TokenModel:
        """A generator of sequences of at most `sequence_length` tokens, its parameters drawn by `generator`."""


def make_generator(
    config: GeneratorConfig,
    vocab_size: int,
    *,
    sequence_length: int,
    end_token: int | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> TokenModel:
    """The generator that a config describes.

    Args:
        config: kind and sizes.
        vocab_size: number of tokens that can be written.
        sequence_length: the most tokens of a sequence; an LSTM takes any.
        end_token: ends a sequence when it is sampled.
        generator: source of the initial parameters, on the CPU; without one they are left for a file to fill.
        device: where the parameters lie.

    Raises:
        ValueError: another kind, or sizes that do not go together.
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
    """The fields of a `GeneratorConfig`, and the `sequence_length`, that make a generator of the same kind and sizes.

    Raises:
        TypeError: a generator of one's own, which has no name to be made from again.
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
            f"A {type(generator).__name__} has no name to be made from again, as a TokenLSTM and a TokenTransformer have: "
            "keep its parameters by save_weights, and read them into a new one by load_weights."
        )
    assert isinstance(generator, TokenLSTM | TokenTransformer)
    return own | {
        "embedding_dim": generator.embedding.embedding_dim,
        "hidden_dim": generator.hidden_dim,
        "dropout": generator.dropout.p,
        "tied": generator.tied,
    }
