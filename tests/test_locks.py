"""Locks are held by one writer or by many readers, and by nobody once the process is gone.

With flock, and with what takes its place where there is none (Windows): filelock, here on this system's own primitives.
"""

import itertools
import os
import random
import subprocess
import sys
import threading
import time

import pytest

from fastconv import locks
from fastconv.locks import Lock
from fastconv.train import RunWriter
from fastconv.train.run import is_running, read_record


@pytest.fixture(params=["flock", "filelock"])
def means(request, monkeypatch):
    """What locks are made of."""
    pytest.importorskip("fcntl" if request.param == "flock" else "filelock")
    if request.param == "filelock":
        monkeypatch.setattr(locks, "fcntl", None)
    return request.param


def left(folder, means):
    """What is in a folder, but for the small files that filelock leaves there."""
    return [p.name for p in folder.iterdir() if means == "flock" or not p.name.startswith(".")]


def test_one_writer_or_many_readers(tmp_path, means):
    rng = random.Random(4)
    path, held = tmp_path / "net", []
    for _ in range(300 if means == "flock" else 60):
        shared = rng.random() < 0.6
        if held and rng.random() < 0.5:
            held.pop(rng.randrange(len(held))).close()
        elif held and not (shared and held[0].shared):
            with pytest.raises(BlockingIOError, match=r"net: busy"):
                Lock(path, "busy", shared=shared)
        else:
            held.append(Lock(path, "busy", shared=shared))
        assert left(tmp_path, means) == [".net.lock"] * (bool(held) and means == "flock")
    for lock in held:
        lock.close()
        lock.close()  # of no effect
    assert left(tmp_path, means) == []


def test_of_many_threads_one_at_a_time_has_it(tmp_path, means):
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
    assert left(tmp_path, means) == []


HOLD = """
import sys, time
from pathlib import Path
from fastconv import locks
if sys.argv[3] == "filelock":
    locks.fcntl = None
lock = locks.Lock(Path(sys.argv[1]), "busy", shared=sys.argv[2] == "shared")
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("kind", ["shared", "own"])
def test_it_goes_with_its_process(tmp_path, kind, means):
    path = tmp_path / "net"
    command = [sys.executable, "-c", HOLD, str(path), kind, means]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            Lock(path, "busy")
        process.kill()
        process.wait()
        Lock(path, "busy").close()
    assert left(tmp_path, means) == []


def test_a_link_is_followed(tmp_path, means):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "net").write_text("")
    (tmp_path / "link").symlink_to("a/net")
    for one, other in itertools.permutations([tmp_path / "link", tmp_path / "a" / "net"]):
        with Lock(one, "busy"), pytest.raises(BlockingIOError):
            Lock(other, "busy")


def test_a_look_writes_nothing_and_sees_who_holds_it(tmp_path, means):
    path = tmp_path / "file"
    path.write_text("as it was")
    assert not locks.taken(path)
    for _ in range(2):
        with locks.Held(path, "in use", os.O_RDWR | os.O_APPEND) as held:
            before = sorted(tmp_path.iterdir())
            assert locks.taken(path)
            with pytest.raises(BlockingIOError, match=r"^in use$"):
                locks.Held(path, "in use")
            assert path.read_text() == "as it was"  # others read on
            os.write(held.file, b"")
            assert sorted(tmp_path.iterdir()) == before
        assert not locks.taken(path)
    assert left(tmp_path, means) == ["file"]
    for missing in (tmp_path / "none", tmp_path / "none" / "net"):
        with pytest.raises(FileNotFoundError):
            locks.taken(missing)
        with pytest.raises(FileNotFoundError):
            locks.Held(missing, "in use")


def test_a_folder_is_held(tmp_path, means):
    with locks.Held(tmp_path, "in use"), pytest.raises(BlockingIOError, match=r"^in use$"):
        locks.Held(tmp_path, "in use")
    locks.Held(tmp_path, "in use").close()
    assert left(tmp_path, means) == []


def test_who_waits_gets_it(tmp_path, means):
    first = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert locks.take(first)
    second = os.open(tmp_path / "file", os.O_RDWR)
    assert not locks.take(second)
    timer = threading.Timer(0.2, os.close, (first,))
    timer.start()
    assert locks.take(second, wait=True)
    timer.join()
    os.close(second)


def test_a_folder_that_is_not_there_has_no_lock(tmp_path, means):
    with pytest.raises(OSError, match="none/net"):
        Lock(tmp_path / "none" / "net", "busy")
    Lock(tmp_path / "none" / "net", "busy", shared=True).close()  # who only reads finds out there


def test_a_run_that_goes_on_is_seen(tmp_path, means, monkeypatch):
    if means == "filelock":  # as on Windows, where nothing is moved that is open
        monkeypatch.setattr("fastconv.train.writer._MOVES_OPEN", False)
    (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        folder = tmp_path / name
        with RunWriter.start(folder, {"lr": 0.1}) as run:
            assert is_running(folder)
            run.write({"kind": "epoch", "epoch": 1, "loss": 0.5})
            with pytest.raises(BlockingIOError, match=f"{name}: another process is at this run"):
                RunWriter.resume(folder, 0, [])
            run.finish({"status": "finished"})
        assert not is_running(folder)
        assert read_record(folder).history["loss"] == [0.5]
        assert sorted(left(folder, means)) == ["config.json", "env.json", "metrics.jsonl", "result.json"]
