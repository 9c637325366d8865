"""PPO of TorchRL on the native vector environment, with generalized advantage estimation.

`categorical_action_encoding=True` keeps tokens as ids, not one-hot. TorchRL resets rows itself, so autoreset is off.

    pip install -e ".[torchrl]"
    python examples/torchrl_ppo.py
"""

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
import tyro
from judging import Judgement, judge, report
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.envs import GymWrapper, check_env_specs
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

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


class PrefixNet(nn.Module):
    """`PrefixExtractor` and a linear head, for any number of leading axes."""

    def __init__(self, space: gym.Space[Any], outputs: int) -> None:
        super().__init__()
        self.extractor = PrefixExtractor(space)
        self.head = nn.Linear(self.extractor.features_dim, outputs)

    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
        """Outputs `(..., outputs)` of tokens `(..., sequence_length)` with lengths `(..., 1)`."""
        features = self.extractor({"tokens": tokens.flatten(0, -2), "length": length.flatten(0, -2)})
        outputs: Tensor = self.head(features).unflatten(0, tokens.shape[:-1])
        return outputs


def main(config: Config, **rules: Any) -> tuple[Judgement, Judgement]:
    """Train; return the judgements before and after. `rules` are the environment's further arguments."""
    torch.manual_seed(config.seed)
    venv: Any = gym.make_vec(
        "SeqGAN/Oracle-v0",
        num_envs=config.num_envs,
        vectorization_mode="vector_entry_point",
        autoreset_mode="Disabled",
        vocab_size=config.vocab_size,
        sequence_length=config.sequence_length,
        retrain_every=config.retrain_every,
        **{"discriminator": DISCRIMINATOR, **rules},
    )
    env = GymWrapper(venv, categorical_action_encoding=True)
    check_env_specs(env, seed=config.seed)
    net = PrefixNet(venv.single_observation_space, config.vocab_size)
    actor = ProbabilisticActor(
        TensorDictModule(net, in_keys=["tokens", "length"], out_keys=["logits"]),
        in_keys=["logits"],
        spec=env.action_spec,
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
    )
    critic = ValueOperator(PrefixNet(venv.single_observation_space, 1), in_keys=["tokens", "length"])
    # vmap cannot run through a GRU; the estimator then runs the critic twice instead
    gae = GAE(gamma=venv.gamma, lmbda=0.95, value_network=critic, deactivate_vmap=True)
    loss_of = ClipPPOLoss(actor, critic, clip_epsilon=0.2, entropy_coeff=0.01, normalize_advantage=True)
    optimizer = torch.optim.Adam(loss_of.parameters(), lr=config.learning_rate)

    def logits(observation: dict[str, Any]) -> Tensor:
        return net(torch.from_numpy(observation["tokens"]), torch.from_numpy(observation["length"]))

    before = judge(venv.game, logits, "dict")
    frames = config.num_envs * config.sequence_length
    batch: TensorDict
    for batch in Collector(
        env, actor, frames_per_batch=frames, total_frames=frames * config.updates, auto_register_policy_transforms=True
    ):
        with torch.no_grad():
            gae(batch)
        for _ in range(config.epochs):
            for rows in torch.randperm(frames).chunk(4):
                losses = loss_of(batch.flatten()[rows])
                optimizer.zero_grad()
                (losses["loss_objective"] + losses["loss_critic"] + losses["loss_entropy"]).backward()
                nn.utils.clip_grad_norm_(loss_of.parameters(), 0.5)
                optimizer.step()
    after = judge(venv.game, logits, "dict")
    report(before, after)
    return before, after


if __name__ == "__main__":
    main(tyro.cli(Config))
