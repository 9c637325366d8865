"""The parts of a run of `train.py`: settings, folder, checkpoints and reports."""
