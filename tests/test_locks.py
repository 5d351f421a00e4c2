"""Locks are held by one writer or by many readers, and by nobody once the process is gone."""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from fastconv import locks
from fastconv.locks import Lock

pytest.importorskip("fcntl")


def test_one_writer_or_many_readers(tmp_path):
    rng = random.Random(4)
    path, held = tmp_path / "net", []
    for _ in range(300):
        shared = rng.random() < 0.6
        if held and rng.random() < 0.5:
            held.pop(rng.randrange(len(held))).close()
        elif held and not (shared and held[0]._shared):
            with pytest.raises(BlockingIOError, match=r"net: busy"):
                Lock(path, "busy", shared=shared)
        else:
            held.append(Lock(path, "busy", shared=shared))
        assert [p.name for p in tmp_path.iterdir()] == [".net.lock"] * bool(held)
    for lock in held:
        lock.close()
        lock.close()  # of no effect
    assert list(tmp_path.iterdir()) == []


def test_of_many_threads_one_at_a_time_has_it(tmp_path):
    inside, most, done = [], [], []

    def work(seed):
        rng = random.Random(seed)
        while len(done) < 100:
            try:
                with Lock(tmp_path / "net", "busy"):
                    inside.append(seed)
                    time.sleep(rng.uniform(0, 2e-3))
                    most.append(len(inside))
                    inside.remove(seed)
                    done.append(seed)
            except BlockingIOError:
                continue

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert list(tmp_path.iterdir()) == []


HOLD = """
import sys, time
from pathlib import Path
from fastconv.locks import Lock
lock = Lock(Path(sys.argv[1]), "busy", shared=sys.argv[2] == "shared")
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["shared", "own"])
def test_it_goes_with_its_process(tmp_path, kind):
    path = tmp_path / "net"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), kind], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            Lock(path, "busy")
        process.send_signal(signal.SIGKILL)
        process.wait()
        Lock(path, "busy").close()
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "net").write_text("")
    (tmp_path / "link").symlink_to("a/net")
    for one, other in itertools.permutations([tmp_path / "link", tmp_path / "a" / "net"]):
        with Lock(one, "busy"), pytest.raises(BlockingIOError):
            Lock(other, "busy")


def test_a_look_writes_nothing_and_sees_writers_alone(tmp_path):
    path = tmp_path / "file"
    path.write_text("as it was")
    assert not locks.taken(path)
    for shared in (True, False):
        file = os.open(path, os.O_RDONLY)
        assert locks.take(file, shared=shared)
        assert locks.taken(path) is not shared
        os.close(file)
    assert path.read_text() == "as it was"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    with pytest.raises(FileNotFoundError):
        locks.taken(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="none/net"):
        Lock(tmp_path / "none" / "net", "busy")
    Lock(tmp_path / "none" / "net", "busy", shared=True).close()  # who only reads finds out there
