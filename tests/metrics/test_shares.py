"""Shares of samples, by hand and by their definitions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqgan_env.metrics.shares import (
    distinct_n,
    length_shares,
    novel_share,
    total_variation,
    unique_share,
    valid_share,
    without_end_token,
)
from tests.metrics.sentences import PAD, pad, sentences


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


def test_words_alone_are_all_but_the_end_token() -> None:
    tokens = pad([[0, 1, 4], [4], [2, 2, 2]], width=4)
    np.testing.assert_array_equal(without_end_token(tokens, 4, PAD), pad([[0, 1], [], [2, 2, 2]], width=4))
    assert without_end_token(tokens, None, PAD) is tokens


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
