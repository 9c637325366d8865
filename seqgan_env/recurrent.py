"""The one LSTM of the project: the generator and the oracle are both one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgan_env.sampling import rows_per_chunk, sample_sequences

State = tuple[Tensor, Tensor]


class TokenLSTM(nn.Module):
    """Embedding, one LSTM layer and a linear layer to the logits of the next token (paper, eqs. 9 and 10).

    The embedding has `vocab_size + 1` rows: the last one is read for the start token, whose id, `vocab_size`, also pads.

    Args:
        vocab_size: number of tokens that can be written.
        embedding_dim: width of the token embedding.
        hidden_dim: width of the recurrent state.
        end_token: ends a sequence when it is sampled.
        initial_std: parameters start as N(0, `initial_std`²); the paper has 0.1 for the generator, 1 for the oracle.
        generator: source of the initial parameters, on the CPU; without one they are left for a file to fill.
        device: where the parameters lie.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int = 32,
        hidden_dim: int = 32,
        *,
        end_token: int | None = None,
        initial_std: float = 0.1,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        if vocab_size < 2:
            raise ValueError(f"A vocabulary needs at least 2 tokens to choose from, got vocab_size={vocab_size}.")
        self.vocab_size = vocab_size
        self.hidden_dim = hidden_dim
        self.end_token = end_token
        with torch.device("meta"):  # torch's own initialisers would draw from its global generator, which is not ours to move
            self.embedding = nn.Embedding(vocab_size + 1, embedding_dim)
            self.lstm = nn.LSTM(embedding_dim, hidden_dim, batch_first=True)
            self.output = nn.Linear(hidden_dim, vocab_size)
        self.to_empty(device=device)
        if generator is not None:
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * initial_std)
                self.lstm.get_parameter("bias_hh_l0").zero_()  # torch has two biases where the equations have one

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return self.output.weight.device

    def initial_state(self, n: int) -> State:
        """The state before the start token: hidden and cell, `(n, hidden_dim)` each, zeros."""
        zeros = torch.zeros(n, self.hidden_dim, device=self.device, dtype=self.output.weight.dtype)
        return zeros, zeros

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens `(n,)` int64; return logits `(n, vocab_size)` of the next token, and the new state."""
        hidden, cell = state
        _, (hidden, cell) = self.lstm(self.embedding(tokens).unsqueeze(1), (hidden.unsqueeze(0), cell.unsqueeze(0)))
        hidden, cell = hidden.squeeze(0), cell.squeeze(0)
        return self.output(hidden), (hidden, cell)

    def hidden(self, tokens: Tensor) -> Tensor:
        """The hidden state `(n, length, hidden_dim)` from which each token of `tokens` `(n, length)` is predicted."""
        start = torch.full_like(tokens[:, :1], self.vocab_size)
        hidden: Tensor = self.lstm(self.embedding(torch.cat([start, tokens[:, :-1]], dim=1)))[0]
        return hidden

    def logits(self, tokens: Tensor) -> Tensor:
        """Logits `(n, length, vocab_size)` of each token of `tokens` `(n, length)`, given those before it."""
        logits: Tensor = self.output(self.hidden(tokens))
        return logits

    def log_prob(self, tokens: Tensor) -> Tensor:
        """Log-probability in nats of each token given those before it, from the start token on.

        Args:
            tokens: `(n, length)` int64, padded with `vocab_size`.

        Returns:
            `(n, length)`; 0 at padding. Gradients flow.
        """
        if self.end_token is None:
            logits = self.logits(tokens).flatten(0, 1)
            nats = F.cross_entropy(logits, tokens.flatten(), ignore_index=self.vocab_size, reduction="none")
            return -nats.view(tokens.shape)
        written = tokens < self.vocab_size  # padding needs no logits, which are nearly all of the work
        log_probs = -F.cross_entropy(self.output(self.hidden(tokens)[written]), tokens[written], reduction="none")
        return torch.zeros(tokens.shape, dtype=log_probs.dtype, device=tokens.device).masked_scatter(written, log_probs)

    @torch.no_grad()
    def nll(self, tokens: Tensor) -> Tensor:
        """Negative log-likelihood of each sequence, in nats per token: `(n,)`, float64 mean over its own tokens."""
        chunk = max(1, rows_per_chunk(self.vocab_size) // tokens.shape[1])
        lengths = (tokens < self.vocab_size).sum(dim=1)
        sums = torch.cat([self.log_prob(part).double().sum(dim=1) for part in tokens.split(chunk)])
        return -sums / lengths

    def sample(
        self, n: int, length: int, generator: torch.Generator, *, inverse_temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Sample sequences; see `seqgan_env.sampling.sample_sequences`."""
        return sample_sequences(
            self,
            n,
            length,
            self.vocab_size,
            generator,
            end_token=self.end_token,
            inverse_temperature=inverse_temperature,
        )

    def extra_repr(self) -> str:
        """What torch prints beside the layers."""
        return f"vocab_size={self.vocab_size}, end_token={self.end_token}"
