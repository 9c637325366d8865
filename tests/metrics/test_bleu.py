"""BLEU and Self-BLEU against hand-computed values, a plain reference, NLTK and published figures."""

import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from seqgan_env.metrics.bleu import BleuScorer, self_bleu
from seqgan_env.metrics.shares import (
    without_end_token,
)
from tests.metrics.sentences import PAD, Sentence, pad, sentences


def reference_bleu(references: Sequence[Sentence], candidate: Sentence, max_order: int) -> list[float]:
    """NLTK's `sentence_bleu(..., smoothing_function=SmoothingFunction().method1)`, term by term."""

    def counts(sentence: Sentence, order: int) -> Counter[tuple[int, ...]]:
        return Counter(tuple(sentence[i : i + order]) for i in range(len(sentence) - order + 1))

    precisions = []
    for order in range(1, max_order + 1):
        found = counts(candidate, order)
        matches = sum(min(found[ngram], max(counts(r, order)[ngram] for r in references)) for ngram in found)
        if order == 1 and matches == 0:
            return [0.0] * max_order
        precisions.append((matches or 0.1) / max(1, sum(found.values())))
    closest = min((len(reference) for reference in references), key=lambda n: (abs(n - len(candidate)), n))
    brevity = 1.0 if len(candidate) > closest else math.exp(1 - closest / len(candidate))
    return [brevity * math.prod(precisions[:k]) ** (1 / k) for k in range(1, max_order + 1)]


def reference_self_bleu(samples: Sequence[Sentence], max_order: int) -> np.ndarray:
    others = [[other for j, other in enumerate(samples) if j != i] for i in range(len(samples))]
    scores = [reference_bleu(o, s, max_order) for o, s in zip(others, samples, strict=True)]
    return np.array([np.mean(column) for column in zip(*scores, strict=True)])


def test_counts_are_clipped_at_the_reference_that_has_most() -> None:
    # "the the the the the the the" against "the cat is on the mat" and "there is a cat on the mat" (Papineni et al., 2.1).
    references = pad([[0, 1, 2, 3, 0, 4], [5, 2, 6, 1, 3, 0, 4]])
    bleu_1 = BleuScorer(references, PAD, max_order=1).score(pad([[0] * 7]))
    np.testing.assert_allclose(bleu_1, [[2 / 7]], rtol=1e-12)


def test_an_order_without_a_match_counts_as_a_tenth() -> None:
    # "a b" against "a c b": both words match, the one bigram does not, and of trigrams there are none, counted as one.
    brevity = math.exp(1 - 3 / 2)
    expected = [[brevity, brevity * 0.1 ** (1 / 2), brevity * (0.1 * 0.1) ** (1 / 3)]]
    np.testing.assert_allclose(BleuScorer(pad([[0, 2, 1]]), PAD, max_order=3).score(pad([[0, 1]])), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("reference_lengths", "brevity"),
    [
        ([3, 5], 1.0),  # as close as each other: the shorter one counts
        ([5, 3], 1.0),
        ([2, 5], math.exp(1 - 5 / 4)),
        ([4, 5], 1.0),
        ([8, 6], math.exp(1 - 6 / 4)),
    ],
)
def test_brevity_penalty_takes_the_closest_length(reference_lengths: list[int], brevity: float) -> None:
    references = pad([[0, 1, 2, 3, 4, 5, 6, 7][:length] for length in reference_lengths])
    scores = BleuScorer(references, PAD, max_order=1).score(pad([[0, 1, 0, 1]]))
    np.testing.assert_allclose(scores, [[brevity * 2 / 4]], rtol=1e-12)


def test_a_copy_scores_one_and_unknown_words_zero() -> None:
    scores = BleuScorer(pad([[0, 1, 2, 3, 4], [1, 1]]), PAD).score(pad([[0, 1, 2, 3, 4], [5, 6, 7, 8, 5], []], width=7))
    np.testing.assert_array_equal(scores, [[1.0] * 5, [0.0] * 5, [0.0] * 5])


def test_ngrams_with_the_same_last_words_are_distinguished() -> None:
    # All bigrams of "a b c d" but not the trigrams: a lookup that forgot the first word would find them.
    scorer = BleuScorer(pad([[0, 1, 7, 1, 2, 8, 2, 3]]), PAD, max_order=3)
    expected = math.exp(1 - 8 / 4) * np.array([[1, 1, (0.1 / 2) ** (1 / 3)]])
    np.testing.assert_allclose(scorer.score(pad([[0, 1, 2, 3]])), expected, rtol=1e-12)


@settings(max_examples=200, deadline=None)
@given(references=sentences, candidates=sentences)
def test_bleu_is_the_reference_implementations(references: list[Sentence], candidates: list[Sentence]) -> None:
    scores = BleuScorer(pad(references, 7), PAD).score(pad(candidates, 8))
    expected = [reference_bleu(references, candidate, 5) for candidate in candidates]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(samples=sentences)
def test_self_bleu_is_the_reference_implementations(samples: list[Sentence]) -> None:
    np.testing.assert_allclose(self_bleu(pad(samples, 7), PAD), reference_self_bleu(samples, 5), rtol=0, atol=1e-12)


def test_the_reference_implementation_is_nltks() -> None:
    bleu_score = pytest.importorskip("nltk.translate.bleu_score")
    rng = np.random.default_rng(0)
    references, candidates = ([rng.integers(0, 4, rng.integers(1, 9)).tolist() for _ in range(40)] for _ in range(2))
    weights = [(1 / k,) * k for k in range(1, 6)]
    smoothing = bleu_score.SmoothingFunction().method1
    for start, candidate in enumerate(candidates):
        some = references[start : start + 3]
        expected = bleu_score.sentence_bleu(some, candidate, weights, smoothing_function=smoothing)
        np.testing.assert_allclose(reference_bleu(some, candidate, 5), expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(BleuScorer(pad(some), PAD).score(pad([candidate]))[0], expected, rtol=0, atol=1e-12)


def test_self_bleu_leaves_the_sample_itself_out() -> None:
    samples = pad([[0, 1, 2], [3, 4, 5], [6, 7, 8]])
    np.testing.assert_array_equal(self_bleu(samples, PAD), np.zeros(5))
    counted_among_its_own_references = BleuScorer(samples, PAD, max_order=3).score(samples).mean(axis=0)
    np.testing.assert_array_equal(counted_among_its_own_references, np.ones(3))


def test_self_bleu_by_hand() -> None:
    # "a a a" finds two of its a's in "a a b"; this finds a a, but no b; "a c" finds one of two. The closest lengths are 3.
    expected = (2 / 3 + 2 / 3 + math.exp(1 - 3 / 2) * 1 / 2) / 3
    np.testing.assert_allclose(self_bleu(pad([[0, 0, 0], [0, 0, 1], [0, 2]]), PAD, max_order=1), [expected], rtol=1e-12)


def test_self_bleu_takes_the_closest_length_of_the_others() -> None:
    # Alone of its length, "a b c d" is measured by the 6 words of the other and not by its own 4.
    expected = (math.exp(1 - 6 / 4) + 4 / 6) / 2
    np.testing.assert_allclose(self_bleu(pad([[0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]), PAD, max_order=1), [expected], rtol=1e-12)


def test_identical_samples_have_self_bleu_one() -> None:
    np.testing.assert_array_equal(self_bleu(pad([[0, 1, 2, 3, 4]] * 3), PAD), np.ones(5))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (np.array([[0, PAD, 1]]), r"padded at the end only; row 0 has the pad id 9"),
        (np.array([[0, PAD + 1]]), r"must lie in 0 \.\.\. 9 .* got 0 \.\.\. 10"),
        (np.array([[-1, 0]]), r"got -1 \.\.\. 0"),
        (np.array([0, 1]), r"shape \(n, length\), got int64 of shape \(2,\)"),
        (np.array([[0.0, 1.0]]), r"must be integers .* got float64"),
    ],
)
def test_invalid_sequences_are_refused(tokens: np.ndarray, message: str) -> None:
    for use in (
        lambda: BleuScorer(tokens, PAD),
        lambda: BleuScorer(pad([[0, 1]]), PAD).score(tokens),
        lambda: self_bleu(tokens, PAD),
    ):
        with pytest.raises(ValueError, match=message):
            use()


def test_inputs_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        BleuScorer(np.empty((0, 3), dtype=np.int64), PAD)
    with pytest.raises(ValueError, match="max_order must be at least 1, got 0"):
        BleuScorer(pad([[0]]), PAD, max_order=0)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        self_bleu(pad([[0, 1]]), PAD)


def test_an_end_token_lifts_bleu() -> None:
    # "a b <end>" against "a c <end>": with the end token 2 of 3 words match, without it 1 of 2.
    references, candidates = pad([[0, 2, 4]]), pad([[0, 1, 4]])
    assert BleuScorer(references, PAD, 1).score(candidates)[0, 0] == pytest.approx(2 / 3)
    words = [without_end_token(tokens, 4, PAD) for tokens in (references, candidates)]
    assert BleuScorer(words[0], PAD, 1).score(words[1])[0, 0] == pytest.approx(1 / 2)


def captions(path: Path, numbers: dict[str, int]) -> list[list[int]]:
    """Lines as numbers of words, the signs of punctuation being words of their own."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [[numbers.setdefault(w, len(numbers)) for w in re.sub(r'([.,!?;:"])', r" \1 ", line).split()] for line in lines]


def test_captions_score_as_published(data_folder: Path) -> None:
    """Texygen's row "training set": BLEU 0.740, 0.520, 0.337, 0.218; Self-BLEU 0.892, 0.747, 0.573, 0.415."""
    numbers: dict[str, int] = {}
    training, test = (captions(data_folder / f"coco_{part}.txt", numbers) for part in ("train", "test"))
    words = len(numbers)
    rows = [np.full((len(lines), max(map(len, lines))), words) for lines in (training, test)]
    for array, lines in zip(rows, (training, test), strict=True):
        for row, line in zip(array, lines, strict=True):
            row[: len(line)] = line
    start = time.process_time()
    bleu = BleuScorer(rows[1], words).score(rows[0]).mean(axis=0)
    own = self_bleu(rows[0], words)
    assert time.process_time() - start < 60  # all 10^8 pairs, one by one, would take far longer
    np.testing.assert_array_equal(bleu[1:].round(3), [0.740, 0.520, 0.337, 0.218])
    np.testing.assert_array_equal(own[1:].round(3), [0.892, 0.747, 0.573, 0.416])
