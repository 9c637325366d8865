"""The LSTM that serves as the oracle and as the default generator."""

from typing import Any

import torch
from torch import Tensor, nn

from seqgan_env.models.embedding import Embedding
from seqgan_env.models.token_model import SeededDropout, TiedOutput, TokenModel

State = tuple[Tensor, ...]


class TokenLSTM(TokenModel):
    """Embedding, LSTM layers and a linear layer to the logits of the next token (paper, eqs. 9 and 10, with one layer).

    The embedding has `vocab_size + 1` rows; the last one is for the start token, whose id, `vocab_size`, is also padding.

    Args:
        vocab_size: number of tokens that can be written.
        embedding_dim: width of the token embedding.
        hidden_dim: width of the recurrent state of each layer.
        n_layers: LSTM layers; each reads the hidden states of the one below.
        dropout: share of the features that training drops, of the embedding and of every layer's hidden states (Zaremba,
            Sutskever and Vinyals, 2014), but never of a layer's recurrent input.
        tied: use the embedding's rows as the output layer's weights (Press and Wolf, 2017).
        end_token: ends a sequence in sampling.
        initial_std: parameters start as N(0, `initial_std`²); the paper has 0.1 for the generator, 1 for the oracle.
        generator: draws the initial parameters, on the CPU; without it, they are left uninitialised, to be loaded.
        device: of the parameters.

    Raises:
        ValueError: there is no layer, dropout is outside [0, 1), or tied weights have different widths.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int = 32,
        hidden_dim: int = 32,
        *,
        n_layers: int = 1,
        dropout: float = 0.0,
        tied: bool = False,
        end_token: int | None = None,
        initial_std: float = 0.1,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(vocab_size, end_token=end_token)
        if n_layers < 1:
            raise ValueError(f"An LSTM needs at least 1 layer, got n_layers={n_layers}.")
        if tied and embedding_dim != hidden_dim:
            raise ValueError(
                "Tied weights serve as both the embedding and the output layer of an LSTM, so embedding_dim must equal "
                f"hidden_dim; got {embedding_dim} and {hidden_dim}. Make them equal, or pass tied=False."
            )
        self.hidden_dim = hidden_dim
        self.tied = tied
        self.dropout = SeededDropout(dropout)
        with torch.device("meta"):  # torch's own initialisers would advance its global generator
            self.embedding = Embedding(vocab_size + 1, embedding_dim)
            self.lstm = nn.LSTM(embedding_dim, hidden_dim, batch_first=True)
            # Single layers: between the layers of one LSTM, torch's dropout would draw from the global generator.
            self.upper = nn.ModuleList(nn.LSTM(hidden_dim, hidden_dim, batch_first=True) for _ in range(n_layers - 1))
            self.output = TiedOutput(self.embedding) if tied else nn.Linear(hidden_dim, vocab_size)
        self.to_empty(device=device)
        if generator is not None:
            self.draw_parameters(generator, initial_std)
            with torch.no_grad():
                for layer in self.layers:
                    layer.get_parameter("bias_hh_l0").zero_()  # torch has two biases, the equations one
        self.eval()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copy; cuDNN needs a layer's weights in one block of memory, which copying does not keep."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        for layer in self.layers:
            layer.flatten_parameters()

    @property
    def layers(self) -> list[nn.LSTM]:
        """The LSTM layers, lowest first."""
        return [self.lstm, *(layer for layer in self.upper if isinstance(layer, nn.LSTM))]

    @property
    def recordable(self) -> bool:
        """See `cuda_graphs.Recordable`. False for subclasses and other output layers."""
        return type(self) is TokenLSTM and self.linear_output() is not None

    def initial_state(self, n: int) -> State:
        """The state before the start token: hidden and cell state of each layer in turn, `(n, hidden_dim)` each, zeros."""
        zeros = torch.zeros(n, self.hidden_dim, device=self.device, dtype=self.dtype)
        return (zeros, zeros) * len(self.layers)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens `(n,)` int64; return logits `(n, vocab_size)` of the next token, and the new state."""
        features, state = self.advance(tokens, state)
        return self.output(features), state

    def advance(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """`step` without the last layer: return the features `(n, hidden_dim)` that `output` reads, and the new state."""
        features = self.dropout(self.embedding(tokens))
        new_state: list[Tensor] = []
        for layer, hidden, cell in zip(self.layers, state[::2], state[1::2], strict=True):
            if features.is_cuda:  # cuDNN takes seven times as long for one token each of 10,000 sequences, on an H100
                hidden, cell = torch.lstm_cell(features, (hidden, cell), *layer.all_weights[0])
            else:
                _, both = layer(features.unsqueeze(1), (hidden.unsqueeze(0), cell.unsqueeze(0)))
                hidden, cell = (part.squeeze(0) for part in both)
            new_state += (hidden, cell)
            features = self.dropout(hidden)
        return features, tuple(new_state)

    def hidden(self, tokens: Tensor) -> Tensor:
        """The highest layer's hidden states `(n, length, hidden_dim)` from which `tokens` `(n, length)` are predicted."""
        features: Tensor = self.dropout(self.embedding(self.inputs(tokens)))
        for layer in self.layers:
            features = self.dropout(layer(features)[0])
        return features
