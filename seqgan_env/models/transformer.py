"""A small causal Transformer, usable as the generator."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqgan_env.models.embedding import Embedding
from seqgan_env.models.token_model import SeededDropout, TiedOutput, TokenModel

State = tuple[Tensor, ...]


class TokenTransformer(TokenModel):
    """A causal Transformer (Vaswani et al., 2017): layer norms before attention and feed-forward, GELU, learned positions.

    `hidden` reads whole sequences at once; `step` reads one token and caches the keys and values of those before it.

    Args:
        vocab_size: number of tokens that can be written.
        embedding_dim: width of the token embedding and of all layers' inputs and outputs.
        hidden_dim: width inside the feed-forward layers.
        max_length: the maximum number of tokens in a sequence.
        n_layers: blocks of attention and feed-forward.
        n_heads: attention heads of a block, which divide `embedding_dim` among them.
        dropout: share of the features that training drops, of the embedding and of each residual branch.
        tied: use the embedding's rows as the output layer's weights (Press and Wolf, 2017).
        end_token: ends a sequence in sampling.
        initial_std: weights and embeddings start as N(0, `initial_std`²), biases as 0.
        generator: draws the initial parameters, on the CPU; without it, they are left uninitialised, to be loaded.
        device: of the parameters.

    Raises:
        ValueError: there is no layer, the heads do not divide `embedding_dim`, the length is below 1, or dropout is outside
            [0, 1).
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int = 32,
        hidden_dim: int = 128,
        *,
        max_length: int,
        n_layers: int = 1,
        n_heads: int = 4,
        dropout: float = 0.0,
        tied: bool = False,
        end_token: int | None = None,
        initial_std: float = 0.1,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(vocab_size, end_token=end_token)
        if n_layers < 1 or max_length < 1:
            raise ValueError(f"A Transformer needs n_layers and max_length of at least 1, got {n_layers} and {max_length}.")
        if n_heads < 1 or embedding_dim % n_heads:
            raise ValueError(
                f"The heads share embedding_dim, so n_heads must divide it; got embedding_dim={embedding_dim}, "
                f"n_heads={n_heads}."
            )
        self.max_length = max_length
        self.hidden_dim = hidden_dim
        self.n_heads = n_heads
        self.tied = tied
        self.dropout = SeededDropout(dropout)
        with torch.device("meta"):  # see TokenLSTM
            self.embedding = Embedding(vocab_size + 1, embedding_dim)
            self.positions = nn.Embedding(max_length + 1, embedding_dim)  # of the start token, then of the tokens
            self.blocks = nn.ModuleList(
                TransformerBlock(embedding_dim, hidden_dim, n_heads, self.dropout) for _ in range(n_layers)
            )
            self.norm = nn.LayerNorm(embedding_dim)
            self.output = TiedOutput(self.embedding) if tied else nn.Linear(embedding_dim, vocab_size)
        self.to_empty(device=device)
        if generator is not None:
            self.draw_parameters(generator, initial_std)
        self.eval()

    @torch.no_grad()
    def draw_parameters(self, generator: torch.Generator, std: float) -> None:
        """Draw weights from N(0, `std`²); biases start at 0, layer norms as the identity."""
        super().draw_parameters(generator, std)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.fill_(1)

    def hidden(self, tokens: Tensor) -> Tensor:
        """The states `(n, length, embedding_dim)` from which each token of `tokens` `(n, length)` is predicted.

        Raises:
            ValueError: the sequences are longer than `max_length` + 1.
        """
        length = tokens.shape[1]
        self._check_inputs(length)
        positions = self.positions(torch.arange(length, device=tokens.device))
        features: Tensor = self.dropout(self.embedding(self.inputs(tokens)) + positions)
        for block in self.blocks:
            features = block(features)
        normed: Tensor = self.norm(features)
        return normed

    def initial_state(self, n: int) -> State:
        """The state before the start token: empty caches, and position 0.

        Returns:
            For each layer its keys and values, `(n, 2, n_heads, max_length + 1, embedding_dim / n_heads)`, zeros; then the
            position of each row's next input, `(n,)` int64. Rows may have different positions.
        """
        head_dim = self.embedding.embedding_dim // self.n_heads
        shape = (n, 2, self.n_heads, self.max_length + 1, head_dim)
        cache = torch.zeros(shape, device=self.device, dtype=self.dtype)
        return (*[cache] * len(self.blocks), torch.zeros(n, dtype=torch.int64, device=self.device))

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read tokens `(n,)` int64; return logits `(n, vocab_size)` of the next token, and the new state; see `advance`."""
        features, state = self.advance(tokens, state)
        return self.output(features), state

    def advance(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """`step` without the last layer: return the features `(n, embedding_dim)` that `output` reads, and the new state.

        Raises:
            ValueError: a row has already read `max_length` tokens. (On a GPU torch's own device assertion, because checking
                the position would wait for the GPU.)
        """
        *caches, position = state
        if not position.is_cuda and len(position):
            self._check_inputs(int(position.max()) + 1)
        slots = torch.arange(self.max_length + 1, device=position.device)
        here, seen = slots == position.unsqueeze(1), slots <= position.unsqueeze(1)  # (n, max_length + 1)
        features = self.dropout(self.embedding(tokens) + self.positions(position)).unsqueeze(1)
        new_caches = []
        for block, cache in zip(self.blocks, caches, strict=True):
            assert isinstance(block, TransformerBlock)
            features, cache = block.step(features, cache, here, seen)
            new_caches.append(cache)
        return self.norm(features.squeeze(1)), (*new_caches, position + 1)

    def _check_inputs(self, n_inputs: int) -> None:
        if n_inputs > self.max_length + 1:
            raise ValueError(
                f"This Transformer has positions for sequences of max_length={self.max_length} tokens, but got "
                f"{n_inputs - 1}. Create it with a larger max_length."
            )


class TransformerBlock(nn.Module):
    """Attention, then feed-forward, each with a residual connection."""

    def __init__(self, width: int, hidden_dim: int, n_heads: int, dropout: SeededDropout) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, hidden_dim)
        self.narrow = nn.Linear(hidden_dim, width)

    def forward(self, features: Tensor) -> Tensor:
        """All positions at once, `(n, length, width)`; each attends to itself and to those before it."""
        queries, keys, values = self._split(features)
        return self._add(features, F.scaled_dot_product_attention(queries, keys, values, is_causal=True))

    def step(self, features: Tensor, cache: Tensor, here: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """One position per row, `(n, 1, width)`: store its keys and values at `here`, and attend to the slots `seen`."""
        queries, *keys_and_values = self._split(features)
        cache = torch.where(here[:, None, None, :, None], torch.stack(keys_and_values, dim=1), cache)
        attended = F.scaled_dot_product_attention(queries, cache[:, 0], cache[:, 1], attn_mask=seen[:, None, None, :])
        return self._add(features, attended), cache

    def _split(self, features: Tensor) -> Tensor:
        """Queries, keys and values of each head: `(3, n, heads, length, head_dim)`."""
        n, length, width = features.shape
        every: Tensor = self.query_key_value(self.attention_norm(features))
        return every.view(n, length, 3, self.n_heads, width // self.n_heads).permute(2, 0, 3, 1, 4)

    def _add(self, features: Tensor, attended: Tensor) -> Tensor:
        """Add attention's result `(n, heads, length, head_dim)`, then the feed-forward layer's."""
        features = features + self.dropout(self.projection(attended.transpose(1, 2).flatten(2)))
        added: Tensor = self.dropout(self.narrow(F.gelu(self.widen(self.feed_norm(features)))))
        return features + added
