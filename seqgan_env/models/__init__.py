"""Models that predict the next token: generators and the oracle, and their sampling and likelihood training."""
