"""Sums over the steps of one epoch."""

import math
import statistics
from typing import Any

import numpy as np


class Tally:
    """Adds up what the record of an epoch says.

    Attributes
    ----------
    batches, samples : int
        Seen so far in the epoch.
    """

    def __init__(self) -> None:
        self.samples = 0
        self.loss = self.penalty = self.seconds = self.weight = 0.0
        self.norm, self.clipped, self.updates = 0.0, 0, 0
        self.right: int | None = 0
        self.known = 0  # labels that count
        self.times: list[float] = []

    @property
    def batches(self) -> int:
        return len(self.times)

    def add(self, samples: int, loss: float, weight: float, right: tuple[int, int] | None) -> None:
        """Count one batch: ``loss`` is the sum over its samples, ``weight`` what they weigh.

        ``right`` is how many labels were predicted right, and of how many; None where targets are not labels.
        """
        self.samples += samples
        self.weight += weight
        self.loss += loss
        self.right = None if right is None or self.right is None else self.right + right[0]
        self.known += 0 if right is None else right[1]

    @property
    def mean_loss(self) -> float:
        return self.loss / self.weight if self.weight else math.nan

    def clip(self, norm: float, clipped: bool) -> None:
        """Count the norm of the gradients of one update, and whether it was cut."""
        self.norm, self.clipped, self.updates = self.norm + norm, self.clipped + clipped, self.updates + 1

    def clock(self, step: float, whole: float) -> None:
        """Add the seconds of one update, and with the fetching of its batch."""
        self.times.append(step)
        self.seconds += whole

    def figures(self) -> dict[str, Any]:
        """Return the means."""
        clipping = {}
        if self.updates:
            clipping = {"gradient_norm": self.norm / self.updates, "clipped": self.clipped / self.updates}
        return {
            "loss": self.mean_loss,
            "accuracy": self.right / self.known if self.right is not None and self.known else None,
            "penalty": self.penalty / self.samples,
            "seconds": self.seconds,
            "step_ms": 1e3 * statistics.median(self.times),
            "images_per_second": self.samples / self.seconds,
            **clipping,
        }

    def state_dict(self) -> dict[str, Any]:
        return {**vars(self), "times": np.array(self.times)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Tally":
        """Restore what `state_dict` returned."""
        tally = cls()
        earlier = {"weight": float(state["samples"]), "known": state["samples"]}  # older versions did not write these
        vars(tally).update({**earlier, **state, "times": state["times"].tolist()})
        return tally
