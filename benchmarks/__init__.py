"""The project's benchmarks; each module is a command."""

import seqgan_env  # noqa: F401 - must come before torch, because it sets how torch's threads wait
