"""The oracle: a frozen LSTM that writes the real sequences and gives the likelihood of any sequence."""

import pickletools
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from seqgan_env.models.lstm import TokenLSTM

Array = npt.NDArray[np.float32]

# The published order of the arrays; each gate has W (embedding, hidden), U (hidden, hidden) and b (hidden,).
PARAMETER_NAMES = (
    "embedding",
    *(f"{gate}_{part}" for gate in ("input", "forget", "output", "cell") for part in "WUb"),
    "logits_W",
    "logits_b",
)
_TORCH_GATE_ORDER = ("input", "forget", "cell", "output")
_PUBLISHED_START_TOKEN = 0
_LARGEST = np.finfo(np.float32).max
MOST_BYTES = 1 << 30  # limit on unpacked bytes, because a small archive can claim any size

# Pickle opcodes that stand for a value, and those that carry one; a global is read as its name.
_LITERALS = {"NONE": None, "NEWFALSE": False, "NEWTRUE": True, "EMPTY_TUPLE": ()}
_WITH_VALUE = ("BININT", "BININT1", "BININT2", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES", "GLOBAL")


def seeded_oracle(seed: int, vocab_size: int, *, device: torch.device | str = "cpu") -> TokenLSTM:
    """An oracle with all parameters drawn from N(0, 1) (paper, section 5.1); each seed gives a different language."""
    generator = torch.Generator().manual_seed(seed)
    oracle = TokenLSTM(vocab_size, 32, 32, initial_std=1.0, generator=generator, device=device)
    return oracle.requires_grad_(False).eval()


def load_oracle(path: str | Path, *, device: torch.device | str = "cpu") -> TokenLSTM:
    """Load an oracle's parameters from a file.

    Args:
        path: an `.npz` with the arrays `PARAMETER_NAMES`, or the published pickle with a list of them in that order. Nothing
            in the pickle is executed.
        device: of the parameters.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file has another format, or the arrays have a wrong number, shape or dtype, or are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No oracle file at {path}. Expected an .npz or the published pickle of parameters.")
    arrays = _read_npz(path) if path.suffix == ".npz" else _read_pickled_arrays(path)
    _check_shapes(path, arrays)
    vocab_size, embedding_dim = arrays["embedding"].shape
    oracle = TokenLSTM(vocab_size, embedding_dim, len(arrays["input_b"]))
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) for name, array in arrays.items()}

    def gates(part: str) -> torch.Tensor:
        return torch.cat([tensors[f"{gate}_{part}"] for gate in _TORCH_GATE_ORDER], dim=-1)

    start = tensors["embedding"][_PUBLISHED_START_TOKEN : _PUBLISHED_START_TOKEN + 1]
    oracle.load_state_dict(
        {
            "embedding.weight": torch.cat([tensors["embedding"], start]),
            "lstm.weight_ih_l0": gates("W").T,
            "lstm.weight_hh_l0": gates("U").T,
            "lstm.bias_ih_l0": gates("b"),
            "lstm.bias_hh_l0": torch.zeros_like(gates("b")),
            "output.weight": tensors["logits_W"].T,
            "output.bias": tensors["logits_b"],
        }
    )
    return oracle.to(device).requires_grad_(False).eval()


def _check_shapes(path: Path, arrays: dict[str, Array]) -> None:
    missing = [name for name in PARAMETER_NAMES if name not in arrays]
    if missing:
        raise ValueError(f"{path} is not an oracle: it lacks {', '.join(missing)}; expected {', '.join(PARAMETER_NAMES)}.")
    for name in ("embedding", "input_b"):
        if arrays[name].ndim != (2 if name == "embedding" else 1):
            raise ValueError(f"{path} is not an oracle: {name} has shape {arrays[name].shape}.")
    vocab, embedding = arrays["embedding"].shape
    hidden = len(arrays["input_b"])
    part_shapes = {"W": (embedding, hidden), "U": (hidden, hidden), "b": (hidden,)}
    expected = {name: part_shapes[name[-1]] for name in PARAMETER_NAMES if name[-2:] in ("_W", "_U", "_b")}
    expected |= {"embedding": (vocab, embedding), "logits_W": (hidden, vocab), "logits_b": (vocab,)}
    faults = [
        f"{name} has shape {arrays[name].shape}, expected {shape}"
        for name, shape in expected.items()
        if arrays[name].shape != shape
    ]
    faults += [
        f"{name} has values that are not finite numbers"
        for name in PARAMETER_NAMES
        if not (np.issubdtype(arrays[name].dtype, np.floating) and (np.abs(arrays[name]) <= _LARGEST).all())
    ]
    if faults:
        raise ValueError(f"{path} is not an oracle of vocabulary {vocab} and {hidden} hidden units: {'; '.join(faults)}.")


def _read_npz(path: Path) -> dict[str, Array]:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MOST_BYTES:
            raise ValueError(f"it unpacks to {unpacked:,} bytes, more than the limit of {MOST_BYTES:,}")
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            read = {name: arrays[name] for name in PARAMETER_NAMES if name in arrays}
        return {name: array for name, array in read.items() if isinstance(array, np.ndarray)}
    except (ValueError, OSError, EOFError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not an .npz file of plain arrays: {error}") from error
    except Exception as error:  # zipfile and zlib raise many errors for a damaged archive
        raise ValueError(f"{path} is damaged: {error}") from error


def _read_pickled_arrays(path: Path) -> dict[str, Array]:
    """Read a pickled list of float arrays by walking its opcodes; nothing is executed and no name is looked up."""
    try:
        arrays = _PickledArrays().read(path.read_bytes())
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{path} is not a pickle of only float arrays ({error}). Expected the published list of "
            f"{len(PARAMETER_NAMES)} arrays, or an .npz file."
        ) from error
    if len(arrays) != len(PARAMETER_NAMES):
        raise ValueError(f"{path} holds {len(arrays)} arrays; expected {len(PARAMETER_NAMES)}: {', '.join(PARAMETER_NAMES)}.")
    return dict(zip(PARAMETER_NAMES, arrays, strict=True))


class _PickledArrays:
    """A stack machine for the few opcodes of a pickled list of numpy arrays; its values are plain data.

    A global becomes its name, a call to numpy's `_reconstruct` or `dtype` becomes a tuple or a dict, and anything else is
    refused. So the worst that a hostile file can do is to be rejected.
    """

    _RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.n_arrays = 0

    def read(self, data: bytes) -> list[Array]:
        for opcode, argument, _ in pickletools.genops(data):
            name = opcode.name
            if name in ("PROTO", "FRAME"):
                continue
            if name == "STOP":
                break
            if name in _LITERALS:
                self.stack.append(_LITERALS[name])
            elif name in _WITH_VALUE:
                self.stack.append(argument)
            elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
                self.memo[len(self.memo) if argument is None else int(argument)] = self.stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                self.stack.append(self.memo[int(argument or 0)])
            else:
                self._act(name)
        (result,) = self.stack
        if not isinstance(result, list) or not all(isinstance(item, dict) and "array" in item for item in result):
            raise ValueError("its content is not a list of arrays")
        return [item["array"] for item in result]

    def _act(self, name: str) -> None:
        if name == "MARK":
            self.marks.append(len(self.stack))
        elif name == "EMPTY_LIST":
            self.stack.append([])
        elif name == "TUPLE":
            self.stack.append(self._pop_mark())
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self.stack.append(self._pop(int(name[-1])))
        elif name in ("APPEND", "APPENDS"):
            self._append(self._pop(1) if name == "APPEND" else self._pop_mark())
        elif name == "REDUCE":
            self._reduce()
        elif name == "BUILD":
            self._build()
        else:
            raise ValueError(f"it has the opcode {name}, which a list of arrays never needs")

    def _pop(self, count: int) -> tuple[object, ...]:
        if count > len(self.stack):
            raise ValueError("its stack runs empty")
        items = tuple(self.stack[len(self.stack) - count :])
        del self.stack[len(self.stack) - count :]
        return items

    def _pop_mark(self) -> tuple[object, ...]:
        return self._pop(len(self.stack) - self.marks.pop())

    def _append(self, items: tuple[object, ...]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError("it appends to something that is not a list")
        target.extend(items)

    def _reduce(self) -> None:
        function, arguments = self._pop(2)
        if function == "numpy dtype" and isinstance(arguments, tuple) and arguments[:1] in (("f4",), ("f8",)):
            self.stack.append({"dtype": arguments[0]})
        elif function in self._RECONSTRUCT:
            self.n_arrays += 1
            if self.n_arrays > len(PARAMETER_NAMES):  # many arrays could share one array's bytes, but not once copied
                raise ValueError(f"it has more than {len(PARAMETER_NAMES)} arrays")
            self.stack.append({"array": None})
        else:
            raise ValueError(f"it calls {str(function)[:60]}")

    def _build(self) -> None:
        target, state = self._pop(2)
        if not isinstance(target, dict) or not isinstance(state, tuple):
            raise ValueError("it sets the state of something that is not an array")
        if "dtype" in target:
            byte_order = state[1]
            if byte_order not in ("<", ">"):
                raise ValueError(f"its byte order is {byte_order!r}")
            target["dtype"] = f"{byte_order}{target['dtype'][-2:]}"
        else:
            _, shape, dtype, fortran, data = state
            if not isinstance(dtype, dict) or not isinstance(data, bytes):
                raise ValueError("an array in it has no plain data")
            flat = np.frombuffer(data, dtype=dtype["dtype"])
            target["array"] = flat.reshape(shape, order="F" if fortran else "C").astype(np.float32)
        self.stack.append(target)  # changed in place, because the memo holds it, too
