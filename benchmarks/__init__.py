"""What the project measures of itself; each module is a command."""

import seqgan_env  # noqa: F401 - before torch, whose threads it tells how to wait
