"""Texts that several test files read, and what was read back."""

from seqgan_env.data.corpus import Corpus

LINES = ["low lower lowest", "new newer newest 漢", "low new é"] * 3


def decoded(corpus: Corpus) -> list[str]:
    return [corpus.vocabulary.decode(row) for row in corpus.tokens.tolist()]
