"""A custom reward for short words beside the discriminator. The mixture is ORGAN's (Guimaraes et al., 2017, eq. 5).

python examples/own_reward.py
"""

from pathlib import Path

import torch

from agents import PretrainConfig, Reinforce, pretrain
from seqgan_env import (
    SequenceVectorEnv,
    TextCNNConfig,
    read_corpus,
    text_game,
)

DATA = Path(__file__).parent / "sentences.txt"
BATCH = 64


def short_words(sentences: list[str]) -> list[float]:
    """The share of words with at most three letters in each sentence of a batch."""
    words = [sentence.split() for sentence in sentences]
    return [sum(len(word) <= 3 for word in row) / max(1, len(row)) for row in words]


def train(weight: float, updates: int = 40, seed: int = 0) -> tuple[float, float]:
    """Train on `weight` times short words and 1 - `weight` times the discriminator, from a likelihood start.

    Returns:
        The mean share of short words in the generator's samples, before and after the adversarial updates.
    """
    corpus = read_corpus(DATA)
    vocabulary, length = corpus.vocabulary, corpus.tokens.shape[1]
    config = TextCNNConfig(widths=(1, 2, 3), n_filters=(32,) * 3, embedding_dim=16, learning_rate=1e-3, epochs=1)
    wanted = {"objective": short_words, "objective_weight": weight, "objective_batched": True} if weight else {}
    rules = {"discriminator": config, "scaling": "centred", "model_seed": seed, **wanted}
    game = text_game(corpus, reward="rollout", n_rollouts=2, **rules)
    env = SequenceVectorEnv(game, BATCH, autoreset_mode="SameStep")
    agent = Reinforce("GeneratorPolicy", env, learning_rate=0.01, seed=seed)
    start = PretrainConfig(epochs=5, learning_rate=0.02)
    pretrain(agent.generator, game.real_sequences, start, torch.Generator().manual_seed(seed))

    def mean_share() -> float:
        tokens, _ = agent.generator.sample(500, length, torch.Generator().manual_seed(seed + 1))
        return sum(short_words([vocabulary.decode(row) for row in tokens.tolist()])) / 500

    before = mean_share()
    agent.begin(updates)
    for update in range(1, updates + 1):
        agent.update()
        if update % 2 == 0:
            agent.retrain_reward_model(256)
    return before, mean_share()


if __name__ == "__main__":
    for weight in (0.0, 0.8):
        before, after = train(weight)
        print(f"weight {weight} on short words: their share {before:.3f} -> {after:.3f}")
