"""The trace of an episode: the data that the inspector shows for each token, and its JSON form."""

import dataclasses
import json
from dataclasses import dataclass
from typing import NoReturn

from seqgan_env.support.json_dataclasses import Finite, dataclass_from_json

SCHEMA = 1
"""The schema version of a trace's JSON; it grows whenever a field changes its meaning."""


@dataclass(frozen=True)
class TracedCompletion:
    """One of the rollout policy's completions of the sequence."""

    tokens: tuple[int, ...]
    """The tokens written after the prefix."""
    score: Finite
    """The reward model's score of the whole sequence."""


@dataclass(frozen=True)
class TracedStep:
    """One token of an episode: a state, the action taken there, and its value."""

    prefix_length: int
    """The number of tokens before this one."""
    token: int
    """The action."""
    log_prob: Finite
    """Its log-probability in nats."""
    rank: int
    """The number of likelier tokens, plus 1."""
    entropy: Finite
    """Entropy of the policy here, in nats."""
    top_k: tuple[tuple[int, Finite], ...]
    """The likeliest tokens and their probabilities, in falling order."""
    q: Finite
    """Mean score of the completions (paper, eq. 4); for the last token the reward of the sequence."""
    q_standard_error: Finite | None
    """Standard error of that mean; 0 for the last token, None if there is only one completion."""
    completions: tuple[TracedCompletion, ...]
    """All completions; none for the last token, because it completes the sequence itself."""
    reward: Finite
    """The environment's reward under its reward contract."""
    advantage: Finite | None
    """The weight of this token's log-probability in the policy gradient; None if no `advantage_fn` was given."""


@dataclass(frozen=True)
class EpisodeTrace:
    """A whole episode.

    Raises:
        ValueError: there are no steps, more than `sequence_length`, or steps in the wrong order.
    """

    reward_contract: str
    """See `seqgan_env.game.contract_rewards`."""
    gamma: Finite
    """The contract's discount."""
    n_rollouts: int
    """Completions of each prefix."""
    vocab_size: int
    sequence_length: int
    """The maximum number of tokens in an episode."""
    end_token: int | None
    joiner: str
    """The string between the names of two tokens."""
    token_names: dict[int, str]
    """Text of the tokens that occur; empty if the tokens are only numbers."""
    discriminator_probability: Finite | None
    """The discriminator's probability that the sequence is real, if the game has a discriminator."""
    oracle_nll: Finite | None
    """Negative log-likelihood under the oracle, in nats per token, if the game has an oracle."""
    sequence_reward: Finite
    """The sequence's reward, R."""
    steps: tuple[TracedStep, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.steps) <= self.sequence_length:
            raise ValueError(f"A trace has 1 to sequence_length={self.sequence_length} steps, got {len(self.steps)}.")
        if [step.prefix_length for step in self.steps] != list(range(len(self.steps))):
            raise ValueError("The steps of a trace must have prefixes of length 0, 1, 2 and so on.")

    @property
    def tokens(self) -> tuple[int, ...]:
        """The sequence."""
        return tuple(step.token for step in self.steps)

    def name(self, token: int) -> str:
        """A token's text, or its number if it has none."""
        return self.token_names.get(token, str(token))

    def to_json(self) -> str:
        """The trace as a JSON object, ASCII only.

        Raises:
            ValueError: a score or another number in it is not finite.
        """
        try:
            return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, allow_nan=False, separators=(",", ":"))
        except ValueError as error:
            raise ValueError("A trace with NaN or infinite numbers has no JSON form; are all rewards finite?") from error

    @classmethod
    def from_json(cls, text: str) -> "EpisodeTrace":
        """The trace that `to_json` wrote.

        Raises:
            ValueError: the text was not written by `to_json`, or has another schema version.
        """
        try:
            fields = json.loads(text, parse_constant=_refuse_constant)
            schema = fields.pop("schema")
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise ValueError(f"Not a trace as written by EpisodeTrace.to_json: {error!r}.") from error
        if schema != SCHEMA:
            raise ValueError(
                f"This trace has schema {schema!r}, but this version of seqgan_env reads schema {SCHEMA}: "
                "trace the episode again, or use the version that wrote it."
            )
        try:
            return dataclass_from_json(cls, fields)
        except ValueError as error:
            raise ValueError(f"Not a trace as written by EpisodeTrace.to_json: {error}.") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
