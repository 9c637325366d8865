"""Games and generators are the same after saving and loading."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from seqgan_env import (
    ConstantReward,
    FunctionReward,
    RankConfig,
    RewardError,
    TextCNNConfig,
    TokenLSTM,
    oracle_game,
    text_game,
)
from seqgan_env.data.corpus import read_corpus
from seqgan_env.game import SequenceGame
from seqgan_env.models.generators import GeneratorConfig, describe_generator, make_generator
from seqgan_env.rewards.density_ratio import DensityRatioConfig
from seqgan_env.rewards.reward_model import learns
from seqgan_env.saved_game import (
    load_game,
    load_generator,
    load_sequences,
    load_weights,
    save_game,
    save_generator,
    save_sequences,
    save_weights,
)

CNN = TextCNNConfig(widths=(1, 2), n_filters=(3, 4), embedding_dim=4)
DENSITY = DensityRatioConfig(n_models=3, model=GeneratorConfig(embedding_dim=3, hidden_dim=4, n_layers=2))
LINES = ["夜 静 群 动 息", "a b <end>", "b a c d", "c"] * 5


def games() -> dict[str, SequenceGame]:
    oracle: Any = {"sequence_length": 5, "vocab_size": 9, "n_real": 30}
    return {
        "oracle": oracle_game(**oracle, reward="rollout", n_rollouts=3, discriminator=CNN, scaling="log", model_seed=4),
        "text": text_game(LINES, discriminator=CNN),
        "bleu": text_game(LINES, reward_model="bleu"),
        "ratio": oracle_game(**oracle, discriminator=CNN, scaling="ratio"),
        "density ratio": text_game(LINES, reward_model="density-ratio", density_ratio=DENSITY),
        "rank": text_game(LINES, reward_model="rank", discriminator=CNN, ranking=RankConfig(2.0, 3, 4)),
        "constant": oracle_game(**oracle, reward_model="constant"),
        "random": oracle_game(**oracle, reward_model="random", model_seed=7),
    }


@pytest.fixture(params=list(games()))
def game(request: pytest.FixtureRequest) -> SequenceGame:
    return games()[request.param]


def test_a_game_is_the_same_after_loading(game: SequenceGame, tmp_path: Path) -> None:
    if learns(game.reward_model):
        game.retrain(game.real_sequences[:10])
    save_game(game, tmp_path)
    loaded = load_game(str(tmp_path))
    for field in ("vocab_size", "sequence_length", "end_token", "reward", "n_rollouts", "vocabulary", "gamma"):
        assert getattr(loaded, field) == getattr(game, field), field
    assert torch.equal(loaded.real_sequences, game.real_sequences)
    tokens = game.real_sequences[:12]
    lengths = (tokens < game.vocab_size).sum(dim=1)
    keys, positions = torch.arange(12), range(game.sequence_length)
    assert torch.equal(
        loaded.action_values(tokens, lengths, keys, positions), game.action_values(tokens, lengths, keys, positions)
    )
    expected = game.final_info(tokens, lengths)
    assert {name: values.tolist() for name, values in loaded.final_info(tokens, lengths).items()} == {
        name: values.tolist() for name, values in expected.items()
    }


class TestDeletedSettings:
    """Older files with deleted settings; see `DELETED_SETTINGS`."""

    KINDS: ClassVar[dict[str, tuple[str, dict[str, Any]]]] = {
        "oracle": ("discriminator", {"token_dropout": 0.0, "label_smoothing": 0.0, "spectral_norm": False, "validation": 0.0}),
        "density ratio": ("density_ratio", {"objective": "likelihood"}),
    }
    EFFECTIVE: ClassVar[dict[str, Any]] = {
        "token_dropout": 0.1,
        "label_smoothing": 0.1,
        "spectral_norm": True,
        "validation": 0.2,
        "objective": "classification",
    }

    def older(self, kind: str, folder: Path, changes: dict[str, Any]) -> SequenceGame:
        game = games()[kind]
        save_game(game, folder)
        path, group = folder / "game.json", self.KINDS[kind][0]
        description = json.loads(path.read_text(encoding="utf-8"))
        description[group] |= changes
        path.write_text(json.dumps(description), encoding="utf-8")
        return game

    @pytest.mark.parametrize("kind", KINDS)
    def test_are_ignored_if_they_had_no_effect(self, kind: str, tmp_path: Path) -> None:
        game = self.older(kind, tmp_path, self.KINDS[kind][1])
        loaded, tokens = load_game(tmp_path), game.real_sequences[:5]
        lengths = (tokens < game.vocab_size).sum(dim=1)
        assert torch.equal(loaded.reward_model.score(tokens, lengths), game.reward_model.score(tokens, lengths))

    @pytest.mark.parametrize("name", EFFECTIVE)
    def test_are_refused_if_they_had_one(self, name: str, tmp_path: Path) -> None:
        kind = next(kind for kind, (_, settings) in self.KINDS.items() if name in settings)
        self.older(kind, tmp_path, {name: self.EFFECTIVE[name]})
        message = f"The setting {name}={self.EFFECTIVE[name]!r} no longer exists; only .* is accepted. Use the version"
        with pytest.raises(ValueError, match=message):
            load_game(tmp_path)


GENERATORS = {
    "lstm": GeneratorConfig(embedding_dim=3, hidden_dim=5),
    "deep lstm": GeneratorConfig(embedding_dim=4, hidden_dim=4, n_layers=2, dropout=0.3, tied=True),
    "transformer": GeneratorConfig("transformer", 4, 6, n_layers=2, n_heads=2, dropout=0.3),
    "tied transformer": GeneratorConfig("transformer", 4, 6, n_heads=1, tied=True),
}


@pytest.mark.parametrize("config", GENERATORS.values(), ids=GENERATORS)
def test_a_generator_is_the_same_after_loading(game: SequenceGame, config: GeneratorConfig, tmp_path: Path) -> None:
    rng, length = torch.Generator().manual_seed(0), game.sequence_length
    generator = make_generator(config, game.vocab_size, sequence_length=length, end_token=game.end_token, generator=rng)
    save_generator(generator, tmp_path / "generator.safetensors", game)
    loaded = load_generator(str(tmp_path / "generator.safetensors"), game)
    assert describe_generator(loaded) == describe_generator(generator)
    assert not loaded.training
    assert loaded.state_dict().keys() == generator.state_dict().keys()
    samples = [g.sample(20, length, torch.Generator().manual_seed(1))[0] for g in (generator, loaded)]
    assert torch.equal(*samples)


def test_a_file_of_the_first_version_is_an_lstm_of_one_layer(tmp_path: Path) -> None:
    game = games()["oracle"]
    generator = TokenLSTM(game.vocab_size, 3, 5, generator=torch.Generator().manual_seed(0))
    save_weights(generator, tmp_path / "generator.safetensors")  # no metadata
    with pytest.warns(UserWarning, match=r"generator\.safetensors does not say which tokens it writes") as caught:
        loaded = load_generator(tmp_path / "generator.safetensors", game)
    assert caught[0].filename == __file__
    assert type(loaded) is TokenLSTM
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), generator.parameters(), strict=True))


A, B = ["a b c", "b a", "a"], ["b a c", "a b", "b"]  # with B, "a" and "b" change places


class TestTheVocabularyOfWeights:
    """A vocabulary of the same size in another order is another vocabulary."""

    OTHER = (
        r"was trained on another vocabulary: its id 0 is 'a', but in this game it is 'b'\. Use weights that were trained on"
    )

    def games(self) -> tuple[SequenceGame, SequenceGame]:
        first, second = (text_game(lines, discriminator=CNN) for lines in (A, B))
        assert first.vocabulary is not None
        assert second.vocabulary is not None
        assert (first.vocabulary.tokens, second.vocabulary.tokens) == (("a", "b", "c", "<end>"), ("b", "a", "c", "<end>"))
        return first, second

    def saved(self, game: SequenceGame, path: Path) -> Path:
        save_generator(TokenLSTM(game.vocab_size, 3, 3, end_token=game.end_token, generator=torch.Generator()), path, game)
        return path

    def test_a_generator_fits_only_a_game_with_its_tokens(self, tmp_path: Path) -> None:
        first, second = self.games()
        path = self.saved(first, tmp_path / "generator.safetensors")
        load_generator(path, first)
        with pytest.raises(ValueError, match=rf"generator\.safetensors {self.OTHER}"):
            load_generator(path, second)
        corpus = read_corpus(B, vocabulary=first.vocabulary)  # the remedy that the error names
        load_generator(path, text_game(corpus, reward_model="constant"))

    def test_a_generator_of_ids_fits_a_game_of_ids(self, tmp_path: Path) -> None:
        words, oracle = self.games()[0], oracle_game(3, 4, n_real=5, reward_model="constant")
        ids = text_game(["0 1 3", "3 2 1"], tokenizer="integers", reward_model="constant")
        path = self.saved(oracle, tmp_path / "generator.safetensors")
        load_generator(path, ids)
        with pytest.raises(ValueError, match="its id 0 is '0', but in this game it is 'a'"):
            load_generator(path, words)
        with pytest.raises(ValueError, match="its id 0 is 'a', but in this game it is '0'"):
            load_generator(self.saved(words, path), oracle)

    def test_weights_of_a_custom_generator(self, tmp_path: Path) -> None:
        path, (first, second) = tmp_path / "own.safetensors", self.games()
        save_weights(torch.nn.Embedding(4, 2), path, game=first)
        load_weights(torch.nn.Embedding(4, 2), path)
        load_weights(torch.nn.Embedding(4, 2), path, game=first)
        with pytest.raises(ValueError, match=rf"own\.safetensors {self.OTHER}"):
            load_weights(torch.nn.Embedding(4, 2), path, game=second)
        with pytest.raises(ValueError, match=r"own\.safetensors was trained on 4 tokens, but the game has 9"):
            load_weights(torch.nn.Embedding(4, 2), path, game=oracle_game(5, 9, n_real=5, reward_model="constant"))

    def test_an_older_file_has_the_tokens_of_its_run(self, tmp_path: Path) -> None:
        first, second = self.games()
        save_game(first, tmp_path)
        path = tmp_path / "generator.safetensors"
        generator = TokenLSTM(first.vocab_size, 3, 3, generator=torch.Generator())
        save_weights(generator, path, {"generator": json.dumps(describe_generator(generator))})
        load_generator(path, first)
        with pytest.raises(ValueError, match=self.OTHER):
            load_generator(path, second)
        (tmp_path / "game.json").write_text("{")
        with pytest.warns(UserWarning, match="assuming this game's tokens, in this order"):
            load_generator(path, second)

    @pytest.mark.parametrize("kind", ["discriminator", "density-ratio", "rank"])
    def test_a_discriminator_of_another_vocabulary_is_refused(self, tmp_path: Path, kind: Any) -> None:
        folders = []
        for lines in (A, B):
            game = text_game(lines, discriminator=None if kind == "density-ratio" else CNN, reward_model=kind)
            folders.append(tmp_path / lines[0])
            folders[-1].mkdir()
            save_game(game, folders[-1])
        load_game(folders[1])
        (name,) = {path.name for path in folders[0].glob("*.safetensors")} - {"real.safetensors"}
        (folders[1] / name).write_bytes((folders[0] / name).read_bytes())
        with pytest.raises(ValueError, match=self.OTHER):
            load_game(folders[1])

    def test_the_same_generator_makes_the_same_file(self, tmp_path: Path) -> None:
        """So that resumed runs leave the same bytes; safetensors writes several entries in any order."""
        game = self.games()[0]
        contents = {self.saved(game, tmp_path / f"{number}.safetensors").read_bytes()[:500] for number in range(20)}
        assert len(contents) == 1

    @pytest.mark.parametrize("tokens", ["abcd", [1, 2, 3, 4], {}, None])
    def test_invalid_tokens(self, tmp_path: Path, tokens: Any) -> None:
        path, game = tmp_path / "generator.safetensors", self.games()[0]
        generator = TokenLSTM(game.vocab_size, 3, 3, generator=torch.Generator())
        save_weights(generator, path, {"generator": json.dumps(describe_generator(generator) | {"tokens": tokens})})
        with pytest.raises(ValueError, match=r"does not describe a generator .*: its tokens are not a list of strings"):
            load_generator(path, game)
        save_weights(generator, path, {"tokens": json.dumps(tokens)})
        with pytest.raises(ValueError, match="does not say which tokens it writes: its tokens are not a list of strings"):
            load_weights(generator, path, game=game)


class TestBadInput:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        save_game(games()["oracle"], tmp_path)
        return tmp_path

    def test_no_game(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"contains no game\.json\. Expected the folder of a run"):
            load_game(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"schema": 99}, "it has version 99, but this program reads version 1"),
            ({"reward": "money"}, "reward must be one of"),
            ({"n_rollouts": 0}, "n_rollouts must be at least 1"),
            ({"surprise": 1}, "unexpected keyword argument 'surprise'"),
            ({"discriminator": {"widths": [9], "n_filters": [2]}}, "do not fit sequences of 5 tokens"),
            ({"vocab_size": 10}, "does not fit a TokenLSTM"),
        ],
    )
    def test_invalid_descriptions(self, folder: Path, change: dict[str, Any], message: str) -> None:
        path = folder / "game.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(ValueError, match=message):
            load_game(folder)

    @pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"schema": 1}'])
    def test_json_other_than_a_description(self, folder: Path, text: str) -> None:
        (folder / "game.json").write_text(text)
        with pytest.raises(ValueError, match="does not describe a game"):
            load_game(folder)

    @pytest.mark.parametrize("name", ["oracle", "discriminator", "real"])
    def test_damaged_weights(self, folder: Path, name: str) -> None:
        path = folder / f"{name}.safetensors"
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ValueError, match=f"{name}.safetensors is damaged"):
            load_game(folder)
        path.unlink()
        with pytest.raises(FileNotFoundError, match="No safetensors file"):
            load_game(folder)

    def test_a_generator_of_another_vocabulary(self, tmp_path: Path) -> None:
        path = tmp_path / "generator.safetensors"
        save_weights(TokenLSTM(7, 3, 3, generator=torch.Generator()), path)
        with pytest.raises(ValueError, match="is a generator of 7 tokens, but the game has 9"):
            load_generator(path, games()["oracle"])

    @pytest.mark.parametrize(
        ("description", "message"),
        [
            (
                '{"kind": "gru"}',
                "that this version can make: kind must be 'lstm' or 'transformer', got 'gru'",
            ),
            ('{"surprise": 1}', "the fields surprise are missing or unknown"),
            ("{", "does not describe a generator"),
            ("[]", "does not describe a generator"),
            ('{"n_layers": 2}', "does not fit a TokenLSTM of these sizes"),
            ('{"kind": "transformer", "sequence_length": 4}', "it writes at most 4 tokens, but the game's sequences have"),
        ],
    )
    def test_invalid_descriptions_of_a_generator(self, tmp_path: Path, description: str, message: str) -> None:
        path = tmp_path / "generator.safetensors"
        save_weights(TokenLSTM(9, 32, 32, generator=torch.Generator()), path, {"generator": description})
        with pytest.raises(ValueError, match=f"(?i){re.escape(message)}"):
            load_generator(path, games()["oracle"])

    def test_weights_without_a_generator(self, folder: Path) -> None:
        with pytest.raises(ValueError, match=r"contains no generator: no embedding\.weight among tokens"):
            load_generator(folder / "real.safetensors", games()["oracle"])

    def test_a_custom_reward_for_a_game_without_one(self, folder: Path) -> None:
        with pytest.raises(ValueError, match="own_reward must not be given"):
            load_game(folder, own_reward=length)

    @pytest.mark.parametrize("field", ["objective", "reward_model"])
    def test_a_description_that_names_a_function_calls_nothing(self, folder: Path, field: str) -> None:
        path = folder / "game.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {field: "builtins:exit"}))
        with pytest.raises(ValueError, match=r"builtins:exit|must be callable, got str"):
            load_game(folder)


def length(sequence: Any) -> float:
    return float(len(sequence))


OWN: dict[str, dict[str, Any]] = {
    "objective": {"objective": length, "objective_weight": 0.25, "discriminator": CNN},
    "objective alone": {"objective": length, "objective_weight": 1},
    "beside a ranker": {"objective": length, "reward_model": "rank", "discriminator": CNN},
    "a model": {"reward_model": FunctionReward(length, batched=False)},
    "another constant": {"reward_model": ConstantReward(0.25)},
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("text", [True, False])
def test_a_custom_reward_is_passed_again(tmp_path: Path, name: str, text: bool) -> None:
    rules = OWN[name]
    game = text_game(LINES, **rules) if text else oracle_game(5, 9, n_real=30, **rules)
    if learns(game.reward_model):
        game.retrain(game.real_sequences[:10])
    save_game(game, tmp_path)
    loaded = load_game(tmp_path, own_reward=rules.get("objective", game.reward_model))
    tokens = game.real_sequences[:12]
    lengths = (tokens < game.vocab_size).sum(dim=1)
    assert torch.equal(loaded.reward_model.score(tokens, lengths), game.reward_model.score(tokens, lengths))


@pytest.mark.parametrize("name", OWN)
def test_without_its_custom_reward_a_game_loads_but_does_not_score(tmp_path: Path, name: str) -> None:
    game, again = oracle_game(5, 9, n_real=30, **OWN[name]), tmp_path / "again"
    save_game(game, tmp_path)
    loaded = load_game(tmp_path)
    again.mkdir()
    save_game(loaded, again)
    assert (again / "game.json").read_text() == (tmp_path / "game.json").read_text()
    tokens, lengths = game.real_sequences[:3], torch.full((3,), 5)
    assert loaded.final_info(tokens, lengths).keys() == game.final_info(tokens, lengths).keys()
    what = "ConstantReward" if name == "another constant" else "tests.test_saved_game:length"
    with pytest.raises(RewardError, match=f"This game's reward uses {what}, which is not in its folder"):
        loaded.reward_model.score(tokens, lengths)


def test_sequences_are_the_same_after_loading(tmp_path: Path) -> None:
    tokens = torch.tensor([[0, 5, 9], [3, 9, 9]])
    save_sequences(tmp_path / "held_out.safetensors", tokens)
    loaded = load_sequences(tmp_path / "held_out.safetensors")
    assert loaded.dtype == torch.int64
    assert torch.equal(loaded, tokens)


def test_missing_and_other_files_hold_no_sequences(tmp_path: Path) -> None:
    path = tmp_path / "held_out.safetensors"
    with pytest.raises(FileNotFoundError, match="No safetensors file"):
        load_sequences(path)
    save_weights(torch.nn.Linear(2, 2), path)
    with pytest.raises(ValueError, match="contains no tokens"):
        load_sequences(path)


@pytest.mark.parametrize(
    ("setting", "value"), [("n_models", 10**9), ("hidden_dim", 10**8), ("n_layers", 10**9), ("precision", "low")]
)
def test_invalid_settings_of_a_density_ratio_are_refused(tmp_path: Path, setting: str, value: Any) -> None:
    save_game(games()["density ratio"], tmp_path)
    description = json.loads((tmp_path / "game.json").read_text())
    settings = description["density_ratio"]
    (settings if setting in settings else settings["model"])[setting] = value
    (tmp_path / "game.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"does not describe a game: (it declares|precision must be 'highest', 'high' or)"):
        load_game(tmp_path)


@pytest.mark.parametrize("objective", [None, len], ids=["alone", "beside an objective"])
def test_a_loaded_density_ratio_has_its_added_generator(tmp_path: Path, objective: Any) -> None:
    rules: dict[str, Any] = {"reward_model": "density-ratio", "density_ratio": DENSITY, "objective": objective}
    game = text_game(LINES, **rules)
    generator = TokenLSTM(
        game.vocab_size, 5, 6, n_layers=2, end_token=game.end_token, generator=torch.Generator().manual_seed(1)
    )
    game.attach_policy(generator)
    game.retrain(game.real_sequences[:10])
    save_game(game, tmp_path)
    loaded = load_game(tmp_path, own_reward=objective)
    loaded.attach_policy(generator)
    tokens = game.real_sequences[:12]
    lengths = (tokens < game.vocab_size).sum(dim=1)
    scores = game.reward_model.score(tokens, lengths)
    assert torch.equal(loaded.reward_model.score(tokens, lengths), scores)
    without = text_game(LINES, **(rules | {"density_ratio": dataclasses.replace(DENSITY, with_start=False)}))
    without.attach_policy(generator)
    without.retrain(game.real_sequences[:10])
    assert not torch.equal(without.reward_model.score(tokens, lengths), scores)
