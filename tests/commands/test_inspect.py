"""`python -m seqgan_env inspect` on a tiny run of train.py."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import train
from seqgan_env.__main__ import COMMANDS, main
from seqgan_env.games import text_game
from seqgan_env.inspection.saved_runs import trace_checkpoints
from seqgan_env.inspection.trace import EpisodeTrace
from seqgan_env.saved_game import LAST, LIKELIHOOD, STAGES, load_checkpoints, load_game, save_game
from seqgan_env.support.settings import flag, range_of
from tests.config_fields import numeric_fields, types_in
from tests.pages import Scripts
from tests.programs import run_program
from tests.run_folders import LINES, save_generators
from tests.tiny_runs import only_run, text_config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    train.main(text_config(folder), "text")
    return only_run(folder)


def inspect(run: Path, *arguments: object) -> None:
    main(["inspect", "--run", str(run), "--batch", "4", *map(str, arguments)])


def episodes_on(page: Path) -> list[tuple[str, EpisodeTrace]]:
    data = json.loads(Scripts(page.read_text(encoding="utf-8")).texts["application/json"])
    return [(episode["title"], EpisodeTrace.from_json(json.dumps(episode["trace"]))) for episode in data["episodes"]]


def test_as_a_program_it_prints_the_table(run: Path) -> None:
    result = run_program("-m", "seqgan_env", "inspect", "--run", run, "--batch", "4", "--plain", COLUMNS="120")
    assert result.returncode == 0, result.stderr
    assert re.search(r"token +p +rank +entropy +Q", result.stdout)
    assert "\x1b" not in result.stdout


def test_as_many_episodes_as_asked_for(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inspect(run, "--episodes", 3)
    assert capsys.readouterr().out.count("reward contract") == 3


def test_a_page_compares_the_first_generator_with_the_last(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect(run, "--html", tmp_path / "page.html", "--episodes", 2)
    assert f"Open {tmp_path / 'page.html'}" in capsys.readouterr().out
    titles, traces = zip(*episodes_on(tmp_path / "page.html"), strict=True)
    stages = (STAGES[LIKELIHOOD], STAGES[LAST])
    assert titles == tuple(f"Episode {number}, {stage}" for number in (1, 2) for stage in stages)
    for before, after in (traces[:2], traces[2:]):
        assert before.tokens == after.tokens
        assert before.steps[0].log_prob != after.steps[0].log_prob
        assert before.discriminator_probability == after.discriminator_probability
        assert before.steps[0].completions != after.steps[0].completions


def test_the_page_may_go_to_standard_output(run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    inspect(run, "--html", tmp_path / "page.html")
    capfd.readouterr()
    inspect(run, "--html", "-")
    assert capfd.readouterr().out == (tmp_path / "page.html").read_text(encoding="utf-8")


def test_options_reach_the_page(run: Path, tmp_path: Path) -> None:
    def page(*arguments: object) -> str:
        inspect(run, "--html", tmp_path / "page.html", *arguments)
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    usual = page()
    assert usual == page()
    for change in (("--seed", 1), ("--batch", 5), ("--baseline", "none"), ("--checkpoint", LIKELIHOOD)):
        assert page(*change) != usual, change


def test_advantages_are_those_of_the_batch(run: Path) -> None:
    game = load_game(run)
    generators = load_checkpoints(run, game, [LAST])
    (traces,) = trace_checkpoints(game, generators, 4, seed=0, baseline="position").values()
    at_start = [trace.steps[0] for trace in traces]
    mean = sum(step.q for step in at_start) / 4
    assert [step.advantage for step in at_start] == pytest.approx([step.q - mean for step in at_start], abs=1e-6)


def test_the_rollout_policy_stays_attached(run: Path) -> None:
    game = load_game(run)
    before = game.search.policy
    trace_checkpoints(game, load_checkpoints(run, game, list(STAGES)), 2, seed=0, baseline="none")
    assert game.search.policy is before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--checkpoint", "none"],
            r"error: No checkpoint 'none' in .*; there is generator, generator_best, generator_likelihood, generator_mid",
        ),
        (["--episodes", "5"], "error: --episodes must be at most --batch, got 5 and 4"),
        (["--episodes", "0"], "error: --episodes must be at least 1, got 0"),
        (["--html", "/dev/null/page.html"], "error: .*page.html"),
    ],
)
def test_impossible_requests_are_refused(run: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message):
        inspect(run, *arguments)


NUMBERS = [(name, *field) for name, command in COMMANDS.items() for field in numeric_fields(command)]


@pytest.mark.parametrize(("command", "path", "hint"), NUMBERS, ids=[f"{command}-{path}" for command, path, _ in NUMBERS])
def test_every_number_has_a_range_and_is_refused_outside(command: str, path: str, hint: Any, tmp_path: Path) -> None:
    assert range_of(hint) is not None, f"{path} needs a range, such as PositiveInt: see seqgan_env/support/settings.py"
    given = [str(tmp_path)] if command == "compare" else ["--run", str(tmp_path)]
    given += ["--out", str(tmp_path / "samples.txt")] if command == "sample" else []
    for value in ("nan", "-1", "1e-39") if float in types_in(hint) else ("-1", str(10**30)):
        with pytest.raises(SystemExit, match=rf"error: {flag(path)} must be .*, got {value}"):
            main([command, *given, flag(path), value])
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_no_traceback(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seqgan_env.commands.inspect.trace_checkpoints", stopped)
    with pytest.raises(SystemExit) as ended:
        inspect(run)
    assert ended.value.code == 130


def word_length(text: str) -> float:
    """An objective, found by its name."""
    return len(text) / (1 + len(text.split()))


def test_an_objective_must_be_passed_again(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    objective = f"{__name__}:word_length"
    game = text_game(LINES, reward="rollout", n_rollouts=2, objective=word_length, objective_weight=1)
    save_game(game, tmp_path)
    save_generators(game, tmp_path)
    with pytest.raises(SystemExit, match=f"error: This game's reward uses .*word_length.* --objective {objective}"):
        inspect(tmp_path)
    inspect(tmp_path, "--objective", objective, "--html", tmp_path / "page.html")
    _, trace = episodes_on(tmp_path / "page.html")[-1]
    assert game.vocabulary is not None
    assert trace.steps[-1].q == pytest.approx(word_length(game.vocabulary.decode(trace.tokens)), rel=1e-6)
    with pytest.raises(SystemExit, match=r"error: .*it has no custom reward, so own_reward must not be given"):
        inspect(run, "--objective", objective)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: .* contains no game\.json\. Expected the folder of a run of train\.py"):
        inspect(tmp_path)


def test_damaged_weights_are_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "generator.safetensors").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match=r"error: .*generator\.safetensors is damaged"):
        inspect(tmp_path / "run")


def test_a_command_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["dance"])
    assert stopped.value.code == 2
    assert "inspect" in capsys.readouterr().err
