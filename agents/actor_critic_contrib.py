"""MaskablePPO and RecurrentPPO of the optional library sb3-contrib, with SeqGAN's generator as their actor."""

from typing import Any

import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO, RecurrentPPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor

from agents.actor_critic import ActorCriticPlayer, GeneratorActor, GeneratorFeatures
from agents.prefix_extractor import split_observation
from seqgan_env.models.generators import GeneratorConfig
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.token_model import TokenModel


class MaskableGeneratorPolicy(GeneratorActor, MaskableActorCriticPolicy):  # type: ignore[misc]
    """A generator with a critic, for MaskablePPO; see `GeneratorActor`."""


class PlayerMaskablePPO(ActorCriticPlayer, MaskablePPO):  # type: ignore[misc]
    """sb3-contrib's MaskablePPO as a player that writes no token that the mask forbids; see `ActorCriticPlayer`."""


class LastToken(GeneratorFeatures):
    """The next input of a recurrent generator: the embedding of the prefix's last token, or of the start token."""

    @staticmethod
    def width_of(generator: TokenModel) -> int:
        """The number of features.

        Raises:
            ValueError: the generator is not an LSTM with one layer.
        """
        if not isinstance(generator, TokenLSTM) or len(generator.layers) != 1:
            kind = f"{len(generator.layers)} LSTM layers" if isinstance(generator, TokenLSTM) else type(generator).__name__
            raise ValueError(
                f"RecurrentPPO carries the state of one LSTM layer from step to step, and this generator has {kind}: use "
                "generator.kind=lstm with n_layers=1, or another agent, which reads the whole prefix at each step."
            )
        return generator.embedding.embedding_dim

    def forward(self, observations: PyTorchObs) -> Tensor:
        """Features `(n, embedding_dim)`."""
        tokens, lengths = split_observation(observations)
        last = tokens.gather(1, (lengths - 1).clamp(min=0))
        last = torch.where(lengths > 0, last, self.generator.vocab_size).squeeze(1)
        assert isinstance(self.generator, TokenLSTM)
        features: Tensor = self.generator.embedding(last)
        return features


class RecurrentGeneratorPolicy(GeneratorActor, RecurrentActorCriticPolicy):  # type: ignore[misc]
    """A generator with a critic, for RecurrentPPO; see `GeneratorActor`.

    sb3-contrib's LSTM takes its inputs position by position and the generator's takes whole sequences, so they are two
    modules, which share their parameters.

    Raises:
        ValueError: the generator is not an LSTM with one layer.
    """

    features_class = LastToken
    lstm_output_dim: int

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        features_extractor_kwargs: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        config = (features_extractor_kwargs or {}).get("config") or GeneratorConfig()
        one_lstm = {"lstm_hidden_size": config.hidden_dim, "shared_lstm": True, "enable_critic_lstm": False}
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            features_extractor_kwargs=features_extractor_kwargs,
            **{**arguments, **one_lstm},
        )

    def _share_parameters(self) -> None:
        super()._share_parameters()
        assert isinstance(self.generator, TokenLSTM)
        for name, parameter in self.generator.lstm.named_parameters():
            setattr(self.lstm_actor, name, parameter)

    def _features_width(self) -> int:
        return self.lstm_output_dim


class PlayerRecurrentPPO(ActorCriticPlayer, RecurrentPPO):
    """sb3-contrib's RecurrentPPO as a player; see `ActorCriticPlayer`."""

    def training_state(self) -> dict[str, Any]:
        """All that the rest of `learn` depends on, including the recurrent state."""
        states = self._last_lstm_states
        return {**super().training_state(), "recurrent": None if states is None else [list(pair) for pair in states]}

    def load_training_state(self, state: Any) -> None:
        """Resume from what `training_state` returned."""
        super().load_training_state(state)
        if state["recurrent"] is not None and self._last_lstm_states is not None:
            for pair, saved in zip(self._last_lstm_states, state["recurrent"], strict=True):
                for tensor, value in zip(pair, saved, strict=True):
                    tensor.copy_(value)
