"""The settings in a run's folder: written settings are read back, and errors name unreadable ones."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from agents.experiment.command_line import command_line
from agents.experiment.config import OracleConfig, TextConfig, config_from_json, config_to_json, name_of
from agents.experiment.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_written_settings_are_read_back(name: str) -> None:
    config = PRESETS[name][0]
    if isinstance(config, TextConfig):
        config = dataclasses.replace(config, data=Path("lines.txt"), tokenizer=Path("tokenizer.json"), threads=2)
    assert config_from_json(config_to_json(config, name)) == (config, name)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("adversarial.updates", "5", r"adversarial\.updates must be a valid integer, got '5'"),
        ("adversarial.updates", -5, r"--adversarial\.updates must be at least 0, got -5"),
        ("adversarial.kl_coef", "x", r"adversarial\.kl_coef must be a valid number, got 'x'"),
        ("adversarial.density_ratio.model.kind", "gru", r"model\.kind must be 'lstm' or 'transformer', got 'gru'"),
        ("discriminator.widths", [1, "a"], r"discriminator\.widths\.1 must be a valid integer, got 'a'"),
        ("out", 3, r"out must be a valid string, got '3'"),
        ("threads", True, r"threads must be a valid integer, got 'True'"),
        ("evaluation.invented", 1, r"the fields evaluation\.invented are missing or unknown"),
        ("evaluation.sweep", None, r"evaluation\.sweep must be a valid boolean, got 'None'"),
    ],
)
def test_a_setting_of_the_wrong_type_is_named(place: str, value: Any, message: str) -> None:
    values = json.loads(config_to_json(PRESETS["quick"][0], "quick"))
    *groups, name = place.split(".")
    group = values
    for one in groups:
        group = group[one]
    group[name] = value
    with pytest.raises(ValueError, match=rf"or are of another version: .*{message}"):
        config_from_json(json.dumps(values))


def test_no_setting_may_be_missing() -> None:
    values = json.loads(config_to_json(PRESETS["quick"][0], "quick"))
    del values["seed"], values["adversarial"]["ranking"]
    with pytest.raises(ValueError, match=r"the fields seed, adversarial\.ranking are missing or unknown"):
        config_from_json(json.dumps(values))


def test_an_older_run_does_what_it_did() -> None:
    """Settings added since then get the value that changes nothing."""
    values = json.loads(config_to_json(PRESETS["quick"][0], "quick"))
    added = {
        "pretrain": ("shuffle",),
        "discriminator": ("reshuffle", "initial_parameters", "compile"),
        "adversarial": ("loss_reduction",),
    }
    for group, names in added.items():
        for name in names:
            del values[group][name]
    del values["name"]
    assert config_from_json(json.dumps(values)) == (PRESETS["quick"][0], "quick")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "3", "[" * 100_000, '{"preset": "a", "task": []}', '{"preset": "a", "task": "b"}']
)
def test_json_other_than_a_config_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="of another version"):
        config_from_json(text)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "quick-reinforce-s0"),
        (["paper", "--seed", "3", "--agent", "ppo"], "paper-ppo-s3"),
        (["--name", "a_b.c+d=1,2-e"], "a_b.c+d=1,2-e"),
        (["--name", "五言绝句"], "五言绝句"),
        (["--name", "7" * 50], "7" * 50),
    ],
)
def test_a_run_is_called_by_its_preset_agent_and_seed_or_as_asked(arguments: list[str], name: str) -> None:
    assert name_of(*command_line(arguments)) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a b", ".hidden", "-x", "a\nb", "a\n", "a:b", "*", "7" * 51])
def test_a_name_that_does_not_fit_a_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"--name must be up to 50 letters, digits and signs .* begin with a letter or digit"):
        OracleConfig(name=name)
