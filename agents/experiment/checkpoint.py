"""Checkpoints of a run: files of tensors and JSON with a checksum, written completely or not at all."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from agents.experiment.names import BEST_CHECKPOINT
from seqgan_env.support.atomic_files import write_atomically

SCHEMA = 2
"""The version of a checkpoint's layout; it grows whenever something changes its meaning."""

_TENSOR = "<tensor>"


class DamagedCheckpoint(ValueError):  # noqa: N818 - says what it is
    """A checkpoint is truncated, altered, or of another version."""


def pack(state: Mapping[str, Any]) -> bytes:
    """The content of a checkpoint file for a state: tensors, numbers, strings, None, lists, and mappings with string keys.

    Raises:
        TypeError: the state contains anything else.
    """
    tensors: dict[str, Tensor] = {}

    def take_tensors_out(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            tensors[name] = value.detach().cpu().contiguous().clone()
            return {_TENSOR: name}
        if isinstance(value, Mapping):
            return {key: take_tensors_out(inner, f"{name}/{key}") for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [take_tensors_out(inner, f"{name}/{index}") for index, inner in enumerate(value)]
        return value

    text = json.dumps(take_tensors_out(state, ""), sort_keys=True)
    return save(tensors, {"schema": str(SCHEMA), "state": text, "sha256": _checksum(text, tensors)})


def unpack(path: Path) -> dict[str, Any]:
    """The state from which `pack` made a file.

    Raises:
        FileNotFoundError: the file does not exist.
        DamagedCheckpoint: the file is not as it was written.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No checkpoint at {path}.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedCheckpoint(f"{path} is truncated or damaged: {error}") from error
    if metadata.get("schema") != str(SCHEMA):
        raise DamagedCheckpoint(
            f"{path} is a checkpoint of version {metadata.get('schema')}; this program reads version {SCHEMA}."
        )
    text = metadata.get("state", "")
    if metadata.get("sha256") != _checksum(text, tensors):
        raise DamagedCheckpoint(f"{path} was altered after it was written: its checksum does not match.")

    def put_tensors_in(value: Any) -> Any:
        if isinstance(value, dict):
            if _TENSOR in value:
                return tensors[value[_TENSOR]]
            return {key: put_tensors_in(inner) for key, inner in value.items()}
        return [put_tensors_in(inner) for inner in value] if isinstance(value, list) else value

    try:
        state = put_tensors_in(json.loads(text))
    except (ValueError, KeyError, RecursionError) as error:
        raise DamagedCheckpoint(f"{path} does not contain a state of this program: {error!r}.") from error
    if not isinstance(state, dict):
        raise DamagedCheckpoint(f"{path} does not contain a state of this program, but {type(state).__name__}.")
    return state


def _checksum(text: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()


class Checkpoints:
    """The checkpoints in a folder: the newest few, and the best.

    Args:
        folder: created with the first checkpoint.
        keep: how many of the newest to keep.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"At least one checkpoint must be kept, got keep={keep}.")
        self.folder = folder
        self.keep = keep

    def save(self, state: Mapping[str, Any], rounds: int) -> Path:
        """Write a checkpoint of a state after some rounds, and delete the oldest beyond `keep`.

        Raises:
            OSError: it cannot be written; earlier ones are intact.
        """
        path = self._path(rounds)
        try:
            self.folder.mkdir(exist_ok=True)
            write_atomically(path, pack(state))
        except OSError as error:
            raise OSError(
                f"The checkpoint {path} cannot be written ({error.strerror or error}); "
                f"{self._say_what_is_left()} Make room, or make the folder writable, then continue with --resume."
            ) from error
        for old in self._newest_first()[self.keep :]:
            old.unlink(missing_ok=True)
        return path

    def mark_best(self, path: Path) -> None:
        """Keep a copy of a checkpoint as the best one so far."""
        write_atomically(self.folder / BEST_CHECKPOINT, path.read_bytes())

    def go_back_to_best(self) -> None:
        """Make the best checkpoint the newest one, and delete those after it.

        Raises:
            FileNotFoundError: there is no best one yet.
            DamagedCheckpoint: the best one is damaged; the others stay.
        """
        best = self.folder / BEST_CHECKPOINT
        path = self._path(int(unpack(best)["all_rounds"]))
        write_atomically(path, best.read_bytes())
        for newer in self._newest_first():  # at any interruption, a complete checkpoint is there
            if newer.name > path.name:
                newer.unlink()

    def newest(self) -> tuple[Path, dict[str, Any], list[str]]:
        """The newest complete checkpoint: its file, its state, and what is wrong with those after it.

        Raises:
            FileNotFoundError: there is no checkpoint.
            DamagedCheckpoint: none is complete.
        """
        complaints: list[str] = []
        for path in self._newest_first():
            try:
                return path, unpack(path), complaints
            except DamagedCheckpoint as error:
                complaints.append(str(error))
        if complaints:
            raise DamagedCheckpoint("No checkpoint is complete. " + " ".join(complaints))
        raise FileNotFoundError(f"{self.folder} holds no checkpoint: the run was stopped before it wrote its first.")

    def _path(self, rounds: int) -> Path:
        return self.folder / f"round-{rounds:08d}.safetensors"

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("round-*.safetensors"), reverse=True)

    def _say_what_is_left(self) -> str:
        left = self._newest_first()
        return f"the one before, {left[0].name}, is intact." if left else "there is none before it."
