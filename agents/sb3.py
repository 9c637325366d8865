"""The native vector environment for Stable-Baselines3."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn
from torch import Tensor, nn
from torch.distributions import Categorical

from agents.checks import ContractWarning, one_hot_observations, scaled_observations
from seqgan_env.game import Layout, Observation, SequenceGame
from seqgan_env.inspection import ObservationPolicy
from seqgan_env.vector_env import SequenceVectorEnv

Reader = Literal["gru", "lstm", "transformer"]


def split_observation(observation: PyTorchObs) -> tuple[Tensor, Tensor]:
    """Prefixes `(n, sequence_length)` and lengths `(n, 1)` of observations in either layout, int64 again after SB3's cast."""
    if isinstance(observation, dict):
        return observation["tokens"].long(), observation["length"].long()
    return observation[:, :-1].long(), observation[:, -1:].long()


class PrefixExtractor(BaseFeaturesExtractor):
    """Features of a prefix for the networks of other SB3 algorithms: token embeddings, read up to where the prefix ends.

    Token ids are names, not magnitudes: fed as numbers they can hardly be learned from, as one-hot vectors they take
    `sequence_length * vocab_size` inputs. Use it as `policy_kwargs={"features_extractor_class": PrefixExtractor}` with
    `"MultiInputPolicy"` for the layout `"dict"` and `"MlpPolicy"` for `"flat"`. What stands beyond the prefix has no effect.

    Its parameters are drawn from torch's global generator, as all of SB3's are, which `seed=` of an algorithm seeds.

    Args:
        observation_space: of the environments, in either layout.
        vocab_size: number of tokens, and the pad id; by default what the layout `"dict"` says.
        embedding_dim: width of the token embedding.
        features_dim: width of the reader and of the features.
        reader: `"gru"`, `"lstm"`, or `"transformer"`, one causal layer of four heads.

    Raises:
        TypeError: observations that SB3 turns into one-hot vectors.
        ValueError: the layout `"flat"` without `vocab_size`; a reader that does not exist; a Transformer whose width does not
            divide by its heads.

    Warns:
        ContractWarning: observations that are not token ids, as their space says or their first batch shows.
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
                "The layout 'flat' does not tell the vocabulary's size: pass "
                "features_extractor_kwargs={'vocab_size': ...} in policy_kwargs."
            )
        self.pad = int(tokens.high.max()) if vocab_size is None else vocab_size
        self.embedding = nn.Embedding(self.pad + 1, embedding_dim)  # the pad id is read for the start token, too
        self.reader = make_reader(reader, embedding_dim, features_dim, tokens.shape[0] + by_dict)  # all tokens and the start
        self._has_seen_ids = False

    def forward(self, observations: PyTorchObs) -> Tensor:
        """Features `(n, features_dim)`."""
        tokens, lengths = split_observation(observations)
        if not self._has_seen_ids:  # once: on a GPU, looking at values waits for it
            self._has_seen_ids = True
            self._look_at(observations["tokens"] if isinstance(observations, dict) else observations)
        inputs = torch.cat([torch.full_like(tokens[:, :1], self.pad), tokens], dim=1)
        states, *_ = self.reader(self.embedding(inputs))
        features: Tensor = states.gather(1, lengths.unsqueeze(-1).expand(-1, -1, states.shape[-1])).squeeze(1)
        return features

    def _look_at(self, ids: Tensor) -> None:
        if bool((ids != ids.round()).any() | (ids < 0).any()):
            warnings.warn(
                f"Observations reach PrefixExtractor as {ids.flatten()[0].item():.4g}, ..., which are no token ids. "
                "Something scales them, as VecNormalize does: make it with norm_obs=False.",
                ContractWarning,
                stacklevel=3,
            )


def make_reader(kind: Reader, embedding_dim: int, features_dim: int, length: int) -> nn.Module:
    """A network from `(n, length, embedding_dim)` to a tuple that starts with `(n, length, features_dim)`; it looks back."""
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
            raise ValueError(f"features_dim of a Transformer must divide by its {self.heads} heads, got {features_dim}.")
        self.widen = nn.Linear(embedding_dim, features_dim)
        self.positions = nn.Parameter(0.02 * torch.randn(length, features_dim))
        self.layer = nn.TransformerEncoderLayer(features_dim, self.heads, 2 * features_dim, dropout=0.0, batch_first=True)
        self.register_buffer("mask", torch.ones(length, length, dtype=torch.bool).triu(1), persistent=False)

    def forward(self, inputs: Tensor) -> tuple[Tensor]:
        """States `(n, length, features_dim)` of inputs `(n, length, embedding_dim)`, in a tuple as those of an LSTM are."""
        return (self.layer(self.widen(inputs) + self.positions, src_mask=self.mask),)


def token_policy(policy: ActorCriticPolicy, game: SequenceGame, layout: Layout = "dict") -> ObservationPolicy:
    """An SB3 actor-critic policy in the form in which the game calls one: to trace it, or to let it write completions.

    Args:
        policy: acts on the game's observations; its distribution is a categorical one over the tokens.
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
    """Raise a ValueError for a game whose sequences end otherwise than a generator's."""
    if game.end_token != end_token:
        raise ValueError(
            f"The environment's end token is {game.end_token}, the generator's {end_token}. "
            "Make a new agent for this environment."
        )


def info_of_row(infos: dict[str, Any], row: int) -> dict[str, Any]:
    """What Gymnasium's infos of a batch, arrays with masks beside them, say of one row."""
    own = [name for name in infos if not name.startswith("_") and infos[f"_{name}"][row]]
    return {name: info_of_row(infos[name], row) if isinstance(infos[name], dict) else infos[name][row] for name in own}


class SB3VecEnv(VecEnv):
    """A `SequenceVectorEnv` as SB3's `VecEnv`, with a new episode in the step that ends the old one.

    An info of a row that ended carries `terminal_observation` beside what the environment knows of the sequence; the last of
    them has the metrics of `retraining`, if it came to that.

    Args:
        venv: in autoreset mode `SAME_STEP`; the others would feed SB3 steps that no policy made.
    """

    def __init__(self, venv: SequenceVectorEnv) -> None:
        if venv.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                f"Stable-Baselines3 resets in the step that ends an episode; this environment has {venv.autoreset_mode}. "
                "Make it with autoreset_mode='SameStep'."
            )
        self.venv = venv
        self._actions: npt.NDArray[np.int64] = np.zeros(venv.num_envs, dtype=np.int64)
        super().__init__(venv.num_envs, venv.single_observation_space, venv.single_action_space)

    def reset(self) -> VecEnvObs:
        """Start all rows anew, with the seeds given to `seed()` before."""
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        options = {name: value for of_row in self._options for name, value in of_row.items()}
        observation, _ = self.venv.reset(seed=seeds, options=options)
        self._reset_seeds()
        self._reset_options()
        return observation

    def step_async(self, actions: npt.NDArray[np.int64]) -> None:
        """Take note of the actions `(num_envs,)`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Play them: observations, rewards float32, dones, and a dict of infos a row."""
        observation, rewards, terminated, _, infos = self.venv.step(self._actions)
        rows: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for row in np.flatnonzero(terminated).tolist():
            rows[row] = info_of_row(infos["final_info"], row)
            rows[row]["terminal_observation"] = infos["final_obs"][row]
            rows[row]["TimeLimit.truncated"] = False
        return observation, rewards.astype(np.float32), terminated, rows

    def close(self) -> None:
        """Close the environment."""
        self.venv.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, which all rows share, once a row."""
        value = getattr(self.venv, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the environment, for all rows."""
        if indices is not None and len(list(self._get_indices(indices))) < self.num_envs:
            raise ValueError(f"All rows share one environment: {attr_name} cannot be set for rows {indices} alone.")
        setattr(self.venv, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method once; row `i` of an array that it returns goes to row `i`."""
        result = getattr(self.venv, method_name)(*method_args, **method_kwargs)
        by_row = isinstance(result, np.ndarray | tuple | list) and len(result) == self.num_envs
        return [result[row] if by_row else result for row in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Never: wrappers for SB3 go around this one."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[npt.NDArray[Any] | None]:
        """The rows' images `(height, width, 3)` uint8 in render mode `"rgb_array"`, else None."""
        images = self.venv.render() if self.venv.render_mode == "rgb_array" else None
        return [None] * self.num_envs if images is None else [np.asarray(image) for image in images]
