"""The work of each piece in floating-point operations, computed from sizes; a multiply-add counts as two.

Only matrix products count: they are all but a few percent of the work. The plain algorithm is counted, so a piece that does
less, or uses less precision, can exceed 100% of the machine's limit.
"""

from dataclasses import dataclass, field

from agents.experiment.presets import PRESETS
from seqgan_env.rewards.text_cnn import TextCNNConfig, widths_within

_BACKWARD_TOO = 3
"""Training takes three passes: forward, the gradients of the inputs, and the gradients of the weights."""


@dataclass(frozen=True)
class Shape:
    """The sizes of all measurements; the defaults are the paper's."""

    vocab_size: int = 5000
    """Number of tokens."""
    sequence_length: int = 20
    """Tokens in a sequence."""
    embedding_dim: int = 32
    """Width of the generator's token embedding."""
    hidden_dim: int = 32
    """Width of the generator's recurrent state."""
    batch_size: int = 64
    """Sequences per step of likelihood training, and episodes per generator step."""
    n_rollouts: int = 16
    """Monte Carlo completions of each prefix."""
    discriminator: TextCNNConfig = field(default_factory=lambda: PRESETS["paper"][0].discriminator)
    """The discriminator; windows wider than the sequence are left out."""
    n_samples: int = 10_000
    """Sequences to sample, and in a likelihood epoch."""
    fit_steps: int | None = None
    """Discriminator steps to time at its own batch size; by default 40 on a CPU and 320 on a GPU. Fewer for larger batches,
    on a GPU in more passes."""

    @property
    def cnn(self) -> TextCNNConfig:
        """The discriminator with the windows that fit into the sequence."""
        return widths_within(self.sequence_length, self.discriminator)


def token_row(shape: Shape) -> int:
    """One token of one sequence: four gates that read embedding and state, 2·4·h·(e + h); logits, 2·h·V."""
    hidden = shape.hidden_dim
    return 2 * 4 * hidden * (shape.embedding_dim + hidden) + 2 * hidden * shape.vocab_size


def sampling(shape: Shape, n: int) -> int:
    """`n` sequences of T token-rows each."""
    return n * shape.sequence_length * token_row(shape)


def likelihood(shape: Shape, n: int) -> int:
    """Likelihood training on `n` sequences: three passes over the token-rows of sampling."""
    return _BACKWARD_TOO * sampling(shape, n)


def discriminator_steps(sequence_length: int, config: TextCNNConfig, steps: int) -> int:
    """`steps` training steps: three passes over each sequence of a batch."""
    return steps * config.batch_size * _BACKWARD_TOO * config.operations(sequence_length)


def completion_rows(shape: Shape) -> int:
    """Token-rows of completions: N for each prefix of l = 1 … T - 1 tokens, T - l tokens each; their sum is N·T·(T - 1)/2."""
    length = shape.sequence_length
    return shape.batch_size * shape.n_rollouts * length * (length - 1) // 2


def scored_sequences(shape: Shape) -> int:
    """Sequences to score: N completions of T - 1 prefixes, and the sequence itself."""
    return shape.batch_size * (shape.n_rollouts * (shape.sequence_length - 1) + 1)


def rewards(shape: Shape) -> int:
    """Monte Carlo rewards of a batch: completions and their scores."""
    judged = shape.cnn.operations(shape.sequence_length)
    return completion_rows(shape) * token_row(shape) + scored_sequences(shape) * judged


def generator_step(shape: Shape) -> int:
    """A generator step: sample a batch, compute its rewards, and learn from it (four passes over its token-rows)."""
    n = shape.batch_size
    return sampling(shape, n) + rewards(shape) + likelihood(shape, n)
