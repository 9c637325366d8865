"""A game and its generators in a folder: JSON for what they are, safetensors for their numbers. Nothing here is executed."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from seqgan_env.corpus import Vocabulary
from seqgan_env.discriminator import TextCNNConfig
from seqgan_env.game import SequenceGame, make_game
from seqgan_env.recurrent import TokenLSTM
from seqgan_env.rewards import BleuReward, ConstantReward, DiscriminatorReward, RandomReward, RewardModel

SCHEMA = 1
"""The version of `game.json`; it grows with every change of meaning."""


def save_game(game: SequenceGame, folder: Path) -> None:
    """Write `game.json`, the real sequences, and the weights of the discriminator and the oracle, as far as there are any.

    Raises:
        TypeError: a reward model of one's own, which has no name to be made from again.
    """
    description: dict[str, Any] = {
        "schema": SCHEMA,
        "vocab_size": game.vocab_size,
        "sequence_length": game.sequence_length,
        "end_token": game.end_token,
        "reward": game.reward,
        "n_rollouts": game.n_rollouts,
        "vocabulary": None if game.vocabulary is None else json.loads(game.vocabulary.to_json()),
        "oracle": None if game.oracle is None else _lstm_sizes(game.oracle),
        **_describe_reward_model(game.reward_model),
    }
    (folder / "game.json").write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    save_file({"tokens": game.real_sequences.to("cpu", torch.int32).contiguous()}, folder / "real.safetensors")
    if game.oracle is not None:
        save_weights(game.oracle, folder / "oracle.safetensors")
    if isinstance(game.reward_model, DiscriminatorReward):
        save_weights(game.reward_model.discriminator, folder / "discriminator.safetensors")


def load_game(folder: Path, device: str | torch.device = "cpu") -> SequenceGame:
    """The game that `save_game` wrote.

    Raises:
        FileNotFoundError: no such folder, or no game in it.
        ValueError: files of another version, damaged, or that do not fit each other.
    """
    path = folder / "game.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no game.json. Expected the folder of a run of train.py, such as runs/quick-…."
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        schema = description.pop("schema")
        if schema != SCHEMA:
            raise ValueError(f"it is of version {schema}, this program reads version {SCHEMA}")
        vocabulary, oracle_sizes = description.pop("vocabulary"), description.pop("oracle")
        oracle = None if oracle_sizes is None else TokenLSTM(description["vocab_size"], **oracle_sizes, device=device)
        if description["discriminator"] is not None:
            sizes: dict[str, Any] = description["discriminator"]
            lists = {name: tuple(value) for name, value in sizes.items() if isinstance(value, list)}
            description["discriminator"] = TextCNNConfig(**{**sizes, **lists})
        game = make_game(
            real=_load_tokens(folder / "real.safetensors"),
            vocabulary=None if vocabulary is None else Vocabulary.from_json(json.dumps(vocabulary)),
            oracle=None if oracle is None else oracle.requires_grad_(False).eval(),
            device=device,
            **description,
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} does not describe a game: {error}") from error
    if oracle is not None:
        load_weights(oracle, folder / "oracle.safetensors")
    if isinstance(game.reward_model, DiscriminatorReward):
        load_weights(game.reward_model.discriminator, folder / "discriminator.safetensors")
    return game


def load_generator(path: Path, game: SequenceGame) -> TokenLSTM:
    """A generator whose weights `save_weights` wrote, for a game, on its device.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or for another vocabulary.
    """
    weights = _load(path)
    vocab_size, hidden_dim = weights.get("output.weight", torch.empty(0, 0)).shape
    if vocab_size != game.vocab_size or "embedding.weight" not in weights:
        raise ValueError(f"{path} is a generator of {vocab_size} tokens; the game has {game.vocab_size}.")
    embedding_dim = weights["embedding.weight"].shape[1]
    generator = TokenLSTM(vocab_size, embedding_dim, hidden_dim, end_token=game.end_token, device=game.device)
    _fill(generator, weights, path)
    return generator


def save_weights(module: nn.Module, path: Path) -> None:
    """Write a module's parameters to a `.safetensors` file."""
    save_file({name: value.cpu().contiguous() for name, value in module.state_dict().items()}, path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Read what `save_weights` wrote into a module, on the device that it lies on.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or of another module.
    """
    _fill(module, _load(path), path)


def _load(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"No file of weights at {path}.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or no .safetensors file: {error}") from error


def _fill(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit a {type(module).__name__} of these sizes: {error}") from error


def _load_tokens(path: Path) -> Tensor:
    tokens = _load(path)
    if "tokens" not in tokens:
        raise ValueError(f"{path} holds no tokens")
    return tokens["tokens"].long()


def _lstm_sizes(lstm: TokenLSTM) -> dict[str, int]:
    return {"embedding_dim": lstm.embedding.embedding_dim, "hidden_dim": lstm.hidden_dim}


def _describe_reward_model(model: RewardModel) -> dict[str, Any]:
    """The arguments of `make_game` that make a model like this one."""
    none: dict[str, Any] = {"discriminator": None}
    if isinstance(model, DiscriminatorReward):
        config = dataclasses.asdict(model.discriminator.config)
        return {"reward_model": "discriminator", "scaling": model.scaling, "discriminator": config}
    if isinstance(model, BleuReward):
        return {"reward_model": "bleu"} | none
    if isinstance(model, ConstantReward) and model.value == ConstantReward().value:
        return {"reward_model": "constant"} | none
    if isinstance(model, RandomReward):
        return {"reward_model": "random", "model_seed": model.seed} | none
    raise TypeError(f"A game with a {type(model).__name__} cannot be saved: only reward models that have a name can.")
