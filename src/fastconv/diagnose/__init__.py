"""Watching a net learn: figures of its layers, gradients and updates, and what they mean."""

from fastconv.diagnose.statistics import (
    ActivationStatistics,
    activation_statistics,
    gradient_norms,
    update_ratios,
    weights,
)  # fmt: skip
from fastconv.diagnose.watch import Watch

__all__ = ["ActivationStatistics", "Watch", "activation_statistics", "gradient_norms", "update_ratios", "weights"]
