"""Generators by name: every field has an effect, and both kinds and a custom generator play in the agent."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agents import GeneratorPolicy, PretrainConfig, Reinforce, pretrain
from seqgan_env import SequenceVectorEnv, TextCNNConfig, oracle_game, text_game
from seqgan_env.models.generators import GeneratorConfig, describe_generator, make_generator
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.mixture import TokenMixture
from seqgan_env.models.token_model import TokenModel
from seqgan_env.models.transformer import TokenTransformer
from tests.small import KeepsEpisodes, V, seeded

T = 5
SMALL_CNN = TextCNNConfig(widths=(1, 2), n_filters=(4, 4), embedding_dim=4, batch_size=16, epochs=1)
KINDS = ("lstm", "transformer")


def made(seed: int = 0, **fields: Any) -> TokenModel:
    return make_generator(GeneratorConfig(**fields), V, sequence_length=T, end_token=2, generator=seeded(seed))


class TestMakeGenerator:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        "change",
        [{"embedding_dim": 16}, {"hidden_dim": 16}, {"n_layers": 2}, {"tied": True}, {"initial_std": 0.2}],
        ids=lambda change: next(iter(change)),
    )
    def test_every_field_has_an_effect(self, kind: Any, change: dict[str, Any]) -> None:
        plain, changed = made(kind=kind), made(kind=kind, **change)
        shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (plain, changed)]
        assert shapes[0] != shapes[1] or any(
            not torch.equal(a, b) for a, b in zip(plain.parameters(), changed.parameters(), strict=True)
        )

    def test_heads_have_an_effect_on_a_transformer(self) -> None:
        tokens = torch.tensor([[3, 0, 5, 5, 1]])
        few, many = (made(kind="transformer", n_heads=n, initial_std=0.5).log_prob(tokens) for n in (1, 4))
        assert not torch.allclose(few, many, atol=1e-3)

    @pytest.mark.parametrize("kind", KINDS)
    def test_dropout_has_an_effect_in_training(self, kind: Any) -> None:
        real = torch.randint(V, (64, T), generator=seeded())
        results = []
        for dropout in (0.0, 0.5):
            model = made(kind=kind, dropout=dropout)
            pretrain(model, real, PretrainConfig(epochs=1), seeded())
            results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        assert not torch.allclose(results[0], results[1], atol=1e-4)

    def test_the_default_is_the_published_lstm(self) -> None:
        assert [field.default for field in dataclasses.fields(GeneratorConfig)] == ["lstm", 32, 32, 1, 4, 0.0, False, 0.1]
        model, same = made(), TokenLSTM(V, 32, 32, end_token=2, generator=seeded())
        assert type(model) is TokenLSTM
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))

    def test_another_kind_is_refused(self) -> None:
        with pytest.raises(ValueError, match="kind must be 'lstm' or 'transformer', got 'gru'"):
            made(kind="gru")

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_description_recreates_the_generator(self, kind: Any) -> None:
        config = GeneratorConfig(kind, 8, 8, n_layers=2, n_heads=2, dropout=0.25, tied=True)
        model = make_generator(config, V, sequence_length=T, generator=seeded())
        sizes = describe_generator(model)
        length = sizes.pop("sequence_length", T)
        assert GeneratorConfig(**sizes) == dataclasses.replace(config, n_heads=2 if kind == "transformer" else 4)
        again = make_generator(GeneratorConfig(**sizes), V, sequence_length=length)
        again.load_state_dict(model.state_dict())


class Bigram(TokenModel):
    """A custom generator: the next token depends only on the last one. At module level, so that it can be pickled."""

    def __init__(self, vocab_size: int, *, sequence_length: int, end_token: int | None, generator: torch.Generator) -> None:
        super().__init__(vocab_size, end_token=end_token)
        with torch.device("meta"):  # where initialisers draw nothing
            self.embedding = nn.Embedding(vocab_size + 1, 8)
            self.output = nn.Linear(8, vocab_size)
        self.to_empty(device="cpu")
        self.drop = nn.Dropout(0.5)
        self.draw_parameters(generator, 0.1)

    def hidden(self, tokens: Tensor) -> Tensor:
        hidden: Tensor = self.drop(self.embedding(self.inputs(tokens)))
        return hidden

    def initial_state(self, n: int) -> Tensor:
        return torch.zeros(n, 0)

    def step(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.output(self.drop(self.embedding(tokens))), state


POLICIES: dict[str, dict[str, Any]] = {
    "lstm": {"n_layers": 2, "dropout": 0.2, "tied": True},
    "transformer": {"kind": "transformer", "embedding_dim": 16, "hidden_dim": 32, "n_layers": 2, "dropout": 0.2},
    "own": {"make_generator": Bigram},
}
policies = pytest.mark.parametrize("kwargs", POLICIES.values(), ids=POLICIES)


def new_env(text: bool = False) -> KeepsEpisodes:
    rules: dict[str, Any] = {"reward": "rollout", "n_rollouts": 2, "discriminator": SMALL_CNN}
    game = text_game(["a b c d", "b a", "c c a", "d"] * 10, 4, **rules) if text else oracle_game(T, 12, n_real=64, **rules)
    return KeepsEpisodes(game, 8, autoreset_mode="SameStep")


def new_agent(kwargs: dict[str, Any], text: bool = False, env: KeepsEpisodes | None = None, **arguments: Any) -> Reinforce:
    settings = {"policy_kwargs": kwargs, "seed": 0, "learning_rate": 0.02, **arguments}
    return Reinforce("GeneratorPolicy", env or new_env(text), **settings)


def weights(agent: Reinforce) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in agent.generator.parameters()])


@policies
class TestInTheAgent:
    @pytest.mark.usefixtures("global_generators_at_rest")
    @pytest.mark.parametrize("text", [False, True])
    def test_same_seed_same_training(self, kwargs: dict[str, Any], text: bool) -> None:
        steps = 0 if "make_generator" in kwargs else 1  # torch's own dropout, which this one has, draws globally
        runs = [weights(new_agent(kwargs, text, seed=seed, likelihood_steps=steps).learn(80)) for seed in (0, 0, 1)]
        assert torch.equal(runs[0], runs[1])
        assert not torch.equal(runs[0], runs[2])
        assert not torch.equal(runs[0], weights(new_agent(kwargs, text)))

    def test_the_gradient_is_that_of_the_sampling_policy(
        self, kwargs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No dropout in the policy gradient: the log-probabilities are those under which the batch was drawn."""
        env = new_env()
        agent = new_agent(kwargs, env=env)
        seen: list[Tensor] = []
        right = agent.generator.log_prob
        monkeypatch.setattr(agent.generator, "log_prob", lambda tokens: (seen.append(right(tokens)), seen[-1])[1])
        before = {name: value.clone() for name, value in agent.generator.state_dict().items()}
        agent.learn(8 * T)
        agent.generator.load_state_dict(before)
        assert torch.equal(seen[0], right(env.tokens))
        assert not any(module.training for module in agent.policy.modules())  # evaluations after it see no dropout either

    def test_dropout_works_in_likelihood_steps(self, kwargs: dict[str, Any]) -> None:
        modes: list[bool] = []
        agent = new_agent(kwargs, likelihood_steps=1)
        module = next(module for module in agent.generator.modules() if isinstance(module, nn.Dropout))
        module.register_forward_hook(lambda module, *_: modes.append(module.training))
        state = torch.get_rng_state()
        agent.learn(8 * T)
        torch.set_rng_state(state)
        assert modes[-1]
        assert not modes[0]

    def test_predict_reads_the_prefix_and_nothing_else(self, kwargs: dict[str, Any]) -> None:
        agent = new_agent(kwargs)
        prefix, garbage = torch.tensor([[3, 1, 4, 12, 12]]), torch.tensor([[3, 1, 4, 7, 2]])
        expected = agent.generator.logits(torch.tensor([[3, 1, 4, 0]]))[:, 3]
        for tokens in (prefix, garbage):
            assert torch.allclose(agent.policy.logits({"tokens": tokens, "length": torch.tensor([[3]])}), expected, atol=1e-6)
        full = {"tokens": torch.arange(T).unsqueeze(0), "length": torch.tensor([[T]])}
        assert agent.policy.logits(full).isfinite().all()

    @pytest.mark.parametrize("lag", [0.0, 0.5])
    def test_save_and_load(self, kwargs: dict[str, Any], lag: float, tmp_path: Path) -> None:
        agent = new_agent(kwargs, rollout_lag=lag)
        agent.learn(8 * T)
        agent.save(tmp_path / "agent.zip")
        loaded = Reinforce.load(tmp_path / "agent.zip", env=new_env())
        assert type(loaded.generator) is type(agent.generator)
        assert torch.equal(weights(loaded), weights(agent))
        assert not torch.equal(weights(loaded.learn(8 * T, reset_num_timesteps=False)), weights(agent))
        agent.policy.save(str(tmp_path / "policy.pt"))
        policy = GeneratorPolicy.load(str(tmp_path / "policy.pt"))
        observation = {"tokens": np.full((1, T), 12), "length": np.zeros((1, 1), dtype=np.int64)}
        logits = [p.logits(p.obs_to_tensor(observation)[0]) for p in (policy, agent.policy)]
        assert torch.equal(*logits)


@pytest.mark.parametrize("layout", ["dict", "flat"])
def test_a_transformer_knows_the_length_from_the_observations(layout: Any) -> None:
    env = SequenceVectorEnv(
        oracle_game(7, 12, n_real=64, reward_model="constant"), 4, autoreset_mode="SameStep", layout=layout
    )
    generator = Reinforce("GeneratorPolicy", env, policy_kwargs={"kind": "transformer"}, seed=0).generator
    assert isinstance(generator, TokenTransformer)
    assert generator.max_length == 7


class TestBadInput:
    def test_unknown_fields(self) -> None:
        with pytest.raises(TypeError, match="unexpected keyword argument 'width'"):
            new_agent({"width": 3})

    def test_fields_beside_make_generator(self) -> None:
        with pytest.raises(TypeError, match="hidden_dim, tied would have no effect"):
            new_agent({"make_generator": Bigram, "hidden_dim": 3, "tied": True})

    def test_a_module_that_is_not_a_token_model(self) -> None:
        with pytest.raises(TypeError, match=r"must return a TokenModel \(or a subclass\), got Linear"):
            new_agent({"make_generator": lambda *_, **__: nn.Linear(2, 2)})

    def test_a_generator_of_another_vocabulary(self) -> None:
        message = r"asked for \(vocab_size, end_token\) = \(12, None\) and returned a Bigram of \(7, None\): pass both on"
        with pytest.raises(ValueError, match=message):
            new_agent({"make_generator": lambda vocab_size, **rest: Bigram(7, **rest)})

    def test_a_generator_without_a_name_has_no_description(self) -> None:
        with pytest.raises(TypeError, match=r"A Bigram cannot be recreated by name.*save_weights"):
            describe_generator(new_agent({"make_generator": Bigram}).generator)


class TestNoSequences:
    @pytest.mark.parametrize("end_token", [None, 1])
    @pytest.mark.parametrize("vocab_size", [2, 127, 128, 129])
    @pytest.mark.parametrize("kind", [*KINDS, "mixture"])
    def test_give_empty_likelihoods_and_samples(self, kind: Any, vocab_size: int, end_token: int | None) -> None:
        config = GeneratorConfig(kind="lstm" if kind == "mixture" else kind, embedding_dim=4, hidden_dim=4)
        one, other = (
            make_generator(config, vocab_size, sequence_length=T, end_token=end_token, generator=seeded(seed))
            for seed in (0, 1)
        )
        model: TokenModel = TokenMixture([one, other]) if kind == "mixture" else one
        none = torch.empty(0, T, dtype=torch.int64)
        assert model.log_prob(none).shape == (0, T)
        assert model.logits(none).shape == (0, T, vocab_size)
        assert model.nll(none).shape == (0,)
        assert model.log_likelihood(none).item() == 0
        model.log_likelihood(none).backward()
        assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())
        logits, _ = model.step(none[:, 0], model.initial_state(0))
        assert logits.shape == (0, vocab_size)
        assert [part.shape for part in model.sample(0, T, seeded())] == [(0, T), (0,)]
