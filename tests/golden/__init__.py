"""A short run whose figures are pinned: see `run.py`, and `regenerate.py` to pin others."""
