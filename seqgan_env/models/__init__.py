"""Models that predict the next token: the generators, the oracle, how they are sampled and how they learn by likelihood."""
