"""Episodes as a single HTML page that opens from disk and loads nothing else."""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from seqgan_env.inspection.trace import EpisodeTrace
from seqgan_env.support.atomic_files import text_output

# Characters with which text inside a script element could end it or start another; JSON may escape any of them.
_SPELLED_OUT = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}

_HEADER = """<header>
  <h1>Episode inspector</h1>
  <p>Where each token’s reward comes from: {sources}.</p>
</header>"""


def write_html(traces: Sequence[EpisodeTrace], path: str | Path, titles: Sequence[str] | None = None) -> None:
    """Write the page of `html_page` to a file.

    Args:
        traces: the episodes.
        path: of the file, in an existing folder. `-` is standard output.
        titles: one per episode.
    """
    text = html_page(traces, titles)
    with text_output(Path(path)) as file:
        file.write(text)


def html_page(traces: Sequence[EpisodeTrace], titles: Sequence[str] | None = None) -> str:
    """A page that steps through episodes side by side, all at the same position.

    Args:
        traces: the episodes, at least one: of several prompts, or of several checkpoints with the same tokens.
        titles: one per episode; by default their numbers.

    Raises:
        ValueError: there are no episodes, the number of titles differs, or a trace has no JSON form.
    """
    completed = any(step.completions for trace in traces for step in trace.steps)
    scores = "which completions were tried, and how they scored" if completed else "and how the reward model scores it"
    header = _HEADER.format(sources=f"the policy’s probabilities, {scores}")
    return page("Episode inspector", f'<body id="inspector">\n{header}\n<main>\n{inspector(traces, titles)}</main>\n</body>')


def inspector(traces: Sequence[EpisodeTrace], titles: Sequence[str] | None = None) -> str:
    """The inspector as part of a `page`, to use once, in an element with the id `inspector`; see `html_page`."""
    if titles is None:
        titles = [f"Episode {number}" for number in range(1, len(traces) + 1)]
    if not traces or len(titles) != len(traces):
        raise ValueError(f"Pass at least one trace, and a title for each; got {len(traces)} and {len(titles)}.")
    episodes = (
        f'{{"title":{json.dumps(title)},"trace":{trace.to_json()}}}' for title, trace in zip(titles, traces, strict=True)
    )
    data = f'{{"episodes":[{",".join(episodes)}]}}'.translate(_SPELLED_OUT)
    return Template(_template("inspect.html")).substitute(script=_template("inspect.js"), data=data)


def page(title: str, body: str, style: str = "") -> str:
    """An HTML page that loads nothing.

    Its content security policy allows only the inspector's script, by its hash, and pictures that are in the page itself.

    Args:
        title: of the page, as HTML.
        body: the body element.
        style: extra CSS.
    """
    digest = base64.b64encode(hashlib.sha256(_template("inspect.js").encode()).digest()).decode()
    policy = (
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
        "img-src data:",
        "form-action 'none'",
    )
    return Template(_template("page.html")).substitute(
        policy="; ".join(policy), title=title, style=_template("inspect.css") + style, body=body
    )


def _template(name: str) -> str:
    return (files("seqgan_env.inspection") / "templates" / name).read_text(encoding="utf-8")
