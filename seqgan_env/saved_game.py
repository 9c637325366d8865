"""Save and load a game and its generators: JSON for the description, safetensors for the numbers. Executes nothing."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from seqgan_env.data.corpus import Vocabulary
from seqgan_env.game import SequenceGame
from seqgan_env.games import make_game
from seqgan_env.models.generators import GeneratorConfig, describe_generator, make_generator
from seqgan_env.models.lstm import TokenLSTM
from seqgan_env.models.token_model import TokenModel
from seqgan_env.rewards import density_ratio, text_cnn
from seqgan_env.rewards.custom import MissingReward, describe
from seqgan_env.rewards.density_ratio import DensityRatioConfig, DensityRatioReward
from seqgan_env.rewards.ranking import RankConfig
from seqgan_env.rewards.reward_model import HasScore, adapt
from seqgan_env.rewards.text_cnn import TextCNNConfig
from seqgan_env.support.atomic_files import write_atomically
from seqgan_env.support.json_dataclasses import dataclass_from_json
from seqgan_env.support.settings import without_deleted

SCHEMA = 1
"""The version of `game.json`; it grows whenever a field changes its meaning."""

REAL = "real.safetensors"
"""The file of a run's real sequences, written by `save_sequences`."""

HELD_OUT = "held_out.safetensors"
"""The file of a run's held-out real sequences, written by `save_sequences`."""

LIKELIHOOD, MIDDLE, LAST, BEST = "generator_likelihood", "generator_middle", "generator", "generator_best"
STAGES = {
    LIKELIHOOD: "after likelihood",
    MIDDLE: "halfway through adversarial training",
    LAST: "at the end of the run",
}
"""The checkpoints that train.py saves, in order, and their titles."""

_HARMLESS = 1 << 24  # parameters that any machine can hold; below this, checking each tensor suffices


def save_game(game: SequenceGame, folder: Path) -> None:
    """Write `game.json`, the real sequences, and the weights of discriminator, ranker and oracle, if any.

    For a custom reward model or objective only the name is written; see `load_game`.
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
    save_sequences(folder / REAL, game.real_sequences)
    if game.oracle is not None:
        save_weights(game.oracle, folder / "oracle.safetensors")
    for name, network in adapt(game.reward_model).networks().items():
        save_weights(network, folder / name, game=game)


def save_sequences(path: Path, tokens: Tensor) -> None:
    """Write sequences `(n, length)` of token ids to a `.safetensors` file."""
    write_atomically(path, save({"tokens": tokens.to("cpu", torch.int32).contiguous()}))


def load_sequences(path: Path) -> Tensor:
    """The sequences `(n, length)` int64 that `save_sequences` wrote.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, or contains something else.
    """
    tensors = _load(path)
    if "tokens" not in tensors or tensors["tokens"].ndim != 2 or tensors["tokens"].dtype != torch.int32:
        raise ValueError(f"{path} contains no tokens")
    return tensors["tokens"].long()


def load_game(
    folder: str | Path, device: str | torch.device = "cpu", *, own_reward: HasScore | Callable[[Any], Any] | None = None
) -> SequenceGame:
    """The game that `save_game` wrote.

    Args:
        folder: the game's folder.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        own_reward: the custom reward model or objective with which the game was saved, as for `make_game`. A name in a file
            is never imported. Without it the game loads, but refuses to score.

    Raises:
        FileNotFoundError: the folder does not exist, or contains no game.
        ValueError: `own_reward` is given for a game without a custom reward; or files have another version, are damaged, or
            do not fit each other.
    """
    folder = Path(folder)
    path = folder / "game.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} contains no game.json. Expected the folder of a run of train.py, such as runs/quick-…."
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        schema = description.pop("schema")
        if schema != SCHEMA:
            raise ValueError(
                f"it has version {schema}, but this program reads version {SCHEMA}. Read it with the program that wrote it"
            )
        vocabulary, oracle_sizes = description.pop("vocabulary"), description.pop("oracle")
        _check_that_files_hold(folder, description["vocab_size"], oracle_sizes, description["discriminator"])
        start = None
        if description.get("density_ratio") is not None:
            description["density_ratio"], start = _density_ratio(description["density_ratio"], description, folder)
        oracle = None if oracle_sizes is None else TokenLSTM(description["vocab_size"], **oracle_sizes, device=device)
        if description["discriminator"] is not None:
            sizes = without_deleted(description["discriminator"], text_cnn.DELETED_SETTINGS)
            description["discriminator"] = dataclass_from_json(TextCNNConfig, sizes)
        _put_own_reward(description, own_reward)
        real = load_sequences(folder / REAL)
        game = make_game(
            real=real,
            vocabulary=None if vocabulary is None else Vocabulary.from_json(json.dumps(vocabulary)),
            oracle=None if oracle is None else oracle.requires_grad_(False).eval(),
            device=device,
            **description,
        )
        for ratio in adapt(game.reward_model).parts:
            if start is None or not isinstance(ratio, DensityRatioReward):
                continue
            rules: dict[str, Any] = {"sequence_length": game.sequence_length, "end_token": game.end_token}
            ratio.join(make_generator(start, game.vocab_size, **rules, device=game.device))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError, RuntimeError) as error:
        raise ValueError(f"{path} does not describe a game: {error}") from error
    if oracle is not None:
        load_weights(oracle, folder / "oracle.safetensors")
    for name, network in adapt(game.reward_model).networks().items():
        load_weights(network, folder / name, game=game)
    return game


def save_generator(generator: TokenModel, path: Path, game: SequenceGame) -> None:
    """Write a generator's parameters to a `.safetensors` file, with its description as metadata.

    Args:
        generator: an LSTM or a Transformer.
        path: of the file.
        game: the generator's game; the file records what each id stands for, so that another game cannot load it.

    Raises:
        TypeError: it is a custom generator; use `save_weights`.
    """
    # A single entry, because safetensors writes several in any order, and equal generators must give equal files.
    save_weights(generator, path, {"generator": json.dumps({**describe_generator(generator), "tokens": spellings(game)})})


def load_generator(path: str | Path, game: SequenceGame) -> TokenModel:
    """Load a generator that `save_generator` wrote, for a game, on its device, in evaluation mode.

    A file without metadata, as the first version wrote it, is read as an LSTM of one layer. A file without tokens is assumed
    to have those of the game in its folder.

    Warns:
        UserWarning: nothing says which tokens it writes.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, of an unknown kind, or for another vocabulary or shorter sequences.
    """
    path = Path(path)
    weights, description = _load(path), _load_metadata(path).get("generator")
    if "embedding.weight" not in weights:
        raise ValueError(f"{path} contains no generator: no embedding.weight among {', '.join(weights) or 'nothing'}.")
    vocab_size = len(weights["embedding.weight"]) - 1
    if vocab_size != game.vocab_size:
        raise ValueError(f"{path} is a generator of {vocab_size} tokens, but the game has {game.vocab_size}.")
    try:
        sizes = _sizes_of_first_files(weights) if description is None else json.loads(description)
        length = sizes.pop("sequence_length", game.sequence_length)
        tokens = _as_spellings(sizes.pop("tokens")) if "tokens" in sizes else None
        config = dataclass_from_json(GeneratorConfig, sizes)
        if not isinstance(length, int) or not config.n_layers <= len(weights):
            raise ValueError(f"its length is {length!r}, and it has {config.n_layers} layers in {len(weights)} tensors")
        if length < game.sequence_length:
            raise ValueError(f"it writes at most {length} tokens, but the game's sequences have up to {game.sequence_length}")
        rules: dict[str, Any] = {"sequence_length": length, "end_token": game.end_token}
        _check_shapes(make_generator(config, vocab_size, **rules, device="meta"), weights, path)  # meta: takes no memory
        generator = make_generator(config, vocab_size, **rules, device=game.device)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError, OverflowError, RecursionError, RuntimeError) as error:
        raise ValueError(f"{path} does not describe a generator that this version can make: {error}") from error
    _fill(generator, weights, path)
    if tokens is None:
        tokens = _spelled_in(path)
    if tokens is None:
        tokens = _spelled_beside(path, vocab_size)
    if tokens is None:
        warnings.warn(
            f"{path} does not say which tokens it writes, because it is an older file; assuming this game's tokens, in this "
            "order. save_generator(generator, path, game) writes a file that says it.",
            stacklevel=2,
        )
    else:
        _check_tokens(path, tokens, game)
    return generator


def load_checkpoints(folder: Path, game: SequenceGame, names: Sequence[str]) -> dict[str, TokenModel]:
    """Load the generators with these names that the run has already saved.

    Raises:
        FileNotFoundError: none of them exists; the message lists those that do.
    """
    there = sorted(path.stem for path in folder.glob("generator*.safetensors"))
    found = {name: load_generator(folder / f"{name}.safetensors", game) for name in names if name in there}
    if not found:
        wanted = " or ".join(repr(name) for name in names)
        raise FileNotFoundError(f"No checkpoint {wanted} in {folder}; there is {', '.join(there) or 'none'}.")
    return found


def spellings(game: SequenceGame) -> tuple[str, ...]:
    """The spelling of each token id in a game: the vocabulary's, or without a vocabulary the ids themselves."""
    return tuple(map(str, range(game.vocab_size))) if game.vocabulary is None else game.vocabulary.tokens


def _spelled_in(path: Path) -> list[str] | None:
    """The spelling of each id according to a file of weights itself."""
    said = _load_metadata(path).get("tokens")
    if said is None:
        return None
    try:
        return _as_spellings(json.loads(said))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} does not say which tokens it writes: {error}") from error


def _spelled_beside(path: Path, vocab_size: int) -> list[str] | None:
    """The spelling of each id in the game in the same folder, if there is one."""
    try:
        vocabulary = json.loads((path.parent / "game.json").read_text(encoding="utf-8"))["vocabulary"]
        return list(map(str, range(vocab_size))) if vocabulary is None else _as_spellings(vocabulary["tokens"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _as_spellings(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(token, str) for token in value):
        raise ValueError("its tokens are not a list of strings")
    return value


def _check_tokens(path: Path, tokens: Sequence[str], game: SequenceGame) -> None:
    """Refuse weights for a game with other tokens."""
    here = spellings(game)
    if len(tokens) != len(here):
        raise ValueError(f"{path} was trained on {len(tokens)} tokens, but the game has {len(here)}.")
    for index, (learned, token) in enumerate(zip(tokens, here, strict=True)):
        if learned != token:
            raise ValueError(
                f"{path} was trained on another vocabulary: its id {index} is {learned!r}, but in this game it is {token!r}. "
                "Use weights that were trained on this vocabulary, or read the data with theirs: "
                "read_corpus(data, vocabulary=load_game(folder).vocabulary)."
            )


def _check_that_files_hold(folder: Path, vocab_size: int, oracle: dict[str, int] | None, cnn: dict[str, Any] | None) -> None:
    """Before allocating memory, refuse sizes that the weight files cannot fill; each value takes at least a byte."""
    declared = 0
    if oracle is not None:
        if oracle.keys() != {"embedding_dim", "hidden_dim"}:
            raise ValueError(f"an oracle must have the sizes embedding_dim and hidden_dim, got {', '.join(oracle)}")
        embedding, hidden = oracle["embedding_dim"], oracle["hidden_dim"]
        declared = vocab_size * (embedding + hidden) + 4 * hidden * (embedding + hidden)
    if cnn is not None:
        widths, numbers, embedding = cnn["widths"], cnn["n_filters"], cnn.get("embedding_dim", 0)
        windows = sum(width * number for width, number in zip(widths, numbers, strict=True))
        declared = max(declared, (vocab_size + windows) * embedding + 2 * sum(numbers) ** 2)
    _check_declared(folder, declared)


def _check_declared(folder: Path, declared: int) -> None:
    """Refuse more parameters than the weight files in a folder can hold."""
    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if declared > max(stored, _HARMLESS):
        raise ValueError(f"it declares {declared:,} parameters, but all weight files together have {stored:,} bytes")


def _density_ratio(
    settings: dict[str, Any], game: dict[str, Any], folder: Path
) -> tuple[DensityRatioConfig, GeneratorConfig | None]:
    """The settings of a density ratio, and of the generator that joined it; refuses models that the files cannot hold."""
    start = settings.pop("start")
    if start is not None:
        start.pop("sequence_length", None)
        start = dataclass_from_json(GeneratorConfig, start)
    config = dataclass_from_json(DensityRatioConfig, without_deleted(settings, density_ratio.DELETED_SETTINGS))
    rules: dict[str, Any] = {"sequence_length": game["sequence_length"], "end_token": game["end_token"]}
    for model, count in ((config.model, config.n_models), (start, 1)):
        if model is not None:
            _check_declared(folder, count * model.n_layers * 1024)  # modules take memory even without parameters
            without_memory = make_generator(model, game["vocab_size"], **rules, device="meta")
            _check_declared(folder, count * sum(parameter.numel() for parameter in without_memory.parameters()))
    return config, start


def _check_shapes(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    got = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = [name for name in {**expected, **got} if expected.get(name) != got.get(name)]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{path} does not fit a {type(module).__name__} of these sizes: {name} has shape {got.get(name)}, expected "
            f"{expected.get(name)} ({len(wrong)} such)"
        )


def _sizes_of_first_files(weights: dict[str, Tensor]) -> dict[str, Any]:
    """The sizes of a one-layer LSTM that the first version saved without a description."""
    return {"embedding_dim": weights["embedding.weight"].shape[1], "hidden_dim": weights["output.weight"].shape[1]}


def save_weights(
    module: nn.Module, path: Path, metadata: dict[str, str] | None = None, *, game: SequenceGame | None = None
) -> None:
    """Write a module's parameters to a `.safetensors` file.

    Args:
        module: a generator or a reward model's network.
        path: of the file.
        metadata: further facts to store, if any.
        game: the game whose tokens the module knows; the file records them, so that `load_weights` can refuse another game.
    """
    if game is not None:
        metadata = {**(metadata or {}), "tokens": json.dumps(spellings(game))}
    save_file({name: value.cpu().contiguous() for name, value in module.state_dict().items()}, path, metadata)


def load_weights(module: nn.Module, path: Path, *, game: SequenceGame | None = None) -> None:
    """Load what `save_weights` wrote into a module, on the module's device.

    Args:
        module: of the same sizes.
        path: of the file.
        game: the module's game.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, of another module, or for other tokens than the game's.
    """
    weights = _load(path)
    if game is not None and (tokens := _spelled_in(path)) is not None:
        _check_tokens(path, tokens, game)
    _fill(module, weights, path)


def _load(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"No safetensors file at {path}.")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged, or not a .safetensors file: {error}") from error


def _load_metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _fill(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit a {type(module).__name__} of these sizes: {error}") from error


def _lstm_sizes(lstm: TokenLSTM) -> dict[str, int]:
    return {"embedding_dim": lstm.embedding.embedding_dim, "hidden_dim": lstm.hidden_dim}


def _describe_reward_model(model: HasScore) -> dict[str, Any]:
    """The arguments of `make_game` that make such a reward model; `own` is the name of one that they cannot make."""
    description = adapt(model).description()
    if description is None:
        return {"discriminator": None, "objective_weight": 1.0, "own": describe(model)}
    return {"discriminator": None, **description}


def _put_own_reward(description: dict[str, Any], own_reward: HasScore | Callable[[Any], Any] | None) -> None:
    """Turn the result of `_describe_reward_model` into arguments of `make_game`; nothing is called by a file's name for it."""
    ranking, own = description.pop("ranking", None), description.pop("own", None)
    if ranking is not None:
        description["ranking"] = dataclass_from_json(RankConfig, ranking)
    if own is None:
        if own_reward is not None:
            raise ValueError("it has no custom reward, so own_reward must not be given")
        return
    description.setdefault("reward_model", "constant")  # of weight 0 beside an objective of weight 1
    description["objective_batched"] = bool(own["batched"])
    description["objective"] = MissingReward(own["name"], own["batched"]) if own_reward is None else own_reward
