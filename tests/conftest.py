"""Fixtures shared by all tests."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings
from sharing import small_work_shared

from fastconv import config
from fastconv._ext import runtime

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else the commands under test inherit that, and go on

# How long an example takes is the machine's affair: a test that says nothing of time does not fail of a busy one.
settings.register_profile("fastconv", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fastconv")

ISAS = config.available_isas()
THREADS = (1, 2, 3, 5)


@pytest.fixture(params=ISAS)
def isa(request):
    """Run the test once on every kernel table this machine has."""
    with config.isa(request.param):
        yield request.param


@pytest.fixture
def every_setting():
    """Return a function that runs its argument under every ISA x thread count and returns the results."""

    def run(function):
        results = {}
        for name in ISAS:
            for n in THREADS:
                with config.isa(name), config.threads(n):
                    results[name, n] = function()
        return results

    # small problems would run on one thread, and the comparison of threads would compare nothing
    with small_work_shared():
        yield run


@pytest.fixture
def all_threads():
    """Let operations take the threads of an idle machine, for which memory is planned, whatever other programs do."""
    runtime.size_for_all_threads(True)
    yield
    runtime.size_for_all_threads(False)


@pytest.fixture(scope="session")
def data_root():
    """Return the folder of real data sets, or skip."""
    root = os.environ.get("FASTCONV_DATA")
    if not root:
        pytest.skip("FASTCONV_DATA is unset: no real data sets to test on")
    return root
