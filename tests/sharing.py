"""Problems that tests can afford, shared among threads as large ones are."""

import contextlib

from fastconv._ext import runtime


@contextlib.contextmanager
def small_work_shared():
    """Share the smallest work among all threads, for a ``with`` block."""
    before = runtime.set_work_per_thread(0)
    try:
        yield
    finally:
        runtime.set_work_per_thread(before)
