"""The commands of `python -m seqgan_env`, one per file."""
