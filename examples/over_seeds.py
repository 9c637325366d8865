"""How adversarial training changes its own likelihood start, over seeds; shared by the worked examples.

Each seed splits the data differently and draws new parameters, so it has its own likelihood start. Figures are means
± standard deviations over seeds; a change is the mean of each seed's own change, never the best one.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev

import matplotlib.pyplot as plt
import torch

import train
from agents.experiment.config import AdversarialConfig, TextConfig
from agents.experiment.presets import PRESETS
from seqgan_env import SequenceGame, TokenModel
from seqgan_env.data.vocabulary import lines_of, one_line
from seqgan_env.evaluation.plot_styles import STYLES
from seqgan_env.evaluation.reference_sequences import reference_of
from seqgan_env.evaluation.run_evaluation import LABELS, BleuPoint, EvaluationSettings, Findings, evaluate
from seqgan_env.saved_game import LAST, LIKELIHOOD, load_checkpoints, load_game

REAL = "real data"
START = "likelihood"
METRICS = ("nll_test", "bleu_2", "self_bleu_2", "unique", "novel", "neighbour_share")
TEMPERATURES = (0.75, 1.0, 1.25, 1.5)
"""Inverse temperatures of the sweep."""
ADVERSARIAL = dataclasses.replace(PRESETS["text"][0].adversarial, n_rollouts=2, learning_rate=1e-3, kl_coef=0.0)
"""Settings that the examples share: a quick discriminator, a baseline, two completions of each prefix, and larger steps than
the preset's, not held to the start."""

Judge = Callable[[SequenceGame, TokenModel | None, list[str]], dict[str, float]]
"""Computes further metrics of sequences as text, and of their generator, if any."""


@dataclass
class Comparison:
    """The measurements; lists are over seeds."""

    seeds: tuple[int, ...]
    metrics: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """For each column (the real data or a generator), its metrics."""
    sweeps: dict[str, list[tuple[BleuPoint, ...]]] = field(default_factory=dict)
    """For each generator, BLEU and Self-BLEU over temperatures."""
    samples: dict[str, list[str]] = field(default_factory=dict)
    """For each column, the first seed's samples."""

    def add(self, name: str, found: Findings, more: Mapping[str, float], lines: list[str]) -> None:
        """Add a column's results with one more seed."""
        column = self.metrics.setdefault(name, {})
        for metric, value in {**found.metrics, **more}.items():
            column.setdefault(metric, []).append(value)
        self.samples.setdefault(name, lines)
        if found.sweep:
            self.sweeps.setdefault(name, []).append(tuple(p for p in found.sweep if isinstance(p, BleuPoint)))

    def table(self, more: Mapping[str, str] | None = None) -> str:
        """The means, and the changes from the likelihood start, as Markdown.

        Args:
            more: further metrics, and their labels.
        """
        adversarial = [name for name in self.metrics if name not in (REAL, START)]
        headings = ["", REAL, START, *(heading for name in adversarial for heading in (name, "change"))]
        rows = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
        labels = {name: LABELS[name][0] for name in METRICS} | dict(more or {})
        for metric, label in labels.items():
            start = self.metrics[START][metric]
            cells = [label, self._cell(REAL, metric), spread(start)]
            for name in adversarial:
                end = self.metrics[name][metric]
                cells += [spread(end), spread([b - a for a, b in zip(start, end, strict=True)], sign="+")]
            rows.append("| " + " | ".join(cells) + " |")
        return "\n".join(rows)

    def _cell(self, name: str, metric: str) -> str:
        values = self.metrics[name].get(metric)
        return "–" if values is None else spread(values)

    def save(self, out: Path, table: str) -> None:
        """Write `results.json`, `table.md`, `sweep.png`, and the first seed's samples of each column; print the table."""
        columns = {"seeds": self.seeds, "metrics": self.metrics}
        (out / "results.json").write_text(json.dumps(columns, indent=2) + "\n", encoding="utf-8")
        (out / "table.md").write_text(table + "\n", encoding="utf-8")
        for name, lines in self.samples.items():
            file = out / f"samples_{name.replace(' ', '_')}.txt"
            file.write_text("".join(one_line(line) + "\n" for line in lines), encoding="utf-8")
        self.draw(out / "sweep.png")
        print(table)
        print(f"All files are in {out}")

    def draw(self, path: Path) -> None:
        """Draw BLEU-2 against Self-BLEU-2 over temperatures, means over seeds; the circle is temperature 1."""
        figure, axis = plt.subplots(figsize=(5.5, 4), layout="constrained")
        for (name, sweeps), (colour, _) in zip(self.sweeps.items(), STYLES, strict=False):
            own = [mean(point.self_bleu[0] for point in points) for points in zip(*sweeps, strict=True)]
            bleu = [mean(point.bleu[0] for point in points) for points in zip(*sweeps, strict=True)]
            axis.plot(own, bleu, marker=".", color=colour, label=name)
            at = min(range(len(own)), key=lambda i: abs(sweeps[0][i].inverse_temperature - 1))
            axis.plot(own[at], bleu[at], "o", color=colour, markersize=9, fillstyle="none")
        real = self.metrics[REAL]
        axis.plot(mean(real["self_bleu_2"]), mean(real["bleu_2"]), "*", color="0.3", markersize=12, label=REAL)
        axis.set_xlabel("Self-BLEU-2 (lower: more varied)")
        axis.set_ylabel("BLEU-2 against held-out sequences")
        axis.set_title(f"Temperature sweep, mean over {len(self.seeds)} seed{'s' * (len(self.seeds) > 1)}")
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)
        figure.savefig(path, dpi=100)
        plt.close(figure)


def compare(
    config: TextConfig,
    arms: Mapping[str, AdversarialConfig],
    seeds: Sequence[int],
    settings: EvaluationSettings,
    judge: Judge | None = None,
) -> Comparison:
    """Train a config with each adversarial setting and seed, and measure.

    Args:
        config: of the runs; its `out` gets a folder per arm and seed.
        arms: adversarial settings by name. All arms of a seed share the likelihood start.
        seeds: of the runs.
        settings: of the evaluation, with the same seed for all runs.
        judge: further metrics.
    """
    comparison = Comparison(tuple(seeds))
    for seed in seeds:
        for name, adversarial in arms.items():
            folder = config.out / f"{name.replace(' ', '-')}-seed{seed}"
            train.main(dataclasses.replace(config, adversarial=adversarial, seed=seed, out=folder), "text")
            run = max(folder.iterdir(), key=lambda path: path.stat().st_mtime)
            _measure(comparison, run, name, settings, judge)
    return comparison


def _measure(comparison: Comparison, run: Path, name: str, settings: EvaluationSettings, judge: Judge | None) -> None:
    """Measure a run's generators, except those already measured for an earlier arm of the same seed."""
    game = load_game(run)
    checkpoints = load_checkpoints(run, game, [LIKELIHOOD, LAST])
    first = name == next((arm for arm in comparison.metrics if arm not in (REAL, START)), name)
    generators = {START: checkpoints[LIKELIHOOD]} if first else {}
    generators[name] = checkpoints[LAST]
    found = evaluate(game, generators, reference_of(run, game, None, settings.n, settings.seed), settings)
    if first:
        training = lines_of(game.real_sequences[: settings.n], game.vocabulary, game.vocab_size)
        comparison.add(REAL, found.real, judge(game, None, training) if judge else {}, training)
    for column, generator in generators.items():
        rng = torch.Generator().manual_seed(settings.seed)
        lines = lines_of(generator.sample(settings.n, game.sequence_length, rng)[0], game.vocabulary, game.vocab_size)
        comparison.add(column, found.generators[column], judge(game, generator, lines) if judge else {}, lines)


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean ± standard deviation; only the mean for a single value."""
    text = f"{mean(values):{sign}.3f}"
    return f"{text} ± {stdev(values):.3f}" if len(values) > 1 else text
