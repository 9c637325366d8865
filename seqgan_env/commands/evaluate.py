"""`python -m seqgan_env evaluate`: the full evaluation of a run as a table, `evaluation.json` and pictures."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seqgan_env.data.file_formats import Format
from seqgan_env.evaluation.pictures import draw_evaluation
from seqgan_env.evaluation.reference_sequences import reference_of
from seqgan_env.evaluation.run_evaluation import (
    LABELS,
    Evaluation,
    EvaluationSettings,
    Findings,
    closest_pairs,
    evaluate,
    sweep_as_rows,
)
from seqgan_env.game import SequenceGame
from seqgan_env.metrics.temperature import INVERSE_TEMPERATURES, SweepPoint, best_sum
from seqgan_env.rendering import printable
from seqgan_env.rewards.custom import load_function
from seqgan_env.saved_game import LAST, LIKELIHOOD, STAGES, load_checkpoints, load_game
from seqgan_env.support.atomic_files import check_folder
from seqgan_env.support.settings import PositiveInt, SampleCount, Seed, Temperature

SCHEMA = 1
"""The version of `evaluation.json`."""

Pair = dict[str, Any]


@dataclass(frozen=True)
class Evaluate:
    """Compare a run's generator with its start after likelihood: quality, coverage, diversity, memorisation."""

    run: Path
    """The run's folder."""
    reference: Path | None = None
    """A file of sequences that the run was not trained on, text or a table; by default the run's held-out sequences."""
    format: Format | None = None
    """The reference's format: text, csv (with a header) or jsonl; by default its name decides."""
    column: str | None = None
    """The CSV column, or JSONL field, that holds the reference's sequences."""
    valid: str | None = None
    """A custom function, module:name, that returns True if a decoded sequence is valid, else False."""
    out: Path | None = None
    """The folder to write to; by default evaluation in the run's folder."""
    n: Annotated[SampleCount, tyro.conf.arg(aliases=["-n"])] = 10_000
    """Samples per generator and temperature."""
    seed: Seed = 0
    """Draws the samples."""
    n_neighbours: PositiveInt = 1000
    """How many samples to find the nearest training sequence for."""
    inverse_temperatures: tuple[Temperature, ...] = INVERSE_TEMPERATURES
    """Of the sweep; above 1 sharpens the generators, below 1 flattens them."""
    checkpoint: str = LAST
    """The generator to compare with the one after likelihood."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """Where to compute."""

    def __call__(self) -> dict[str, Any]:
        """Evaluate the run; write and print the results.

        Returns:
            The content of `evaluation.json`.

        Raises:
            ValueError: a number is out of range, or a file is damaged or does not fit.
            OSError: the run, checkpoint or text does not exist, or the results cannot be written.
        """
        if self.reference is None and (self.format is not None or self.column is not None):
            raise ValueError("--format and --column describe the --reference, but there is none. Pass one, or leave them out.")
        if self.out is not None:
            check_folder(self.out, "--out")
        settings = EvaluationSettings(self.n, self.seed, self.n_neighbours, self.inverse_temperatures)
        valid = None if self.valid is None else load_function(self.valid)
        game = load_game(self.run, self.device)
        names = list(dict.fromkeys([LIKELIHOOD, self.checkpoint]))
        generators = load_checkpoints(self.run, game, names)
        missing = [name for name in names if name not in generators]
        if missing:
            raise FileNotFoundError(
                f"No checkpoint {' or '.join(missing)} in {self.run}. An evaluation compares the generator with its start "
                "after likelihood, to show what the later training has changed."
            )
        reference = reference_of(self.run, game, self.reference, self.n, self.seed, format=self.format, column=self.column)
        out = self.out or self.run / "evaluation"
        is_new = not out.exists()
        out.mkdir(parents=True, exist_ok=True)  # first, because without it all the work would be lost
        try:
            evaluation = evaluate(game, generators, reference, settings, valid)
        except BaseException:
            if is_new:
                out.rmdir()
            raise
        report = _report(self, game, evaluation)
        text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
        (out / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        draw_evaluation(evaluation, _titles(evaluation), out)
        _print(Console(), report)
        print(f"Table, pictures and evaluation.json are in {out}")
        return report


def _titles(evaluation: Evaluation) -> dict[str, str]:
    return {name: STAGES.get(name, name) for name in evaluation.generators}


def _report(command: Evaluate, game: SequenceGame, evaluation: Evaluation) -> dict[str, Any]:
    """All results and their settings, for JSON."""
    reference = evaluation.reference
    return {
        "schema": SCHEMA,
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in asdict(command).items()},
        "torch": torch.__version__,
        "data": {
            "training_sequences": len(game.real_sequences),
            "vocab_size": game.vocab_size,
            "sequence_length": game.sequence_length,
            "reference": reference.source,
            "reference_sequences": len(reference.words),
            "reference_without_likelihood": reference.left_out,
            "reference_truncated": reference.truncated,
        },
        "real": {"metrics": evaluation.real.metrics, **_shapes(evaluation.real)},
        "training_lengths": evaluation.training_lengths.tolist(),
        "generators": {
            name: {
                "title": title,
                "metrics": evaluation.generators[name].metrics,
                "sweep": sweep_as_rows(evaluation.generators[name].sweep),
                **_best_sum(evaluation.generators[name]),
                **_shapes(evaluation.generators[name]),
                "closest_pairs": _closest(game, evaluation.generators[name]),
            }
            for name, title in _titles(evaluation).items()
        },
    }


def _shapes(findings: Findings) -> dict[str, Any]:
    return {"lengths": findings.lengths.tolist(), "neighbour_shares": findings.neighbours.shares.tolist()}


def _best_sum(findings: Findings) -> dict[str, Any]:
    """For an oracle's run, the sweep's point with the lowest NLL_oracle + NLL_test."""
    points = [point for point in findings.sweep if isinstance(point, SweepPoint)]
    return {"best_sum": dict(vars(best_sum(points)))} if points else {}


def _closest(game: SequenceGame, findings: Findings) -> list[Pair]:
    """The samples closest to the training data, with their neighbours."""
    pairs = []
    neighbours = findings.neighbours
    for row in closest_pairs(findings):
        sample, nearest = findings.neighbour_words[row], game.real_sequences[int(neighbours.indices[row])]
        pairs.append(
            {
                "sample": _text(game, sample.tolist()),
                "nearest": _text(game, nearest.tolist()),
                "edits": int(neighbours.edits[row]),
                "share": float(neighbours.shares[row]),
            }
        )
    return pairs


def _text(game: SequenceGame, ids: list[int]) -> str:
    if game.vocabulary is not None:
        return game.vocabulary.decode(ids)
    return " ".join(str(token) for token in ids if token != game.vocab_size)


def _print(console: Console, report: dict[str, Any]) -> None:
    """Print the table, and the closest pairs of the last generator."""
    generators, data = report["generators"], report["data"]
    table = Table(title="Evaluation at temperature 1", title_justify="left")
    table.add_column("")
    for heading in ("real data", *(generator["title"] for generator in generators.values())):
        table.add_column(heading, justify="right")
    table.add_column("better")
    columns = [report["real"]["metrics"], *(generator["metrics"] for generator in generators.values())]
    for name, (label, better) in LABELS.items():
        if any(name in column for column in columns):
            table.add_row(label, *(f"{column[name]:.3f}" if name in column else "–" for column in columns), better)
    sums = [
        f"{generator['title']}: {point['nll_oracle'] + point['nll_test']:.3f} at {point['inverse_temperature']:g}"
        for generator in generators.values()
        if (point := generator.get("best_sum"))
    ]
    if sums:
        table.caption = "Lowest sum over inverse temperatures: " + "; ".join(sums)
    console.print(table)
    console.print(
        f"Held-out: {data['reference_sequences']:,} sequences, {data['reference']}; with unknown words, so not in NLL_test: "
        f"{data['reference_without_likelihood']:,}; truncated: {data['reference_truncated']:,}.",
        highlight=False,
    )
    last = list(generators.values())[-1]
    pairs = Table(title=f"Closest to the training data, {last['title']}", title_justify="left")
    for heading in ("edits", "sample", "nearest training sequence"):
        pairs.add_column(heading, justify="right" if heading == "edits" else "left")
    for pair in last["closest_pairs"]:
        pairs.add_row(str(pair["edits"]), Text(printable(pair["sample"])), Text(printable(pair["nearest"])))
    console.print(pairs)
