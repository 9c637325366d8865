"""BLEU and Self-BLEU against hand-computed values and a plain reference; shares; the temperature sweep on known models."""

import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_env.metrics.bleu import BleuScorer, self_bleu
from seqgan_env.metrics.shares import (
    distinct_n,
    length_shares,
    novel_share,
    total_variation,
    unique_share,
    valid_share,
    without_end_token,
)
from seqgan_env.metrics.temperature import SweepPoint, best_sum, mean_nll, nll_at_temperatures, temperature_sweep
from seqgan_env.models.lstm import TokenLSTM

Sentence = Sequence[int]
PAD = 9


def pad(sentences: Sequence[Sentence], width: int | None = None) -> np.ndarray:
    """Sentences as rows `(n, width)`, padded with `PAD`."""
    rows = np.full((len(sentences), width or max(map(len, sentences))), PAD, dtype=np.int64)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence)] = sentence
    return rows


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


sentences = st.lists(st.lists(st.integers(0, 3), max_size=7), min_size=2, max_size=6)


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


def test_a_copy_scores_one_and_a_stranger_zero() -> None:
    scores = BleuScorer(pad([[0, 1, 2, 3, 4], [1, 1]]), PAD).score(pad([[0, 1, 2, 3, 4], [5, 6, 7, 8, 5], []], width=7))
    np.testing.assert_array_equal(scores, [[1.0] * 5, [0.0] * 5, [0.0] * 5])


def test_ngrams_are_told_apart_beyond_their_last_words() -> None:
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


def test_collapsed_samples_are_wholly_alike() -> None:
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
def test_tokens_that_are_no_sequences_are_refused(tokens: np.ndarray, message: str) -> None:
    for use in (
        lambda: BleuScorer(tokens, PAD),
        lambda: BleuScorer(pad([[0, 1]]), PAD).score(tokens),
        lambda: self_bleu(tokens, PAD),
    ):
        with pytest.raises(ValueError, match=message):
            use()


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one reference"):
        BleuScorer(np.empty((0, 3), dtype=np.int64), PAD)
    with pytest.raises(ValueError, match="max_order must be at least 1, got 0"):
        BleuScorer(pad([[0]]), PAD, max_order=0)
    with pytest.raises(ValueError, match="at least 2, got 1"):
        self_bleu(pad([[0, 1]]), PAD)


def test_shares_count_rows() -> None:
    samples = pad([[0, 1], [0, 1], [1, 0], [0, 1, 2]])
    assert unique_share(samples) == 3 / 4
    assert novel_share(samples, pad([[0, 1], [2, 2]], width=3)) == 2 / 4
    assert novel_share(samples.astype(np.int32), samples) == 0
    with pytest.raises(ValueError, match="rows of 3 tokens and training data of 2"):
        novel_share(samples, pad([[0, 1]]))
    for share in (lambda: unique_share(samples[:0]), lambda: novel_share(samples[:0], samples)):
        with pytest.raises(ValueError, match="needs at least one sample, got none"):
            share()


def memoryless(probabilities: Sequence[float], end_token: int | None = None) -> TokenLSTM:
    """A generator whose every token has the same probabilities, whatever came before."""
    model = TokenLSTM(len(probabilities), 2, 2, end_token=end_token)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.output.bias.copy_(torch.tensor(probabilities).log())
    return model


def test_sweep_of_a_memoryless_generator_is_the_formula() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    held_out = torch.tensor([[0, 1, 2, 2], [1, 1, 3, 3]])  # the second is of two tokens
    alphas = (0.5, 1.0, 2.0)
    points = temperature_sweep(
        memoryless(p.tolist()),
        memoryless(q.tolist()),
        held_out,
        torch.Generator().manual_seed(0),
        n_samples=20_000,
        length=4,
        inverse_temperatures=alphas,
    )
    assert tuple(point.inverse_temperature for point in points) == alphas
    for point, alpha in zip(points, alphas, strict=True):
        sharpened = p**alpha / (p**alpha).sum()
        nll = -sharpened.log()
        expected_test = (nll[[0, 1, 2, 2]].mean() + nll[[1, 1]].mean()) / 2
        assert point.nll_test == pytest.approx(expected_test.item(), abs=1e-6)
        assert point.nll_oracle == pytest.approx(-(sharpened * q.log()).sum().item(), abs=0.01)  # 80,000 tokens: 5 sigma
    # Neighbouring temperatures are further apart than the tolerance: a sweep that samples without alpha fails.
    assert points[0].nll_oracle + 0.05 < points[1].nll_oracle < points[2].nll_oracle - 0.05


def test_sweep_is_that_of_nll_at_temperature_one_and_repeats_by_seed() -> None:
    generator, oracle = (TokenLSTM(6, 4, 4, initial_std=1.0, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    held_out, _ = oracle.sample(50, 5, torch.Generator().manual_seed(3))
    seed_4 = [torch.Generator().manual_seed(4) for _ in range(2)]
    first, second = (
        temperature_sweep(generator, oracle, held_out, rng, n_samples=20, length=5, inverse_temperatures=[1.0, 3.0])
        for rng in seed_4
    )
    assert first == second
    assert first[0].nll_test == pytest.approx(generator.nll(held_out).mean().item(), abs=1e-6)
    samples, _ = generator.sample(20, 5, torch.Generator().manual_seed(4))
    assert first[0].nll_oracle == pytest.approx(oracle.nll(samples).mean().item(), abs=1e-9)


@pytest.mark.parametrize("end_token", [None, 2])
def test_the_sweep_of_a_linear_output_is_that_of_its_logits(monkeypatch: pytest.MonkeyPatch, end_token: int | None) -> None:
    """The fast way from hidden states against the plain one, at padding too; another temperature is none of rounding."""
    generator = TokenLSTM(6, 4, 4, initial_std=1.0, end_token=end_token, generator=torch.Generator().manual_seed(1))
    tokens = generator.sample(30, 5, torch.Generator().manual_seed(0))[0]
    with torch.no_grad():
        fast = nll_at_temperatures(generator, tokens, (0.5, 1.0, 2.0, 2.1))
        monkeypatch.setattr(TokenLSTM, "linear_output", lambda self: None)
        plain = nll_at_temperatures(generator, tokens, (0.5, 1.0, 2.0, 2.1))
    assert fast == pytest.approx(plain, abs=1e-6)
    assert plain[2] != pytest.approx(plain[3], abs=1e-4)
    assert fast[1] == pytest.approx(generator.nll(tokens).mean().item(), abs=1e-6)


def test_sweep_reads_held_out_data_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = TokenLSTM(6, 4, 4, initial_std=1.0, generator=torch.Generator().manual_seed(1))
    held_out, _ = generator.sample(7, 5, torch.Generator().manual_seed(3))
    monkeypatch.setattr("seqgan_env.metrics.temperature.sequences_per_chunk", lambda *_: 3)  # three, and a tail of one
    (point,) = temperature_sweep(
        generator, generator, held_out, torch.Generator().manual_seed(4), n_samples=2, length=5, inverse_temperatures=[1.0]
    )
    assert point.nll_test == pytest.approx(generator.nll(held_out).mean().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oracle": memoryless([0.5, 0.5])}, "share a vocabulary, got 3 and 2"),
        ({"n_samples": 0}, "got 0 and 1"),
        ({"held_out": torch.empty(0, 2, dtype=torch.int64)}, "got 10 and 0"),
        ({"inverse_temperatures": (1.0, 0.0)}, "Each of inverse_temperatures must be at least 1e-30, got 0.0"),
        ({"inverse_temperatures": ()}, "at least one of inverse_temperatures, got none"),
    ],
)
def test_sweeps_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    model = memoryless([0.5, 0.3, 0.2])
    arguments = {"generator": model, "oracle": model, "held_out": torch.tensor([[0, 1]]), "n_samples": 10, "length": 2}
    with pytest.raises(ValueError, match=message):
        temperature_sweep(rng=torch.Generator(), **(arguments | changes))  # type: ignore[arg-type]


CURVE = [SweepPoint(1.0, nll_oracle=9.0, nll_test=7.0), SweepPoint(3.0, 7.0, 10.0), SweepPoint(2.0, 8.0, 7.5)]


def test_best_sum_is_the_lowest_sum_and_not_the_lowest_of_either() -> None:
    assert best_sum(CURVE) == SweepPoint(2.0, 8.0, 7.5)
    with pytest.raises(ValueError, match="at least one point"):
        best_sum([])


def test_mean_nll_weighs_every_token_alike() -> None:
    model = TokenLSTM(5, 3, 3, end_token=4, generator=torch.Generator().manual_seed(0))
    tokens = torch.tensor([[1, 4, 5, 5], [2, 3, 0, 1]])
    with torch.no_grad():
        log_probs = model.log_prob(tokens)
    assert mean_nll(model, tokens) == pytest.approx(-log_probs.sum().item() / 6, rel=1e-6)
    assert mean_nll(model, tokens) != pytest.approx(model.nll(tokens).mean().item(), rel=1e-4)  # the mean over sequences


def test_words_alone_are_all_but_the_end_token() -> None:
    tokens = pad([[0, 1, 4], [4], [2, 2, 2]], width=4)
    np.testing.assert_array_equal(without_end_token(tokens, 4, PAD), pad([[0, 1], [], [2, 2, 2]], width=4))
    assert without_end_token(tokens, None, PAD) is tokens


def test_an_end_token_lifts_bleu() -> None:
    # "a b <end>" against "a c <end>": with the end token 2 of 3 words match, without it 1 of 2.
    references, candidates = pad([[0, 2, 4]]), pad([[0, 1, 4]])
    assert BleuScorer(references, PAD, 1).score(candidates)[0, 0] == pytest.approx(2 / 3)
    words = [without_end_token(tokens, 4, PAD) for tokens in (references, candidates)]
    assert BleuScorer(words[0], PAD, 1).score(words[1])[0, 0] == pytest.approx(1 / 2)


def test_distinct_n_by_hand() -> None:
    # "a b a" and "a b": 2 words, 2 pairs (ab, ba) and 1 triple among 5 words.
    np.testing.assert_allclose(distinct_n(pad([[0, 1, 0], [0, 1]]), PAD, 3), [2 / 5, 2 / 5, 1 / 5], rtol=1e-12)
    np.testing.assert_array_equal(distinct_n(pad([[], []], width=3), PAD), [0, 0])


@settings(max_examples=100, deadline=None)
@given(samples=sentences)
def test_distinct_n_is_the_definition(samples: list[list[int]]) -> None:
    n_words = max(1, sum(map(len, samples)))
    ngrams = [{tuple(s[i : i + k]) for s in samples for i in range(len(s) - k + 1)} for k in (1, 2, 3)]
    found = distinct_n(pad(samples, 7), PAD, 3)
    np.testing.assert_allclose(found, [len(of_order) / n_words for of_order in ngrams], rtol=1e-12)
    assert (found >= 0).all()
    assert (found <= 1).all()
    np.testing.assert_array_equal(found, distinct_n(pad(samples[::-1], 8), PAD, 3))
    assert (distinct_n(pad(samples * 2, 7), PAD, 3) <= found / 2 + 1e-12).all()  # copies add words and nothing distinct


def test_length_shares_by_hand() -> None:
    shares = length_shares(pad([[0, 1], [], [1], [1, 1]], width=3), PAD, 3)
    np.testing.assert_array_equal(shares, [1 / 4, 1 / 4, 2 / 4, 0])
    with pytest.raises(ValueError, match="samples of at most 1 tokens, got 1 of at most 2"):
        length_shares(pad([[0, 1]]), PAD, 1)
    with pytest.raises(ValueError, match="got 0 of at most 0"):
        length_shares(pad([[0]])[:0], PAD, 1)


shares_of_three = st.lists(st.integers(0, 20), min_size=3, max_size=3).filter(any).map(lambda n: np.array(n) / sum(n))


@given(p=shares_of_three, q=shares_of_three)
def test_total_variation_is_a_distance_in_the_unit_interval(p: np.ndarray, q: np.ndarray) -> None:
    assert -1e-12 <= total_variation(p, q) <= 1 + 1e-12
    assert total_variation(p, q) == total_variation(q, p)
    assert total_variation(p, p) == 0
    assert total_variation(p, q) == pytest.approx(np.maximum(p - q, 0).sum(), abs=1e-12)


def test_total_variation_by_hand() -> None:
    assert total_variation(np.array([0.5, 0.5, 0]), np.array([0, 0.25, 0.75])) == 0.75
    assert total_variation(np.array([1.0, 0]), np.array([0, 1.0])) == 1
    with pytest.raises(ValueError, match=r"same values, got shapes \(2,\) and \(3,\)"):
        total_variation(np.ones(2), np.ones(3))


def test_valid_share_asks_the_checker() -> None:
    assert valid_share(["()", "(", ")("], lambda text: text == "()") == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="at least one sample"):
        valid_share([], lambda text: True)
    with pytest.raises(ValueError, match=r"valid\(text\) must return True or False, got None for '\(\('"):
        valid_share(["(("], lambda text: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match=r"valid\(text\) raised ValueError for '\(\(': invalid literal"):
        valid_share(["(("], lambda text: int(text) > 0)


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
