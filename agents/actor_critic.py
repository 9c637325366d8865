"""PPO and A2C with SeqGAN's generator as their actor; `actor_critic_contrib` does the same for sb3-contrib's algorithms."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, MlpExtractor
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, PyTorchObs, Schedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from agents.global_random_state import BorrowedRandomness
from agents.player import PHASE, Player
from agents.prefix_extractor import check_end_token, split_observation
from seqgan_env.models.generators import GeneratorConfig, make_generator
from seqgan_env.models.token_model import TokenModel
from seqgan_env.support.errors import check_finite, check_parameters
from seqgan_env.support.hashed_random import as_seed
from seqgan_env.support.state_dicts import load_module_state, module_state
from seqgan_env.vector_env import PlayedEpisodes

SelfPlayer = TypeVar("SelfPlayer", bound="ActorCriticPlayer")

_CRITIC_DIMS = (64,)


class GeneratorFeatures(BaseFeaturesExtractor):
    """The hidden state from which a generator predicts the token after the observed prefix.

    Args:
        observation_space: of any layout of the environments.
        vocab_size: number of tokens.
        config: the generator's kind and sizes.
        end_token: the token that ends a sequence, if any.
        seed: of the initial parameters, which equal those that `GeneratorPolicy` draws from the same seed.
    """

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        vocab_size: int,
        config: GeneratorConfig | None = None,
        end_token: int | None = None,
        seed: int = 0,
    ) -> None:
        space = observation_space["tokens"] if isinstance(observation_space, spaces.Dict) else observation_space
        assert space.shape is not None
        generator = make_generator(
            GeneratorConfig() if config is None else config,
            vocab_size,
            sequence_length=int(space.shape[0]) - (not isinstance(observation_space, spaces.Dict)),
            end_token=end_token,
            generator=torch.Generator().manual_seed(seed),
        )
        super().__init__(observation_space, self.width_of(generator))
        self.generator = generator

    @staticmethod
    def width_of(generator: TokenModel) -> int:
        """The number of features."""
        with torch.no_grad():
            return generator.hidden(torch.zeros(1, 1, dtype=torch.int64)).shape[-1]

    def forward(self, observations: PyTorchObs) -> Tensor:
        """Features `(n, width)`."""
        tokens, lengths = split_observation(observations)
        # One more input than tokens: the start token, then the prefix; padding after it has no effect.
        padded = torch.cat([tokens, torch.full_like(tokens[:, :1], self.generator.vocab_size)], dim=1)
        hidden = self.generator.hidden(padded[:, : int(lengths.max()) + 1])
        features: Tensor = hidden.gather(1, lengths.unsqueeze(-1).expand(-1, -1, hidden.shape[-1])).squeeze(1)
        return features


class DetachedCritic(MlpExtractor):
    """Layers of the critic, which reads the actor's features without changing them."""

    def forward_critic(self, features: Tensor) -> Tensor:
        """The critic's hidden features `(n, width)`; no gradient flows back to the actor's features."""
        return super().forward_critic(features.detach())


class GeneratorActor(BasePolicy):
    """Makes a generator the actor of an SB3 actor-critic policy: a mixin that must come before SB3's class.

    The generator's hidden state is the actor's features, and its output layer gives the action's logits. The critic is a small
    network on the same features, detached. So only the policy gradient moves the generator, as in `Reinforce`, and the
    algorithms differ only in their updates. Dropout is off, because the gradient is that of the policy that played.

    Args:
        observation_space: of any layout of the environments.
        action_space: `Discrete(vocab_size)`.
        lr_schedule: Adam's learning rate as a function of the remaining progress.
        features_extractor_kwargs: `config`, `end_token` and `seed` of `GeneratorFeatures`.
        arguments: the others of SB3's class; `net_arch` has layers for the critic only, by default one of 64.

    Raises:
        ValueError: `net_arch` has layers for the actor.
    """

    features_extractor: GeneratorFeatures
    mlp_extractor: MlpExtractor
    net_arch: Any
    activation_fn: type[nn.Module]
    value_net: nn.Module
    action_net: nn.Module
    features_class: type[GeneratorFeatures] = GeneratorFeatures

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        features_extractor_kwargs: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> None:
        arguments = {
            "features_extractor_class": self.features_class,
            "net_arch": {"pi": [], "vf": list(_CRITIC_DIMS)},
            **arguments,
            "ortho_init": False,  # it would draw the generator's parameters again
            "features_extractor_kwargs": {**(features_extractor_kwargs or {}), "vocab_size": int(action_space.n)},
        }
        super().__init__(observation_space, action_space, lr_schedule, **arguments)
        if len(self.mlp_extractor.policy_net):
            raise ValueError(
                f"The generator is the whole actor: net_arch must have no layers for 'pi', got {self.net_arch}. "
                "Layers of the critic go to {'pi': [], 'vf': [...]}."
            )
        self._share_parameters()
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]
        self.set_training_mode(False)

    @property
    def generator(self) -> TokenModel:
        """The actor's network."""
        return self.features_extractor.generator

    @property
    def critic_parts(self) -> nn.ModuleList:
        """All parts except the actor's."""
        return nn.ModuleList([self.mlp_extractor, self.value_net])

    def set_training_mode(self, mode: bool) -> None:
        """Training or evaluation mode; see SB3. Dropout stays off."""
        super().set_training_mode(mode)
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.eval()

    def _share_parameters(self) -> None:
        self.action_net = self.generator.output

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = DetachedCritic(self._features_width(), self.net_arch, self.activation_fn, self.device)

    def _features_width(self) -> int:
        return self.features_extractor.features_dim


class GeneratorActorCriticPolicy(GeneratorActor, ActorCriticPolicy):  # type: ignore[misc]
    """A generator with a critic, for PPO and A2C; see `GeneratorActor`."""


class ActorCriticPlayer(Player):
    """Makes an SB3 actor-critic a player like `Reinforce`: a mixin that must come before SB3's algorithm.

    A round is a rollout of as many steps as a sequence has tokens, and the training on it. `_n_updates` counts rounds, not
    epochs. Random numbers that SB3 draws from global generators come from the player's own generator.
    """

    policy: GeneratorActor

    def _setup_model(self) -> None:
        """Create policy, buffer and random numbers; the generator writes the environment's completions."""
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if self.seed is None else as_seed(self.seed)
        self._random = BorrowedRandomness(self.seed, self.device)
        self._rng = torch.Generator(self.device).manual_seed(self.seed)
        self._final_infos: dict[str, list[float]] = {}
        with self._random.lent():
            super()._setup_model()
        if self.env is not None:
            self.sync_rollout_policy()

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Play another environment, with the discount of its reward contract; see SB3.

        Raises:
            ValueError: its end token differs.
        """
        super().set_env(env, force_reset)
        self._take_contract()

    @classmethod
    def load(cls: type[SelfPlayer], path: Any, env: GymEnv | None = None, *arguments: Any, **settings: Any) -> SelfPlayer:
        """See SB3; a given environment's reward contract sets the discount, unless `settings` have a `gamma`."""
        agent = super().load(path, env, *arguments, **settings)
        if env is not None and "gamma" not in settings:
            agent._take_contract()
        return agent

    def _take_contract(self) -> None:
        check_end_token(self.game, self.generator.end_token)
        self.gamma = self.rollout_buffer.gamma = self.game.gamma
        self.sync_rollout_policy()

    def sync_rollout_policy(self) -> None:
        """Let the generator write the environment's completions."""
        self.game.attach_policy(self.generator)

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        rollout_buffer: RolloutBuffer,
        n_rollout_steps: int,
        *use_masking: bool,
    ) -> bool:
        """Play `n_rollout_steps` steps in each row; false if a callback asked to stop.

        Raises:
            NumericalFault: parameters or rewards are not finite.
        """
        self._final_infos.clear()
        check_parameters(self.policy, PHASE, self._n_updates + 1)
        with self._random.lent():
            goes_on = super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps, *use_masking)
        if goes_on:
            self._played = played_episodes(rollout_buffer)
            check_finite("the batch of rewards", self._played.rewards, PHASE, self._n_updates + 1)
            self._note_episodes(self._final_infos)
        return goes_on

    def train(self) -> None:
        """Train on the rollout, as SB3's algorithm does."""
        rounds = self._n_updates
        with self._random.lent():
            super().train()
        self._n_updates = rounds + 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def learn(
        self: SelfPlayer,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "player",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfPlayer:
        """Train until `total_timesteps` steps are taken; see SB3."""
        return super().learn(
            total_timesteps,
            callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )

    def _update_info_buffer(self, infos: list[dict[str, Any]], dones: npt.NDArray[Any] | None = None) -> None:
        super()._update_info_buffer(infos, dones)
        for row in np.flatnonzero(dones if dones is not None else []):
            for name, value in infos[row].items():
                if isinstance(value, np.floating):
                    self._final_infos.setdefault(name, []).append(float(value))

    def training_state(self) -> dict[str, Any]:
        """All that later updates depend on, including the critic, the separate random numbers and unfinished episodes."""
        observation = self._last_obs
        assert observation is None or isinstance(observation, dict)
        starts = self._last_episode_starts
        return {
            **super().training_state(),
            "critic": module_state(self.policy.critic_parts),
            "random": self._random.training_state(),
            "observation": None if observation is None else {name: torch.from_numpy(x) for name, x in observation.items()},
            "episode_starts": None if starts is None else torch.from_numpy(starts),
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned."""
        super().load_training_state(state)
        load_module_state(self.policy.critic_parts, state["critic"])
        self._random.load_training_state(state["random"])
        observation, starts = state["observation"], state["episode_starts"]
        self._last_obs = None if observation is None else {name: x.cpu().numpy() for name, x in observation.items()}
        self._last_episode_starts = None if starts is None else starts.cpu().numpy()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_random"]


def played_episodes(buffer: RolloutBuffer) -> PlayedEpisodes:
    """The episodes that began in a rollout, `(episodes, sequence_length)`; a row has several if they end early.

    Args:
        buffer: full, and not yet sampled from; with the layout `"dict"`.
    """
    observations: Any = buffer.observations
    positions = observations["length"][..., 0].astype(np.int64)  # (steps, rows)
    starts = positions == 0
    first = np.cumsum(starts.sum(axis=0)) - starts.sum(axis=0)  # the number of each row's first episode
    episodes = first + np.cumsum(starts, axis=0) - 1
    began = np.cumsum(starts, axis=0) > 0
    rewards = np.zeros((int(starts.sum()), observations["tokens"].shape[-1]), dtype=np.float32)
    rewards[episodes[began], positions[began]] = buffer.rewards[began]
    lengths = np.bincount(episodes[began], minlength=len(rewards))
    return PlayedEpisodes(torch.from_numpy(rewards), torch.from_numpy(lengths), {})


class PlayerPPO(ActorCriticPlayer, PPO):
    """SB3's PPO as a player; see `ActorCriticPlayer`."""


class PlayerA2C(ActorCriticPlayer, A2C):
    """SB3's A2C as a player; see `ActorCriticPlayer`."""
