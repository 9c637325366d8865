"""Trace an episode: for each token the policy's probabilities, the completions that were tried, and their scores.

The terminal view (`terminal.py`) and the page (`page.py`) both show such a trace.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from seqgan_env.data.padding import lengths_of, played_positions
from seqgan_env.game import SequenceGame, contract_rewards
from seqgan_env.inspection.trace import EpisodeTrace, TracedCompletion, TracedStep
from seqgan_env.models.sampling import TokenPolicy, allowed_tokens, draw_tokens, forbid
from seqgan_env.observations import Layout, Observation
from seqgan_env.support.hashed_random import mix, stream_key

Playable = SequenceGame | gym.Env[Any, Any] | VectorEnv[Any, Any, Any]
"""A game, or an environment that plays one, wrapped or not."""

AdvantageFunction = Callable[[Tensor, Tensor], Tensor]
"""Maps a batch's rewards `(n, sequence_length)` and lengths `(n,)` to advantages `(n, sequence_length)`."""


def trace_episode(
    source: Playable,
    policy: TokenPolicy,
    *,
    seed: int,
    tokens: Iterable[int] | None = None,
    top_k: int = 10,
) -> EpisodeTrace:
    """Trace one episode: the one that an environment would play after `reset(seed=seed)`.

    The policy attached to the game, not `policy`, writes the completions. Q is computed for every reward contract, even for
    `"terminal"`, which does not use it. The game's mask applies to the policy. Nothing is retrained, and no environment
    changes its state.

    Args:
        source: a `SequenceGame`, or a single or vector environment, wrapped or not.
        policy: the policy to trace.
        seed: of the completions, and of the tokens if none are given.
        tokens: the episode; by default `policy` writes it.
        top_k: how many of the likeliest tokens to keep at each position.

    Raises:
        TypeError: `source` does not play a `SequenceGame`, or `policy` is not a `TokenPolicy`.
        ValueError: `tokens` are not a complete episode of the game, or the policy gives one of them no probability.
    """
    if tokens is None:
        return trace_batch(source, policy, 1, seed=seed, top_k=top_k)[0]
    return trace_batch(source, policy, seed=seed, tokens=[tokens], top_k=top_k)[0]


@torch.no_grad()
def trace_batch(
    source: Playable,
    policy: TokenPolicy,
    n: int | None = None,
    *,
    seed: int,
    tokens: Iterable[Iterable[int]] | None = None,
    advantage_fn: AdvantageFunction | None = None,
    top_k: int = 10,
) -> list[EpisodeTrace]:
    """Trace several episodes that form one batch of a policy gradient; see `trace_episode`.

    Episode `i` is that of `trace_episode` with seed `seed + i`, as in `SequenceVectorEnv`.

    Args:
        source: a `SequenceGame`, or a single or vector environment, wrapped or not.
        policy: the policy to trace.
        n: how many episodes it writes; or pass `tokens`.
        seed: of the first episode.
        tokens: the episodes, padded or not; or pass `n`.
        advantage_fn: computes the advantages of the batch; without it they are None.
        top_k: how many of the likeliest tokens to keep at each position.
    """
    game = _game_of(source)
    if not isinstance(policy, TokenPolicy):
        raise TypeError(
            f"A policy to trace needs initial_state(n) and step(tokens, state) -> (logits, state); {type(policy).__name__} "
            "lacks them. ObservationPolicy makes one from a function of observations."
        )
    if (n is None) == (tokens is None):
        raise ValueError("Pass either n, the number of episodes to write, or tokens, the episodes themselves.")
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")
    given = None if tokens is None else _episodes(game, tokens)
    seeds = range(seed, seed + (len(given) if given is not None else n or 0))
    if not seeds:
        raise ValueError("There must be at least 1 episode to trace, got none.")

    batch, thoughts = _think(game, policy, given, seeds, top_k)
    lengths = lengths_of(batch, game.vocab_size)
    judgements, values, worth = _judge(game, batch, lengths, seeds)
    rewards = contract_rewards(values, lengths, game.reward)
    advantages = None if advantage_fn is None else advantage_fn(rewards, lengths)
    info = game.final_info(batch, lengths)

    traces = []
    for row, length in enumerate(lengths.tolist()):
        steps = tuple(
            TracedStep(
                prefix_length=position,
                token=int(batch[row, position]),
                **thoughts[row][position]._asdict(),
                q=values[row, position].item(),
                **judgements[row][position]._asdict(),
                reward=rewards[row, position].item(),
                advantage=None if advantages is None else advantages[row, position].item(),
            )
            for position in range(length)
        )
        traces.append(
            EpisodeTrace(
                reward_contract=game.reward,
                gamma=game.gamma,
                n_rollouts=game.n_rollouts,
                vocab_size=game.vocab_size,
                sequence_length=game.sequence_length,
                end_token=game.end_token,
                joiner=" " if game.vocabulary is None else game.vocabulary.joiner,
                token_names=_names(game, steps),
                discriminator_probability=_of_row(info, "discriminator_probability", row),
                oracle_nll=_of_row(info, "oracle_nll", row),
                sequence_reward=worth[row].item(),
                steps=steps,
            )
        )
    return traces


class ObservationPolicy:
    """A policy that acts on observations, as in most libraries, in the form that the game needs.

    It can be traced, or attached to the game to write completions. Its state is the prefix so far.

    Args:
        game: the game that it plays.
        layout: the layout of the observations that `logits` takes.
        logits: maps observations of `n` prefixes, as new arrays, to logits or log-probabilities `(n, vocab_size)`.
    """

    def __init__(
        self, game: SequenceGame, layout: Layout, logits: Callable[[Observation], Tensor | npt.NDArray[np.floating[Any]]]
    ) -> None:
        self._game = game
        self._layout = layout
        self._logits = logits

    def initial_state(self, n: int) -> tuple[Tensor, Tensor]:
        """Empty prefixes: tokens `(n, sequence_length)` int64, all padding, and lengths `(n, 1)` int64."""
        shape, device = (n, self._game.sequence_length), self._game.device
        tokens = torch.full(shape, self._game.vocab_size, dtype=torch.int64, device=device)
        return tokens, torch.zeros(n, 1, dtype=torch.int64, device=device)

    def step(self, tokens: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Append tokens `(n,)` int64, except start tokens and padding; return logits `(n, vocab_size)`."""
        prefixes, lengths = state[0].clone(), state[1].clone()
        rows = (tokens < self._game.vocab_size).nonzero().squeeze(1)
        prefixes[rows, lengths[rows, 0]] = tokens[rows]
        lengths[rows] += 1
        observation = self._game.observe(prefixes.cpu().numpy(), lengths.cpu().numpy(), self._layout)
        logits = torch.as_tensor(self._logits(observation))
        if logits.shape != (len(tokens), self._game.vocab_size):
            raise ValueError(
                f"The policy must give logits of shape (n, vocab_size) = ({len(tokens)}, {self._game.vocab_size}), "
                f"got {tuple(logits.shape)}."
            )
        return logits.to(self._game.device), (prefixes, lengths)


class _Thought(NamedTuple):
    """The policy's probabilities for one token; see `TracedStep`."""

    log_prob: float
    rank: int
    entropy: float
    top_k: tuple[tuple[int, float], ...]


class _Judgement(NamedTuple):
    """The completions of one token and the standard error of their mean; see `TracedStep`."""

    q_standard_error: float | None
    completions: tuple[TracedCompletion, ...]


def _game_of(source: Playable) -> SequenceGame:
    game = source if isinstance(source, SequenceGame) else getattr(getattr(source, "unwrapped", source), "game", None)
    if not isinstance(game, SequenceGame):
        raise TypeError(f"Expected a SequenceGame or an environment that plays one, got {type(source).__name__}.")
    return game


def _episodes(game: SequenceGame, episodes: Iterable[Iterable[int]]) -> Tensor:
    """Complete episodes as padded tokens `(n, sequence_length)`, checked; `_think` checks the mask."""
    pad, end = game.vocab_size, game.end_token
    rows = []
    for episode in episodes:
        given = [int(token) for token in episode]
        tokens = given[: given.index(pad)] if pad in given else given
        ended = len(tokens) == game.sequence_length or (bool(tokens) and tokens[-1] == end)
        legal = all(0 <= token < pad for token in tokens) and end not in tokens[:-1] and set(given[len(tokens) :]) <= {pad}
        if not (ended and legal and len(given) <= game.sequence_length):
            raise ValueError(
                f"{given} is not a complete episode. Expected {game.sequence_length} token ids from 0 to {pad - 1}"
                + ("." if end is None else f", or fewer that end with the end token {end}.")
            )
        rows.append(tokens + [pad] * (game.sequence_length - len(tokens)))
    return torch.tensor(rows, dtype=torch.int64, device=game.device).view(-1, game.sequence_length)


def _think(
    game: SequenceGame, policy: TokenPolicy, given: Tensor | None, seeds: range, top_k: int
) -> tuple[Tensor, list[list[_Thought]]]:
    """Play through the given episodes, or draw new ones, and record the policy's probabilities for each token."""
    n, length, pad = len(seeds), game.sequence_length, game.vocab_size
    tokens = torch.full((n, length), pad, dtype=torch.int64, device=game.device)
    uniforms = torch.stack([_uniforms(seed, length, game.device) for seed in seeds])
    thoughts: list[list[_Thought]] = [[] for _ in seeds]
    alive = torch.arange(n, device=game.device)
    last = tokens[:, 0].clone()
    state = policy.initial_state(n)
    for position in range(length):
        logits, state = policy.step(last, state)
        logits = logits[alive]
        if game.mask is not None:
            logits = forbid(logits, allowed_tokens(game.mask, tokens[alive, :position], pad))
        drawn = draw_tokens(logits, uniforms[alive, position : position + 1]).squeeze(1)
        chosen = drawn if given is None else given[alive, position]
        tokens[alive, position] = chosen
        noted = _thoughts(logits.double(), chosen, top_k)
        for row, thought in zip(alive.tolist(), noted, strict=True):
            if not np.isfinite(thought.log_prob):
                raise ValueError(
                    f"The policy or the game's mask gives token {int(tokens[row, position])} no probability after the prefix "
                    f"{tokens[row, :position].tolist()} (log-probability {thought.log_prob})."
                )
            thoughts[row].append(thought)
        last = tokens[:, position]
        if game.end_token is not None:
            alive = alive[chosen != game.end_token]
        if not len(alive):
            break
    return tokens, thoughts


def _thoughts(logits: Tensor, chosen: Tensor, top_k: int) -> list[_Thought]:
    """The probabilities that logits `(n, vocab_size)` give to the chosen tokens `(n,)`."""
    log_probs = torch.log_softmax(logits, dim=-1)
    of_chosen = log_probs.gather(1, chosen.unsqueeze(1))
    ranks = 1 + (log_probs > of_chosen).sum(dim=1)
    entropies = torch.special.entr(log_probs.exp()).sum(dim=1)
    best, tokens = log_probs.sort(dim=1, descending=True, stable=True)
    rows = zip(tokens[:, :top_k].tolist(), best[:, :top_k].exp().tolist(), strict=True)
    likeliest = [tuple((token, p) for token, p in zip(*row, strict=True) if p > 0) for row in rows]
    columns = of_chosen.squeeze(1).tolist(), ranks.tolist(), entropies.tolist(), likeliest
    return [_Thought(*row) for row in zip(*columns, strict=True)]


def _judge(game: SequenceGame, tokens: Tensor, lengths: Tensor, seeds: range) -> tuple[list[list[_Judgement]], Tensor, Tensor]:
    """Complete and score every prefix; return each token's judgement, Q `(n, sequence_length)`, and R `(n,)`.

    Q equals `MonteCarloSearch.action_values`, which does not return its completions. If the reward model scores tokens itself,
    there are no completions.
    """
    n, length = tokens.shape
    token_values = game.token_values(tokens, lengths)
    if token_values is not None:
        exact = [[_Judgement(0.0, ())] * own_length for own_length in lengths.tolist()]
        # The sum of the contract's rewards is that of the tokens' scores, or R at the end.
        return exact, token_values, contract_rewards(token_values, lengths, game.reward).sum(dim=1)
    streams = torch.tensor([stream_key(seed) for seed in seeds], device=game.device)
    values = torch.zeros(n, length, device=game.device)
    worth = game.search.score(tokens, lengths)
    values[:, -1] = worth
    judgements: list[list[_Judgement]] = [[] for _ in seeds]
    if length > 1:
        completions = game.search.complete(tokens, lengths, mix(streams, 0), range(length - 1))
        scores = game.search.scores(completions)  # (prefixes, n, rollouts)
        values[:, :-1] = scores.mean(dim=2).T
        errors = scores.double().std(dim=2) / scores.shape[2] ** 0.5 if scores.shape[2] > 1 else None
        texts, text_lengths = completions.tokens.tolist(), completions.lengths.tolist()
        all_scores = scores.tolist()
        for row, own_length in enumerate(lengths.tolist()):
            for position in range(own_length - 1):
                made = tuple(
                    TracedCompletion(tuple(text[position + 1 : end]), score)
                    for text, end, score in zip(
                        texts[position][row], text_lengths[position][row], all_scores[position][row], strict=True
                    )
                )
                error = None if errors is None else errors[position, row].item()
                judgements[row].append(_Judgement(error, made))
    for said in judgements:
        said.append(_Judgement(0.0, ()))
    return judgements, values * played_positions(lengths, length), worth


def _uniforms(seed: int, length: int, device: torch.device) -> Tensor:
    """The uniforms that `sample_sequences` would draw for one sequence: `(length,)` in [0, 1)."""
    return torch.rand(length, generator=torch.Generator(device).manual_seed(seed), device=device)


def _names(game: SequenceGame, steps: Sequence[TracedStep]) -> dict[int, str]:
    if game.vocabulary is None:
        return {}
    ids = {step.token for step in steps}
    for step in steps:
        ids.update(token for token, _ in step.top_k)
        for completion in step.completions:
            ids.update(completion.tokens)
    return {token: game.vocabulary.tokens[token] for token in sorted(ids)}


def _of_row(info: dict[str, npt.NDArray[np.float64]], name: str, row: int) -> float | None:
    return float(info[name][row]) if name in info else None
