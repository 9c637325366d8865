"""A custom generator, a GRU instead of the LSTM, in maximum likelihood, policy gradient and Monte Carlo search.

python examples/own_generator.py
"""

import torch
from torch import Tensor, nn

from agents import DiscriminatorCallback, PretrainConfig, Reinforce, pretrain
from seqgan_env import SequenceVectorEnv, TextCNNConfig, TokenModel, oracle_game


class TokenGRU(TokenModel):
    """Embedding, GRU and a linear layer. `hidden` reads whole sequences at once, `step` one token of each."""

    def __init__(self, vocab_size: int, *, sequence_length: int, end_token: int | None, generator: torch.Generator) -> None:
        super().__init__(vocab_size, end_token=end_token)
        self.embedding = nn.Embedding(vocab_size + 1, 32)  # the last row is for the start token, whose id is also padding
        self.gru = nn.GRU(32, 32, batch_first=True)
        self.output = nn.Linear(32, vocab_size)
        self.draw_parameters(generator, 0.1)  # from the agent's seed

    def hidden(self, tokens: Tensor) -> Tensor:
        """The states `(n, length, 32)` from which each token is predicted; `inputs` begins with the start token."""
        hidden: Tensor = self.gru(self.embedding(self.inputs(tokens)))[0]
        return hidden

    def initial_state(self, n: int) -> Tensor:
        """Zeros `(n, 32)`, with rows on the first axis so that Monte Carlo search can select and repeat them."""
        return torch.zeros(n, 32, device=self.device, dtype=self.dtype)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Read one token per row; return logits `(n, vocab_size)` of the next ones, and a new state (the old one is kept)."""
        _, new_state = self.gru(self.embedding(tokens).unsqueeze(1), state.unsqueeze(0))
        return self.output(new_state.squeeze(0)), new_state.squeeze(0)


def main(updates: int = 40, seed: int = 0) -> dict[str, list[float]]:
    """Learn a small oracle's language; return NLL_oracle and NLL_test at the start, after likelihood, and at the end."""
    small = TextCNNConfig(widths=(2, 3), n_filters=(32, 32), embedding_dim=16, learning_rate=3e-3, epochs=1)
    game = oracle_game(10, 30, n_real=5000, reward="rollout", n_rollouts=2, scaling="log", discriminator=small)
    env = SequenceVectorEnv(game, 64, autoreset_mode="SameStep")
    agent = Reinforce("GeneratorPolicy", env, learning_rate=3e-3, policy_kwargs={"make_generator": TokenGRU}, seed=seed)
    assert game.search.policy is agent.generator  # it also writes the completions
    oracle = game.oracle
    assert oracle is not None
    held_out, _ = oracle.sample(1000, 10, torch.Generator().manual_seed(1))
    measured: dict[str, list[float]] = {"NLL_oracle": [], "NLL_test": []}

    def measure() -> None:
        samples, _ = agent.generator.sample(2000, 10, torch.Generator().manual_seed(2))
        measured["NLL_oracle"].append(oracle.nll(samples).mean().item())
        measured["NLL_test"].append(agent.generator.nll(held_out).mean().item())

    measure()
    pretrain(agent.generator, game.real_sequences, PretrainConfig(epochs=3), torch.Generator().manual_seed(seed))
    measure()
    for _ in range(10):
        agent.retrain_reward_model(640)
    agent.learn(updates * 64 * 10, DiscriminatorCallback(g_steps=1, d_steps=1, n_generated=640))
    measure()
    return measured


if __name__ == "__main__":
    for name, values in main().items():
        print(f"{name}: " + " -> ".join(f"{value:.3f}" for value in values) + " nats per token")
