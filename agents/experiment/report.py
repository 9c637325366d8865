"""A run on one page: final table, curves, samples, and one episode with the first, middle and last generator."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from agents.experiment.names import DISCRIMINATOR, LEARNING_CURVE, QUALITY_COVERAGE, REPORT, SAMPLES, SAMPLES_LIKELIHOOD
from agents.experiment.run_folder import SUMMARY_COLUMNS, RunFolder
from seqgan_env.game import SequenceGame
from seqgan_env.inspection.page import inspector, page
from seqgan_env.inspection.saved_runs import trace_checkpoints
from seqgan_env.policy_gradient import Baseline
from seqgan_env.rendering import printable
from seqgan_env.saved_game import STAGES, load_checkpoints

_SUBTITLE = "A generator of sequences, trained by maximum likelihood and then by rewards."
_PICTURES = {
    LEARNING_CURVE: "Learning curves: maximum likelihood, then adversarial training.",
    QUALITY_COVERAGE: "Quality against coverage, over the temperature at which the generators write.",
    DISCRIMINATOR: "How often the discriminator was right in its training: 0.5 if it cannot tell.",
}
_SAMPLES = {SAMPLES_LIKELIHOOD: "After likelihood", SAMPLES: "At the end of the run"}
_LONGEST_LIST = 12
_STYLE = """
main > section { margin-top: 2rem; }
section > h2 { margin-bottom: 0.75rem; }
.pictures, .samples { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem; }
.pictures figure, .samples div {
  padding: 1rem; border: 1px solid var(--line); border-radius: var(--radius); background: var(--card); overflow: hidden;
}
.pictures figure:first-child { grid-column: 1 / -1; }
.pictures img { display: block; width: 100%; border-radius: 4px; background: #ffffff; }
figcaption { margin-top: 0.5rem; font-size: 0.85rem; color: var(--muted); }
.samples ol { margin-top: 0.5rem; }
.samples li { padding: 0.3rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere; }
.table { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { padding: 0.35rem clamp(0.6rem, 2vw, 1.5rem) 0.35rem 0; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
th { font-weight: 600; color: var(--muted); }
"""


def write_report(
    run: RunFolder,
    game: SequenceGame,
    labels: Mapping[str, str],
    floor: float | None,
    *,
    batch_size: int,
    seed: int,
    baseline: Baseline,
) -> None:
    """Write `report.html` from the folder's files; parts that an interrupted run has not reached are left out.

    Args:
        run: the folder, with its pictures, samples and weights.
        game: the run's game; its reward model judges the episodes of all checkpoints.
        labels: the metrics and their labels.
        floor: the oracle's own entropy in nats per token.
        batch_size: episodes from which the advantages of the inspected one are computed.
        seed: draws the episodes.
        baseline: of the advantages.
    """
    generators = load_checkpoints(run.path, game, list(STAGES))
    traces = trace_checkpoints(game, generators, batch_size, seed=seed, baseline=baseline)
    header = f"<header><h1>{escape(run.path.name)}</h1><p>{_SUBTITLE}</p></header>"
    sections = (
        _section("Result", _table(run.summary(labels, floor))),
        _section("Curves", _pictures(run.path), "pictures"),
        _section("Samples", _samples(run.path), "samples"),
        '<section id="inspector"><h2>One episode, token by token</h2><p class="note">The same tokens with each of the '
        "run's saved generators and its own completions, judged by the last reward model. To use the keys, click into this "
        "part first.</p>",
        inspector([trace[0] for trace in traces.values()], [STAGES[name].capitalize() for name in traces]),
        "</section>",
    )
    body = "\n".join(["<body>", header, "<main>", *sections, "</main>", "</body>"])
    run.save_text(REPORT, page(escape(run.path.name), body, _STYLE))


def _section(title: str, parts: Iterable[str], kind: str = "table") -> str:
    content = "\n".join(parts)
    return f'<section><h2>{title}</h2>\n<div class="{kind}">{content}</div></section>' if content else ""


def _table(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    yield "<table>"
    for kind, row in (("th", SUMMARY_COLUMNS), *(("td", row) for row in rows)):
        yield "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in row) + "</tr>"
    yield "</table>"


def _pictures(folder: Path) -> Iterable[str]:
    for name, caption in _PICTURES.items():
        if (folder / name).exists():
            data = base64.b64encode((folder / name).read_bytes()).decode()
            picture = f'<img src="data:image/png;base64,{data}" alt="{escape(caption)}">'
            yield f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def _samples(folder: Path) -> Iterable[str]:
    for name, title in _SAMPLES.items():
        if (folder / name).exists():
            lines = (folder / name).read_text(encoding="utf-8").split("\n")[:_LONGEST_LIST]
            items = "".join(f"<li><bdi>{escape(printable(line))}</bdi></li>" for line in lines)
            yield f"<div><h3>{title}</h3><ol>{items}</ol></div>"
