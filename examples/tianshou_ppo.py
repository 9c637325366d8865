"""PPO of Tianshou, on single environments that share one game and so one discriminator.

Tianshou builds its own vector environment from functions, collects whole transitions, and resets rows itself.

    pip install -e ".[tianshou]"
    python examples/tianshou_ppo.py
"""

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
import tyro
from judging import Judgement, judge, report
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, InfoStats, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.trainer import OnPolicyTrainerParams
from torch import Tensor, nn

from agents import PrefixExtractor
from seqgan_env import SequenceEnv, SequenceGame, TextCNNConfig, oracle_game

DISCRIMINATOR = TextCNNConfig(widths=(1, 2, 3), n_filters=(64, 64, 64), embedding_dim=16, learning_rate=1e-3)


@dataclass(frozen=True)
class Config:
    """Settings of the example."""

    vocab_size: int = 20
    """Number of tokens."""
    sequence_length: int = 10
    """Tokens in a sequence."""
    retrain_every: int | None = 512
    """Finished episodes between two fits of the discriminator; None never retrains it."""
    num_envs: int = 64
    """Environments: episodes per update."""
    updates: int = 100
    """PPO updates."""
    epochs: int = 4
    """Passes over the episodes of an update."""
    learning_rate: float = 3e-3
    """Adam's step size."""
    seed: int = 0
    """Seed of the networks, the draws and the environments."""


class PrefixNet(nn.Module):
    """`PrefixExtractor` on the layout "flat", and a linear head."""

    def __init__(self, game: SequenceGame, outputs: int) -> None:
        super().__init__()
        self.extractor = PrefixExtractor(game.observation_space("flat"), game.vocab_size)
        self.head = nn.Linear(self.extractor.features_dim, outputs)

    def forward(self, obs: npt.NDArray[Any]) -> Tensor:
        """Outputs `(n, outputs)` of observations `(n, sequence_length + 1)`."""
        outputs: Tensor = self.head(self.extractor(torch.as_tensor(obs)))
        return outputs


class Actor(PrefixNet):
    """The same, with the arguments and the second result, a state, that Tianshou needs for an actor."""

    def forward(self, obs: npt.NDArray[Any], state: Any = None, info: Any = None) -> tuple[Tensor, Any]:  # type: ignore[override]
        """Logits `(n, vocab_size)`, and the unchanged state."""
        return super().forward(obs), state


def main(config: Config, **rules: Any) -> tuple[Judgement, Judgement, InfoStats]:
    """Train; return the judgements before and after, and Tianshou's own statistics.

    Args:
        config: all settings.
        rules: further arguments of the game.
    """
    torch.manual_seed(config.seed)
    rules = {"discriminator": DISCRIMINATOR, "retrain_every": config.retrain_every, **rules}
    game = oracle_game(config.sequence_length, config.vocab_size, **rules)
    envs = DummyVectorEnv([lambda: SequenceEnv(game, layout="flat") for _ in range(config.num_envs)])
    envs.seed(config.seed)
    actor, space = Actor(game, config.vocab_size), envs.workers[0].action_space
    algorithm: PPO = PPO(
        policy=DiscreteActorPolicy(actor=actor, action_space=space),
        critic=PrefixNet(game, 1),
        optim=AdamOptimizerFactory(lr=config.learning_rate),
        gamma=game.gamma,
        ent_coef=0.01,
        max_grad_norm=0.5,
    )
    frames = config.num_envs * config.sequence_length
    collector = Collector(algorithm, envs, VectorReplayBuffer(frames, config.num_envs))

    def logits(observation: npt.NDArray[Any]) -> Tensor:
        return actor(observation)[0]

    before = judge(game, logits, "flat")
    statistics = algorithm.run_training(
        OnPolicyTrainerParams(
            training_collector=collector,
            max_epochs=1,
            epoch_num_steps=frames * config.updates,
            collection_step_num_env_steps=frames,
            update_step_num_repetitions=config.epochs,
            batch_size=frames // 4,
            show_progress=False,
        )
    )
    after = judge(game, logits, "flat")
    report(before, after)
    return before, after, statistics


if __name__ == "__main__":
    main(tyro.cli(Config))
