"""Make the agent that a config describes."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

from gymnasium.vector import AutoresetMode

from agents.actor_critic import ActorCriticPlayer, GeneratorActor, GeneratorActorCriticPolicy, PlayerA2C, PlayerPPO
from agents.experiment.config import AdversarialConfig, TrainConfig, kl_coef_of
from agents.player import Player
from agents.reinforce import Reinforce
from agents.vec_env import SB3VecEnv
from seqgan_env.game import SequenceGame
from seqgan_env.vector_env import SequenceVectorEnv


def make_agent(config: TrainConfig, game: SequenceGame) -> Player:
    """The agent, on a new vector environment of the game.

    Raises:
        ImportError: the agent needs an extra that is not installed.
        ValueError: the agent does not support a setting.
    """
    env = SequenceVectorEnv(game, config.adversarial.batch_size, autoreset_mode=AutoresetMode.SAME_STEP)
    return make_reinforce(config, env) if config.agent == "reinforce" else make_actor_critic(config, env)


def make_reinforce(config: TrainConfig, env: SequenceVectorEnv) -> Reinforce:
    """SeqGAN's own agent."""
    adversarial = config.adversarial
    return Reinforce(
        "GeneratorPolicy",
        env,
        learning_rate_schedule(adversarial),
        baseline=adversarial.baseline,
        ent_coef=adversarial.entropy_coef,
        kl_coef=kl_coef_of(config),
        loss_reduction=adversarial.loss_reduction,
        max_grad_norm=adversarial.max_grad_norm,
        likelihood_steps=adversarial.likelihood_steps,
        rollout_lag=adversarial.rollout_lag,
        policy_kwargs=dataclasses.asdict(config.generator),
        seed=config.seed,
    )


def make_actor_critic(config: TrainConfig, env: SequenceVectorEnv) -> ActorCriticPlayer:
    """One of SB3's algorithms, with the same generator as its actor.

    An update is a rollout of `batch_size * sequence_length` steps. `Reinforce` plays as many tokens if no sequence ends early.
    """
    adversarial, settings, game = config.adversarial, config.actor_critic, env.game
    if adversarial.likelihood_steps or kl_coef_of(config):
        raise ValueError(
            f"Only reinforce has likelihood steps and a penalty for leaving its start, got likelihood_steps="
            f"{adversarial.likelihood_steps} and kl_coef={kl_coef_of(config)}: set them to 0, or use the agent reinforce."
        )
    player, policy, own = algorithm(config, game.sequence_length)
    generator = {"config": config.generator, "end_token": game.end_token, "seed": config.seed}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You have specified a mini-batch size")  # the last one may be smaller
        return player(
            policy,
            SB3VecEnv(env),
            learning_rate=learning_rate_schedule(adversarial, learning_rate_factor(config)),
            n_steps=game.sequence_length,
            gamma=game.gamma,
            gae_lambda=settings.gae_lambda,
            ent_coef=adversarial.entropy_coef,
            vf_coef=settings.vf_coef,
            max_grad_norm=adversarial.max_grad_norm,
            normalize_advantage=settings.normalize_advantage,
            policy_kwargs={
                "features_extractor_kwargs": generator,
                "net_arch": {"pi": [], "vf": list(settings.critic_dims)},
            },
            seed=config.seed,
            device=game.device,
            **own,
        )


def algorithm(
    config: TrainConfig, sequence_length: int
) -> tuple[Callable[..., ActorCriticPlayer], type[GeneratorActor], dict[str, Any]]:
    """The class of an agent other than Reinforce, its policy's class, and the arguments that only some agents have.

    Raises:
        ImportError: it needs an extra that is not installed.
        ValueError: minibatches are too small.
    """
    settings = config.actor_critic
    if config.agent == "a2c":
        return PlayerA2C, GeneratorActorCriticPolicy, {"use_rms_prop": False}  # Adam, like all others
    n_steps = sequence_length * config.adversarial.batch_size
    minibatch = -(-n_steps // settings.minibatches)
    if minibatch < 2:
        raise ValueError(
            f"minibatches={settings.minibatches} of a batch of {n_steps} tokens leave one token in each, but SB3 needs two: "
            "use fewer, or a larger batch."
        )
    ppo = {
        "n_epochs": settings.epochs,
        "batch_size": minibatch,
        "clip_range": settings.clip_range,
    }
    if config.agent == "ppo":
        return PlayerPPO, GeneratorActorCriticPolicy, ppo
    try:
        from agents import actor_critic_contrib as contrib
    except ImportError as error:
        raise ImportError(
            f"The agent {config.agent} needs sb3-contrib, which is not installed: pip install -e '.[contrib]'."
        ) from error
    if config.agent == "maskable-ppo":
        return contrib.PlayerMaskablePPO, contrib.MaskableGeneratorPolicy, ppo
    return contrib.PlayerRecurrentPPO, contrib.RecurrentGeneratorPolicy, ppo


def learning_rate_factor(config: TrainConfig) -> float:
    """The factor on the adversarial learning rate for an agent other than Reinforce."""
    given = config.actor_critic.learning_rate_factor
    return given if given is not None else 1.0 if config.agent == "a2c" else 1 / 3


def learning_rate_schedule(adversarial: AdversarialConfig, factor: float = 1.0) -> Callable[[float], float]:
    """The generator's learning rate as a function of the remaining progress, from 1 to 0."""
    first, last = adversarial.learning_rate, adversarial.final_learning_rate or adversarial.learning_rate
    return lambda remaining: factor * first * float((last / first) ** (1 - remaining))
