"""Sums over the steps of one epoch."""

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
        self.loss = self.penalty = self.seconds = 0.0
        self.right: int | None = 0
        self.times: list[float] = []

    @property
    def batches(self) -> int:
        return len(self.times)

    def add(self, samples: int, loss: float, penalty: float, right: int | None) -> None:
        """Count one batch: ``loss`` is the sum over its samples, ``right`` None where targets are not labels."""
        self.samples += samples
        self.loss += loss
        self.penalty += penalty * samples
        self.right = None if right is None or self.right is None else self.right + right

    def clock(self, step: float, whole: float) -> None:
        """Add the seconds of one update, and with the fetching of its batch."""
        self.times.append(step)
        self.seconds += whole

    def figures(self) -> dict[str, Any]:
        """Return the means."""
        return {
            "loss": self.loss / self.samples,
            "accuracy": None if self.right is None else self.right / self.samples,
            "penalty": self.penalty / self.samples,
            "seconds": self.seconds,
            "step_ms": 1e3 * statistics.median(self.times),
            "images_per_second": self.samples / self.seconds,
        }

    def state_dict(self) -> dict[str, Any]:
        return {**vars(self), "times": np.array(self.times)}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Tally":
        """Restore what `state_dict` returned."""
        tally = cls()
        vars(tally).update({**state, "times": state["times"].tolist()})
        return tally
