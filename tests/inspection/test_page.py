"""The page as text, and in a browser: it steps, opens completions, asks the network for nothing, and obeys no token."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from seqgan_env.data.corpus import Vocabulary
from seqgan_env.game import SequenceGame
from seqgan_env.inspection.page import html_page, write_html
from seqgan_env.inspection.trace import EpisodeTrace, TracedStep
from seqgan_env.inspection.tracing import trace_batch, trace_episode
from seqgan_env.models.oracle import seeded_oracle
from seqgan_env.rewards.controls import RandomReward
from tests.inspection.hostile import HOSTILE, hostile_game
from tests.pages import Page, Scripts
from tests.small import T, small_game, small_policy

pytestmark = pytest.mark.rounding


def hostile_trace(**changes: Any) -> EpisodeTrace:
    return trace_episode(hostile_game(**changes), small_policy(), seed=0, tokens=[0, 1, 3, 4, 5])


def test_the_traces_are_in_the_page_word_for_word() -> None:
    trace = hostile_trace()
    data = json.loads(Scripts(html_page([trace, trace], ["one", "</script>"])).texts["application/json"])
    assert [episode["title"] for episode in data["episodes"]] == ["one", "</script>"]
    assert all(EpisodeTrace.from_json(json.dumps(episode["trace"])) == trace for episode in data["episodes"])


def test_completions_are_mentioned_only_if_there_are_any() -> None:
    trace = hostile_trace()
    without = replace(trace, steps=tuple(replace(step, completions=()) for step in trace.steps))
    assert "which completions were tried" in html_page([trace])
    assert "completions" not in html_page([without]).split("<header>")[1].split("</header>")[0]


def test_no_token_or_title_becomes_markup() -> None:
    page = html_page([hostile_trace()], ["<b>title</b> <!--"])
    assert Scripts(page).tags.count("script") == 2
    assert "img" not in Scripts(page).tags
    assert "b" not in Scripts(page).tags
    data = page[page.index('<script type="application/json"') :].split(">", 1)[1].split("</script>")[0]
    assert not set("<>&\u2028\u2029") & set(data)


def test_the_page_refers_to_no_other_address() -> None:
    page = html_page([hostile_trace()])
    assert not re.search(r"(src|href|action)\s*=|url\(|@import", page.split('id="data"')[0])
    script = Scripts(page).texts["script"]
    assert set(re.findall(r"https?://[^\"']+", script)) == {"http://www.w3.org/2000/svg"}  # a name, which nobody fetches
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|fetch|import\(", script)


def test_an_episode_of_the_papers_size_stays_small(tmp_path: Path) -> None:
    vocab_size, length = 5000, 20
    words = Vocabulary(tuple(f"word-{index:06d}" for index in range(vocab_size)), end_token=0)
    policy = seeded_oracle(0, vocab_size)
    game = SequenceGame(
        vocab_size, length, lambda: policy.sample(8, length, None)[0], RandomReward(), reward="rollout", vocabulary=words
    )
    write_html([trace_episode(game, policy, seed=0)], tmp_path / "episode.html")
    assert game.n_rollouts == 16
    assert (tmp_path / "episode.html").stat().st_size < 250_000


@pytest.mark.parametrize("titles", [[], ["one", "two"]])
def test_titles_of_another_number_are_refused(titles: list[str]) -> None:
    with pytest.raises(ValueError, match=f"a title for each; got 1 and {len(titles)}"):
        html_page([hostile_trace()], titles)


def test_a_page_without_episodes_is_refused() -> None:
    with pytest.raises(ValueError, match="Pass at least one trace"):
        html_page([])


# --- in a browser ----------------------------------------------------------------------------------------------------


@pytest.fixture
def trace() -> EpisodeTrace:
    def centred(rewards: Tensor, lengths: Tensor) -> Tensor:
        return rewards - rewards.mean()

    game = small_game(reward="shaped", n_rollouts=16)
    return trace_batch(game, small_policy(), 1, seed=2, advantage_fn=centred)[0]


@pytest.fixture
def page(driver: Any, trace: EpisodeTrace, tmp_path: Path) -> Iterator[Page]:
    """The page of one episode; afterwards it must have asked for nothing and complained of nothing."""
    write_html([trace], tmp_path / "episode.html")
    page = Page(driver, tmp_path / "episode.html")
    yield page
    assert page.requested() == {page.url}
    assert page.complaints() == []


def assert_shows(page: Page, trace: EpisodeTrace, position: int) -> None:
    step = trace.steps[position]
    assert page.texts("#where") == [f"Token {position + 1} of {len(trace.steps)}"]
    assert page.texts("[aria-current] bdi") == [trace.name(step.token)]
    assert page.texts(".prefix mark") == [trace.name(step.token)]
    shown = dict(zip(page.texts(".step dt"), page.texts(".step dd"), strict=True))
    assert float(shown["Q"].split()[0]) == pytest.approx(step.q, abs=6e-4)
    assert float(shown["Reward"].replace("−", "-")) == pytest.approx(step.reward, abs=6e-4)
    assert shown["Rank"] == f"{step.rank} of {trace.vocab_size}"


def test_slider_buttons_and_keys_step_through(page: Page, trace: EpisodeTrace) -> None:
    assert_shows(page, trace, 0)
    right, left, end, home = "\ue014", "\ue012", "\ue010", "\ue011"
    for keys, selector, position in (
        (right, "#position", 1),
        (right + right, "body", 3),
        (left, "body", 2),
        (end, "body", T - 1),
        (right, "body", T - 1),
        (home, "body", 0),
    ):
        page.press(keys, selector)
        assert_shows(page, trace, position)
    page.all("#next")[0].click()
    assert_shows(page, trace, 1)
    page.all(".strip button")[3].click()
    assert_shows(page, trace, 3)
    page.all("#back")[0].click()
    assert_shows(page, trace, 2)
    page.run("const s = document.getElementById('position'); s.value = 5; s.dispatchEvent(new Event('input'))")
    assert_shows(page, trace, 4)


def leaves(step: TracedStep) -> list[str]:
    """The scores of different completions, as the page writes them."""
    score_of = {completion.tokens: completion.score for completion in step.completions}
    return sorted(f"{score:.3f}" for score in score_of.values())


def test_completions_open_as_a_tree_with_all_scores(page: Page, trace: EpisodeTrace) -> None:
    completions = page.all(".completions")[0]
    if completions.get_attribute("open") is None:
        page.press("c")
    for position in range(T - 1):
        assert page.all(".completions")[0].get_attribute("open") is not None  # and stay open while stepping
        assert all(leaf.is_displayed() for leaf in page.all(".tree .leaf"))
        assert sorted(page.texts(".tree .leaf .value")) == leaves(trace.steps[position])
        counts = [int(text.split()[-1]) for text in page.texts(".tree .leaf small")]
        assert len(page.all(".tree .leaf")) - len(counts) + sum(counts) == 16
        page.press("\ue014")
    assert "nothing to complete" in page.texts(".columns")[0]
    page.press("\ue011")
    page.press("c")
    assert not any(leaf.is_displayed() for leaf in page.all(".tree .leaf"))
    page.all(".completions > summary")[0].click()
    assert all(leaf.is_displayed() for leaf in page.all(".tree .leaf"))


def test_the_plot_draws_q_and_follows(page: Page, trace: EpisodeTrace) -> None:
    assert len(page.all(".plot .point")) == T
    assert len(page.all(".plot .dot")) == 16 * (T - 1)
    assert len(page.all(".plot .band")) == 1
    before = page.all(".plot .here")[0].get_attribute("x1")
    page.press("\ue014")
    assert float(page.all(".plot .here")[0].get_attribute("x1")) > float(before)
    assert f"1: {trace.steps[0].q:.3f}" in page.all(".plot svg")[0].get_attribute("aria-label")
    from_top = [float(point.get_attribute("cy")) for point in page.all(".plot .point")]
    assert sorted(range(T), key=from_top.__getitem__) == sorted(range(T), key=lambda index: -trace.steps[index].q)


def test_everything_can_be_reached_by_keyboard_and_has_a_name(page: Page) -> None:
    reached = []
    for _ in range(40):
        page.run("return document.activeElement").send_keys("\ue004")
        reached.append(page.run("const e = document.activeElement; return e.id || e.tagName + (e.ariaLabel || e.textContent)"))
    assert {"position", "next"} <= set(reached)
    assert len([name for name in set(reached) if name.startswith("BUTTONToken")]) == T
    assert any(name.startswith("SUMMARY") for name in reached)


@pytest.mark.parametrize("width", [320, 375, 1400])
def test_the_page_fits_a_narrow_screen(driver: Any, trace: EpisodeTrace, tmp_path: Path, width: int) -> None:
    write_html([trace, trace], tmp_path / "episodes.html", ["before training", "after training"])
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page = Page(driver, tmp_path / "episodes.html")
        assert page.run("return document.documentElement.scrollWidth") <= width
        tops = [card.rect["y"] for card in page.all(".episode")]
        assert (tops[0] == tops[1]) == (width > 1000)  # side by side where there is room
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_episodes_step_together_and_a_short_one_waits(driver: Any, tmp_path: Path) -> None:
    game = hostile_game()
    traces = [trace_episode(game, small_policy(), seed=0, tokens=tokens) for tokens in ([0, 3, 1, 4, 5], [3, 2])]
    write_html(traces, tmp_path / "episodes.html")
    page = Page(driver, tmp_path / "episodes.html")
    page.press("\ue014\ue014")
    assert page.texts("h2") == ["Episode 1", "Episode 2"]
    assert page.texts(".prefix mark") == [HOSTILE[1], HOSTILE[2]]
    assert "This episode ended after 2 tokens; its last is shown." in page.texts(".note")


def test_hostile_tokens_are_inert(driver: Any, tmp_path: Path) -> None:
    write_html([hostile_trace()], tmp_path / "hostile.html", [HOSTILE[0]])
    page = Page(driver, tmp_path / "hostile.html")
    page.press("c")
    for _ in range(T):
        page.press("\ue014")
        assert page.texts("h2") == [HOSTILE[0]]
        assert page.all("#episodes img, #episodes script") == []
    assert page.texts(".strip bdi") == [*(HOSTILE[token] for token in (0, 1)), "␣", HOSTILE[4], "∅"]
    assert page.run("return window.pwned === undefined")
    assert page.requested() == {page.url}
    assert page.complaints() == []


def test_the_browser_would_show_foreign_content(driver: Any, trace: EpisodeTrace, tmp_path: Path) -> None:
    """A control with a foreign image and script: the page's security policy stops both, and without it both are found."""
    leak = "http://127.0.0.1:9/leak.png"
    changed = html_page([trace]).replace("</body>", f'<img src="{leak}"><script>window.pwned = 1</script></body>')
    unguarded = re.sub('<meta http-equiv="Content-Security-Policy"[^>]*>', "", changed)
    for name, text, pwned in (("guarded", changed, None), ("unguarded", unguarded, 1)):
        (tmp_path / f"{name}.html").write_text(text, encoding="utf-8")
        page = Page(driver, tmp_path / f"{name}.html")
        assert page.run("return window.pwned") == pwned
        assert page.complaints() != []
    assert leak in page.requested()
