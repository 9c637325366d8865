"""How far a reader has to hop: files and functions of the project that one update enters. `python -m benchmarks.hops`.

An update is what lies between two calls of `Player.update`: sequences, rewards, gradient, the discriminator's fits, and what a
run notes. Evaluations and checkpoints are left out. Anonymous functions and comprehensions do not count as functions.
"""

import dataclasses
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import tyro

import train
from agents.experiment.config import AgentName
from agents.player import Player
from seqgan_env.rendering import spell_what_cannot_be_encoded

ROOT = Path(__file__).parent.parent
PARTS = tuple(str(ROOT / name) for name in ("seqgan_env", "agents", "train.py"))
LOOKED_AT = 2
"""Which update is looked at: the first one also fills caches, and in the middle of a run weights are saved."""


@dataclass(frozen=True)
class Config:
    """Count the files and functions that one update enters."""

    agent: AgentName = "reinforce"
    """Who plays."""
    functions: bool = False
    """List them, file by file."""


def entered(agent: AgentName) -> set[CodeType]:
    """The project's functions that one update of the preset `quick` enters."""
    config, _ = train.command_line(["quick", "--device", "cpu", "--agent", agent, "--pretrain.epochs", "0"])
    adversarial = dataclasses.replace(config.adversarial, updates=2 * LOOKED_AT + 3, d_pretrain_steps=1)
    evaluation = dataclasses.replace(config.evaluation, n_samples=100, n_held_out=100, every_updates=100, sweep=False)
    update, calls, found = Player.update.__code__, 0, set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        nonlocal calls
        if event == "call":
            calls += frame.f_code is update
            if calls == LOOKED_AT and frame.f_code.co_filename.startswith(PARTS):
                found.add(frame.f_code)

    with tempfile.TemporaryDirectory() as folder:
        config = dataclasses.replace(config, adversarial=adversarial, evaluation=evaluation, out=Path(folder), n_real=500)
        sys.setprofile(note)
        try:
            train.main(config)
        finally:
            sys.setprofile(None)
    return {code for code in found if not code.co_name.startswith("<")}


def main(config: Config) -> set[CodeType]:
    """Print both counts; return the functions."""
    codes = entered(config.agent)
    files = Counter(str(Path(code.co_filename).relative_to(ROOT)) for code in codes)
    print(f"one update of quick with {config.agent} enters {len(files)} files and {len(codes)} functions")
    for file, number in sorted(files.items()):
        names = sorted({code.co_name for code in codes if code.co_filename == str(ROOT / file)})
        print(f"{number:4}  {file}" + (f": {', '.join(names)}" if config.functions else ""))
    return codes


if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    main(tyro.cli(Config, description=__doc__))
