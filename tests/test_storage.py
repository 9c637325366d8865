"""A game and its generators survive the folder that they are kept in."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from seqgan_env import ConstantReward, FunctionReward, TextCNNConfig, TokenLSTM, oracle_game, text_game
from seqgan_env.game import SequenceGame
from seqgan_env.storage import load_game, load_generator, save_game, save_weights

CNN = TextCNNConfig(widths=(1, 2), n_filters=(3, 4), embedding_dim=4)
LINES = ["夜 静 群 动 息", "a b <end>", "b a c d", "c"] * 5


def games() -> dict[str, SequenceGame]:
    oracle: Any = {"sequence_length": 5, "vocab_size": 9, "n_real": 30}
    return {
        "oracle": oracle_game(**oracle, reward="rollout", n_rollouts=3, discriminator=CNN, scaling="log", model_seed=4),
        "text": text_game(LINES, discriminator=CNN),
        "bleu": text_game(LINES, reward_model="bleu"),
        "constant": oracle_game(**oracle, reward_model="constant"),
        "random": oracle_game(**oracle, reward_model="random", model_seed=7),
    }


@pytest.fixture(params=list(games()))
def game(request: pytest.FixtureRequest) -> SequenceGame:
    return games()[request.param]


def test_a_game_is_the_same_afterwards(game: SequenceGame, tmp_path: Path) -> None:
    if hasattr(game.reward_model, "fit"):
        game.retrain(game.real_sequences[:10])
    save_game(game, tmp_path)
    loaded = load_game(tmp_path)
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


def test_a_generator_is_the_same_afterwards(game: SequenceGame, tmp_path: Path) -> None:
    generator = TokenLSTM(game.vocab_size, 3, 5, end_token=game.end_token, generator=torch.Generator().manual_seed(0))
    save_weights(generator, tmp_path / "generator.safetensors")
    loaded = load_generator(tmp_path / "generator.safetensors", game)
    samples = [g.sample(20, 5, torch.Generator().manual_seed(1))[0] for g in (generator, loaded)]
    assert torch.equal(*samples)


class TestBadInput:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        save_game(games()["oracle"], tmp_path)
        return tmp_path

    def test_no_game(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"holds no game\.json\. Expected the folder of a run"):
            load_game(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"schema": 99}, "it is of version 99, this program reads version 1"),
            ({"reward": "money"}, "reward must be one of"),
            ({"n_rollouts": 0}, "n_rollouts must be at least 1"),
            ({"surprise": 1}, "unexpected keyword argument 'surprise'"),
            ({"discriminator": {"widths": [9], "n_filters": [2]}}, "do not fit sequences of 5 tokens"),
            ({"vocab_size": 10}, "does not fit a TokenLSTM"),
        ],
    )
    def test_another_description(self, folder: Path, change: dict[str, Any], message: str) -> None:
        path = folder / "game.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(ValueError, match=message):
            load_game(folder)

    @pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"schema": 1}'])
    def test_a_description_that_is_none(self, folder: Path, text: str) -> None:
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
        with pytest.raises(FileNotFoundError, match="No file of weights"):
            load_game(folder)

    def test_a_generator_of_another_vocabulary(self, tmp_path: Path) -> None:
        path = tmp_path / "generator.safetensors"
        save_weights(TokenLSTM(7, 3, 3, generator=torch.Generator()), path)
        with pytest.raises(ValueError, match="is a generator of 7 tokens; the game has 9"):
            load_generator(path, games()["oracle"])

    def test_a_reward_model_without_a_name(self, tmp_path: Path) -> None:
        game = oracle_game(5, 9, reward_model=FunctionReward(lambda sequences: [0.0] * len(sequences)))
        with pytest.raises(TypeError, match="A game with a FunctionReward cannot be saved"):
            save_game(game, tmp_path)


def test_a_constant_reward_keeps_its_name_only_at_its_default(tmp_path: Path) -> None:
    game = oracle_game(5, 9, reward_model=ConstantReward(0.25), n_real=4)
    with pytest.raises(TypeError, match="cannot be saved"):
        save_game(game, tmp_path)
