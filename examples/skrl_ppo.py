"""PPO of skrl on the native vector environment.

Autoreset is in the same step, because with Gymnasium's default skrl would learn from the resets, too. skrl flattens
observations to one row of floats, in the order of the layout "flat"; `PrefixExtractor` turns them back into ids.

    pip install -e ".[skrl]"
    python examples/skrl_ppo.py
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
import tyro
from judging import Judgement, judge, report
from skrl.agents.torch.ppo import PPO
from skrl.envs.wrappers.torch import wrap_env
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.trainers.torch import SequentialTrainer
from torch import Tensor, nn

from agents import PrefixExtractor
from seqgan_env import TextCNNConfig  # importing it registers the environments

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
    """Rows of the vector environment: episodes per update."""
    updates: int = 100
    """PPO updates."""
    epochs: int = 4
    """Passes over the episodes of an update."""
    learning_rate: float = 3e-3
    """Adam's step size."""
    seed: int = 0
    """Seed of the networks, the draws and the environment."""


class PrefixNet(Model):
    """`PrefixExtractor` on the layout "flat", and a linear head."""

    def __init__(self, env: Any, outputs: int) -> None:
        super().__init__(observation_space=env.observation_space, action_space=env.action_space, device=env.device)
        self.extractor = PrefixExtractor(env.observation_space, env.action_space.n)
        self.head = nn.Linear(self.extractor.features_dim, outputs)

    def compute(self, inputs: dict[str, Tensor], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Outputs `(n, outputs)` of `inputs["observations"]` `(n, sequence_length + 1)`."""
        return self.head(self.extractor(inputs["observations"])), {}


class Policy(CategoricalMixin, PrefixNet):
    """Draws the next token."""

    def __init__(self, env: Any) -> None:
        PrefixNet.__init__(self, env, int(env.action_space.n))
        CategoricalMixin.__init__(self)


class Value(DeterministicMixin, PrefixNet):
    """Predicts the value of a prefix."""

    def __init__(self, env: Any) -> None:
        PrefixNet.__init__(self, env, 1)
        DeterministicMixin.__init__(self)


def main(config: Config, **rules: Any) -> tuple[Judgement, Judgement]:
    """Train; return the judgements before and after. `rules` are the environment's further arguments."""
    torch.manual_seed(config.seed)
    venv: Any = gym.make_vec(
        "SeqGAN/Oracle-v0",
        num_envs=config.num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode="SameStep",
        layout="flat",
        vocab_size=config.vocab_size,
        sequence_length=config.sequence_length,
        retrain_every=config.retrain_every,
        **{"discriminator": DISCRIMINATOR, **rules},
    )
    venv.reset(seed=config.seed)
    env = wrap_env(venv, wrapper="gymnasium", verbose=False)  # "auto" would not recognise it by its module's name
    policy = Policy(env)
    agent = PPO(
        models={"policy": policy, "value": Value(env)},
        memory=RandomMemory(memory_size=config.sequence_length, num_envs=config.num_envs, device=env.device),
        observation_space=env.observation_space,
        action_space=env.action_space,
        device=env.device,
        cfg={
            "rollouts": config.sequence_length,
            "learning_epochs": config.epochs,
            "mini_batches": 4,
            "discount_factor": venv.gamma,
            "learning_rate": config.learning_rate,
            "entropy_loss_scale": 0.01,
            "value_loss_scale": 0.5,
        },
    )
    agent.cfg.experiment.write_interval = agent.cfg.experiment.checkpoint_interval = 0  # no files
    trainer = SequentialTrainer(
        env=env,
        agents=agent,
        cfg={
            "timesteps": config.sequence_length * config.updates,
            "disable_progressbar": True,
            "headless": True,
            "close_environment_at_exit": False,
        },
    )

    @torch.no_grad()
    def logits(observation: Any) -> Tensor:
        return policy.compute({"observations": torch.from_numpy(observation)})[0]

    before = judge(venv.game, logits, "flat")
    trainer.train()
    after = judge(venv.game, logits, "flat")
    report(before, after)
    return before, after


if __name__ == "__main__":
    main(tyro.cli(Config))
