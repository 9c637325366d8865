"""A mixture of generators: their mean distribution at each position."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqgan_env.models.token_model import TokenModel


class TokenMixture(TokenModel):
    """Several generators as one: a token's probability is the mean of the members' probabilities.

    Its hidden states are the log-probabilities themselves, `(..., vocab_size)`.

    Args:
        members: generators with the same vocabulary size and end token.

    Raises:
        ValueError: there are no members, or their vocabulary sizes or end tokens differ.
    """

    def __init__(self, members: Sequence[TokenModel]) -> None:
        kinds = {(member.vocab_size, member.end_token) for member in members}
        if len(kinds) != 1:
            raise ValueError(
                "A mixture needs members that share a vocabulary size and an end token, got "
                f"{sorted(kinds, key=str) or 'no members'}."
            )
        super().__init__(members[0].vocab_size, end_token=members[0].end_token)
        self.members = nn.ModuleList(members)
        self.output = nn.Identity()
        self.eval()

    @property
    def models(self) -> list[TokenModel]:
        """The members."""
        return [member for member in self.members if isinstance(member, TokenModel)]

    def hidden(self, tokens: Tensor) -> Tensor:
        """Log-probabilities `(n, length, vocab_size)` of each token of `tokens` `(n, length)`."""
        return _mean(torch.stack([torch.log_softmax(member.logits(tokens), dim=-1) for member in self.models]))

    def initial_state(self, n: int) -> tuple[Any, ...]:
        """The members' states before the start token."""
        return tuple(member.initial_state(n) for member in self.models)

    def step(self, tokens: Tensor, state: tuple[Any, ...]) -> tuple[Tensor, tuple[Any, ...]]:
        """Read tokens `(n,)` int64; return log-probabilities `(n, vocab_size)` of the next token, and the new state.

        The members keep equal weights throughout a prefix, no matter how well each has predicted it.
        """
        steps = [member.step(tokens, own) for member, own in zip(self.models, state, strict=True)]
        log_probs = torch.stack([torch.log_softmax(logits, dim=-1) for logits, _ in steps])
        return _mean(log_probs), tuple(own for _, own in steps)

    def log_prob(self, tokens: Tensor) -> Tensor:
        """See `TokenModel.log_prob`; does not hold all logits of a member in memory."""
        played = tokens < self.vocab_size
        return _mean(torch.stack(self.log_probs(tokens))) * played

    def log_probs(self, tokens: Tensor) -> list[Tensor]:
        """`log_prob` of each member separately."""
        return [member.log_prob(tokens) for member in self.models]


def _mean(log_probs: Tensor) -> Tensor:
    """Log of the mean of probabilities over the first axis."""
    return log_probs.logsumexp(dim=0) - math.log(len(log_probs))
