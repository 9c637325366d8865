"""Games ready to play: with sequences in memory, with the synthetic oracle, with a text."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqgan_env.data.corpus import Corpus, Format, Tokenizer, TooLong, Vocabulary, read_corpus
from seqgan_env.data.padding import TokenIds, as_sequences
from seqgan_env.game import SequenceGame
from seqgan_env.game_rules import GameRules
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.oracle import load_oracle, seeded_oracle
from seqgan_env.models.sampling import Mask
from seqgan_env.rewards.custom import as_reward_model
from seqgan_env.rewards.mixture import ObjectiveMixture
from seqgan_env.rewards.registry import REWARD_MODELS, RewardSettings
from seqgan_env.rewards.reward_model import HasScore, has_score
from seqgan_env.support.device import resolve_device
from seqgan_env.support.hashed_random import as_seed


def make_game(
    vocab_size: int,
    sequence_length: int,
    real: TokenIds | Callable[[], TokenIds],
    *,
    rules: GameRules | None = None,
    mask: Mask | None = None,
    end_token: int | None = None,
    oracle: TokenLSTM | None = None,
    vocabulary: Vocabulary | None = None,
    device: str | torch.device = "cpu",
    **options: Any,
) -> SequenceGame:
    """A `SequenceGame`, with its reward model made from a name.

    Args:
        vocab_size: number of tokens.
        sequence_length: the most tokens of a sequence.
        real: real sequences; see `SequenceGame`.
        rules: the game's options; by default those of `GameRules()`.
        mask: maps a prefix `(k,)` to the tokens that may follow it, `(vocab_size,)` bool.
        end_token: ends a sequence early, if any.
        oracle: measures finished sequences.
        vocabulary: turns ids into text.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        options: fields of `GameRules`, such as `reward="rollout"`, which override `rules`.

    Raises:
        TypeError, ValueError: an unknown option; or see `SequenceGame`.
    """
    rules = dataclasses.replace(rules or GameRules(), **options)
    on = resolve_device(device)

    def real_now() -> Tensor:
        return as_sequences(real() if callable(real) else real, vocab_size, sequence_length)

    if not callable(real):
        real = real_now()
    settings = RewardSettings(
        vocab_size,
        sequence_length,
        real_now,
        rules,
        discriminator=rules.discriminator,
        seed=as_seed(rules.model_seed),
        end_token=end_token,
        mask=mask,
        device=on,
    )
    return SequenceGame(
        vocab_size,
        sequence_length,
        real,
        make_reward_model(rules, settings, None if vocabulary is None else vocabulary.decode),
        reward=rules.reward,
        n_rollouts=rules.n_rollouts,
        retrain_every=rules.retrain_every,
        end_token=end_token,
        mask=mask,
        oracle=oracle,
        vocabulary=vocabulary,
        device=on,
    )


def make_reward_model(
    rules: GameRules, settings: RewardSettings, decode: Callable[[list[int]], str] | None = None
) -> HasScore:
    """The reward model that the rules name or contain, mixed with their objective, if any; see `make_game`.

    Raises:
        ValueError: an unknown name, or an object without `score`.
    """
    name = rules.reward_model
    model: HasScore
    if isinstance(name, str) and name in REWARD_MODELS:
        model = REWARD_MODELS[name](settings)
    elif has_score(name):
        model = name
    else:
        raise ValueError(
            f"reward_model must be one of {(*REWARD_MODELS,)}, or an object with score(tokens, lengths), "
            f"got {name!r}. For a custom function pass objective=function, with objective_weight=1 for nothing else."
        )
    if rules.objective is None:
        return model
    objective = as_reward_model(rules.objective, decode, rules.objective_batched)
    return objective if rules.objective_weight == 1 else ObjectiveMixture(model, objective, rules.objective_weight)


def oracle_game(
    sequence_length: int = 20,
    vocab_size: int | None = None,
    *,
    oracle_seed: int = 0,
    oracle_params: str | Path | None = None,
    data_seed: int = 0,
    n_real: int = 10_000,
    real: Tensor | None = None,
    device: str | torch.device = "cpu",
    **arguments: Any,
) -> SequenceGame:
    """The paper's synthetic game: an LSTM with random parameters, the oracle, writes the real sequences.

    Args:
        sequence_length: tokens in a sequence.
        vocab_size: number of tokens; by default 5,000, or as in the oracle's file.
        oracle_seed: draws the oracle's parameters.
        oracle_params: a file of the oracle's parameters instead; see `load_oracle`.
        data_seed: draws the real sequences.
        n_real: number of real sequences; the oracle writes them when they are first needed.
        real: real sequences `(n, sequence_length)` int64 that it wrote earlier: on another device it would write others.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        arguments: the other arguments of `make_game`, such as `rules`, or `reward="rollout"`.
    """
    on = resolve_device(device)
    if oracle_params is None:
        oracle = seeded_oracle(as_seed(oracle_seed), 5000 if vocab_size is None else vocab_size, device=on)
    else:
        oracle = load_oracle(oracle_params, device=on)
        if vocab_size not in (None, oracle.vocab_size):
            raise ValueError(
                f"{oracle_params} has a vocabulary of {oracle.vocab_size}, but vocab_size={vocab_size} was given."
            )
    written = OracleSequences(oracle, n_real, sequence_length, as_seed(data_seed)) if real is None else real
    return make_game(oracle.vocab_size, sequence_length, written, oracle=oracle, device=on, **arguments)


@dataclass(frozen=True, eq=False)
class OracleSequences:
    """Writes the same real sequences whenever it is called; a class, so that a game can be pickled."""

    oracle: TokenLSTM
    n: int
    length: int
    seed: int

    def __call__(self) -> Tensor:
        """Tokens `(n, length)`."""
        return self.oracle.sample(self.n, self.length, torch.Generator(self.oracle.device).manual_seed(self.seed))[0]


def text_game(
    data: str | Path | Iterable[Any] | Corpus,
    sequence_length: int | None = None,
    vocab_size: int | None = None,
    *,
    tokenizer: Tokenizer | str | Path = "words",
    format: Format | None = None,
    column: str | None = None,
    min_count: int = 1,
    too_long: TooLong = "error",
    **arguments: Any,
) -> SequenceGame:
    """A game with your own real sequences: text, token ids, a column of a table, or any Python iterable.

    Args:
        data: a file with a sequence a line, the sequences themselves, or a corpus from `read_corpus`, which explains the
            arguments below. With a corpus they have no effect.
        sequence_length: the most tokens of a sequence; by default the length of the longest line.
        vocab_size: the number of tokens: declared for `"integers"`, the most that `"bpe"` learns, checked otherwise.
        tokenizer: `"words"`, `"characters"`, `"integers"`, `"bpe"`, or the path of a `tokenizer.json`.
        format: `"text"`, `"csv"` or `"jsonl"`; by default as the file's name says.
        column: the column of the table that holds the sequences.
        min_count: rarer tokens become the unknown token.
        too_long: what happens to longer lines: `"error"`, `"truncate"` or `"skip"`.
        arguments: the other arguments of `make_game`, such as `rules`, or `reward="rollout"`.
    """
    if isinstance(data, Corpus):
        corpus = data
        if vocab_size not in (None, corpus.vocabulary.size):
            raise ValueError(
                f"The corpus has a vocabulary of {corpus.vocabulary.size}, but vocab_size={vocab_size} was given."
            )
    else:
        corpus = read_corpus(
            data,
            tokenizer=tokenizer,
            sequence_length=sequence_length,
            min_count=min_count,
            too_long=too_long,
            vocab_size=vocab_size,
            format=format,
            column=column,
        )
    vocabulary, width = corpus.vocabulary, corpus.tokens.shape[1]
    if sequence_length not in (None, width):
        raise ValueError(f"The corpus has sequences of {width} tokens, but sequence_length={sequence_length}.")
    return make_game(
        vocabulary.size,
        width,
        corpus.tokens,
        end_token=vocabulary.end_token,
        vocabulary=vocabulary,
        **arguments,
    )
