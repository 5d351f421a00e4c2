"""What must hold of normalisations' and PReLU's settings and arrays, for arrays and for values alike."""

from typing import Any


def check_momentum(where: str, momentum: float) -> float:
    if not 0 <= momentum <= 1:
        raise ValueError(f"{where}: momentum must be in [0, 1], got {momentum}")
    return momentum


def check_eps(where: str, eps: float) -> float:
    if not eps >= 0:
        raise ValueError(f"{where}: eps must be >= 0, got {eps}")
    return eps


def check_values(where: str, values: int, input: Any) -> None:
    """Raise ValueError if a channel of the input, an array or its spec, has too few values for statistics."""
    if values < 2:
        raise ValueError(
            f"{where}: training needs more than 1 value per channel, got {values} (input.shape={input.shape})"
        )


def check_channels(where: str, name: str, a: Any, input: Any) -> None:
    """Raise ValueError unless ``a``, if it is not None, has one number for each channel of the input."""
    if a is not None and a.shape != (input.shape[1],):
        raise ValueError(
            f"{where}: {name} must have shape ({input.shape[1]},), one value a channel, "
            f"got {a.shape} (input.shape={input.shape})"
        )


def check_statistics(where: str, running_mean: Any, running_var: Any) -> None:
    if running_mean is None or running_var is None:
        raise ValueError(f"{where}: evaluation needs running_mean and running_var")


def check_slopes(where: str, input: Any, weight: Any) -> int:
    """Return the channels of the input, an array or its spec, or raise ValueError if the weight does not fit them."""
    channels: int = input.shape[1] if input.ndim > 1 else 1
    if weight.shape not in ((1,), (channels,)):
        raise ValueError(
            f"{where}: weight must have shape (1,) or ({channels},), one per channel of the input of shape "
            f"{input.shape}, got {weight.shape}"
        )
    return channels
