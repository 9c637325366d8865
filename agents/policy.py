"""The generator as a Stable-Baselines3 policy."""

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from agents.sb3 import split_observation
from seqgan_env.recurrent import TokenLSTM
from seqgan_env.sampling import draw_tokens


class GeneratorPolicy(BasePolicy):
    """A `TokenLSTM` that chooses the next token of an observed prefix.

    Args:
        observation_space: of either layout of the environments.
        action_space: `Discrete(vocab_size)`.
        lr_schedule: learning rate of Adam as a function of the remaining progress.
        embedding_dim: width of the token embedding.
        hidden_dim: width of the recurrent state.
        end_token: the token that ends a sequence, if there is one.
        initial_std: standard deviation of the initial parameters.
        seed: of the initial parameters, and of what `predict` draws; None for one that differs every time.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        embedding_dim: int = 32,
        hidden_dim: int = 32,
        end_token: int | None = None,
        initial_std: float = 0.1,
        seed: int | None = None,
    ) -> None:
        super().__init__(observation_space, action_space)
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self.generator = TokenLSTM(
            int(action_space.n),
            embedding_dim,
            hidden_dim,
            end_token=end_token,
            initial_std=initial_std,
            generator=torch.Generator().manual_seed(self.seed),
        )
        self.lr_schedule = lr_schedule
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr_schedule(1.0))
        self._rng: torch.Generator | None = None  # made on the device that the policy lies on when it is first needed

    def logits(self, observation: PyTorchObs) -> Tensor:
        """Logits `(n, vocab_size)` of the next token of prefixes in either layout."""
        tokens, lengths = split_observation(observation)
        # One more input than tokens: the start token, then the prefix, then padding, whose logits are not looked at.
        padded = torch.cat([tokens, torch.full_like(tokens[:, :1], self.generator.vocab_size)], dim=1)
        every = self.generator.logits(padded)
        at = lengths.clamp(max=tokens.shape[1]).unsqueeze(-1).expand(-1, -1, every.shape[-1])
        return every.gather(1, at).squeeze(1)

    def forward(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Next tokens `(n,)`, drawn or the likeliest."""
        return self._predict(observation, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        logits = self.logits(observation)
        if deterministic:
            return logits.argmax(dim=1)
        if self._rng is None or self._rng.device != logits.device:
            self._rng = torch.Generator(logits.device).manual_seed(self.seed)
        uniforms = torch.rand((len(logits), 1), generator=self._rng, device=logits.device)
        return draw_tokens(logits, uniforms).squeeze(1)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,  # as SB3's own policies: a schedule is not for a policy's file
            "embedding_dim": self.generator.embedding.embedding_dim,
            "hidden_dim": self.generator.hidden_dim,
            "end_token": self.generator.end_token,
            "seed": self.seed,
        }
