"""What a run of `train.py` is made of: its settings, its folder, its checkpoints, and what it reports."""
