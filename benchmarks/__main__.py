"""`python -m benchmarks` is `python -m benchmarks.speed`."""

import tyro

from benchmarks import speed
from seqgan_env.rendering import spell_what_cannot_be_encoded

if __name__ == "__main__":
    spell_what_cannot_be_encoded()
    speed.main(tyro.cli(speed.Config, description=speed.__doc__))
