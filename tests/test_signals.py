"""A request to end is noted, answered once, and forgotten."""

import io
import os
import signal
import sys
import threading

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


def test_within_a_held_block_a_second_waits_for_its_end():
    passed = []

    def twice(number, request):
        with request.held():
            with request.held():
                for _ in range(number):
                    os.kill(os.getpid(), signal.SIGINT)
                passed.append("inner")
            passed.append("outer")
        passed.append("after")

    with EndRequest(lambda name: name) as request:
        twice(1, request)
    with EndRequest(lambda name: name) as request, pytest.raises(KeyboardInterrupt):
        twice(3, request)
    assert passed == ["inner", "outer", "after", "inner", "outer"]


def test_another_thread_than_the_main_one_listens_to_nothing():
    before, found = signal.getsignal(signal.SIGINT), []

    def work():
        with EndRequest(lambda name: name):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]
