"""The commands of `python -m seqgan_env`, one in each file."""
