"""Small games, policies and reward models that several test files play with, and the contracts that they play under."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqgan_env.game import SequenceGame
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.transformer import TokenTransformer
from seqgan_env.rewards.discriminator import DiscriminatorReward
from seqgan_env.rewards.text_cnn import TextCNN, TextCNNConfig
from seqgan_env.vector_env import PlayedEpisodes, SequenceVectorEnv

V, T, END = 6, 5, 2
SMALL_CNN = TextCNNConfig(widths=(1, 3), n_filters=(6, 5), embedding_dim=4, batch_size=8, epochs=1, learning_rate=0.01)
CONTRACTS = ("terminal", "rollout", "shaped")
LAYOUTS = ("dict", "flat", "dict-mask")
LINES = ["a b c", "b c a b", "c", "a a b c a", "d d"]
IDS = {
    "SeqGAN/Oracle-v0": {"vocab_size": V, "n_real": 30},
    "SeqGAN/Text-v0": {"data": LINES},
}
contracts = pytest.mark.parametrize("reward", CONTRACTS)
layouts = pytest.mark.parametrize("layout", LAYOUTS)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_together(monkeypatch: pytest.MonkeyPatch, n: int, vocab_size: int = V) -> None:
    """Let policies write `n` rows at a time."""
    monkeypatch.setattr("seqgan_env.models.sampling.rows_per_chunk", lambda *_: n)
    monkeypatch.setattr("seqgan_env.models.sampling.LINEAR_LOGITS_PER_CHUNK", n * vocab_size)


def small_policy(seed: int = 0, *, vocab_size: int = V, std: float = 1.0, end_token: int | None = None) -> TokenLSTM:
    """A generator in float64, so that the order of sums does not decide which token is drawn."""
    policy = TokenLSTM(vocab_size, 4, 4, initial_std=std, generator=seeded(seed), end_token=end_token)
    return policy.double().requires_grad_(False)


def small_transformer(seed: int = 0, vocab_size: int = V, **options: Any) -> TokenTransformer:
    """As `small_policy`, a Transformer."""
    arguments = {"max_length": T, "n_layers": 2, "n_heads": 2, "initial_std": 0.5} | options
    model = TokenTransformer(vocab_size, 4, 6, generator=seeded(seed), **arguments)
    return model.double().requires_grad_(False)


def small_discriminator(seed: int = 0, **config: Any) -> DiscriminatorReward:
    return DiscriminatorReward(TextCNN(V, T, TextCNNConfig(**{**vars(SMALL_CNN), **config}), seed=seed))


def no_repeats(prefix: np.ndarray) -> np.ndarray:
    """A mask: no token twice."""
    allowed = np.ones(V, dtype=np.bool_)
    allowed[prefix] = False
    return allowed


def nothing_allowed(prefix: np.ndarray) -> np.ndarray:
    return np.zeros(V, dtype=np.bool_)


class KeepsEpisodes(SequenceVectorEnv):
    """Keeps the tokens of the latest episodes that were played as a whole."""

    def play(self, tokens: Tensor) -> PlayedEpisodes:
        self.tokens = tokens.clone()
        return super().play(tokens)


class Ordinal:
    """A reward model that can be worked out by hand: token at position p counts (p + 1) times, and each length 100."""

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        weights = torch.arange(1.0, tokens.shape[1] + 1)
        return (tokens * weights).sum(dim=1) + 100 * lengths


class Recorder(Ordinal):
    """`Ordinal`, which "learns" by keeping what it was given."""

    def __init__(self) -> None:
        self.fits: list[tuple[Tensor, Tensor]] = []

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        self.fits.append((real.clone(), generated.clone()))
        return {"fits": float(len(self.fits))}


def real_sequences(n: int = 20, seed: int = 7) -> Tensor:
    return torch.randint(V, (n, T), generator=seeded(seed))


def with_padding(n: int, seed: int = 3) -> Tensor:
    """Sequences of which some are padded."""
    tokens = real_sequences(n, seed)
    lengths = torch.randint(1, T + 1, (n, 1), generator=seeded(seed))
    return tokens.masked_fill(torch.arange(T) >= lengths, V)


def small_game(**changes: Any) -> SequenceGame:
    arguments = {"real": real_sequences(), "reward_model": Ordinal(), "n_rollouts": 4} | changes
    return SequenceGame(V, T, **arguments)


def episodes(game: SequenceGame, n: int, seed: int = 0) -> Tensor:
    """Whole episodes `(n, T)` of random tokens that the game's mask and end token allow."""
    rng = np.random.default_rng(seed)
    tokens = np.full((n, T), V, dtype=np.int64)
    for row in tokens:
        for position in range(T):
            allowed = np.ones(V, dtype=np.bool_) if game.mask is None else game.mask(row[:position])
            row[position] = rng.choice(np.flatnonzero(allowed))
            if row[position] == game.end_token:
                break
    return torch.from_numpy(tokens)


def words(n: int) -> list[str]:
    """Lines of unequal lengths, of `n` tokens in all with the end token."""
    return ["w0 w1 w2", *(f"w{index} w{index}" for index in range(n - 1))]
