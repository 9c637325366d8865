"""REINFORCE on whole sequences: SeqGAN's generator as a Stable-Baselines3 algorithm."""

import copy
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, TypeVar, get_args

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ProgressBarCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize
from torch import Tensor

from agents.callbacks import TokenBarCallback, every_callback
from agents.contract_check import normalises_observations
from agents.player import PHASE, Player, sb3_vec_env
from agents.policy import GeneratorPolicy
from agents.prefix_extractor import check_end_token
from agents.vec_env import SB3VecEnv, vector_wrappers
from seqgan_env.data.padding import played_positions
from seqgan_env.models.likelihood import likelihood_step
from seqgan_env.models.sampling import allowed_along
from seqgan_env.models.token_model import TokenModel, training_mode
from seqgan_env.policy_gradient import (
    Baseline,
    LossReduction,
    advantages,
    check_baseline,
    discounted_returns,
    mean_divergence,
    mean_entropy,
    policy_gradient_loss,
)
from seqgan_env.sequence_env import SequenceEnv
from seqgan_env.support.cuda_graphs import replayed
from seqgan_env.support.errors import check_finite, check_gradients, check_parameters, room_for
from seqgan_env.support.hashed_random import as_seed
from seqgan_env.support.state_dicts import load_module_state, module_state
from seqgan_env.support.training_step import take_step
from seqgan_env.vector_env import SequenceVectorEnv

SelfReinforce = TypeVar("SelfReinforce", bound="Reinforce")

DEFAULT_BATCH_SIZE = 64


class Reinforce(Player):
    """Samples a batch of whole episodes, asks the environment for their rewards, and takes one policy-gradient step.

    `learn`, callbacks, logger, `save`, `load` and `predict` are SB3's own. `num_timesteps` counts tokens. Callbacks, and SB3's
    wrappers around `SB3VecEnv`, see one step per position of the batch, with SB3's `actions`, `rewards`, `dones`, `infos` and
    `new_obs`; rows that ended early wait, see `SB3VecEnv.replay`. If a wrapper changes rewards, the agent learns from the
    changed ones. Wrappers that change observations or actions are refused.

    Args:
        policy: `"GeneratorPolicy"`, or a class derived from it.
        env: a `SequenceVectorEnv` with `autoreset_mode="SameStep"`, whose rows are the batch, or SB3's wrappers around an
            `SB3VecEnv`; or a single environment, or its id, played in batches of 64.
        learning_rate: Adam's step size, or a schedule of the remaining progress.
        baseline: subtracted from returns, see `seqgan_env.policy_gradient.advantages`.
        ent_coef: weight of the mean entropy in the objective to maximise; a negative one sharpens the policy.
        kl_coef: weight of the mean divergence KL(policy || reference) of the next-token distributions in the loss. The
            reference is the generator at the start of the first `learn`, or at a later `sync_rollout_policy`.
        loss_reduction: `"mean"` over the batch's tokens, or their `"sum"`, as in the published code. Entropy and divergence
            are summed with it, so that their weights mean the same. Adam is indifferent to such a factor only as long as
            nothing is clipped: a gradient of the sum is as many times longer as there are tokens.
        max_grad_norm: largest norm of the loss's gradient.
        likelihood_steps: steps of maximum likelihood on real sequences after each policy-gradient step, with the same
            optimiser. Their loss is a mean over tokens, whatever `loss_reduction`, as in the published likelihood training;
            its gradient is clipped to `max_grad_norm`, too.
        likelihood_batch_size: real sequences in each of them.
        rollout_lag: the rollout policy's parameters become `lag * old + (1 - lag) * generator` after each step; at 0, as in
            effect in the published code, which announces 0.8, the generator itself writes the completions.
        stats_window_size: episodes over which SB3's rollout statistics average.
        tensorboard_log: folder of TensorBoard events.
        policy_kwargs: further arguments of the policy: the fields of a `GeneratorConfig`, or `make_generator` for a custom
            generator. Its dropout is used only in likelihood steps.
        verbose: 1 prints SB3's log.
        seed: of initial parameters, sampling and environment; None for a random one.
        device: `"auto"`, `"cpu"` or `"cuda"`; by default the environment's.

    Raises:
        ValueError: a setting is out of range, or batches are too small to learn with the baseline.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"GeneratorPolicy": GeneratorPolicy}
    policy: GeneratorPolicy

    def __init__(
        self,
        policy: str | type[GeneratorPolicy] = "GeneratorPolicy",
        env: GymEnv | SequenceVectorEnv | str | None = None,
        learning_rate: float | Schedule = 1e-3,
        *,
        baseline: Baseline = "leave-one-out",
        ent_coef: float = 0.0,
        kl_coef: float = 0.0,
        loss_reduction: LossReduction = "mean",
        max_grad_norm: float = 5.0,
        likelihood_steps: int = 0,
        likelihood_batch_size: int = 64,
        rollout_lag: float = 0.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str | None = None,
        _init_setup_model: bool = True,
    ) -> None:
        self.baseline = baseline
        self.kl_coef = kl_coef
        self.loss_reduction = loss_reduction
        self.likelihood_steps = likelihood_steps
        self.likelihood_batch_size = likelihood_batch_size
        self.rollout_lag = rollout_lag
        self.end_token: int | None = None
        vec_env = None if env is None else self._wrap_env(env)
        game = None if vec_env is None else sb3_vec_env(vec_env).sequences.game
        super().__init__(
            policy,  # type: ignore[arg-type]
            vec_env,  # type: ignore[arg-type]
            learning_rate,
            n_steps=1 if game is None else game.sequence_length,
            gamma=1.0 if game is None else game.gamma,
            gae_lambda=1.0,
            ent_coef=ent_coef,
            vf_coef=0.0,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device if device is not None else "auto" if game is None else game.device,
            supported_action_spaces=(spaces.Discrete,),
            _init_setup_model=False,
        )
        if game is not None:
            self.end_token = game.end_token
        if _init_setup_model:
            self._setup_model()

    @staticmethod
    def _wrap_env(env: Any, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """Make a `VecEnv` from anything that plays a `SequenceGame`."""
        if isinstance(env, str):
            env = gym.make(env)
        if not isinstance(env, VecEnv):
            inner = getattr(env, "unwrapped", env)
            if isinstance(inner, SequenceEnv):
                inner = SequenceVectorEnv(
                    inner.game, DEFAULT_BATCH_SIZE, autoreset_mode=AutoresetMode.SAME_STEP, layout=inner.layout
                )
            if not isinstance(inner, SequenceVectorEnv):
                raise TypeError(
                    "Reinforce plays whole sequences at once and needs one of this package's environments, got "
                    f"{type(inner).__name__}. Pass a SequenceVectorEnv, a SequenceEnv, or an id such as 'SeqGAN/Oracle-v0'."
                )
            _check_gymnasium_wrappers(env)
            env = SB3VecEnv(inner)
        vec_env: VecEnv = env
        _check_gymnasium_wrappers(sb3_vec_env(vec_env).venv)
        _check_wrappers(vec_env)
        return vec_env

    def _get_policy_from_name(self, policy_name: str) -> type[BasePolicy]:
        if policy_name not in self.policy_aliases:
            raise ValueError(
                f"Reinforce trains a generator of sequences, got the policy {policy_name!r}: pass 'GeneratorPolicy', or a "
                "class derived from it. Its kind and sizes go to policy_kwargs; SB3's policies are for SB3's algorithms."
            )
        return super()._get_policy_from_name(policy_name)

    def _setup_model(self) -> None:
        """Create policy, rollout policy and random numbers; no buffer, because a batch is used at once."""
        self._check_settings()
        self._setup_lr_schedule()
        self.rollout_buffer = None  # type: ignore[assignment]
        seed = int(np.random.SeedSequence().generate_state(1)[0]) if self.seed is None else as_seed(self.seed)
        self.policy = self.policy_class(  # type: ignore[assignment]
            self.observation_space,
            self.action_space,
            self.lr_schedule,
            end_token=self.end_token,
            seed=seed,
            **self.policy_kwargs,
        ).to(self.device)
        self._rng = torch.Generator(self.device).manual_seed(seed)
        self.rollout_policy: TokenModel = copy.deepcopy(self.generator) if self.rollout_lag > 0 else self.generator
        self.reference_policy: TokenModel | None = copy.deepcopy(self.generator) if self.kl_coef else None
        if self.env is not None:
            self.gamma = self.game.gamma  # a loaded agent may have been saved with another reward contract
            self.env.seed(seed)
            self.sync_rollout_policy()

    def _check_settings(self) -> None:
        """Raise an error for invalid settings, given to the constructor or to `load`."""
        if not issubclass(self.policy_class, GeneratorPolicy):
            raise TypeError(
                "Reinforce trains a generator of sequences: pass 'GeneratorPolicy', or a class derived from it, got "
                f"{self.policy_class.__name__}."
            )
        if self.baseline not in get_args(Baseline):
            raise ValueError(f"baseline must be one of {get_args(Baseline)}, got {self.baseline!r}.")
        if self.loss_reduction not in get_args(LossReduction):
            raise ValueError(f"loss_reduction must be one of {get_args(LossReduction)}, got {self.loss_reduction!r}.")
        if self.env is not None:
            self._check_env(self.env)
        if not 0 <= self.rollout_lag < 1:
            raise ValueError(
                f"rollout_lag must lie in [0, 1), got {self.rollout_lag}: at 1 the rollout policy would never change."
            )
        if not 0 <= self.kl_coef < math.inf:
            raise ValueError(f"kl_coef must be at least 0 and finite, got {self.kl_coef}: it is the weight of a penalty.")
        if not math.isfinite(self.ent_coef):
            raise ValueError(f"ent_coef must be finite, got {self.ent_coef}: it is the weight of the entropy.")
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0, got {self.max_grad_norm}: gradients are scaled down to it.")
        if self.likelihood_steps < 0 or self.likelihood_batch_size < 1:
            raise ValueError(
                "likelihood_steps must be at least 0 and likelihood_batch_size at least 1, got "
                f"{self.likelihood_steps} and {self.likelihood_batch_size}."
            )

    def _check_env(self, env: VecEnv) -> None:
        """Raise a ValueError for an environment in which learning is impossible, or that does not fit the generator."""
        game = sb3_vec_env(env).sequences.game
        check_baseline(self.baseline, env.num_envs, game.sequence_length, same_along_sequence=game.reward == "terminal")
        check_end_token(game, self.end_token)

    def sync_rollout_policy(self) -> None:
        """Copy the generator's parameters to the rollout policy, and make that write the environment's completions.

        The reference policy of `kl_coef`, if any, gets them, too.
        """
        self._copy_generator()
        if self.env is not None:
            self.game.attach_policy(self.rollout_policy)

    def _copy_generator(self) -> None:
        self.rollout_policy.load_state_dict(self.generator.state_dict())
        if self.reference_policy is not None:
            self.reference_policy.load_state_dict(self.generator.state_dict())

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Play another environment, with the discount of its reward contract; see SB3.

        Raises:
            ValueError: its end token differs, or learning with the baseline is impossible in it.
        """
        env = self._wrap_env(env)
        self._check_env(env)
        super().set_env(env, force_reset)
        self.gamma = self.game.gamma
        self.game.attach_policy(self.rollout_policy)

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer | None, n_rollout_steps: int
    ) -> bool:
        """Sample an episode for each row and get its rewards; false if a callback asked to stop."""
        self.policy.set_training_mode(False)
        callback.on_rollout_start()
        check_parameters(self.generator, PHASE, self._n_updates + 1)
        tokens, _ = self.sample(env.num_envs)
        played_by = sb3_vec_env(env)
        self._played = played_by.play(env, tokens)
        self._tokens = tokens.to(self.device)
        lengths, earned = self._played.lengths.cpu(), []
        nobody_watches = callback is self._empty_callback and env is played_by
        if nobody_watches:
            self.num_timesteps += int(lengths.sum())
        steps = enumerate(() if nobody_watches else played_by.replay(env, tokens, self._played))
        for n_steps, (actions, (new_obs, rewards, dones, infos)) in steps:  # noqa: B007 - callbacks read them
            self.num_timesteps += int((lengths > n_steps).sum())
            earned.append(torch.from_numpy(rewards))
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            self._update_info_buffer(infos, dones)
        self._rewards = self._played.rewards
        if env is not played_by:  # like SB3's algorithms, learn from the rewards that its wrappers return
            of_episodes = played_positions(lengths, n_rollout_steps)
            self._rewards = torch.where(of_episodes, torch.stack(earned, dim=1).float(), 0.0)
        self._note_episodes({name: x for name, x in self._played.info.items() if isinstance(x, np.ndarray)})
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """One policy-gradient step on the collected batch (paper, eq. 8), then steps of likelihood, if configured.

        Raises:
            NumericalFault: rewards, loss or gradient are not finite; the generator is unchanged.
            OutOfMemory: the batch is too large.
        """
        self._update_learning_rate(self.policy.optimizer)
        rewards, lengths = self._rewards.to(self.device), self._played.lengths.to(self.device)
        check_finite("the batch of rewards", rewards, PHASE, self._n_updates + 1)
        advantage = advantages(discounted_returns(rewards, self.gamma), lengths, self.baseline)
        n_actions = lengths.sum()
        rows, weight = self.game.workers.part(len(lengths))
        # Without dropout, because the gradient is that of the policy that wrote the batch.
        with (
            room_for("an update of the policy", f"the batch, of {len(lengths):,} episodes"),
            training_mode(self.policy, dropout=False),
        ):
            own, *gradients = self._gradients(self._tokens[rows], advantage[rows], lengths[rows], n_actions, weight)
            sums = take_step(
                self.policy,
                self.policy.optimizer,
                gradients,
                own,
                self.game.workers,
                max_grad_norm=self.max_grad_norm,
                check=partial(self._check_step, "the policy's loss"),
            )
        with room_for("steps of likelihood", f"likelihood_batch_size, {self.likelihood_batch_size}"):
            self._take_likelihood_steps()
        self._move_rollout_policy()
        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        loss_of_all, entropy_of_all, divergence_of_all, nll_of_all, grad_norm = sums.tolist()
        if self.ent_coef:
            self.logger.record("train/entropy", entropy_of_all)
        if self.reference_policy is not None:
            self.logger.record("train/kl", divergence_of_all)
        self.logger.record("train/loss", loss_of_all)
        self.logger.record("train/grad_norm", grad_norm)
        self.logger.record("train/advantage_std", advantage.std().item())
        self.logger.record("train/nll_of_samples", nll_of_all)

    def learn(
        self: SelfReinforce,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "Reinforce",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfReinforce:
        """Train until `total_timesteps` tokens are written; see SB3."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _setup_learn(self, *arguments: Any, **settings: Any) -> tuple[int, BaseCallback]:
        """See SB3. Rollout and reference policy start from the generator as it is before its first update."""
        if self._n_updates == 0:
            self._copy_generator()
        return super()._setup_learn(*arguments, **settings)

    def _gradients(
        self, tokens: Tensor, advantage: Tensor, lengths: Tensor, n_actions: Tensor, weight: float
    ) -> tuple[Tensor, ...]:
        """What `_loss` returns for these rows, times a weight, and the gradient of each trained parameter."""
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]

        def compute(*inputs: Tensor) -> tuple[Tensor, ...]:
            own = weight * self._loss(*inputs)
            return own.detach(), *torch.autograd.grad(own[0], trained, allow_unused=True)

        inputs = (tokens, advantage, lengths, n_actions)
        if self.game.mask is not None:  # a function of the user's, which no GPU can run
            return compute(*inputs)
        reference = () if self.reference_policy is None else tuple(p.data_ptr() for p in self.reference_policy.parameters())
        key = ("policy gradient", weight, self.ent_coef, self.kl_coef, self.loss_reduction, reference)
        return replayed(self.generator, key, compute, *inputs)

    def _loss(self, tokens: Tensor, advantage: Tensor, lengths: Tensor, n_actions: Tensor) -> Tensor:
        """These rows' part of the batch's loss, which carries the gradient, entropy, divergence and NLL: `(4,)`."""
        entropy = divergence = advantage.new_zeros(())
        if not self.ent_coef and self.reference_policy is None and self.game.mask is None:
            log_probs = self.generator.log_prob(tokens)
        else:
            every = self._log_probs(self.generator, tokens, lengths)
            log_probs = every.gather(2, tokens.clamp(max=self.generator.vocab_size - 1).unsqueeze(2)).squeeze(2)
            log_probs = log_probs * played_positions(lengths, tokens.shape[1])
            if self.ent_coef:
                entropy = mean_entropy(every, lengths, n_actions)
            if self.reference_policy is not None:
                with torch.no_grad():
                    reference = self._log_probs(self.reference_policy, tokens, lengths)
                divergence = mean_divergence(every, reference, lengths, n_actions)
        loss = policy_gradient_loss(log_probs, advantage, lengths, n_actions)
        loss = loss - self.ent_coef * entropy + self.kl_coef * divergence
        if self.loss_reduction == "sum":
            loss = loss * n_actions
        return torch.stack([loss, entropy.detach(), divergence.detach(), -log_probs.detach().sum() / n_actions])

    def _check_step(self, name: str, sums: Tensor) -> None:
        """Refuse a step whose loss, the first of `sums`, or gradient, whose norm is the last, is not finite."""
        check_finite(name, sums[0], PHASE, self._n_updates + 1)
        check_gradients(self.policy, sums[-1], PHASE, self._n_updates + 1)

    def _log_probs(self, model: TokenModel, tokens: Tensor, lengths: Tensor) -> Tensor:
        """A model's log-probabilities `(n, length, vocab_size)` of every token at every position, mask included."""
        mask = self.game.mask
        if mask is None:
            return torch.log_softmax(model.logits(tokens), dim=-1)
        allowed = allowed_along(mask, tokens, lengths, model.vocab_size)
        return torch.log_softmax(model.masked_logits(tokens, allowed), dim=-1)

    def _take_likelihood_steps(self) -> None:
        for _ in range(self.likelihood_steps):
            real = self.game.real_sequences
            rows = torch.randint(len(real), (self.likelihood_batch_size,), generator=self._rng, device=self.device)
            sums = likelihood_step(
                self.generator,
                self.policy.optimizer,
                real[rows],
                self.game.workers,
                max_grad_norm=self.max_grad_norm,
                check=partial(self._check_step, "the likelihood's loss"),
            )
            self.logger.record("train/likelihood_loss", sums[0].item())

    @torch.no_grad()
    def _move_rollout_policy(self) -> None:
        if self.rollout_policy is not self.generator:
            for old, new in zip(self.rollout_policy.parameters(), self.generator.parameters(), strict=True):
                old.lerp_(new, 1 - self.rollout_lag)

    def training_state(self) -> dict[str, Any]:
        """All that later updates depend on, including the rollout policy and the reference policy."""
        lagging = self.rollout_policy is not self.generator
        return {
            **super().training_state(),
            "rollout_policy": module_state(self.rollout_policy) if lagging else None,
            "reference_policy": None if self.reference_policy is None else module_state(self.reference_policy),
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned."""
        super().load_training_state(state)
        if state["rollout_policy"] is not None:
            load_module_state(self.rollout_policy, state["rollout_policy"])
        if self.reference_policy is not None:
            load_module_state(self.reference_policy, state["reference_policy"])
        if self.num_timesteps:
            self._last_obs = np.zeros(self.n_envs)  # never read, but without it SB3 resets the environments

    def set_parameters(
        self,
        load_path_or_dict: str | dict[str, Any],
        exact_match: bool = True,
        device: torch.device | str = "auto",
    ) -> None:
        """As in SB3, but accepts files saved without a rollout or reference policy, if `load` changes their settings.

        A policy that was not saved starts from the saved generator.
        """
        if isinstance(load_path_or_dict, dict):
            saved = dict(load_path_or_dict)
            wanted, _ = self._get_torch_save_params()
            prefix, policy = "generator.", saved.get("policy", {})
            generator = {name.removeprefix(prefix): x for name, x in policy.items() if name.startswith(prefix)}
            for name in ("rollout_policy", "reference_policy"):
                if name not in wanted:
                    saved.pop(name, None)
                elif generator:
                    saved.setdefault(name, generator)
            load_path_or_dict = saved
        super().set_parameters(load_path_or_dict, exact_match, device)

    def _excluded_save_params(self) -> list[str]:
        own = ["rollout_policy", "reference_policy", "_tokens", "_rewards"]
        return [*super()._excluded_save_params(), *own]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        names, tensors = super()._get_torch_save_params()
        lagging = ["rollout_policy"] if self.rollout_lag > 0 else []
        reference = ["reference_policy"] if self.kl_coef else []
        return [*names, *lagging, *reference], tensors

    def _init_callback(self, callback: MaybeCallback, progress_bar: bool = False) -> BaseCallback:
        made = super()._init_callback(callback, progress_bar)
        if progress_bar:  # SB3's own bar, the last, would also count the steps of rows that wait
            assert isinstance(made, CallbackList)
            made.callbacks[-1] = TokenBarCallback()
            made.callbacks[-1].init_callback(self)
        if self.end_token is not None and any(type(one) is ProgressBarCallback for one in every_callback(made)):
            raise ValueError(
                "ProgressBarCallback counts a token for each row and step, but here sequences end early, and num_timesteps "
                "counts only written tokens: leave it out, and call learn(..., progress_bar=True)."
            )
        return made


def _check_gymnasium_wrappers(env: Any) -> None:
    """Refuse wrappers that `play` would bypass, except those with which `gym.make` checks its caller."""
    wrappers: list[Any] = list(vector_wrappers(env))
    while isinstance(env, gym.Wrapper):
        wrappers += [] if isinstance(env, PassiveEnvChecker | OrderEnforcing) else [env]
        env = env.env
    if wrappers:
        raise ValueError(
            f"Reinforce plays whole sequences at once, which {type(wrappers[0]).__name__} would not see: pass the environment "
            "without it. SB3's wrappers work around an SB3VecEnv, for example VecMonitor(SB3VecEnv(env))."
        )


def _check_wrappers(env: VecEnv) -> None:
    """Refuse SB3 wrappers with which the generator would see other prefixes than those played."""
    while isinstance(env, VecEnvWrapper):
        name, inner = type(env).__name__, env.venv
        if isinstance(env, VecNormalize) and normalises_observations(env):
            raise ValueError("VecNormalize scales token ids, which are names and not magnitudes: pass it norm_obs=False.")
        if env.observation_space != inner.observation_space or env.action_space != inner.action_space:
            raise ValueError(
                f"{name} changes observations or actions, but Reinforce reads and writes the environment's own tokens: leave "
                "it out."
            )
        env = inner
