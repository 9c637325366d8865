"""Parts with which Stable-Baselines3's own algorithms can play: features of prefixes, and policies that write completions."""

import warnings
from typing import Any, Literal, get_args

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import Tensor, nn
from torch.distributions import Categorical

from agents.contract_check import ContractWarning, one_hot_observations, scaled_observations
from agents.vec_env import SB3VecEnv as SB3VecEnv  # kept importable from here
from seqgan_env.game import SequenceGame
from seqgan_env.inspection.tracing import ObservationPolicy
from seqgan_env.observations import Layout, Observation

Reader = Literal["gru", "lstm", "transformer"]


def split_observation(observation: PyTorchObs) -> tuple[Tensor, Tensor]:
    """Prefixes `(n, sequence_length)` and lengths `(n, 1)` of observations in any layout, cast back from SB3's to int64."""
    if isinstance(observation, dict):
        return observation["tokens"].long(), observation["length"].long()
    return observation[:, :-1].long(), observation[:, -1:].long()


class PrefixExtractor(BaseFeaturesExtractor):
    """Features of a prefix for the networks of other SB3 algorithms: a reader over the token embeddings.

    Token ids are names, not magnitudes. Networks can hardly learn from them as numbers, and as one-hot vectors they take
    `sequence_length * vocab_size` inputs. Use it as `policy_kwargs={"features_extractor_class": PrefixExtractor}` with
    `"MultiInputPolicy"` for the layouts `"dict"` and `"dict-mask"`, and `"MlpPolicy"` for `"flat"`. Padding after the prefix
    has no effect, nor has the mask: features are of the prefix alone.

    Its parameters are drawn from torch's global generator, like all of SB3's, which the algorithm's `seed=` seeds.

    Args:
        observation_space: of the environments, in any layout.
        vocab_size: number of tokens, and the pad id; by default that of the layouts with a `Dict`.
        embedding_dim: width of the token embedding.
        features_dim: width of the reader and of the features.
        reader: `"gru"`, `"lstm"`, or `"transformer"`, one causal layer of four heads.

    Raises:
        TypeError: SB3 turns the observations into one-hot vectors.
        ValueError: `vocab_size` is missing for the layout `"flat"`, the observations are a flattened `"dict-mask"`, the reader
            is unknown, or a Transformer's heads do not divide its width.

    Warns:
        ContractWarning: observations are not token ids, according to their space or their first batch.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        vocab_size: int | None = None,
        embedding_dim: int = 32,
        features_dim: int = 64,
        reader: Reader = "gru",
    ) -> None:
        super().__init__(observation_space, features_dim)
        one_hot, scaled = one_hot_observations(observation_space), scaled_observations(observation_space)
        if one_hot is not None:
            raise TypeError(one_hot)
        if scaled is not None:
            warnings.warn(scaled, ContractWarning, stacklevel=2)
        by_dict = isinstance(observation_space, spaces.Dict)
        tokens = observation_space["tokens"] if isinstance(observation_space, spaces.Dict) else observation_space
        assert isinstance(tokens, spaces.Box)
        if vocab_size is None and not by_dict:
            raise ValueError(
                "The layout 'flat' does not contain the vocabulary's size: pass "
                "features_extractor_kwargs={'vocab_size': ...} in policy_kwargs."
            )
        # In every other form that keeps ids the last number is at most the greatest length.
        if not by_dict and scaled is None and tokens.shape[0] > 2 and tokens.high[-1] == 1:
            raise ValueError(
                "The observations are the layout 'dict-mask' in one row, whose last number is not the length: make the "
                "environment with layout='flat', and let the algorithm ask for action_masks()."
            )
        self.pad = int(tokens.high.max()) if vocab_size is None else vocab_size
        self.embedding = nn.Embedding(self.pad + 1, embedding_dim)  # the pad id is also the start token
        self.reader = make_reader(reader, embedding_dim, features_dim, tokens.shape[0] + by_dict)  # all tokens and the start
        self._has_seen_ids = False

    def forward(self, observations: PyTorchObs) -> Tensor:
        """Features `(n, features_dim)`."""
        tokens, lengths = split_observation(observations)
        if not self._has_seen_ids:  # only once, because looking at values waits for a GPU
            self._has_seen_ids = True
            self._look_at(observations["tokens"] if isinstance(observations, dict) else observations)
        inputs = torch.cat([torch.full_like(tokens[:, :1], self.pad), tokens], dim=1)
        states, *_ = self.reader(self.embedding(inputs))
        features: Tensor = states.gather(1, lengths.unsqueeze(-1).expand(-1, -1, states.shape[-1])).squeeze(1)
        return features

    def _look_at(self, ids: Tensor) -> None:
        if bool((ids != ids.round()).any() | (ids < 0).any()):
            warnings.warn(
                f"PrefixExtractor got {ids.flatten()[0].item():.4g}, ..., which are not token ids. A wrapper such as "
                "VecNormalize scales them: pass it norm_obs=False.",
                ContractWarning,
                stacklevel=3,
            )


def make_reader(kind: Reader, embedding_dim: int, features_dim: int, length: int) -> nn.Module:
    """A causal network from `(n, length, embedding_dim)` to a tuple that starts with `(n, length, features_dim)`."""
    if kind == "transformer":
        return CausalTransformer(embedding_dim, features_dim, length)
    if kind not in get_args(Reader):
        raise ValueError(f"reader must be one of {get_args(Reader)}, got {kind!r}.")
    recurrent = nn.GRU if kind == "gru" else nn.LSTM
    return recurrent(embedding_dim, features_dim, batch_first=True)


class CausalTransformer(nn.Module):
    """One Transformer layer over at most `length` inputs, with learned positions; each position sees those before it."""

    mask: Tensor
    heads = 4

    def __init__(self, embedding_dim: int, features_dim: int, length: int) -> None:
        super().__init__()
        if features_dim % self.heads:
            raise ValueError(f"A Transformer's features_dim must be a multiple of its {self.heads} heads, got {features_dim}.")
        self.widen = nn.Linear(embedding_dim, features_dim)
        self.positions = nn.Parameter(0.02 * torch.randn(length, features_dim))
        self.layer = nn.TransformerEncoderLayer(features_dim, self.heads, 2 * features_dim, dropout=0.0, batch_first=True)
        self.register_buffer("mask", torch.ones(length, length, dtype=torch.bool).triu(1), persistent=False)

    def forward(self, inputs: Tensor) -> tuple[Tensor]:
        """States `(n, length, features_dim)` of inputs `(n, length, embedding_dim)`, in a tuple like an LSTM's."""
        return (self.layer(self.widen(inputs) + self.positions, src_mask=self.mask),)


def token_policy(policy: ActorCriticPolicy, game: SequenceGame, layout: Layout = "dict") -> ObservationPolicy:
    """An SB3 actor-critic policy in the form that the game needs, to trace it or to let it write completions.

    Args:
        policy: acts on the game's observations; its distribution must be categorical over the tokens.
        game: the game that it plays.
        layout: of the observations that it takes.
    """

    @torch.no_grad()
    def logits(observation: Observation) -> Tensor:
        observed, _ = policy.obs_to_tensor(observation)
        distribution = policy.get_distribution(observed).distribution
        if not isinstance(distribution, Categorical):
            raise TypeError(f"Tokens are drawn from a Categorical, but this policy has a {type(distribution).__name__}.")
        return distribution.logits

    return ObservationPolicy(game, layout, logits)


def check_end_token(game: SequenceGame, end_token: int | None) -> None:
    """Raise a ValueError if a game's end token is not the generator's."""
    if game.end_token != end_token:
        raise ValueError(
            f"The environment's end token is {game.end_token}, the generator's {end_token}. "
            "Make a new agent for this environment."
        )
