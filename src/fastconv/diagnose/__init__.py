"""Watching a net learn: figures of its layers, gradients and updates, and what they mean."""

from fastconv.diagnose.preflight import check, range_test
from fastconv.diagnose.rates import RangeTest
from fastconv.diagnose.report import Finding, Remark, Report, Verdict
from fastconv.diagnose.statistics import (
    ActivationStatistics,
    activation_statistics,
    gradient_norms,
    update_ratios,
    weights,
)  # fmt: skip
from fastconv.diagnose.watch import Watch

__all__ = [
    "ActivationStatistics", "Finding", "RangeTest", "Remark", "Report", "Verdict", "Watch",
    "activation_statistics", "check", "gradient_norms", "range_test", "update_ratios", "weights",
]  # fmt: skip
