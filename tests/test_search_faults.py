"""Searches in a folder that others want, with journals cut anywhere, on a disk that gets full."""

import json
import os
import random
import shutil

import pytest

pytest.importorskip("optuna")

from test_deep_faults import disk, fill

from fastconv.locks import Held
from fastconv.search import search, stored
from fastconv.search.run import JOURNAL
from fastconv.train import RunWriter

SPACE = {"x": "1e-4:1"}


def value(attempt):
    return -abs(attempt["x"] - 0.01)


def alike(objective):
    """A search is gone on with by an objective of the same name."""
    objective.__qualname__ = value.__qualname__
    return objective


def run(out, objective=value, resume=False):
    options = {"trials": 6, "seed": 3, "progress": False, "command": {"a": 1}}
    return search(alike(objective), SPACE, out=out, resume=resume, **options)


def told(found):
    return [(t["number"], t["params"], t["value"], t["status"]) for t in found.trials]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return told(run(tmp_path_factory.mktemp("whole") / "s"))


def test_a_second_search_in_a_folder_is_refused(tmp_path, expected):
    pytest.importorskip("fcntl")
    seen = []

    def objective(attempt):
        for resume in (True, False):
            with pytest.raises((BlockingIOError, FileExistsError)) as error:
                run(tmp_path / "s", resume=resume)
            seen.append(str(error.value))
        return value(attempt)

    assert told(run(tmp_path / "s", objective)) == expected
    assert all("another process searches here; " in text for text in seen[::2])
    assert all("not an empty folder" in text for text in seen[1::2])
    with Held(tmp_path / "s", "busy"), pytest.raises(BlockingIOError):
        run(tmp_path / "s", resume=True)
    assert told(run(tmp_path / "s", resume=True)) == expected


def test_a_journal_that_was_cut_anywhere_is_gone_on_with(tmp_path, expected, monkeypatch):
    """As a kill in the middle of a line leaves it."""
    for wait in ("_UNNAMED", "_LAYING_OUT"):  # others may be at it still
        monkeypatch.setattr(f"fastconv.search.ledger.{wait}", 0.1)
    run(tmp_path / "s")
    journal, rng = tmp_path / "s" / JOURNAL, random.Random(5)
    whole = journal.read_bytes().replace(str(os.getpid()).encode(), b"999999999")  # who wrote it is gone
    began = whole.index(b'"command"')
    begun = whole.index(b"\n", began) + 1
    for length in [*rng.sample(range(begun), 10), *rng.sample(range(begun, len(whole)), 20)]:
        journal.write_bytes(whole[:length])
        if length < begun:  # no search yet: there is nothing to go on with, and nothing in the way of a new one
            with pytest.raises(FileNotFoundError, match="there is no search"):
                stored(None, tmp_path / "s")
            found = run(tmp_path / "s")
        else:
            assert stored(None, tmp_path / "s") == {"a": 1}
            found = run(tmp_path / "s", resume=True)
        assert told(found) == expected
        for line in journal.read_bytes().splitlines(keepends=True):
            assert line.endswith(b"\n")
            json.loads(line)


@pytest.mark.parametrize(("how", "message"), [
    ("removed", "removed while"), ("replaced", "replaced by another"), ("cut", "cut short while"),
])  # fmt: skip
def test_a_journal_that_goes_away_is_said(tmp_path, how, message):
    journal = tmp_path / "s" / JOURNAL

    def objective(attempt):
        if attempt.number == 3 and how == "cut":
            os.truncate(journal, 100)
        elif attempt.number == 3:
            content = journal.read_bytes()
            journal.rename(tmp_path / "away")
            if how == "replaced":
                journal.write_bytes(content)
        return value(attempt)

    with pytest.raises(OSError, match=message) as error:
        run(tmp_path / "s", objective)
    assert error.value.filename == str(journal)


def test_on_a_disk_that_gets_full_a_search_ends_and_goes_on_to_the_same_trials(tmp_path, expected):
    rng, refused = random.Random(6), 0
    with disk(tmp_path / "small") as small:
        for number in range(10):
            out, moment = small / f"s{number}", rng.randrange(1, 7)

            def objective(attempt, moment=moment):
                if attempt.number == moment:
                    fill(small / "filler", rng)
                attempt.folder.mkdir()
                (attempt.folder / "figures").write_bytes(bytes(5000))
                return value(attempt)

            try:
                found = run(out, objective)
            except OSError as error:
                refused += error.errno is not None
                (small / "filler").unlink()
                found = run(out, resume=True)
            assert told(found) == expected
            (small / "filler").unlink(missing_ok=True)
            shutil.rmtree(out)
    assert refused > 0


def test_a_trial_whose_run_is_written_still_is_run_without_a_folder(tmp_path, expected):
    """By a process that was taken for lost, and lives."""
    pytest.importorskip("fcntl")
    folders = []

    def objective(attempt):
        folders.append(attempt.folder)
        return value(attempt)

    out = tmp_path / "s"
    with pytest.raises(ZeroDivisionError):
        run(out, lambda attempt: 1 / 0)
    with RunWriter.start(out / "trial-0001", {}) as other:
        assert told(run(out, objective, resume=True)) == expected
        other.write({"kind": "event", "step": 1, "event": "alive", "text": ""})
    assert folders == [None, *(out / f"trial-{number:04}" for number in range(2, 7))]
