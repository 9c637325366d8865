"""Sequences from files and from Python: file formats, tokenizers, vocabularies, the corpus."""
