"""Show where an episode's rewards come from, token by token: the trace, a terminal view and an HTML page."""

from seqgan_env.inspection.page import write_html
from seqgan_env.inspection.terminal import step_through
from seqgan_env.inspection.trace import EpisodeTrace, TracedCompletion, TracedStep
from seqgan_env.inspection.tracing import ObservationPolicy, trace_batch, trace_episode

__all__ = [
    "EpisodeTrace",
    "ObservationPolicy",
    "TracedCompletion",
    "TracedStep",
    "step_through",
    "trace_batch",
    "trace_episode",
    "write_html",
]
