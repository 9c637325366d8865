"""Folders of runs with settings and measurements that a test chooses, as far as a comparison reads them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ORACLE: dict[str, Any] = {
    "preset": "quick",
    "task": "oracle",
    "agent": "reinforce",
    "sequence_length": 6,
    "vocab_size": 20,
    "oracle_seed": 0,
    "oracle_params": None,
    "start_from": None,
    "pretrain": {"epochs": 1},
    "adversarial": {"updates": 10, "reward_model": "discriminator"},
    "checkpoint": {"keep": 3},
}
FIRST = ("pretraining/loss", "pretraining/nll_oracle", "pretraining/nll_test")
LATER = ("adversarial/nll_oracle", "adversarial/nll_test", "train/n_updates")


def write_run(folder: Path, seed: int, measured: Mapping[int, Sequence[float]], **settings: Any) -> Path:
    """A run of the oracle: `measured` has NLL_oracle and NLL_test by the number of updates."""
    folder.mkdir(parents=True)
    adversarial = {**ORACLE["adversarial"], **settings.pop("adversarial", {})}
    config = {**ORACLE, "seed": seed, "out": str(folder.parent), **settings, "adversarial": adversarial}
    (folder / "config.json").write_text(json.dumps(config))
    lines = [",".join([*FIRST, *LATER])]
    for update, (nll_oracle, nll_test) in measured.items():
        lines.append(f",,,{nll_oracle},{nll_test},{update}" if update else f"3.5,{nll_oracle},{nll_test},,,")
    (folder / "progress.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_evaluation(run: Path, points: Sequence[tuple[float, float, float]], n: int = 100) -> None:
    """An `evaluation.json` with a temperature curve: inverse temperature, NLL_test, NLL_oracle."""
    sweep = [dict(zip(("inverse_temperature", "nll_test", "nll_oracle"), point, strict=True)) for point in points]
    settings = {"n": n, "reference": None, "inverse_temperatures": [point[0] for point in points]}
    (run / "evaluation").mkdir()
    (run / "evaluation" / "evaluation.json").write_text(
        json.dumps({"settings": settings, "generators": {"generator": {"sweep": sweep}}})
    )
