"""The golden run: every part of the algorithm once, small, from fixed seeds, on the CPU.

A change of its figures is a change of results. It is a decision: record it in CHANGELOG, raise the version in the ids of the
environments (`SeqGAN/Oracle-v0` becomes `-v1`), then pin the new figures by `python -m tests.golden.regenerate`.
"""

from pathlib import Path

import torch
from stable_baselines3.common.logger import Logger

from agents.reinforce import Reinforce
from seqgan_env.games import oracle_game
from seqgan_env.models.likelihood import PretrainConfig, pretrain
from seqgan_env.rewards.text_cnn import TextCNNConfig
from seqgan_env.vector_env import SequenceVectorEnv

FILE = Path(__file__).with_name("figures.json")
V, T, N, UPDATES = 12, 6, 16, 3


def golden_run(seed: int = 0, n_rollouts: int = 4) -> dict[str, list[float]]:
    """The figures: rewards, losses and likelihoods, in the order of Algorithm 1."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order could draw another token
    try:
        return _run(seed, n_rollouts)
    finally:
        torch.set_num_threads(threads)


def _run(seed: int, n_rollouts: int) -> dict[str, list[float]]:
    game = oracle_game(
        T,
        V,
        n_real=64,
        oracle_seed=seed,
        data_seed=seed,
        model_seed=seed,
        reward="rollout",
        n_rollouts=n_rollouts,
        discriminator=TextCNNConfig(
            widths=(1, 3), n_filters=(8, 8), embedding_dim=6, learning_rate=0.01, batch_size=16, epochs=1
        ),
    )
    assert game.oracle is not None
    real = game.real_sequences
    figures = {"real sequences, a mean id each": real.double().mean(dim=1)[:16].tolist()}
    figures["NLL_oracle of real sequences"] = game.oracle.nll(real)[:16].tolist()

    agent = Reinforce(
        "GeneratorPolicy",
        SequenceVectorEnv(game, N, autoreset_mode="SameStep"),
        0.01,
        rollout_lag=0.8,
        ent_coef=0.01,
        likelihood_steps=1,
        likelihood_batch_size=8,
        policy_kwargs={"embedding_dim": 6, "hidden_dim": 6, "initial_std": 0.5},
        seed=seed,
    )
    agent.set_logger(Logger(None, []))
    losses: list[float] = []
    config, rng = PretrainConfig(epochs=3, batch_size=16), torch.Generator().manual_seed(seed)
    pretrain(agent.generator, real, config, rng, lambda _, loss: losses.append(loss))
    agent.sync_rollout_policy()
    figures["likelihood losses"] = losses

    fits = [agent.retrain_reward_model(64) for _ in range(3)]
    for name in ("loss", "accuracy"):
        figures[f"discriminator {name}"] = [fit[name] for fit in fits]

    for update in range(1, UPDATES + 1):
        agent.learn(N * T, reset_num_timesteps=False)
        figures[f"rewards of update {update}"] = agent.last_played.rewards[:4].flatten().tolist()
        figures[f"NLL_oracle of update {update}"] = agent.last_played.info["oracle_nll"].tolist()
        for name in ("loss", "likelihood_loss", "grad_norm", "entropy"):
            figures.setdefault(f"REINFORCE {name}", []).append(float(agent.logger.name_to_value[f"train/{name}"]))
        agent.logger.dump(update)
        fit = agent.retrain_reward_model(64)
        figures["discriminator loss"].append(fit["loss"])
    return figures
