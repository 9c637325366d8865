"""What train.py shows of a run: the report, and TensorBoard's texts and pictures."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from markdown import markdown
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from agents.experiment.names import Phase
from agents.experiment.run_folder import RunFolder
from seqgan_env.saved_game import STAGES
from tests.pages import Page, Scripts
from tests.tiny_runs import TINY, only_run, oracle_config, text_config

HOSTILE = ["<script>window.pwned=1</script>", "<img src=x onerror=window.pwned=1>", "**bold**", "&amp;", "\x1b[31m"]


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a file whose tokens would be markup and commands, if anyone obeyed them."""
    folder = tmp_path_factory.mktemp("hostile")
    lines = [" ".join(HOSTILE[(start + step) % 5].replace(" ", "\u00a0") for step in range(4)) for start in range(5)]
    (folder / "lines.txt").write_text("\n".join(lines * 20), encoding="utf-8")
    train.main(text_config(folder / "runs", data=folder / "lines.txt"), "hostile")
    return only_run(folder / "runs")


def events(run: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    return accumulator


def test_tensorboard_has_samples_and_rewards_of_every_evaluation(tmp_path: Path) -> None:
    train.main(oracle_config(tmp_path))
    logged = events(only_run(tmp_path))
    for phase, steps in (("pretraining", [1, 2]), ("adversarial", None)):
        texts = logged.Tensors(f"{phase}/samples/text_summary")
        assert steps is None or [event.step for event in texts] == steps
        assert len(texts) == len(logged.Scalars(f"{phase}/nll_test"))
    assert len(logged.Images("adversarial/reward_per_position")) == 3
    header = (only_run(tmp_path) / "progress.csv").read_text().splitlines()[0]
    assert "/samples" not in header
    assert "reward_per_position" not in header


def test_tokens_are_no_markup_in_tensorboard(hostile_run: Path) -> None:
    (text,) = events(hostile_run).Tensors("adversarial/samples/text_summary")[-1].tensor_proto.string_val
    shown = markdown(text.decode())
    tags = Scripts(shown).tags
    assert set(tags) == {"pre", "code"}
    assert "&lt;img" in shown or "&lt;script" in shown
    assert "\x1b" not in shown


def test_the_report_has_all_parts_and_stays_small(tmp_path: Path) -> None:
    train.main(oracle_config(tmp_path, evaluation=dataclasses.replace(TINY["evaluation"], sweep=True)))
    path = only_run(tmp_path) / "report.html"
    page = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 2_000_000
    assert page.count('src="data:image/png;base64,') == 3
    assert "floor: the oracle&#x27;s entropy" in page
    titles = [episode["title"] for episode in json.loads(Scripts(page).texts["application/json"])["episodes"]]
    assert titles == [stage.capitalize() for stage in STAGES.values()]
    assert (only_run(tmp_path) / "samples.txt").read_text().splitlines()[0] in page


def test_the_middle_checkpoint_lies_between_the_others(tmp_path: Path) -> None:
    adversarial = dataclasses.replace(TINY["adversarial"], updates=4)
    half = dataclasses.replace(TINY["adversarial"], updates=2)
    train.main(oracle_config(tmp_path / "whole", adversarial=adversarial))
    train.main(oracle_config(tmp_path / "half", adversarial=half))
    middle = (only_run(tmp_path / "whole") / "generator_middle.safetensors").read_bytes()
    assert middle == (only_run(tmp_path / "half") / "generator.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("interrupted", "stages"), [("train_by_likelihood", ["generator"]), ("train_adversarially", [*STAGES][::2])]
)
def test_an_interrupted_run_has_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str, stages: list[str]
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, interrupted, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train.main(oracle_config(tmp_path))
    page = (only_run(tmp_path) / "report.html").read_text(encoding="utf-8")
    titles = [episode["title"] for episode in json.loads(Scripts(page).texts["application/json"])["episodes"]]
    assert titles == [STAGES[stage].capitalize() for stage in stages]


def test_beyond_an_episodes_end_there_is_no_reward(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "run")
    run.show_rewards(Phase.ADVERSARIAL, torch.ones(2, 3), torch.tensor([1, 3]))
    figure = run.logger.name_to_value["adversarial/reward_per_position"].figure
    run.close()
    drawn = figure.axes[0].images[0].get_array()
    assert drawn.mask.tolist() == [[False, True, True], [False, False, False]]


@pytest.mark.parametrize("width", [375, 1200])
def test_the_report_in_a_browser(driver: Any, hostile_run: Path, width: int) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page = Page(driver, hostile_run / "report.html")
        assert page.run("return document.documentElement.scrollWidth") <= width
        assert page.run("return [...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert page.run("return window.pwned === undefined")
        assert len(page.all(".episode")) == 3
        page.all("#next")[0].click()
        assert page.texts("#where")[0].startswith("Token 2 of")
        assert {url.partition(":")[0] for url in page.requested()} == {"file", "data"}
        assert page.complaints() == []
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_keys_scroll_the_report_until_the_inspector_has_the_focus(driver: Any, hostile_run: Path) -> None:
    page = Page(driver, hostile_run / "report.html")
    page.press("\ue014")
    assert page.texts("#where")[0].startswith("Token 1 of")
    page.press("\ue014", "#next")
    assert page.texts("#where")[0].startswith("Token 2 of")
