"""The device that a name means."""

import torch


def resolve_device(device: str | torch.device) -> torch.device:
    """The device that is meant: `"auto"` is a GPU where there is one.

    Raises:
        ValueError: the device is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    resolved = torch.device(device)
    if resolved.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={str(device)!r} was asked for, but torch sees no CUDA device here. Take 'cpu' or 'auto'.")
    return resolved
