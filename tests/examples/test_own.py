"""The examples of a custom reward, mask and generator, and the code of their page, are run."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from agents import Reinforce
from seqgan_env import FunctionReward, SequenceVectorEnv, oracle_game
from tests.small import seeded

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def share_of_zeros(sequences: list[list[int]]) -> list[float]:
    return [sequence.count(0) / len(sequence) for sequence in sequences]


class TestOwnReward:
    def test_by_hand(self) -> None:
        assert load("own_reward").short_words(["the old baker", "", "goats"]) == [pytest.approx(2 / 3), 0, 0]

    @pytest.mark.slow
    @pytest.mark.rounding
    def test_its_weight_raises_it(self) -> None:
        """From the same likelihood start; without weight on the reward, the discriminator does not raise it."""
        example = load("own_reward")
        (start, without), (same, mixed) = (example.train(weight, updates=20) for weight in (0.0, 0.8))
        assert start == same
        assert mixed > start + 0.1
        assert mixed > without + 0.1


@pytest.fixture(scope="module")
def nesting() -> dict[str, float]:
    """The sequences of an agent that learns to nest."""
    measured: dict[str, float] = load("own_mask").main(n=200, updates=30)
    return measured


class TestOwnMask:
    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [
            ([], [1, 0, 1, 0, 1, 0]),
            ([0, 2], [1, 0, 1, 1, 1, 0]),
            ([0, 2, 3], [1, 1, 1, 0, 1, 0]),
            ([0, 0, 0, 0, 0, 4], [0, 0, 0, 0, 0, 1]),
            ([0, 1] * 5, [1, 0, 1, 0, 1, 0]),
        ],
    )
    def test_by_hand(self, prefix: list[int], expected: list[int]) -> None:
        assert load("own_mask").mask(np.array(prefix, dtype=np.int64)).tolist() == [bool(allowed) for allowed in expected]

    @pytest.mark.parametrize(("text", "balanced"), [("()[]{}()[]{}", True), ("([{([{}])}])", True), ("([)]([)]([)]", False)])
    def test_what_is_balanced(self, text: str, balanced: bool) -> None:
        example = load("own_mask")
        assert example.is_balanced(torch.tensor([example.BRACKETS.index(sign) for sign in text])) is balanced

    def test_all_sequences_are_balanced_with_it_and_few_without(self, nesting: dict[str, float]) -> None:
        assert {nesting[f"balanced, {name}"] for name in ("real", "with the mask", "completions")} == {1.0}
        assert nesting["balanced, without the mask"] < 0.3

    @pytest.mark.rounding
    def test_the_agent_learns_under_it(self, nesting: dict[str, float]) -> None:
        control = load("own_mask").main(n=200, updates=0)
        assert nesting["depth, before"] < 0.85
        assert nesting["depth, after"] > 0.95
        assert control["depth, after"] < control["depth, before"] + 0.05


class TestOwnGenerator:
    def test_steps_equal_whole_sequences(self) -> None:
        model = load("own_generator").TokenGRU(7, sequence_length=5, end_token=None, generator=seeded()).double()
        tokens = torch.randint(7, (4, 5), generator=seeded())
        state, expected = model.initial_state(4), model.logits(tokens)
        for position, token in enumerate(model.inputs(tokens).T):
            logits, state = model.step(token, state)
            torch.testing.assert_close(logits, expected[:, position])

    @pytest.mark.rounding
    def test_it_learns_a_language_and_plays(self) -> None:
        measured = load("own_generator").main(updates=10)
        first, likelihood, last = measured["NLL_test"]
        assert likelihood < first - 0.5
        assert last < likelihood + 0.1
        first, likelihood, last = measured["NLL_oracle"]
        assert likelihood < first - 1
        assert last != likelihood

    @pytest.mark.rounding
    @pytest.mark.parametrize("reward_model", [FunctionReward(share_of_zeros), "constant"], ids=["zeros", "constant"])
    def test_it_learns_from_rewards_of_its_own_completions(self, reward_model: Any) -> None:
        """It learns to write only zeros if they earn the reward; the control is an uninformative reward."""
        game = oracle_game(6, 8, n_real=10, reward="rollout", n_rollouts=4, reward_model=reward_model)
        env = SequenceVectorEnv(game, 32, autoreset_mode="SameStep")
        kwargs = {"make_generator": load("own_generator").TokenGRU}
        agent = Reinforce("GeneratorPolicy", env, learning_rate=0.02, policy_kwargs=kwargs, seed=0)
        assert game.search.policy is agent.generator
        agent.learn(30 * 32 * 6)
        share = (agent.sample(500)[0] == 0).float().mean().item()
        assert share < 0.3 if reward_model == "constant" else share > 0.9


def test_the_code_of_the_page_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "your_own.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {"torch": torch}
    games = []
    for block in blocks:
        exec(block, names)
        games.append(names["game"])
    rewarded, game, _ = games
    tokens, _ = names["sample_sequences"](names["agent"].generator, 5, 10, 30, seeded())
    assert tokens.shape == (5, 10)
    assert game.mask(np.array([0, 0, 0, 0])).tolist() == [False, True]
    assert game.mask(np.array([0, 1])).tolist() == [True, False]
    sentences = rewarded.real_sequences[:3]
    lengths = (sentences < rewarded.vocab_size).sum(dim=1)
    shares = torch.tensor(names["short_words"]([rewarded.vocabulary.decode(row) for row in sentences.tolist()]))
    model = rewarded.reward_model
    expected = 0.2 * model.model.score(sentences, lengths) + 0.8 * shares
    assert torch.allclose(model.score(sentences, lengths), expected)
    assert not torch.allclose(model.score(sentences, lengths), shares)
