"""Objectives for test_search: functions of a module, as worker processes need them."""

import os
import signal
import time
from pathlib import Path


def bowl(attempt):
    """Lowest at x = 0.01, whatever y."""
    return abs(attempt["x"] - 0.01)


def slow_bowl(attempt):
    time.sleep(0.05)
    return bowl(attempt)


def noted(attempt):
    """Leaves a file for every try of every trial in the folder that $NOTES names."""
    note = Path(os.environ["NOTES"]) / f"{attempt.number}-{os.getpid()}-{time.monotonic_ns()}"
    note.touch()
    time.sleep(0.02)
    return bowl(attempt)


def killed_once(attempt):
    """The worker of trial 3 is killed the first time."""
    flag = Path(os.environ["NOTES"]) / "killed"
    if attempt.number == 3 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return noted(attempt)


def always_killed(attempt):
    """The worker of trial 2 is killed, always."""
    if attempt.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return bowl(attempt)


def mistaken(attempt):
    """Has a mistake."""
    if attempt.number == 2:
        raise KeyError("no such column")
    return bowl(attempt)
