"""The game that both forms of the environment play: real sequences, the values of sequences and prefixes, retraining."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, get_args

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from seqgan_env.data.corpus import Vocabulary
from seqgan_env.data.padding import TokenIds, as_sequences, played_positions
from seqgan_env.game_rules import GAMMAS, GameRules, RewardContract
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.sampling import Mask, TokenPolicy, allowed_after
from seqgan_env.observations import Layout, Observation, observation_space, observe
from seqgan_env.rewards.monte_carlo import MonteCarloSearch, UniformPolicy
from seqgan_env.rewards.reward_model import HasScore, adapt
from seqgan_env.support.errors import room_for
from seqgan_env.support.hashed_random import as_seed
from seqgan_env.support.process_group import ALONE, Workers
from seqgan_env.support.read_only import ReadOnly
from seqgan_env.support.state_dicts import load_random_state, random_state


def contract_rewards(values: Tensor, lengths: Tensor, reward: RewardContract) -> Tensor:
    """Turn action values into the rewards of a contract.

    Args:
        values: `(n, length)`, Q of each action (eq. 4); at the last one the reward R of the sequence; 0 beyond it.
        lengths: `(n,)` int64.
        reward: `"rollout"`: Q itself. `"terminal"`: R at the end, 0 before. `"shaped"`: Q_t - Q_(t-1) with Q_0 = 0, whose
            sum is R (potential-based shaping: Ng, Harada and Russell, 1999, eq. 2).

    Returns:
        `(n, length)` rewards.
    """
    if reward == "rollout":
        return values
    positions = torch.arange(values.shape[1], device=values.device)
    if reward == "terminal":
        return torch.where(positions == lengths.unsqueeze(1) - 1, values, 0.0)
    before = torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], dim=1)
    return torch.where(positions < lengths.unsqueeze(1), values - before, 0.0)


@dataclass(eq=False)
class SequenceGame(ReadOnly):
    """One game, which any number of environments can play.

    You can set `reward_model`, `n_rollouts` and `retrain_every` at any time; the change takes effect from the next step. The
    other arguments are read-only, because environments and agents are made from them.

    Args:
        vocab_size: number of tokens; the pad id.
        sequence_length: an episode ends at this number of tokens,
        end_token: or at this token, if any.
        real: real sequences `(n, sequence_length)` of token ids, padded, a tensor or an array; or a function that makes them
            when they are first needed.
        reward_model: scores finished sequences: any object with `score`; see `seqgan_env.rewards.reward_model.adapt`.
        reward: the reward contract, see `contract_rewards`.
        n_rollouts: Monte Carlo completions of each prefix.
        retrain_every: number of finished episodes after which the reward model is fitted to them and to as many real
            sequences; None leaves it to the caller of `retrain`.
        mask: maps a prefix to the tokens that may follow it.
        oracle: measures finished sequences, if it is known who wrote the real ones.
        vocabulary: turns ids into text, if any.
        device: where sequences are completed and scored.

    Raises:
        AttributeError: a read-only attribute is set.
        TypeError, ValueError: an argument is out of its range, two arguments contradict each other, or the real sequences
            have another dtype, length or vocabulary (if a function makes them, once it has made them).
    """

    read_only: ClassVar[frozenset[str]] = frozenset(
        {"vocab_size", "sequence_length", "real", "reward", "end_token", "mask", "oracle", "vocabulary", "device"}
    )

    vocab_size: int
    sequence_length: int
    real: TokenIds | Callable[[], TokenIds]
    reward_model: HasScore
    reward: RewardContract = GameRules.reward
    n_rollouts: int = GameRules.n_rollouts
    retrain_every: int | None = GameRules.retrain_every
    end_token: int | None = None
    mask: Mask | None = None
    oracle: TokenLSTM | None = None
    vocabulary: Vocabulary | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        self._check_rules()
        self._policy: TokenPolicy = UniformPolicy(self.vocab_size, self.device)
        self._workers: Workers = ALONE
        self._real = None if callable(self.real) else self._checked_real(self.real)
        self._finished: list[Tensor] = []
        self._has_learned = False
        self._rng = torch.Generator(self.device)
        self.seed(0)

    def _check_rules(self) -> None:
        if self.reward not in get_args(RewardContract):
            raise ValueError(f"reward must be one of {get_args(RewardContract)}, got {self.reward!r}.")
        for name in ("vocab_size", "sequence_length", "n_rollouts"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}.")
        if self.mask is not None and not callable(self.mask):
            raise TypeError(f"mask must be a function of a prefix, got {self.mask!r}.")
        if self.sequence_length < 1:
            raise ValueError(f"sequence_length must be at least 1, got {self.sequence_length}.")
        if self.n_rollouts < 1:
            raise ValueError(f"n_rollouts must be at least 1, got {self.n_rollouts}: a prefix is judged by its completions.")
        if self.end_token is not None and not 0 <= self.end_token < self.vocab_size:
            raise ValueError(f"end_token must be a token from 0 to {self.vocab_size - 1}, or None, got {self.end_token}.")
        if self.retrain_every is not None and self.retrain_every < 1:
            raise ValueError(f"retrain_every must be at least 1 episode or None, got {self.retrain_every}.")
        if self.retrain_every is not None and not self._model.learns:
            raise ValueError(
                f"retrain_every={self.retrain_every}, but {type(self.reward_model).__name__} does not learn: "
                "it has no fit(real, generated). Pass retrain_every=None."
            )
        if self.vocabulary is not None and self.vocabulary.size != self.vocab_size:
            raise ValueError(f"The vocabulary has {self.vocabulary.size} tokens, but vocab_size={self.vocab_size}.")
        if self.oracle is not None and self.oracle.vocab_size != self.vocab_size:
            raise ValueError(f"The oracle has {self.oracle.vocab_size} tokens, but vocab_size={self.vocab_size}.")

    @property
    def gamma(self) -> float:
        """The discount with which `reward` states the objective."""
        return GAMMAS[self.reward]

    @property
    def is_new(self) -> bool:
        """Whether nothing has happened yet: no retraining, no loaded state, and no episode kept for retraining."""
        return not (self._has_learned or self._finished)

    @property
    def real_sequences(self) -> Tensor:
        """Real sequences `(n, sequence_length)` int64, on the device."""
        if self._real is None:
            assert callable(self.real)
            self._real = self._checked_real(self.real())
        return self._real

    def _checked_real(self, real: TokenIds) -> Tensor:
        return as_sequences(real, self.vocab_size, self.sequence_length).to(self.device)

    @property
    def search(self) -> MonteCarloSearch:
        """Completes prefixes with the attached policy and scores them."""
        return MonteCarloSearch(
            self._policy,
            self._model.score,
            self.n_rollouts,
            self.vocab_size,
            score_completions=self._model.score_completions,
            end_token=self.end_token,
            mask=self.mask,
        )

    @property
    def workers(self) -> Workers:
        """The processes that share the work; see `share_work`."""
        return self._workers

    def __setattr__(self, name: str, value: Any) -> None:
        made = "_rng" in vars(self)
        if made and name in ("reward_model", "n_rollouts", "retrain_every"):
            replace(self, **{name: value})  # raises if no game can be made with it
        super().__setattr__(name, value)
        if name == "reward_model":
            self._model = adapt(value)  # `reward_model` remains the object that was passed
        if made and name == "reward_model":
            if not isinstance(self._policy, UniformPolicy):  # then none is attached
                self.attach_policy(self._policy)
            if self._workers.count > 1:
                self.share_work(self._workers)

    def observation_space(self, layout: Layout) -> spaces.Space[Any]:
        """The space of a prefix in a layout; see the environments."""
        return observation_space(self.vocab_size, self.sequence_length, layout)

    def observe(self, tokens: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], layout: Layout) -> Observation:
        """A new observation of prefixes `(..., sequence_length)` with lengths `(..., 1)` in a layout."""
        return observe(tokens, lengths, layout, self.allowed(tokens, lengths) if layout == "dict-mask" else None)

    def allowed(self, tokens: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """The tokens that may follow prefixes, `(..., vocab_size)` bool: all of them after the end, or without a mask.

        Args:
            tokens: `(..., sequence_length)`.
            lengths: `(..., 1)`.

        Raises:
            ValueError: the mask's result has another shape or type, or allows nothing.
        """
        allowed = np.ones((*tokens.shape[:-1], self.vocab_size), dtype=np.bool_)
        if self.mask is not None:
            prefixes, of_prefix = tokens.reshape(-1, self.sequence_length), allowed.reshape(-1, self.vocab_size)
            for row, length in enumerate(lengths.ravel().tolist()):
                prefix = prefixes[row, :length].copy()  # the mask may write to its argument
                if length < self.sequence_length and (self.end_token is None or self.end_token not in prefix):
                    of_prefix[row] = allowed_after(self.mask, prefix, self.vocab_size)
        return allowed

    def seed(self, seed: int) -> None:
        """Seed the choice of real sequences in retraining."""
        self._rng.manual_seed(as_seed(seed) % 2**63)

    def attach_policy(self, policy: TokenPolicy) -> None:
        """Make `policy` write the completions from now on; the game keeps a reference to it.

        Raises:
            TypeError: it lacks `initial_state(n)` or `step(tokens, state)`.
        """
        if not isinstance(policy, TokenPolicy):
            raise TypeError(
                f"A rollout policy needs initial_state(n) and step(tokens, state) -> (logits, state); "
                f"{type(policy).__name__} lacks them."
            )
        self._policy = policy
        self._model.attach_policy(policy)

    def share_work(self, workers: Workers) -> None:
        """Divide the work of `play` and `retrain` among processes, all of which call them with the same sequences.

        In each process, a custom reward model without `share_work` learns from all of them.
        """
        self._workers = workers
        self._model.share_work(workers)

    def action_values(self, tokens: Tensor, lengths: Tensor, keys: Tensor, positions: range) -> Tensor:
        """Q of the actions at `positions`, as far as the reward contract needs it; see `MonteCarloSearch.action_values`.

        There are no completions under the contract `"terminal"` (see `final_values`), nor if the reward model scores tokens
        (see `token_values`).

        Raises:
            OutOfMemory: there are too many completions.
        """
        if len(tokens) == 0:
            return torch.zeros(0, len(positions), device=self.device)
        if self.reward == "terminal":
            return self.final_values(tokens, lengths, positions)
        rows = f"the environment's rows (a run's batch_size), {len(tokens):,}"
        with room_for("the scores of a batch", rows):
            token_values = self.token_values(tokens, lengths)
        if token_values is not None:
            return token_values[:, positions.start : positions.stop]
        with room_for("the completions of a batch", f"{rows}, or n_rollouts, {self.n_rollouts:,}"):
            return self.search.action_values(tokens, lengths, keys, positions)

    def final_values(self, tokens: Tensor, lengths: Tensor, positions: range) -> Tensor:
        """R of finished sequences at their last action `(n, len(positions))`, 0 at all other `positions`."""
        values = torch.zeros(len(tokens), len(positions), device=self.device)
        last = lengths - 1 - positions.start
        finished = self.is_finished(tokens, lengths) & (last >= 0) & (last < len(positions))
        if finished.any():
            values[finished, last[finished]] = self._model.score(tokens[finished], lengths[finished])
        return values

    def token_values(self, tokens: Tensor, lengths: Tensor) -> Tensor | None:
        """Q `(n, sequence_length)` of each action, 0 at and beyond `lengths`; None unless the reward model scores tokens.

        Under `"rollout"`, with its discount 0, Q is the token's own score. Otherwise it is the sum of scores up to the
        token, which is R at the last one, so that the rewards of `"shaped"` are the tokens' scores again.
        """
        scores = self._model.token_scores(tokens, lengths)
        if scores is None or self.reward == "rollout":
            return scores
        return scores.cumsum(dim=1) * played_positions(lengths, scores.shape[1])

    def is_finished(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Whether each of the sequences `(n, sequence_length)` is a complete episode: `(n,)` bool."""
        full = lengths == self.sequence_length
        return full if self.end_token is None else full | (tokens == self.end_token).any(dim=1)

    def final_info(self, tokens: Tensor, lengths: Tensor) -> dict[str, npt.NDArray[np.float64]]:
        """Facts about finished sequences, `(n,)` each: probability of being real; the oracle's NLL in nats per token."""
        info = {}
        probability = self._model.probability(tokens)
        if probability is not None:
            info["discriminator_probability"] = probability
        if self.oracle is not None:
            info["oracle_nll"] = self.oracle.nll(tokens)
        return {key: value.double().cpu().numpy() for key, value in info.items()}

    def record(self, finished: Tensor) -> dict[str, float] | None:
        """Keep finished sequences `(n, sequence_length)`; if retraining is due, retrain on the newest and return metrics."""
        if self.retrain_every is None:
            return None
        self._finished.append(finished)
        if sum(len(part) for part in self._finished) < self.retrain_every:
            return None
        newest = torch.cat(self._finished)[-self.retrain_every :]
        self._finished.clear()
        return self.retrain(newest)

    def training_state(self) -> dict[str, Any]:
        """What changes during play: the reward model, random numbers, and sequences kept for retraining.

        Warns about a reward model that learns but has no `training_state`, and leaves it out.
        """
        for part in self._model.parts:
            if part.learns and part.training_state() is None:
                warnings.warn(
                    f"{type(part.unwrapped).__name__} learns, but what it learns is not saved: where training goes on, it "
                    "starts anew. Give it training_state() and load_training_state(state); see seqgan_env.RewardModel.",
                    stacklevel=2,
                )
        return {
            "rng": random_state(self._rng),
            "finished": list(self._finished),
            "reward_model": self._model.training_state(),
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned."""
        self._has_learned = True
        load_random_state(self._rng, state["rng"])
        self._finished = [part.to(self.device) for part in state["finished"]]
        self._model.load_training_state(state["reward_model"])

    def retrain(self, generated: Tensor) -> dict[str, float]:
        """Fit the reward model to generated sequences `(n, sequence_length)` against as many real ones, chosen at random.

        If there are fewer real ones, they repeat.

        Raises:
            TypeError: the reward model does not learn, or the sequences are not an int64 tensor.
            ValueError: there are no sequences, they have another length, or an id is out of range.
        """
        if not self._model.learns:
            raise TypeError(f"{type(self.reward_model).__name__} does not learn: it has no fit(real, generated).")
        self._check_generated(generated)
        n_real, passes = len(self.real_sequences), -(-len(generated) // len(self.real_sequences))
        orders = [torch.randperm(n_real, generator=self._rng, device=self.device) for _ in range(passes)]
        self._has_learned = True
        with torch.inference_mode(False), torch.enable_grad():  # step() is often called where gradients are turned off
            return self._model.fit(self.real_sequences[torch.cat(orders)[: len(generated)]], generated)

    def _check_generated(self, generated: Tensor) -> None:
        """Raise before anything has changed, rather than in the middle of a fit."""
        if not isinstance(generated, Tensor) or generated.dtype != torch.int64:
            kind = generated.dtype if isinstance(generated, Tensor) else type(generated).__name__
            raise TypeError(f"retrain() takes generated sequences as an int64 tensor, got {kind}.")
        if generated.ndim != 2 or len(generated) == 0 or generated.shape[1] != self.sequence_length:
            raise ValueError(
                f"retrain() takes at least one sequence, of shape (n, {self.sequence_length}), got {tuple(generated.shape)}."
            )
        if generated.min() < 0 or generated.max() > self.vocab_size:
            raise ValueError(
                f"retrain() takes token ids from 0 to {self.vocab_size - 1} and {self.vocab_size} as padding, "
                f"got ids from {int(generated.min())} to {int(generated.max())}."
            )
