"""The discriminator against a likelihood start: both starts see the same, the table by hand, and how the program goes on."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.experiment.config import OracleConfig
from agents.experiment.presets import PRESETS
from benchmarks import judge
from benchmarks.finished_runs import FinishedRuns
from benchmarks.judge import Config, Result, main, measure, settings, table
from benchmarks.run_folders import ORACLE
from seqgan_env.rewards.discriminator import DiscriminatorReward
from tests.tiny_runs import TINY, oracle_config

DISCRIMINATOR = dataclasses.replace(TINY["discriminator"], epochs=3, learning_rate=0.01)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes that take no time."""

    def small(seed: int, config: Config) -> OracleConfig:
        return oracle_config(Path(), seed=seed, discriminator=DISCRIMINATOR)

    monkeypatch.setattr(judge, "settings", small)


def result(start: Any, seed: int, passes: int, loss: float = 0.5) -> Result:
    return Result(start, seed, passes, loss, 0.75, 0.5, 0.7, 0.4, 0.1, 0.45)


def test_the_settings_are_the_presets() -> None:
    paper, row = PRESETS["paper"][0], settings(3, Config(data=Path("data"), epochs=7, device="cpu"))
    assert (row.seed, row.oracle_params) == (3, Path("data") / ORACLE)
    assert row.discriminator == paper.discriminator
    assert row.adversarial == paper.adversarial
    assert row.pretrain == dataclasses.replace(paper.pretrain, epochs=7)


@pytest.mark.usefixtures("tiny")
def test_both_starts_see_the_same_sequences(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Tensor]] = []
    fit = DiscriminatorReward.fit

    def note(self: DiscriminatorReward, real: Tensor, generated: Tensor) -> dict[str, float]:
        if not self.optimizer.state:
            seen.append([])
        seen[-1].append(torch.cat([real, generated]))
        return fit(self, real, generated)

    monkeypatch.setattr(DiscriminatorReward, "fit", note)
    results = list(measure(0, ("closed-gates", "published"), Config(passes=(3, 9), n_samples=32)))
    assert [(one.start, one.passes) for one in results] == [(s, p) for s in ("closed-gates", "published") for p in (3, 9)]
    ours, published = map(torch.stack, seen)
    assert len(ours) == 3
    assert torch.equal(ours, published)
    assert not torch.equal(ours[0], ours[1])  # newly generated for each fit
    assert results[1].loss != results[3].loss
    for one in results:
        assert one.loss > 0
        assert one.d_generated_sd > 0
        assert all(0 < share < 1 for share in (one.accuracy, one.held_out_accuracy, one.d_generated, one.d_real))


@pytest.mark.usefixtures("tiny")
def test_passes_that_no_fit_ends_with_are_refused() -> None:
    with pytest.raises(ValueError, match=r"measure after multiples of 3, got \(3, 5\)"):
        list(measure(0, ("published",), Config(passes=(3, 5))))


def test_table_by_hand() -> None:
    lines = table([result("published", 0, 3), result("closed-gates", 0, 3), result("published", 1, 3, loss=0.7)]).splitlines()
    ends = "0.750 ± 0.000 | 0.500 ± 0.000 | 0.700 ± 0.000 | 0.400 ± 0.000 | 0.100 ± 0.000 | 0.450 ± 0.000"
    assert lines[2:] == [
        f"| 3 | closed-gates | 0.500 | {ends.replace(' ± 0.000', '')} | 1 |",
        f"| 3 | published | 0.600 ± 0.141 | {ends} | 2 |",
    ]


def test_goes_on_with_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[tuple[int, list[str]]] = []

    def of_no_time(seed: int, starts: Any, config: Config) -> Any:
        called.append((seed, list(starts)))
        return (result(start, seed, passes) for start in starts for passes in config.passes)

    monkeypatch.setattr(judge, "measure", of_no_time)
    file = FinishedRuns(tmp_path / "judge.jsonl", Result)
    begun = [result("closed-gates", 0, 3), result("closed-gates", 0, 6), result("published", 0, 3)]  # stopped there
    list(file.append(begun))
    config = Config(seeds=(0, 1), passes=(3, 6), out=tmp_path)
    main(config)
    assert called == [(0, ["published"]), (1, ["closed-gates", "published"])]
    printed = capsys.readouterr().out
    assert "| 6 | published |" in printed
    assert all(line.endswith("| 2 |") for line in printed.splitlines()[2:])
    called.clear()
    main(dataclasses.replace(config, seeds=(2,), table_only=True))
    assert called == []
