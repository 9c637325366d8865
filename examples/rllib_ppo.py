"""PPO of RLlib, on single environments that share one game and so one discriminator.

RLlib's own networks read ids as magnitudes, so this example wraps `PrefixExtractor` in an `RLModule`. Everything runs in one
process, where environments can share a game; with remote runners each would have its own discriminator. RLlib pins its own
release of Gymnasium, so it needs a separate virtual environment:

    python -m venv .venv-rllib && .venv-rllib/bin/pip install -r examples/rllib-requirements.txt -e .
    .venv-rllib/bin/python examples/rllib_ppo.py
"""

from dataclasses import dataclass
from typing import Any

import ray
import torch
import tyro
from judging import Judgement, judge, report
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module import RLModuleSpec
from ray.rllib.core.rl_module.apis import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from ray.tune import register_env
from torch import Tensor, nn

from agents import PrefixExtractor
from seqgan_env import SequenceEnv, TextCNNConfig, oracle_game

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


class PrefixModule(TorchRLModule, ValueFunctionAPI):
    """`PrefixExtractor` on the layout "flat", with heads for logits and value."""

    def setup(self) -> None:
        """Create the networks (RLlib's hook)."""
        vocab_size = int(self.action_space.n)
        self.extractor = PrefixExtractor(self.observation_space, vocab_size)
        self.logits = nn.Linear(self.extractor.features_dim, vocab_size)
        self.value = nn.Linear(self.extractor.features_dim, 1)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {Columns.ACTION_DIST_INPUTS: self.logits(self.extractor(batch[Columns.OBS]))}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> Tensor:
        """Values `(n,)`."""
        values: Tensor = self.value(self.extractor(batch[Columns.OBS])).squeeze(-1)
        return values


def main(config: Config, **rules: Any) -> tuple[Judgement, Judgement, int]:
    """Train; return the judgements before and after, and RLlib's count of steps. `rules` are the game's further arguments."""
    torch.manual_seed(config.seed)
    rules = {"discriminator": DISCRIMINATOR, "retrain_every": config.retrain_every, **rules}
    game = oracle_game(config.sequence_length, config.vocab_size, **rules)
    register_env("SeqGAN-shared-game", lambda _: SequenceEnv(game, layout="flat"))
    frames = config.num_envs * config.sequence_length
    ray.init(num_cpus=1, include_dashboard=False, ignore_reinit_error=True, log_to_driver=False)
    try:
        algorithm = (
            PPOConfig()
            .environment("SeqGAN-shared-game")
            .env_runners(num_env_runners=0, num_envs_per_env_runner=config.num_envs)
            .learners(num_learners=0)
            .rl_module(rl_module_spec=RLModuleSpec(module_class=PrefixModule))
            .training(
                gamma=game.gamma,
                lr=config.learning_rate,
                train_batch_size_per_learner=frames,
                minibatch_size=frames // 4,
                num_epochs=config.epochs,
                entropy_coeff=0.01,
            )
            .debugging(seed=config.seed)
            .build_algo()
        )

        @torch.no_grad()
        def logits(observation: Any) -> Tensor:
            outputs = algorithm.get_module().forward_inference({Columns.OBS: torch.from_numpy(observation)})
            return outputs[Columns.ACTION_DIST_INPUTS]

        before = judge(game, logits, "flat")
        for _ in range(config.updates):
            result = algorithm.train()
        after = judge(game, logits, "flat")
        algorithm.stop()
    finally:
        ray.shutdown()
    report(before, after)
    return before, after, int(result["num_env_steps_sampled_lifetime"])


if __name__ == "__main__":
    main(tyro.cli(Config))
