"""Molecules as SMILES: the discriminator alone, and mixed with RDKit's check of validity as in ORGAN.

python examples/molecules.py        (needs `pip install -e ".[molecules]"`)

A token is an atom, a bond, a bracket or a ring's digit. The molecules are the part of NCI's collection that RDKit includes.
The mixture is that of Guimaraes et al., 2017 (arXiv 1705.10843). A mask for SMILES grammar is tried with all generators.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import tyro
from over_seeds import ADVERSARIAL, REAL, START, TEMPERATURES, Comparison, Judge, compare
from rdkit import Chem, RDConfig, rdBase
from rdkit.Chem import Draw

from agents import PretrainConfig
from agents.experiment.config import EvaluationConfig, TextConfig
from seqgan_env import GeneratorConfig, SequenceGame, TextCNNConfig, TokenModel, Vocabulary
from seqgan_env.commands.sample import sample_with
from seqgan_env.data.vocabulary import lines_of
from seqgan_env.evaluation.run_evaluation import EvaluationSettings
from seqgan_env.rendering import spell_what_cannot_be_encoded

MOLECULES = Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi"
TOKEN = re.compile(r"\[[^\]]+\]|Br|Cl|%\d\d|.")
OPEN, CLOSE, BONDS = "(", ")", "-=#"
PENDING = ("bond", "ring bond")  # an atom must follow; right after an atom's bond also a ring's digit
WITH_VALIDITY = "discriminator and validity"
COLDER = 1.25  # an inverse temperature that gives more valid and fewer distinct molecules


@dataclass(frozen=True)
class Config:
    """Train on molecules with several seeds; print how adversarial training changed the likelihood start."""

    data: Path = MOLECULES
    """A file with one molecule per line, its SMILES first."""
    out: Path = Path("runs/molecules")
    """The folder for run folders, table, pictures and samples."""
    seeds: tuple[int, ...] = (4, 5, 6)
    """Seeds of the runs. Seed 0 was used to choose the settings."""
    max_tokens: int = 25
    """Larger molecules are left out."""
    min_count: int = 50
    """Molecules with a token that occurs less often are left out."""
    hidden_dim: int = 64
    """Width of the generator."""
    epochs: int = 30
    """Epochs of likelihood training."""
    updates: int = 40
    """Adversarial updates."""
    weight: float = 0.5
    """Weight of validity; the discriminator's is 1 - weight."""
    n_samples: int = 1000
    """Molecules per evaluation."""


def tokenize(smiles: str) -> list[str]:
    """The tokens of a SMILES."""
    return TOKEN.findall(smiles)


def canonical(text: str) -> str | None:
    """RDKit's canonical SMILES of a molecule, which may have spaces between tokens; None if it is not valid."""
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(text.replace(" ", ""))
    if molecule is None or not molecule.GetNumAtoms():
        return None
    smiles: str = Chem.MolToSmiles(molecule, isomericSmiles=False)
    return smiles


def validity(texts: list[str]) -> list[float]:
    """The objective: 1 for a valid molecule, 0 otherwise."""
    with rdBase.BlockLogs():
        molecules = [Chem.MolFromSmiles(text.replace(" ", "")) for text in texts]
    return [float(m is not None and m.GetNumAtoms() > 0) for m in molecules]


def read_molecules(path: Path, max_tokens: int, min_count: int) -> list[str]:
    """Distinct molecules of one fragment, as canonical SMILES without stereochemistry, with spaces between tokens."""
    fields = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    smiles = dict.fromkeys(canonical(line[0]) for line in fields if line)
    tokens = [tokenize(text) for text in smiles if text is not None and "." not in text]
    short = [row for row in tokens if len(row) <= max_tokens]
    counts = Counter(token for row in short for token in row)
    return [" ".join(row) for row in short if all(counts[token] >= min_count for token in row)]


@dataclass(frozen=True)
class Written:
    """The grammatical state after a prefix of a SMILES; atoms are numbered from 0."""

    kind: str = "start"
    """Kind of the last token: start, atom, bond, ring bond, open, close or ring."""
    atom: int = -1
    """The atom that the next atom or ring bond attaches to."""
    n_atoms: int = 0
    branches: tuple[int, ...] = ()
    """The atoms that open brackets return to, the innermost last."""
    rings: tuple[tuple[str, int], ...] = ()
    """Digits of open rings, and their atoms."""
    bonds: frozenset[tuple[int, int]] = field(default_factory=frozenset)

    def after(self, token: str) -> "Written | None":
        """The state after one more token; None if the grammar forbids it."""
        if token == OPEN:
            fits = self.kind in ("atom", "ring", "close")
            return dataclasses.replace(self, kind="open", branches=(*self.branches, self.atom)) if fits else None
        if token == CLOSE:
            if not self.branches or self.kind not in ("atom", "ring", "close"):
                return None
            return dataclasses.replace(self, kind="close", atom=self.branches[-1], branches=self.branches[:-1])
        if token in BONDS:
            if self.kind in ("start", *PENDING):
                return None
            return dataclasses.replace(self, kind="ring bond" if self.kind in ("atom", "ring") else "bond")
        if token.isdigit() or token.startswith("%"):
            return self._ring(token) if self.kind in ("atom", "ring", "ring bond") else None
        bond = frozenset() if self.atom < 0 else frozenset({(self.atom, self.n_atoms)})
        return dataclasses.replace(self, kind="atom", atom=self.n_atoms, n_atoms=self.n_atoms + 1, bonds=self.bonds | bond)

    def _ring(self, digit: str) -> "Written | None":
        """Open a ring, or close the one with this digit, between two atoms without a bond."""
        start = dict(self.rings).get(digit)
        if start is None:
            return dataclasses.replace(self, kind="ring", rings=(*self.rings, (digit, self.atom)))
        bond = (start, self.atom)
        if start == self.atom or bond in self.bonds:
            return None
        rings = tuple(ring for ring in self.rings if ring[0] != digit)
        return dataclasses.replace(self, kind="ring", rings=rings, bonds=self.bonds | {bond})

    def to_finish(self) -> int:
        """Tokens that suffice to finish: atoms until each ring can be closed, the rings' digits, and the brackets."""
        written, count = self, 0
        if written.kind in ("start", "open", *PENDING):
            written, count = _with(written, "C"), 1
        while written.rings:
            closed = next((w for digit, _ in written.rings if (w := written.after(digit)) is not None), None)
            written, count = (closed or _with(written, "C")), count + 1
        return count + len(written.branches)


def _with(written: Written, token: str) -> Written:
    longer = written.after(token)
    assert longer is not None
    return longer


def make_mask(vocabulary: Vocabulary, length: int) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]:
    """The mask for SMILES of at most `length` tokens: brackets and rings open only while there is room to close them.

    It ignores valence and aromaticity, so a sequence under the mask may still not be a molecule.
    """
    kinds = ["end" if index == vocabulary.end_token else _kind(token) for index, token in enumerate(vocabulary.tokens)]

    @lru_cache(maxsize=200_000)
    def allowed(written: Written, room: int) -> npt.NDArray[np.bool_]:
        fits = {}
        for kind in set(kinds):
            if kind == "end":
                fits[kind] = written.kind not in ("start", "open", *PENDING) and not written.rings and not written.branches
            else:
                longer = written.after(kind)
                fits[kind] = longer is not None and longer.to_finish() < room
        return np.array([fits[kind] for kind in kinds])

    @lru_cache(maxsize=200_000)
    def read(prefix: tuple[int, ...]) -> Written:
        return _with(read(prefix[:-1]), kinds[prefix[-1]]) if prefix else Written()

    def mask(prefix: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return allowed(read(tuple(prefix.tolist())), length - len(prefix))

    return mask


def _kind(token: str) -> str:
    """A token that the grammar treats alike: C for all atoms."""
    is_digit = token.isdigit() or token.startswith("%")
    return token if is_digit or token in (OPEN, CLOSE, *BONDS) else "C"


def make_judge(n: int) -> Judge:
    """Shares of valid, distinct and new molecules by RDKit; also for `n` of a generator's samples under the mask."""

    def judge(game: SequenceGame, generator: TokenModel | None, lines: list[str]) -> dict[str, float]:
        vocabulary = game.vocabulary
        assert vocabulary is not None
        known = {canonical(line) for line in lines_of(game.real_sequences, vocabulary, game.vocab_size)}
        valid = [smiles for smiles in map(canonical, lines) if smiles is not None]
        measured = {
            "valid": len(valid) / len(lines),
            "new_molecules": len(set(valid) - known) / len(lines),
            "atoms": float(np.mean([Chem.MolFromSmiles(smiles).GetNumAtoms() for smiles in valid])) if valid else 0.0,
        }
        if generator is not None:
            rng = torch.Generator().manual_seed(0)
            colder = generator.sample(len(lines), game.sequence_length, rng, inverse_temperature=COLDER)[0]
            texts = list(map(canonical, lines_of(colder, vocabulary, game.vocab_size)))
            measured["valid_colder"] = 1 - texts.count(None) / len(texts)
            measured["new_colder"] = len(set(texts) - known - {None}) / len(texts)
            mask = make_mask(vocabulary, game.sequence_length)
            parts = sample_with(generator, n, game.sequence_length, torch.Generator().manual_seed(0), mask=mask)
            masked = [line for tokens in parts for line in lines_of(tokens, vocabulary, game.vocab_size)]
            measured["valid_masked"] = float(np.mean(validity(masked)))
        return measured

    return judge


def draw_molecules(columns: dict[str, list[str]], path: Path, per_row: int = 4) -> None:
    """Draw the first valid molecules of each column, one row per column."""
    drawn, legends = [], []
    for name, lines in columns.items():
        valid = [smiles for smiles in map(canonical, lines) if smiles is not None][:per_row]
        drawn += [Chem.MolFromSmiles(smiles) for smiles in valid] + [None] * (per_row - len(valid))
        legends += [name] + [""] * (per_row - 1)
    size = (220, 150)
    path.write_bytes(Draw.MolsToGridImage(drawn, molsPerRow=per_row, subImgSize=size, legends=legends, returnPNG=True))


def main(config: Config) -> Comparison:
    """Train and measure; write everything to `config.out`."""
    torch.set_num_threads(1)
    config.out.mkdir(parents=True, exist_ok=True)
    data = config.out / "molecules.txt"
    lines = read_molecules(config.data, config.max_tokens, config.min_count)
    data.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    alone = dataclasses.replace(ADVERSARIAL, updates=config.updates)
    mixed = dataclasses.replace(alone, objective="molecules:validity", objective_batched=True, objective_weight=config.weight)
    settings = TextConfig(
        data=data,
        out=config.out,
        device="cpu",
        generator=GeneratorConfig(embedding_dim=32, hidden_dim=config.hidden_dim, dropout=0.2),
        pretrain=PretrainConfig(epochs=config.epochs, learning_rate=1e-2, final_learning_rate=1e-3),
        discriminator=TextCNNConfig(widths=(1, 2, 3, 5, 8), n_filters=(32,) * 5, l2=0.0, learning_rate=1e-3, epochs=1),
        evaluation=EvaluationConfig(n_samples=min(500, config.n_samples), every_epochs=5, every_updates=20),
    )
    evaluation = EvaluationSettings(n=config.n_samples, n_neighbours=200, inverse_temperatures=TEMPERATURES)
    arms = {"discriminator": alone, WITH_VALIDITY: mixed}
    comparison = compare(settings, arms, config.seeds, evaluation, make_judge(max(1, config.n_samples // 4)))
    labels = {
        "valid": "valid",
        "new_molecules": "valid, new and distinct",
        "atoms": "atoms of a valid one",
        "valid_colder": f"valid, at inverse temperature {COLDER}",
        "new_colder": "valid, new and distinct, at that",
        "valid_masked": "valid, drawn under the mask",
    }
    comparison.save(config.out, comparison.table(labels))
    draw_molecules({name: comparison.samples[name] for name in (REAL, START, *arms)}, config.out / "molecules.png")
    return comparison


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
