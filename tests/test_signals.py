"""A request to end is noted, answered once, and forgotten."""

import io
import os
import signal
import sys

import pytest

from fastconv.signals import EndRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_is_noted_and_answered_and_the_second_interrupts(number, capfd):
    before = signal.getsignal(number)
    with EndRequest(lambda name: f"{name}: soon") as request:
        assert request.number is None
        os.kill(os.getpid(), number)
        assert request.number == number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
    assert capfd.readouterr().err == f"{number.name}: soon\n"


@pytest.mark.parametrize("stream", [None, io.StringIO()], ids=["none", "no file"])
def test_it_is_noted_also_where_nothing_can_be_said(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    with EndRequest(lambda name: name) as request:
        os.kill(os.getpid(), signal.SIGTERM)
    assert request.number == signal.SIGTERM
