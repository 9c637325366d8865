"""Comparing runs: groups, means and intervals by hand, pairs, and what cannot be compared."""

import json
from pathlib import Path
from typing import Any

import pytest

from seqgan_env.evaluation.comparison import Comparison, compare_runs, find_runs, read_run
from seqgan_env.metrics.intervals import Interval
from tests.evaluation.run_logs import write_evaluation, write_run

T2 = 4.302652729911275
"""Student's t for three seeds."""
RANDOM: dict[str, Any] = {"reward_model": "random"}


def of(*folders: Path, at: int | None = None) -> Comparison:
    return compare_runs([read_run(folder) for folder in find_runs(folders)], at)


def figures(interval: Interval | None) -> tuple[float, float | None, int]:
    assert interval is not None
    return interval.mean, interval.half_width, interval.n


@pytest.fixture
def two_groups(tmp_path: Path) -> Path:
    """Three seeds with the discriminator; two of them and another with random rewards."""
    for seed, end in ((0, 8.0), (1, 8.5), (2, 9.0)):
        write_run(tmp_path / f"a{seed}", seed, {0: (9 + seed, 7), 5: (end + 0.5, 6), 10: (end, 6 + seed)})
    for seed, end in ((0, 8.3), (1, 9.0), (7, 1.0)):
        write_run(tmp_path / f"b{seed}", seed, {0: (9 + seed, 7), 10: (end, 7)}, adversarial=RANDOM, name=f"b{seed}")
    return tmp_path


def test_mean_and_interval_over_seeds_by_hand(two_groups: Path) -> None:
    """8, 8.5 and 9 have the standard deviation 0.5; 9 − 8, 10 − 8.5 and 11 − 9 too; 6, 7 and 8 have 1."""
    comparison = of(two_groups)
    group = comparison.groups[0]
    assert [run.seed for run in group.runs] == [0, 1, 2]
    assert comparison.measures == ["nll_oracle", "nll_test"]
    assert figures(comparison.after(group, "nll_oracle")) == pytest.approx((8.5, T2 * 0.5 / 3**0.5, 3))
    assert figures(comparison.after(group, "nll_test")) == pytest.approx((7, T2 / 3**0.5, 3))
    assert figures(comparison.change(group, "nll_oracle")) == pytest.approx((-1.5, T2 * 0.5 / 3**0.5, 3))
    assert figures(comparison.curve(group, "nll_oracle")[5]) == pytest.approx((9, T2 * 0.5 / 3**0.5, 3))
    assert list(comparison.curve(group, "nll_oracle")) == [0, 5, 10]


def test_pairs_of_the_same_seed_by_hand(two_groups: Path) -> None:
    """0.3 and 0.5 with seeds 0 and 1; seed 7, which would decide everything, has no partner."""
    comparison = of(two_groups)
    first, second = comparison.groups
    assert comparison.difference(first, "nll_oracle") is None
    assert [(run.seed, other.seed) for run, other in comparison.pairs(second)] == [(0, 0), (1, 1)]
    # A standard deviation of 0.2 / √2 over √2 pairs, and Student's t of one degree of freedom.
    assert figures(comparison.difference(second, "nll_oracle")) == pytest.approx((0.4, 12.7062 * 0.1, 2), rel=1e-5)
    assert list(comparison.difference_curve(second, "nll_oracle")) == [0, 10]
    assert figures(comparison.difference_curve(second, "nll_oracle")[0]) == (0, 0, 2)


def test_pairing_takes_out_what_the_seeds_have_in_common(tmp_path: Path) -> None:
    """The negative control: the same figures with other seeds give no difference, and wide intervals."""
    for seed in range(3):
        write_run(tmp_path / "same" / f"a{seed}", seed, {0: (9, 7), 10: (5 * seed, 7)})
        write_run(tmp_path / "same" / f"b{seed}", seed, {0: (9, 7), 10: (5 * seed + 0.1, 7)}, adversarial=RANDOM)
        write_run(tmp_path / "other" / f"a{seed}", seed, {0: (9, 7), 10: (5 * seed, 7)})
        write_run(tmp_path / "other" / f"b{seed}", seed + 3, {0: (9, 7), 10: (5 * seed + 0.1, 7)}, adversarial=RANDOM)
    paired, unpaired = of(tmp_path / "same"), of(tmp_path / "other")
    assert figures(paired.difference(paired.groups[1], "nll_oracle")) == pytest.approx((0.1, 0, 3), abs=1e-9)
    assert unpaired.difference(unpaired.groups[1], "nll_oracle") is None
    assert figures(unpaired.after(unpaired.groups[1], "nll_oracle"))[1] == pytest.approx(T2 * 5 / 3**0.5)


def test_groups_are_made_and_named_by_what_differs(two_groups: Path) -> None:
    comparison = of(two_groups)
    assert [group.label for group in comparison.groups] == ["reward-model discriminator", "reward-model random"]
    assert [dict(group.settings) for group in comparison.groups] == [
        {"adversarial.reward_model": "discriminator"},
        {"adversarial.reward_model": "random"},
    ]


def test_the_first_run_is_what_others_are_compared_with(two_groups: Path) -> None:
    runs = [two_groups / name for name in ("b0", "a0", "b1", "a1")]
    assert [group.label for group in of(*runs).groups] == ["reward-model random", "reward-model discriminator"]


@pytest.mark.parametrize(
    "change",
    [
        {"preset": "trial-3"},
        {"name": "mine"},
        {"device": "cuda", "threads": 8, "cuda_graphs": False},
        {"checkpoint": {"keep": 9}},
        {"evaluation": {"every_epochs": 3, "every_updates": 7}},
    ],
)
def test_names_and_places_make_no_group(tmp_path: Path, change: dict[str, Any]) -> None:
    write_run(tmp_path / "a", 0, {0: (9, 7), 10: (8, 7)})
    write_run(tmp_path / "b", 1, {0: (9, 7), 10: (8, 7)}, **change)
    (group,) = of(tmp_path).groups
    assert (group.label, len(group.runs)) == ("all runs", 2)


def test_starts_from_files_are_alike(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path / f"a{seed}", seed, {0: (9, 7), 10: (8, 7)}, start_from=f"/starts/{seed}", pretrain={"epochs": 50})
    write_run(tmp_path / "b0", 0, {0: (9, 7), 10: (8, 7)}, pretrain={"epochs": 1})
    assert [group.label for group in of(tmp_path).groups] == ["start-from a file, epochs 50", "start-from default, epochs 1"]


def test_names_that_would_be_long_are_numbers(tmp_path: Path) -> None:
    write_run(tmp_path / "a", 0, {0: (9, 7), 10: (8, 7)}, one=1, two=[2, 3], three=True, four=None)
    write_run(tmp_path / "b", 0, {0: (9, 7), 10: (8, 7)}, one=2, two=[2], three=False, four=4)
    first, second = of(tmp_path).groups
    assert (first.label, second.label) == ("1: quick reinforce", "2: quick reinforce")
    assert dict(second.settings) == {"one": 2, "two": [2], "three": False, "four": 4}


def test_a_metric_that_one_seed_lacks_has_no_mean(two_groups: Path) -> None:
    """Otherwise the groups' means would be about different seeds."""
    log = two_groups / "a1" / "progress.csv"
    log.write_text(log.read_text().replace(",8.5,7,10", ",,7,10"))
    comparison = of(two_groups)
    assert comparison.after(comparison.groups[0], "nll_oracle") is None
    assert comparison.after(comparison.groups[0], "nll_test") is not None


def test_nll_oracle_without_nll_test_is_no_measurement(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", 0, {0: (9, 7), 10: (8, 7)})
    log = run / "progress.csv"
    log.write_text(log.read_text().replace("8,7,10", "8,,10"))
    assert 10 not in read_run(run).points


def test_runs_are_found_once_in_folders_and_by_their_own_names(two_groups: Path) -> None:
    found = find_runs([two_groups / "b1", two_groups, two_groups / "a0" / ".." / "a0"])
    assert [folder.name for folder in found] == ["b1", "a0", "a1", "a2", "b0", "b7"]


def test_earlier_updates_by_at(two_groups: Path) -> None:
    runs = [two_groups / f"a{seed}" for seed in range(3)]
    comparison = of(*runs, at=5)
    (group,) = comparison.groups
    assert figures(comparison.after(group, "nll_oracle"))[0] == pytest.approx(9)
    assert list(comparison.curve(group, "nll_oracle")) == [0, 5]


def test_temperature_curves_over_seeds_by_hand(two_groups: Path) -> None:
    runs = [two_groups / f"a{seed}" for seed in range(3)]
    assert "a0 has no evaluation/evaluation.json" in str(of(*runs).no_sweeps)
    for seed, run in enumerate(runs):
        write_evaluation(run, [(0.5, 6, 9 + seed), (1, 7 + seed, 8)])
    comparison = of(*runs)
    assert comparison.no_sweeps is None
    cold, plain = comparison.sweep(comparison.groups[0])
    assert figures(cold["nll_oracle"]) == pytest.approx((10, T2 / 3**0.5, 3))
    assert figures(plain["nll_test"]) == pytest.approx((8, T2 / 3**0.5, 3))
    assert plain["inverse_temperature"].mean == 1
    assert "of the runs' ends" in str(of(*runs, at=5).no_sweeps)


def test_evaluations_with_other_settings_are_not_drawn_together(two_groups: Path) -> None:
    runs = [two_groups / f"a{seed}" for seed in range(2)]
    for number, run in enumerate(runs):
        write_evaluation(run, [(1, 7, 8)], n=100 + number)
    comparison = of(*runs)
    assert "evaluated with other samples, temperatures or references" in str(comparison.no_sweeps)
    assert comparison.sweep(comparison.groups[0]) == []


class TestRefused:
    def test_a_single_run(self, two_groups: Path) -> None:
        with pytest.raises(ValueError, match=r"at least two runs, got .*a0\. To look at one, open its report\.html"):
            of(two_groups / "a0", two_groups / "a0")

    def test_an_unfinished_run(self, two_groups: Path) -> None:
        write_run(two_groups / "c", 3, {0: (9, 7), 5: (8, 7)})
        said = r"c was last measured after 5 of 10 updates: .* compare all runs earlier, such as with --at 5\. .* 0, 5 updates"
        with pytest.raises(ValueError, match=said):
            of(two_groups / "a0", two_groups / "c")

    def test_an_update_that_was_not_measured(self, two_groups: Path) -> None:
        with pytest.raises(ValueError, match=r"b0 has no measurement after 5 updates\. All .* after 0, 10 updates"):
            of(two_groups, at=5)

    def test_a_run_in_its_likelihood_phase(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "a", 0, {0: (9, 7)}, pretrain={"epochs": 3})
        with pytest.raises(ValueError, match=r"a is still in its likelihood phase, after 1 of 3 epochs: let it go on"):
            read_run(run)

    def test_a_run_that_has_measured_nothing(self, tmp_path: Path) -> None:
        run = write_run(tmp_path / "a", 0, {}, pretrain={"epochs": 0})
        with pytest.raises(ValueError, match="has no measurement of a likelihood start, or not yet"):
            read_run(run)

    def test_the_same_seed_twice(self, two_groups: Path) -> None:
        write_run(two_groups / "again", 0, {0: (9, 7), 10: (8, 7)})
        with pytest.raises(ValueError, match=r"a0 and .*again have the same settings and seed 0: .* Leave one out"):
            of(two_groups)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"oracle_seed": 1}, "oracle_seed 0 against 1"),
            ({"vocab_size": 50}, "vocab_size 20 against 50"),
            ({"task": "text", "data": "lines.txt"}, "task oracle against text"),
        ],
    )
    def test_other_tasks(self, two_groups: Path, change: dict[str, Any], said: str) -> None:
        write_run(two_groups / "c", 0, {0: (9, 7), 10: (8, 7)}, **change)
        with pytest.raises(ValueError, match=rf"are of different tasks: {said}\. .* pass runs of one task"):
            of(two_groups)

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"There is no folder .*none"):
            find_runs([tmp_path / "none"])
        with pytest.raises(FileNotFoundError, match=r"holds no run: no config\.json in it"):
            find_runs([tmp_path])

    def test_a_missing_log(self, two_groups: Path) -> None:
        (two_groups / "a0" / "progress.csv").unlink()
        with pytest.raises(FileNotFoundError, match=r"a0 has no progress\.csv"):
            of(two_groups)

    @pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, "{}", '{"task": "oracle"}', '{"task": []}'])
    def test_settings_that_are_none(self, two_groups: Path, text: str) -> None:
        (two_groups / "a0" / "config.json").write_text(text)
        with pytest.raises(ValueError, match=r"a0/config\.json is .*leave the run out"):
            of(two_groups)

    @pytest.mark.parametrize("damage", ["x", "nan", "inf"])
    def test_a_figure_that_is_none(self, two_groups: Path, damage: str) -> None:
        log = two_groups / "a0" / "progress.csv"
        log.write_text(log.read_text().replace("8.0,6,10", f"8.0,{damage},10"))
        with pytest.raises(ValueError, match=r"a0/progress\.csv.*leave (it|the run) out"):
            of(two_groups)

    @pytest.mark.parametrize("text", ["{", "[]", "{}", json.dumps({"settings": {}, "generators": []})])
    def test_an_evaluation_that_is_none(self, two_groups: Path, text: str) -> None:
        write_evaluation(two_groups / "a0", [(1, 7, 8)])
        (two_groups / "a0" / "evaluation" / "evaluation.json").write_text(text)
        with pytest.raises(ValueError, match=r"a0/evaluation/evaluation\.json"):
            of(two_groups)


def test_files_with_the_same_content_are_the_same_task(tmp_path: Path) -> None:
    for seed, content in enumerate(("a", "a", "b")):
        oracle = tmp_path / f"{seed}.npz"
        oracle.write_text(content)
        write_run(tmp_path / f"run{seed}", seed, {0: (9, 7), 10: (8, 7)}, oracle_params=str(oracle))
    assert len(of(tmp_path / "run0", tmp_path / "run1").groups) == 1
    with pytest.raises(ValueError, match=r"different tasks: oracle_params .*0\.npz against .*2\.npz"):
        of(tmp_path)
