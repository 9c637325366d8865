"""Warn of combinations of an algorithm and an environment that run without errors, but not as they should."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import (
    BaseCallback,
    EvalCallback,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv, VecFrameStack, VecNormalize, is_vecenv_wrapped

from agents.callbacks import DiscriminatorCallback, every_callback
from seqgan_env.game import SequenceGame
from seqgan_env.rewards.reward_model import adapt

MOST_QUANTILE_OUTPUTS = 200_000
"""Of a quantile network, whose last layer is this many times as wide as the one before it."""


class ContractWarning(UserWarning):
    """An algorithm and an environment run together, but violate the environment's contract."""


def check_contract(model: BaseAlgorithm, callback: BaseCallback | None = None) -> None:
    """Warn of every way in which an SB3 model violates the contract of its environment.

    These are: a discount other than the reward contract's; observations that are normalised, stacked, one-hot or otherwise
    changed; token ids that reach the networks as numbers; more quantiles than a large vocabulary allows; a trained model with
    an untrained discriminator; callbacks that compare rewards of a reward model that is retrained meanwhile.

    Args:
        model: an algorithm on one of the environments, in any of SB3's vector forms and wrappers.
        callback: the callback of `learn`, to check it, too.

    Raises:
        ValueError: the model has no environment.

    Warns:
        ContractWarning: for each violation, with its remedy.
    """
    for departure in [*departures(model), *moving_targets(model, callback)]:
        warnings.warn(departure, ContractWarning, stacklevel=2)


class ContractCheck(BaseCallback):
    """Calls `check_contract` when training starts: `model.learn(..., callback=ContractCheck())`."""

    def _on_training_start(self) -> None:
        check_contract(self.model, self.locals.get("callback"))

    def _on_step(self) -> bool:
        return True


def departures(model: BaseAlgorithm) -> Iterator[str]:
    """A sentence for each violation of its environment's contract by a model; see `check_contract`."""
    if model.env is None:
        raise ValueError("The model has no environment to compare with: call set_env() first.")
    name = type(model).__name__
    contract, gamma = model.env.get_attr("gamma", indices=[0])[0], getattr(model, "gamma", None)
    if gamma is not None and gamma != contract:
        yield f"{name} has gamma={gamma}, but the environment's reward contract needs {contract}: pass gamma={contract}."
    changed = one_hot_observations(model.observation_space) or scaled_observations(model.observation_space)
    if changed is not None:
        yield changed
    elif any(isinstance(module, FlattenExtractor | CombinedExtractor) for module in model.policy.modules()):
        yield (
            f"{name} feeds token ids to its networks as numbers, from which they can hardly learn: "
            "pass policy_kwargs={'features_extractor_class': PrefixExtractor}."
        )
    if normalises_observations(model.get_vec_normalize_env()):
        yield "VecNormalize scales token ids, which are names and not magnitudes: pass it norm_obs=False."
    if is_vecenv_wrapped(model.env, VecFrameStack):
        yield "VecFrameStack puts several prefixes side by side: leave it out, because one prefix is the whole state."
    games = games_of(model.env)
    if model._n_updates and games and all(game.retrain_every is not None and game.is_new for game in games):
        yield (
            f"{name} is trained, but its environment's reward model is not: Stable-Baselines3 saves only the model. "
            "Save game.training_state() as well, with torch.save, and restore it with game.load_training_state()."
        )
    quantiles, vocab_size = getattr(model, "n_quantiles", 0), getattr(model.action_space, "n", 0)
    if quantiles * vocab_size > MOST_QUANTILE_OUTPUTS:
        yield (
            f"{name} learns {quantiles} quantiles for each of {vocab_size:,} tokens, {quantiles * vocab_size:,} outputs: "
            f"pass fewer, such as policy_kwargs={{'n_quantiles': {max(1, MOST_QUANTILE_OUTPUTS // vocab_size // 4)}}}."
        )


def moving_targets(model: BaseAlgorithm, callback: BaseCallback | None) -> Iterator[str]:
    """A sentence for each evaluation that compares mean rewards over time while the reward model is retrained."""
    assert model.env is not None
    callbacks = [] if callback is None else list(every_callback(callback))
    by_hand = any(isinstance(one, DiscriminatorCallback) for one in callbacks)
    trained = [game for game in games_of(model.env) if by_hand or game.retrain_every is not None]
    moving = {id(part) for game in trained for part in what_learns(game)}
    for evaluation in callbacks:
        if not isinstance(evaluation, EvalCallback):
            continue
        stopping = StopTrainingOnRewardThreshold | StopTrainingOnNoModelImprovement
        names = ["EvalCallback's best_model_save_path"] if evaluation.best_model_save_path else []
        names += [type(one).__name__ for one in every_callback(evaluation) if isinstance(one, stopping)]
        judges = games_of(evaluation.eval_env)
        shared = moving.intersection(id(part) for game in judges for part in what_learns(game))
        if names and (shared or any(game.retrain_every is not None for game in judges)):
            yield (
                f"{' and '.join(names)}: these compare mean rewards over time, but the reward model is retrained in "
                "between, so a higher mean may not show a better policy. Watch oracle_nll or the likelihood of held-out "
                "sequences instead, as in an EvaluationCallback, or evaluate on a game whose reward model is not retrained."
            )


def what_learns(game: SequenceGame) -> list[Any]:
    """A game's learning reward model, or the learning parts of a mixture, as the objects that the user passed."""
    return [part.unwrapped for part in adapt(game.reward_model).parts if part.learns]


def games_of(env: VecEnv) -> list[SequenceGame]:
    """The games that an environment's rows play; none if they are in separate processes."""
    return [] if isinstance(env.unwrapped, SubprocVecEnv) else env.get_attr("game")


def one_hot_observations(space: spaces.Space[Any]) -> str | None:
    """The problem with an observation space that SB3 turns into one-hot vectors; None for the layouts."""
    if all(isinstance(part, spaces.Box) for part in parts_of(space)):
        return None
    return (
        f"Stable-Baselines3 turns these observations ({type(space).__name__}) into one-hot vectors, {spaces.flatdim(space):,} "
        "inputs: keep them as the environment returns them, in one of their layouts, and use PrefixExtractor."
    )


def scaled_observations(space: spaces.Space[Any]) -> str | None:
    """The problem with an observation space whose bounds show that its numbers are not ids; None for the layouts."""
    boxes = [part for part in parts_of(space) if isinstance(part, spaces.Box)]
    from_zero = all((box.low == 0).all() for box in boxes)
    highest = max((box.high.max() for box in boxes), default=0)
    if from_zero and np.isfinite(highest) and highest > 1:
        return None
    return (
        f"The observations are no longer token ids: their space is {space}. Ids are names and not magnitudes: "
        "remove the wrapper that normalises or rescales them."
    )


def parts_of(space: spaces.Space[Any]) -> list[spaces.Space[Any]]:
    """The spaces in a `Dict`, or the space itself."""
    return list(space.values()) if isinstance(space, spaces.Dict) else [space]


def normalises_observations(env: VecNormalize | None) -> bool:
    """Whether a `VecNormalize` scales any part of the observations."""
    return env is not None and env.norm_obs and (env.norm_obs_keys is None or len(env.norm_obs_keys) > 0)
