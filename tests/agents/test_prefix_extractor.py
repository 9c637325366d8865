"""What Stable-Baselines3 needs of the environments: features of prefixes, `SB3VecEnv`, and its own vector forms."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
from torch import Tensor

from agents import PrefixExtractor, SB3VecEnv
from seqgan_env import SequenceEnv, SequenceVectorEnv, text_game
from tests.agents.small_agents import play
from tests.small import Recorder, T, V, episodes, real_sequences, seeded, small_discriminator, small_game

READERS = ("gru", "lstm", "transformer")
readers = pytest.mark.parametrize("reader", READERS)
DICT, FLAT = (small_game().observation_space(layout) for layout in ("dict", "flat"))
ORACLE = "seqgan_env:SeqGAN/Oracle-v0"  # the module's name registers it in new processes, too


def extractor(space: spaces.Space[Any] = DICT, **arguments: Any) -> PrefixExtractor:
    torch.manual_seed(0)
    made = PrefixExtractor(space, **{"embedding_dim": 4, "features_dim": 8, **arguments})
    return made.double().eval()


def features(made: PrefixExtractor, tokens: Tensor, lengths: Tensor) -> Tensor:
    return made({"tokens": tokens.float(), "length": lengths.float()})  # as SB3 casts them


class TestPrefixExtractor:
    MADE = {reader: extractor(reader=reader) for reader in READERS}  # noqa: RUF012

    @readers
    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 2**31), length=st.integers(0, T))
    def test_tokens_beyond_the_prefix_have_no_effect(self, reader: str, seed: int, length: int) -> None:
        tokens, garbage = torch.randint(0, V + 1, (2, 1, T), generator=seeded(seed))
        other = torch.where(torch.arange(T) < length, tokens, garbage)
        lengths = torch.full((1, 1), length)
        torch.testing.assert_close(features(self.MADE[reader], other, lengths), features(self.MADE[reader], tokens, lengths))

    @readers
    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 2**31), length=st.integers(1, T), data=st.data())
    def test_tokens_of_the_prefix_have_an_effect(self, reader: str, seed: int, length: int, data: st.DataObject) -> None:
        """The negative control of the test above: every single token of the prefix counts, and its order, and its length."""
        tokens, lengths = torch.randint(0, V, (1, T), generator=seeded(seed)), torch.full((1, 1), length)
        expected = features(self.MADE[reader], tokens, lengths)
        changed, position = tokens.clone(), data.draw(st.integers(0, length - 1))
        changed[0, position] = (tokens[0, position] + 1) % V
        assert not torch.allclose(features(self.MADE[reader], changed, lengths), expected, atol=1e-9)
        assert not torch.allclose(features(self.MADE[reader], tokens, lengths - 1), expected, atol=1e-9)

    @readers
    def test_the_order_of_tokens_counts(self, reader: str) -> None:
        lengths = torch.full((1, 1), 3)
        one, other = (torch.tensor([[*prefix, V, V]]) for prefix in ([1, 2, 3], [2, 1, 3]))
        assert not torch.allclose(features(self.MADE[reader], one, lengths), features(self.MADE[reader], other, lengths))

    @readers
    def test_rows_do_not_mix(self, reader: str) -> None:
        tokens, lengths = torch.randint(0, V, (T + 1, T), generator=seeded()), torch.arange(T + 1).unsqueeze(1)
        alone = [features(self.MADE[reader], tokens[row : row + 1], lengths[row : row + 1]) for row in range(T + 1)]
        together = features(self.MADE[reader], tokens, lengths)
        assert together.shape == (T + 1, 8)
        torch.testing.assert_close(together, torch.cat(alone))

    @readers
    def test_both_layouts_give_the_same_features(self, reader: str) -> None:
        by_flat = extractor(FLAT, vocab_size=V, reader=reader)
        tokens, lengths = torch.randint(0, V, (T + 1, T), generator=seeded()), torch.arange(T + 1).unsqueeze(1)
        flat = torch.cat([tokens, lengths], dim=1).float()
        assert torch.equal(by_flat(flat), features(self.MADE[reader], tokens, lengths))

    @readers
    def test_the_mask_in_the_observation_has_no_effect(self, reader: str) -> None:
        made = extractor(small_game().observation_space("dict-mask"), reader=reader)
        tokens, lengths = torch.randint(0, V, (T + 1, T), generator=seeded()), torch.arange(T + 1).unsqueeze(1)
        observation = {"tokens": tokens.float(), "length": lengths.float(), "action_mask": torch.zeros(T + 1, V)}
        assert torch.equal(made(observation), features(self.MADE[reader], tokens, lengths))

    def test_flatten_observation_gives_the_flat_layout(self) -> None:
        wrapped, flat = FlattenObservation(SequenceEnv(small_game())), SequenceEnv(small_game(), layout="flat")
        for env in (wrapped, flat):
            env.reset(seed=0)
        for token in (3, 1):
            assert wrapped.step(np.int64(token))[0].tolist() == flat.step(np.int64(token))[0].tolist()  # type: ignore[union-attr]

    def test_the_algorithms_seed_draws_the_parameters(self) -> None:
        env = SB3VecEnv(SequenceVectorEnv(small_game(), 2, autoreset_mode="SameStep"))
        kwargs = {"features_extractor_class": PrefixExtractor, "features_extractor_kwargs": {"reader": "transformer"}}
        one, same, other = (
            PPO("MultiInputPolicy", env, n_steps=8, batch_size=16, gamma=1.0, seed=seed, policy_kwargs=kwargs)
            for seed in (1, 1, 2)
        )
        weights = [model.policy.features_extractor.reader.positions for model in (one, same, other)]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])

    @readers
    def test_a_saved_model_acts_as_before(self, reader: str, tmp_path: Path) -> None:
        env = SB3VecEnv(SequenceVectorEnv(small_game(), 4, autoreset_mode="SameStep"))
        kwargs = {"features_extractor_class": PrefixExtractor, "features_extractor_kwargs": {"reader": reader}}
        model = PPO("MultiInputPolicy", env, n_steps=T, batch_size=4 * T, gamma=1.0, seed=1, policy_kwargs=kwargs).learn(4 * T)
        model.save(tmp_path / "model")
        loaded = PPO.load(tmp_path / "model", env=env)
        observation, _ = model.policy.obs_to_tensor(env.reset())  # type: ignore[arg-type]
        logits = [one.policy.get_distribution(observation).distribution.logits for one in (model, loaded)]  # type: ignore[attr-defined]
        assert torch.equal(*logits)
        assert loaded.learn(4 * T).num_timesteps == 4 * T

    @pytest.mark.parametrize(
        ("space", "arguments", "error", "message"),
        [
            (FLAT, {}, ValueError, "The layout 'flat' does not contain the vocabulary's size: pass features_extractor_kwargs"),
            (
                spaces.flatten_space(small_game().observation_space("dict-mask")),
                {"vocab_size": V},
                ValueError,
                "the layout 'dict-mask' in one row, whose last number is not the length: .* with layout='flat'",
            ),
            (DICT, {"reader": "rnn"}, ValueError, r"reader must be one of \('gru', 'lstm', 'transformer'\), got 'rnn'"),
            (DICT, {"reader": "transformer", "features_dim": 6}, ValueError, "must be a multiple of its 4 heads, got 6"),
            (spaces.MultiDiscrete([V + 1] * T), {}, TypeError, r"\(MultiDiscrete\) into one-hot vectors, 35 inputs"),
            (
                spaces.Dict(tokens=DICT["tokens"], length=spaces.Discrete(T + 1)),  # type: ignore[index]
                {},
                TypeError,
                r"\(Dict\) into one-hot vectors, 11 inputs: keep them as the environment returns them",
            ),
        ],
    )
    def test_invalid_spaces_and_settings_are_refused(
        self, space: Any, arguments: Any, error: type[Exception], message: str
    ) -> None:
        with pytest.raises(error, match=message):
            extractor(space, **arguments)


def arguments(**rules: Any) -> dict[str, Any]:
    return {"sequence_length": T, "vocab_size": V, "n_real": 20, **rules}


class TestSingleEnvironments:
    def test_make_vec_env_shares_a_given_reward_model(self) -> None:
        shared = small_discriminator()
        env = make_vec_env("SeqGAN/Oracle-v0", n_envs=3, env_kwargs=arguments(reward_model=shared, retrain_every=4))
        assert all(game.reward_model is shared for game in env.get_attr("game"))
        tokens = episodes(small_game(), 1).expand(3, T)
        before = [info["discriminator_probability"] for info in play(env, tokens)]
        env.env_method("retrain", real_sequences(), indices=[0])
        after = [info["discriminator_probability"] for info in play(env, tokens)]
        assert len(set(before)) == len(set(after)) == 1
        assert before[0] != after[0]

    def test_without_one_each_environment_creates_its_own(self) -> None:
        """The negative control of the test above."""
        env = make_vec_env(
            "SeqGAN/Oracle-v0", n_envs=3, env_kwargs=arguments(discriminator=small_discriminator().discriminator.config)
        )
        tokens = episodes(small_game(), 1).expand(3, T)
        before = [info["discriminator_probability"] for info in play(env, tokens)]
        env.env_method("retrain", real_sequences(), indices=[0])
        after = [info["discriminator_probability"] for info in play(env, tokens)]
        assert before[0] != after[0]
        assert before[1:] == after[1:]

    def test_each_environment_counts_its_own_episodes_unless_they_share_the_game(self) -> None:
        tokens = episodes(small_game(), 3)
        model = Recorder()
        own = make_vec_env("SeqGAN/Oracle-v0", n_envs=3, env_kwargs=arguments(reward_model=model, retrain_every=2))
        assert ["retraining" in info for _ in range(2) for info in play(own, tokens)] == [False] * 3 + [True] * 3
        game = small_game(reward_model=Recorder(), retrain_every=3)
        shared = make_vec_env(lambda: SequenceEnv(game), n_envs=3)
        assert ["retraining" in info for _ in range(2) for info in play(shared, tokens)] == [False, False, True] * 2

    def test_ppo_retrains_the_shared_one(self) -> None:
        shared = small_discriminator()
        env = make_vec_env("SeqGAN/Oracle-v0", n_envs=4, env_kwargs=arguments(reward_model=shared, retrain_every=4))
        before = shared.discriminator.output.weight.detach().clone()
        kwargs = {"features_extractor_class": PrefixExtractor}
        PPO("MultiInputPolicy", env, n_steps=20, batch_size=80, gamma=1.0, seed=0, policy_kwargs=kwargs).learn(80)
        assert not torch.equal(shared.discriminator.output.weight, before)

    @pytest.mark.slow
    def test_processes_share_nothing(self) -> None:
        """Each process has a copy of the reward model; what one learns reaches neither the other nor the caller's model."""
        given = small_discriminator()
        env = make_vec_env(
            ORACLE,
            n_envs=2,
            env_kwargs=arguments(reward_model=given),
            vec_env_cls=SubprocVecEnv,
            vec_env_kwargs={"start_method": "forkserver"},
        )
        try:
            assert env.get_attr("gamma") == [1.0, 1.0]
            tokens = episodes(small_game(), 1).expand(2, T)
            before = play(env, tokens)
            env.env_method("retrain", real_sequences(), indices=[0])
            after = play(env, tokens)
        finally:
            env.close()
        probability = [[info["discriminator_probability"] for info in infos] for infos in (before, after)]
        untouched = given.probability(tokens[:1]).item()
        assert probability[0] == pytest.approx([untouched, untouched])
        assert probability[1][1] == probability[0][1]
        assert probability[1][0] != probability[0][0]
        assert (
            before[0]["oracle_nll"] == before[1]["oracle_nll"] == after[0]["oracle_nll"]
        )  # nature is drawn from its own seed


@pytest.mark.parametrize("words", ["costs $5 or $6", "床 前 明 月", "\\frac{ _^ {"])
def test_images_take_any_token_and_have_one_size(words: str) -> None:
    env = SequenceEnv(text_game([words, "a"], T, reward_model="constant"), render_mode="rgb_array")
    env.reset(seed=0)
    images = [env.render()]
    for token in range(2):
        env.step(np.int64(token))
        images.append(env.render())
    assert all(isinstance(image, np.ndarray) and image.dtype == np.uint8 for image in images)
    assert len({image.shape for image in images if isinstance(image, np.ndarray)}) == 1


def test_single_environments_are_rendered_side_by_side() -> None:
    env = make_vec_env("SeqGAN/Oracle-v0", n_envs=2, env_kwargs=arguments(reward_model="constant"))
    assert isinstance(env, DummyVecEnv)
    assert env.render_mode == "rgb_array"
    play(env, episodes(small_game(), 2))
    images = env.get_images()
    assert all(image is not None and image.dtype == np.uint8 for image in images)
