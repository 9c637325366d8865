"""The generator as a Stable-Baselines3 policy."""

import functools
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from agents.prefix_extractor import split_observation
from seqgan_env.models.generators import GeneratorConfig, GeneratorMaker, make_generator
from seqgan_env.models.sampling import draw_tokens
from seqgan_env.models.token_model import TokenModel


class GeneratorPolicy(BasePolicy):
    """A generator that chooses the next token of an observed prefix.

    Args:
        observation_space: of any layout of the environments.
        action_space: `Discrete(vocab_size)`.
        lr_schedule: Adam's learning rate as a function of the remaining progress.
        end_token: the token that ends a sequence, if any.
        seed: of the initial parameters, and of what `predict` draws; None for a random one.
        make_generator: makes a custom generator, derived from `TokenModel`; see `GeneratorMaker`.
        config: fields of a `GeneratorConfig`, without `make_generator`.

    Raises:
        TypeError: a field is unknown, or is given beside `make_generator`; or the latter does not make a `TokenModel`.
        ValueError: its generator has another vocabulary or end token.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        end_token: int | None = None,
        seed: int | None = None,
        make_generator: GeneratorMaker | None = None,
        **config: Any,
    ) -> None:
        super().__init__(observation_space, action_space)
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self.make_generator = make_generator
        self.config = config
        self.generator: TokenModel = _maker(make_generator, config)(
            int(action_space.n),
            sequence_length=_sequence_length(observation_space),
            end_token=end_token,
            generator=torch.Generator().manual_seed(self.seed),
        )
        _check_generator(self.generator, int(action_space.n), end_token)
        self.lr_schedule = lr_schedule
        self.optimizer = torch.optim.Adam(self.parameters(), lr=lr_schedule(1.0))
        self._rng: torch.Generator | None = None  # created at first use, on the policy's device
        self.set_training_mode(False)

    def logits(self, observation: PyTorchObs) -> Tensor:
        """Logits `(n, vocab_size)` of the next token of prefixes in any layout."""
        tokens, lengths = split_observation(observation)
        # One more input than tokens: the start token, then the prefix, then padding, whose logits are ignored.
        padded = torch.cat([tokens, torch.full_like(tokens[:, :1], self.generator.vocab_size)], dim=1)
        every = self.generator.logits(padded)
        at = lengths.clamp(max=tokens.shape[1]).unsqueeze(-1).expand(-1, -1, every.shape[-1])
        return every.gather(1, at).squeeze(1)

    def forward(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        """Next tokens `(n,)`, drawn, or the likeliest ones."""
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
            "lr_schedule": self._dummy_schedule,  # as in SB3's own policies: a policy's file stores no schedule
            "end_token": self.generator.end_token,
            "seed": self.seed,
            "make_generator": self.make_generator,
            **self.config,
        }


def _maker(custom: GeneratorMaker | None, config: dict[str, Any]) -> GeneratorMaker:
    if custom is None:
        return functools.partial(make_generator, GeneratorConfig(**config))
    if config:
        raise TypeError(f"make_generator alone decides on the generator: {', '.join(config)} would have no effect.")
    return custom


def _sequence_length(observation_space: spaces.Space[Any]) -> int:
    """The maximum number of tokens in an observed sequence, in any layout."""
    if isinstance(observation_space, spaces.Dict):
        shape = observation_space["tokens"].shape
        assert shape is not None
        return int(shape[0])
    assert observation_space.shape is not None
    return int(observation_space.shape[0]) - 1


def _check_generator(generator: object, vocab_size: int, end_token: int | None) -> None:
    if not isinstance(generator, TokenModel):
        raise TypeError(f"make_generator must return a TokenModel (or a subclass), got {type(generator).__name__}.")
    made, wanted = (generator.vocab_size, generator.end_token), (vocab_size, end_token)
    if made != wanted:
        raise ValueError(
            f"make_generator was asked for (vocab_size, end_token) = {wanted} and returned a {type(generator).__name__} "
            f"of {made}: pass both on to super().__init__."
        )
