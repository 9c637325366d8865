"""Folk tunes: learns phrases of reels and hornpipes (Ryan's Mammoth Collection, included in music21), writes MIDI files.

python examples/folk_tunes.py        (needs `pip install -e ".[music]"`)

A token is a note with its pitch and length in quarters, as in "B-4:1/2", or a rest, as in "rest:1/2". All tunes are transposed
to the key without sharps or flats, and bars are scaled to four quarters. A phrase is four bars.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import tyro
from matplotlib.axes import Axes
from music21 import chord, converter, corpus, key, meter, note, pitch, stream, tempo
from over_seeds import ADVERSARIAL, REAL, START, TEMPERATURES, Comparison, compare
from tqdm.auto import tqdm

from agents import PretrainConfig
from agents.experiment.config import EvaluationConfig, TextConfig
from seqgan_env import GeneratorConfig, SequenceGame, TextCNNConfig, TokenModel
from seqgan_env.evaluation.plot_styles import BLUE
from seqgan_env.evaluation.run_evaluation import EvaluationSettings
from seqgan_env.metrics.shares import valid_share
from seqgan_env.rendering import spell_what_cannot_be_encoded

BARS, BAR = 4, Fraction(4)
SHORTEST_LAST_BAR = Fraction(2)  # quarters; a pick-up before the phrase is missing at its end
REST = "rest"
_STRETCH = {"2/4": 2, "2/2": 1, "4/4": 1}
_QUARTERS_PER_MINUTE = 200


@dataclass(frozen=True)
class Config:
    """Train on phrases of folk tunes with several seeds; print how adversarial training changed the likelihood start."""

    out: Path = Path("runs/folk_tunes")
    """The folder for run folders, table, pictures, samples and MIDI files."""
    cache: Path | None = None
    """The folder for the parsed phrases, by default out."""
    tunes: int = 1059
    """The maximum number of tunes to parse, in the order of their file names; all 1,059 take a minute."""
    seeds: tuple[int, ...] = (4, 5, 6)
    """Seeds of the runs. Seed 0 was used to choose the settings."""
    max_notes: int = 32
    """Longer phrases are left out."""
    min_count: int = 10
    """Phrases with a note that occurs less often are left out."""
    hidden_dim: int = 64
    """Width of the generator."""
    epochs: int = 30
    """Epochs of likelihood training."""
    updates: int = 40
    """Adversarial updates."""
    n_samples: int = 1000
    """Phrases per evaluation."""
    n_midi: int = 8
    """Phrases to write as MIDI files."""


def parse_tune(path: Path) -> list[list[str]]:
    """The phrases of a tune as tokens; none if its metre is not even."""
    score = converter.parse(path, forceSource=True)
    metre = score.recurse().getElementsByClass(meter.TimeSignature).first()
    signature = score.recurse().getElementsByClass(key.KeySignature).first()
    if metre is None or signature is None or metre.ratioString not in _STRETCH:
        return []
    up = (-7 * signature.sharps + 6) % 12 - 6  # semitones to the key without sharps or flats, by the shorter way
    stretch = _STRETCH[metre.ratioString]
    bars = []
    for measure in score.recurse().getElementsByClass(stream.Measure):
        notes = [n for n in measure.notesAndRests if not isinstance(n, chord.Chord) and n.quarterLength > 0]
        bars.append([to_token(n, up, stretch) for n in notes])
    return list(phrases(bars))


def to_token(element: note.GeneralNote, up: int, stretch: int) -> str:
    """A note or rest as a token, transposed up by `up` semitones and `stretch` times as long."""
    length = Fraction(element.quarterLength).limit_denominator(48) * stretch
    if not isinstance(element, note.Note):
        return f"{REST}:{length}"
    return f"{pitch.Pitch(midi=element.pitch.midi + up).nameWithOctave}:{length}"


def length_of(token: str) -> Fraction:
    """A token's length in quarters."""
    return Fraction(token.rpartition(":")[2])


def phrases(bars: Sequence[list[str]]) -> Iterator[list[str]]:
    """All runs of four bars of four quarters; the fourth may be shorter if it ends a part of the tune."""
    phrase: list[list[str]] = []
    for bar in bars:
        length = sum(map(length_of, bar), Fraction(0))
        is_last = len(phrase) == BARS - 1
        if length == BAR or (is_last and SHORTEST_LAST_BAR <= length < BAR):
            phrase.append(bar)
        else:
            phrase = []
        if len(phrase) == BARS:
            yield [token for whole in phrase for token in whole]
            phrase = []


def is_phrase(text: str) -> bool:
    """Whether the notes fill four bars, the last at least half, and no note crosses a bar line."""
    ends, now = set(), Fraction(0)
    for token in text.split():
        now += length_of(token)
        ends.add(now)
    lines = {BAR * number for number in range(1, BARS)}
    return lines <= ends and BAR * (BARS - 1) + SHORTEST_LAST_BAR <= now <= BAR * BARS


def read_phrases(cache: Path, tunes: int) -> list[str]:
    """The distinct phrases of the collection's first tunes, one per line; parsed once, then read from the cache."""
    file = cache / f"ryans_mammoth_{tunes}_tunes.txt"
    if not file.is_file():
        paths = sorted(path for path in corpus.getCorePaths() if path.parent.name == "ryansMammoth")[:tunes]
        found = [" ".join(p) for path in tqdm(paths, desc="parsing", unit="tune", disable=None) for p in parse_tune(path)]
        cache.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(phrase + "\n" for phrase in dict.fromkeys(found)), encoding="utf-8")
    return file.read_text(encoding="utf-8").splitlines()


def usual(lines: Sequence[str], max_notes: int, min_count: int) -> list[str]:
    """The phrases that are short enough and have no rare note."""
    short = [line for line in lines if len(line.split()) <= max_notes]
    counts: dict[str, int] = {}
    for line in short:
        for token in line.split():
            counts[token] = counts.get(token, 0) + 1
    return [line for line in short if all(counts[token] >= min_count for token in line.split())]


def write_midi(phrase: str, path: Path) -> None:
    """Write a phrase as a MIDI file."""
    part = stream.Part([tempo.MetronomeMark(number=_QUARTERS_PER_MINUTE), meter.TimeSignature("4/4")])
    for token in phrase.split():
        name = token.rpartition(":")[0]
        length = length_of(token)
        part.append(note.Rest(quarterLength=length) if name == REST else note.Note(name, quarterLength=length))
    part.write("midi", fp=path)


def draw_rolls(columns: dict[str, Sequence[str]], path: Path) -> None:
    """Draw the phrases of each column as piano rolls, one below the other."""
    rows = max(len(lines) for lines in columns.values())
    figure, axes = plt.subplots(
        rows,
        len(columns),
        figsize=(4 * len(columns), 1.4 * rows),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for (name, lines), column in zip(columns.items(), axes.T, strict=True):
        column[0].set_title(name)
        for line, axis in zip(lines, column, strict=False):
            _draw_roll(axis, line)
    for axis in axes[-1]:
        axis.set_xlabel("quarters")
    figure.supylabel("MIDI pitch")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _draw_roll(axis: Axes, phrase: str) -> None:
    now = 0.0
    for token in phrase.split():
        name, length = token.rpartition(":")[0], float(length_of(token))
        if name != REST:
            axis.barh(pitch.Pitch(name).midi, length, left=now, height=0.9, color=BLUE, edgecolor="white", linewidth=0.5)
        now += length
    for line in range(0, BARS + 1):
        axis.axvline(float(BAR) * line, color="0.7", linewidth=0.7, zorder=0)


def judge(game: SequenceGame, generator: TokenModel | None, lines: list[str]) -> dict[str, float]:
    """The share of phrases with correct bars."""
    return {"valid": valid_share(lines, is_phrase)}


def main(config: Config) -> Comparison:
    """Train and measure; write everything to `config.out`."""
    torch.set_num_threads(1)
    config.out.mkdir(parents=True, exist_ok=True)
    data = config.out / "phrases.txt"
    lines = usual(read_phrases(config.cache or config.out, config.tunes), config.max_notes, config.min_count)
    data.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    adversarial = dataclasses.replace(ADVERSARIAL, updates=config.updates)
    settings = TextConfig(
        data=data,
        out=config.out,
        device="cpu",
        generator=GeneratorConfig(embedding_dim=32, hidden_dim=config.hidden_dim, dropout=0.2),
        pretrain=PretrainConfig(epochs=config.epochs, learning_rate=1e-2, final_learning_rate=1e-3),
        discriminator=TextCNNConfig(widths=(1, 2, 4, 8), n_filters=(32,) * 4, l2=0.0, learning_rate=1e-3, epochs=1),
        adversarial=adversarial,
        evaluation=EvaluationConfig(n_samples=min(500, config.n_samples), every_epochs=5, every_updates=20),
    )
    evaluation = EvaluationSettings(n=config.n_samples, n_neighbours=200, inverse_temperatures=TEMPERATURES)
    comparison = compare(settings, {"adversarial": adversarial}, config.seeds, evaluation, judge)
    comparison.save(config.out, comparison.table({"valid": "four whole bars"}))
    written = comparison.samples["adversarial"][: config.n_midi]
    for number, phrase in enumerate(written, start=1):
        write_midi(phrase, config.out / f"phrase_{number}.mid")
    draw_rolls({name: comparison.samples[name][:4] for name in (REAL, START, "adversarial")}, config.out / "phrases.png")
    return comparison


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
