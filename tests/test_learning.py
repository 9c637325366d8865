"""The adversarial phase does real work, and its controls do not."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import train
from benchmarks import learning, text_kinds
from benchmarks.controls import lowest_at, table
from benchmarks.learning_report import best_sum
from benchmarks.run_folders import Curve, read_curve, run_in
from seqgan_env.models.generators import GeneratorConfig
from seqgan_env.saved_game import LIKELIHOOD

LESSON = "--vocab-size 20 --sequence-length 10 --oracle-seed 1 --n-real 5000"
MEASURED = "--evaluation.n-samples 2000 --evaluation.n-held-out 2000 --evaluation.no-sweep"


def run(out: Path, seed: int = 0, **changes: Any) -> Path:
    """The preset `quick` on a language that a single epoch of likelihood leaves much of to be learned; its folder."""
    config, _ = train.command_line(f"quick --device cpu --seed {seed} {LESSON} {MEASURED}".split())
    changes = {"updates": 30, "d_pretrain_steps": 20, **changes}
    start = changes.pop("start_from", None)
    adversarial = dataclasses.replace(config.adversarial, **changes)
    pretrain = dataclasses.replace(config.pretrain, epochs=1)
    return run_in(out, dataclasses.replace(config, adversarial=adversarial, pretrain=pretrain, start_from=start))


def curves(out: Path, seed: int = 0) -> dict[str, Curve]:
    """From the same likelihood start, under the discriminator and under rewards that know nothing of real sequences."""
    judged = run(out / "discriminator", seed)
    start = judged / f"{LIKELIHOOD}.safetensors"
    controls = {name: {"reward_model": name} for name in ("constant", "random")}
    controls["constant, no baseline"] = {"reward_model": "constant", "baseline": "none"}
    runs = {"discriminator": judged} | {
        name: run(out / name, seed, start_from=start, **changes) for name, changes in controls.items()
    }
    return {name: read_curve(folder / "progress.csv") for name, folder in runs.items()}


@pytest.mark.slow
@pytest.mark.rounding
def test_the_discriminator_beats_its_controls_at_equal_coverage(tmp_path: Path) -> None:
    """NLL_oracle falls, and the sum with NLL_test too; a constant moves nothing once centred, and something without."""
    measured = curves(tmp_path)
    start, end = measured["discriminator"][0], measured["discriminator"][-1]
    assert end[0] < start[0] - 0.2
    assert sum(end) < sum(start) - 0.2
    for name, control in measured.items():
        assert control[0] == start
        if name != "discriminator":
            assert end[0] < lowest_at(control, end[1]) - 0.2, name
    assert measured["constant"][-1] == start
    assert measured["constant, no baseline"][-1] != start


def briefly_learned(name: str, seed: int, config: learning.Config, settings: Any = learning.settings) -> Any:
    """A row of the protocol on a language of 50 tokens that likelihood leaves much of to be learned, in larger steps."""
    of_row = settings(name, seed, config)
    model = GeneratorConfig(embedding_dim=32, hidden_dim=32, dropout=0.2)
    ratio = dataclasses.replace(of_row.adversarial.density_ratio, model=model, epochs=2)
    adversarial = dataclasses.replace(of_row.adversarial, density_ratio=ratio)
    if name != learning.REGULARISED:
        steps = {"updates": 90, "learning_rate": 0.01, "final_learning_rate": 0.001}
        adversarial = dataclasses.replace(adversarial, **steps, d_pretrain_steps=10, n_generated=2000)
    return dataclasses.replace(
        of_row,
        oracle_seed=0,
        vocab_size=50,
        sequence_length=15,
        n_real=2000,
        generator=model,
        pretrain=dataclasses.replace(of_row.pretrain, epochs=7),
        adversarial=adversarial,
        evaluation=dataclasses.replace(of_row.evaluation, n_samples=200, every_epochs=1000, every_updates=1000),
    )


@pytest.mark.slow
@pytest.mark.rounding
def test_the_density_ratio_lowers_the_curve_over_temperatures_and_its_controls_raise_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sharper generator gains nothing here: temperatures are free on both sides. At full size: docs/learning.md.

    Over five seeds, on native instructions and on SSE4.1: a gain of 0.45 ± 0.11, and the better of the controls, which now and
    then is worse by far, 1.9 ± 0.3 and 2.0 ± 0.3 above the start.
    """
    monkeypatch.setattr(learning, "settings", briefly_learned)
    config = learning.Config(size="small", n_samples=1000, out=tmp_path)
    start, ours = (learning.run(name, 0, config) for name in (learning.REGULARISED, learning.OURS))
    assert best_sum(ours.sweep) < best_sum(start.sweep) - 0.1
    assert ours.accuracy > 0.6  # on real sequences that it has not seen
    better = min(best_sum(learning.run(name, 0, config).sweep) for name in learning.CONTROLS.values())
    assert better > best_sum(start.sweep) + 0.3
    assert better > best_sum(ours.sweep) + 0.3


def changes_on_events(out: Path, setting: text_kinds.Setting, seed: int = 0, **changes: Any) -> tuple[float, float]:
    """Of held-out NLL, nats a token, and of the mean length, as a share, in twenty updates on event ids, briefly learned."""
    settings = text_kinds.settings_of("events", setting, 3, seed, text_kinds.Config(out=out))
    lines = settings.data.read_text(encoding="utf-8").splitlines()
    settings.data.write_text("\n".join([line for line in lines if len(line.split()) <= 10][:640]), encoding="utf-8")
    adversarial = dataclasses.replace(settings.adversarial, updates=20, d_pretrain_steps=4, n_generated=200, **changes)
    metrics = train.main(dataclasses.replace(settings, adversarial=adversarial, out=out / "runs"), "text")
    nll, length = ([metrics[f"{phase}/{name}"] for phase in ("pretraining", "adversarial")] for name in ("nll_test", "length"))
    return nll[1] - nll[0], abs(length[1] / length[0] - 1)


@pytest.mark.rounding
def test_the_preset_text_keeps_what_likelihood_has_learned(tmp_path: Path) -> None:
    """The control takes larger steps and is not held to its start: its lengths run away.

    Thirty times larger, not ten times as on the page: how far those go depends on the seed.
    """
    nll, length = changes_on_events(tmp_path / "preset", "preset")
    assert nll < 0.02
    assert length < 0.05
    _, length = changes_on_events(tmp_path / "control", "not held", learning_rate=3e-3)
    assert length > 0.05


class TestComparison:
    CONTROL: Curve = [(4.0, 3.0), (3.8, 3.2), (3.5, 3.4)]  # noqa: RUF012 - read only

    @pytest.mark.parametrize(("nll_test", "expected"), [(3.1, 4.0), (3.2, 3.8), (3.3, 3.8), (3.5, 3.5), (2.9, 4.0)])
    def test_only_points_of_no_worse_coverage_count(self, nll_test: float, expected: float) -> None:
        assert lowest_at(self.CONTROL, nll_test) == expected

    def test_table_by_hand(self) -> None:
        lines = table({"discriminator": [[(4.0, 3.0), (3.6, 3.2)]], "random": [self.CONTROL]}).splitlines()
        assert (
            lines[2]
            == "| discriminator | 4.000 → 3.600 | -0.400 ± 0.000 | 3.000 → 3.200 | +0.200 ± 0.000 | -0.200 ± 0.000 | – |"
        )
        assert lines[3].endswith("| -0.100 ± 0.000 | +0.200 ± 0.000 |")
