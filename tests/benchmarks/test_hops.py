"""The count of files and functions that an update enters."""

import inspect

import pytest

import train
from agents.reinforce import Reinforce
from benchmarks import hops
from seqgan_env.games import make_game
from seqgan_env.rewards.monte_carlo import MonteCarloSearch
from seqgan_env.vector_env import SequenceVectorEnv


@pytest.mark.slow
def test_exactly_one_update_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    codes = hops.main(hops.Config())
    for function in (SequenceVectorEnv.play, Reinforce.sample, MonteCarloSearch.action_values):
        assert inspect.unwrap(function).__code__ in codes
    for function in (make_game, train.main, train.train_by_likelihood):
        assert inspect.unwrap(function).__code__ not in codes
    head, *lines = capsys.readouterr().out.splitlines()[-1 - len({code.co_filename for code in codes}) :]
    assert f"{len(lines)} files and {len(codes)} functions" in head
    assert sum(int(line.split()[0]) for line in lines) == len(codes)
