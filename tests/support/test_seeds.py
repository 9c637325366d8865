from seqgan_env.support import seeds


def test_no_two_uses_of_a_seed_share_random_numbers() -> None:
    offsets = [value for name, value in vars(seeds).items() if name.isupper()]
    assert len(offsets) > 5
    assert 0 not in offsets
    assert len({*offsets}) == len(offsets)
