"""A discriminator from two densities: its learned density of real sequences, and the generator's own."""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from seqgan_env.data.padding import lengths_of, played_positions
from seqgan_env.models.generators import GeneratorConfig, describe_generator, make_generator
from seqgan_env.models.likelihood import LikelihoodTraining, PretrainConfig
from seqgan_env.models.mixture import TokenMixture
from seqgan_env.models.sampling import Mask, TokenPolicy, allowed_where, forbid, sequences_per_chunk
from seqgan_env.models.token_model import TokenModel
from seqgan_env.rewards.reward_model import LearningRewardModel
from seqgan_env.support import seeds
from seqgan_env.support.precision import Precision, check_precision
from seqgan_env.support.process_group import ALONE, Workers
from seqgan_env.support.read_only import ReadOnly
from seqgan_env.support.settings import FewInt, LargestNorm, PositiveFloat, PositiveInt, check_settings
from seqgan_env.support.state_dicts import (
    load_module_state,
    load_optimizer_state,
    load_random_state,
    module_state,
    optimizer_state,
    random_state,
)

_PHASE = "a fit of the density ratio"

DELETED_SETTINGS = {"objective": "likelihood"}
"""Settings in older files; see `without_deleted`."""


@dataclass(frozen=True)
class DensityRatioConfig:
    """The density of real sequences: a mixture of models, and their training."""

    n_models: FewInt = 1
    """The number of trained models, which differ only in initial parameters and dropout."""
    model: GeneratorConfig = field(default_factory=lambda: GeneratorConfig(embedding_dim=128, hidden_dim=128, dropout=0.5))
    """The architecture of each."""
    with_start: bool = True
    """Adds a frozen copy of the generator, as it is at the first fit (its likelihood start), to the mixture."""
    batch_size: PositiveInt = 64
    """Sequences per training step."""
    epochs: PositiveInt = 1
    """Passes over the sequences of one fit."""
    learning_rate: PositiveFloat = 3e-3
    """Adam's step size in the first fit."""
    learning_rate_decay: PositiveFloat = 0.98
    """The factor on the step size after each fit."""
    max_grad_norm: LargestNorm = 5.0
    """Largest norm of the gradient."""
    precision: Precision = "highest"
    """Precision of float32 products in fits, by torch's names: highest, float32; high, TF32 on a GPU; medium, bfloat16 on CPUs
    with AMX, TF32 on a GPU. Rewards are in float32."""


class DensityRatioReward(ReadOnly, LearningRewardModel):
    """Log of the ratio of real to generated density, which is a sum over tokens and so gives each token a score.

    With p the learned density of real sequences, a mixture of autoregressive models, and q the generator's own density:

        log odds of being real = log p(Y) - log q(Y) = sum over t of log p(y_t | prefix) - log q(y_t | prefix)

    This has the form of the optimal discriminator (Goodfellow et al., 2014, proposition 1), with q known instead of learned:
    noise-contrastive estimation with the generator as noise (Gutmann and Hyvärinen, 2012, section 2.2). p is normalised, so
    the ratio's likelihood objective (KLIEP: Sugiyama et al., 2008, eq. 8) is that of p itself. Summed over a sequence, the
    generator's expected reward is -KL(q || p), in nats.

    Prefixes have scores of their own, so no completions are needed.

    Args:
        vocab_size: number of tokens, and the pad id.
        sequence_length: the maximum number of tokens in a sequence.
        policy: the generator, until another one is attached.
        config: the mixture and its training.
        end_token: ends a sequence.
        mask: the tokens that the generator may choose; p needs none, because it learns from sequences that obey it.
        seed: of initial parameters, dropout and the order of training.
        device: of the mixture.

    Raises:
        ValueError: the precision is unknown, or a setting is out of range.
    """

    read_only: ClassVar[frozenset[str]] = frozenset({"vocab_size", "config"})

    def __init__(
        self,
        vocab_size: int,
        sequence_length: int,
        policy: TokenPolicy,
        config: DensityRatioConfig = DensityRatioConfig(),
        *,
        end_token: int | None = None,
        mask: Mask | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        check_precision(config.precision)
        check_settings(config)
        self.config = config
        self.vocab_size = vocab_size
        self.policy = policy
        self.mask = mask
        initial = torch.Generator().manual_seed(seed + seeds.DENSITY_MODELS)
        sizes: dict[str, Any] = {"sequence_length": sequence_length, "end_token": end_token, "device": device}
        models = [make_generator(config.model, vocab_size, **sizes, generator=initial) for _ in range(config.n_models)]
        self.density = TokenMixture(models)
        self.start: TokenModel | None = None
        self._learning = _SideBySide(models)
        self.workers: Workers = ALONE
        self._training: LikelihoodTraining | None = None
        self._rng = torch.Generator(device).manual_seed(seed)
        self.optimizer = torch.optim.Adam(self._learning.parameters(), lr=config.learning_rate, fused=True)

    def attach_policy(self, policy: TokenPolicy) -> None:
        """The policy whose density is in the denominator from now on; held by reference."""
        self.policy = policy

    def join(self, start: TokenModel) -> None:
        """Add a generator to the mixture; it is held by reference and is not trained here."""
        self.start = start.requires_grad_(False).eval()
        self.density = TokenMixture([self.start, *self._learning.models])

    @torch.no_grad()
    def token_scores(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Log ratio of each token, given the tokens before it.

        Args:
            tokens: `(n, length)` int64, padded.
            lengths: `(n,)` int64.

        Returns:
            `(n, length)` float32, in nats; 0 at and beyond `lengths`.
        """
        parts = tokens.split(sequences_per_chunk(self.vocab_size, tokens.shape[1], tokens.device))
        scores = [
            self.density.log_prob(part) - policy_log_prob(self.policy, part, self.vocab_size, self.mask) for part in parts
        ]
        return torch.cat(scores).float() * played_positions(lengths, tokens.shape[1])

    def score(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Log ratios `(n,)` of whole sequences."""
        return self.token_scores(tokens, lengths).sum(dim=1)

    def log_odds(self, tokens: Tensor) -> Tensor:
        """`score`, which is the log odds of being real if real and generated sequences are equally many."""
        return self.score(tokens, lengths_of(tokens, self.vocab_size))

    def fit(self, real: Tensor, generated: Tensor) -> dict[str, float]:
        """Train for `config.epochs` passes over real `(n, length)` sequences, by likelihood.

        The generated ones `(m, length)` teach nothing, because their density is known.

        Returns:
            `nll`, the trained models' mean NLL of real sequences in the last pass, as seen in training: nats per token.

        Raises:
            ValueError: there are no real or no generated sequences.
            NumericalFault: the loss or the gradient of a step is not finite.
        """
        if len(real) == 0 or len(generated) == 0:
            raise ValueError(f"fit needs real and generated sequences, got {len(real)} and {len(generated)}.")
        if self.config.with_start and self.start is None and isinstance(self.policy, TokenModel):
            self.join(copy.deepcopy(self.policy))
        training = self._training
        if training is None or training.real.shape != real.shape or training.workers is not self.workers:
            training = self._training = self._training_on(torch.empty_like(real))
        training.restart(real)
        nll: list[float] = []
        training.run(lambda _, loss: nll.append(loss))
        for group in self.optimizer.param_groups:
            group["lr"] *= self.config.learning_rate_decay
        return {"nll": nll[-1]}

    def _training_on(self, real: Tensor) -> LikelihoodTraining:
        settings = PretrainConfig(
            epochs=self.config.epochs,
            batch_size=min(self.config.batch_size, len(real)),
            max_grad_norm=self.config.max_grad_norm,
            precision=self.config.precision,
        )
        return LikelihoodTraining(
            self._learning, real, settings, self._rng, self.workers, optimizer=self.optimizer, phase=_PHASE
        )

    def share_work(self, workers: Workers) -> None:
        """See `RewardModel`."""
        self.workers = workers

    def training_state(self) -> dict[str, Any]:
        """Parameters, optimiser and random numbers; see `seqgan_env.support.state_dicts`."""
        return {
            "models": module_state(self._learning),
            "start": None if self.start is None else module_state(self.start),
            "optimizer": optimizer_state(self.optimizer),
            "rng": random_state(self._rng),
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Resume from what `training_state` returned; the attached policy must be a generator like the one that joined."""
        load_module_state(self._learning, state["models"])
        if state["start"] is None:
            self.start, self.density = None, TokenMixture(self._learning.models)
        else:
            assert isinstance(self.policy, TokenModel)
            start = copy.deepcopy(self.policy)
            load_module_state(start, state["start"])
            self.join(start)
        load_optimizer_state(self.optimizer, state["optimizer"])
        load_random_state(self._rng, state["rng"])

    def networks(self) -> dict[str, nn.Module]:
        """The mixture, including the generator that joined it."""
        return {"density.safetensors": self.density}

    def description(self) -> dict[str, Any]:
        """See `RewardModel`; `start` describes the generator that joined."""
        start = None if self.start is None else describe_generator(self.start)
        return {"reward_model": "density-ratio", "density_ratio": {**dataclasses.asdict(self.config), "start": start}}


class _SideBySide(TokenMixture):
    """The trained models, each with its own likelihood: the gradient of one does not depend on the others."""

    @property
    def recordable(self) -> bool:
        """See `seqgan_env.support.cuda_graphs.Recordable`."""
        return all(model.recordable for model in self.models)

    def log_likelihood(self, tokens: Tensor) -> Tensor:
        """The mean of the models' log-likelihoods, a scalar."""
        return torch.stack([model.log_likelihood(tokens) for model in self.models]).mean()


@torch.no_grad()
def policy_log_prob(policy: TokenPolicy, tokens: Tensor, vocab_size: int, mask: Mask | None = None) -> Tensor:
    """Log-probabilities in nats of tokens `(n, length)` int64 under a policy and a mask: `(n, length)`, 0 at padding."""
    if isinstance(policy, TokenModel) and mask is None:
        return policy.log_prob(tokens)
    state = policy.initial_state(len(tokens))
    inputs = torch.full_like(tokens[:, 0], vocab_size)
    log_probs = []
    for position in range(tokens.shape[1]):
        logits, state = policy.step(inputs, state)
        inputs = tokens[:, position]
        written = inputs < vocab_size
        if mask is not None:
            logits = forbid(logits, allowed_where(written, mask, tokens[:, :position], vocab_size))
        chosen = inputs.where(written, 0).unsqueeze(1)
        log_probs.append(torch.log_softmax(logits, dim=-1).gather(1, chosen).squeeze(1).where(written, 0.0))
    return torch.stack(log_probs, dim=1)
