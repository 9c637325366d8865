"""`python -m benchmarks` is `python -m benchmarks.speed`."""

import tyro

from benchmarks import speed

if __name__ == "__main__":
    speed.main(tyro.cli(speed.Config, description=speed.__doc__))
