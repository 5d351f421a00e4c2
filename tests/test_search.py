"""Hyperparameter search: spaces, the same trials by whatever worker, kills, interruptions, resuming, cut-offs."""

import io
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import objectives
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import config, nn, serialize
from fastconv.cli import main

pytest.importorskip("optuna", reason="fastconv[search] is not installed")

from fastconv.search import Attempt, Choice, Cut, Range, SearchResult, Training, make_space, parse
from fastconv.search import search as search_aloud
from fastconv.search.crew import share_threads
from fastconv.search.plan import share_out, spread
from fastconv.search.samplers import random_point
from fastconv.search.space import at_edge, grid_point, grid_shape, narrow
from fastconv.train.run import find_runs, load_run, read_record
from fastconv.train.setup import fill

XY = {"x": "1e-4:1", "y": "1e-3:1e3"}


def search(*args, **options):
    return search_aloud(*args, **{"progress": False, **options})


def points(found):
    return {row["number"]: (row["params"], row["value"]) for row in found.trials}


@pytest.fixture
def notes(tmp_path, monkeypatch):
    """A folder in which objectives leave a file for every try."""
    folder = tmp_path / "notes"
    folder.mkdir()
    monkeypatch.setenv("NOTES", str(folder))
    return lambda: sorted(int(path.name.split("-")[0]) for path in folder.iterdir() if path.name != "killed")


@pytest.fixture
def run():
    def invoke(*args):
        with config.threads(config.threads()):
            return CliRunner().invoke(main, ["search", *(str(arg) for arg in args)])

    return invoke


# ---- spaces


def test_texts_are_read():
    assert parse("1e-7:1e-3") == Range(1e-7, 1e-3)
    assert parse("0.5:0.99:linear") == Range(0.5, 0.99, log=False)
    assert parse("1:2:log") == Range(1.0, 2.0)
    assert parse("16,32, 64") == Choice((16, 32, 64))
    assert parse("0.9") == Choice((0.9,))
    assert parse("he,xavier") == Choice(("he", "xavier"))
    assert make_space({"a": 3, "b": [1, 2], "c": "1:2", "d": Range(0, 1, False), "e": None}).keys() == set("abcde")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1e-3:1e-7", "range 0.001:1e-07: the lower end must come first"),
        ("1:1", "must come first"),
        ("0:1", "a logarithmic one needs ends above 0; a plain one is written 0:1:linear"),
        ("-1:1", "needs ends above 0"),
        ("1e-3:oops", "'1e-3:oops' is no range: LOW and HIGH must be numbers"),
        ("1:", "LOW and HIGH must be numbers"),
        (":", "LOW and HIGH must be numbers"),
        ("1:2:cubic", "write LOW:HIGH"),
        ("1:2:log:3", "write LOW:HIGH"),
        ("1:inf", "both ends must be finite"),
        ("nan:1", "both ends must be finite"),
        ("", "a value is missing"),
        ("1,,2", "a value is missing"),
        ("1,1", "a value occurs twice"),
        ("inf", "'inf' is not a finite number"),
    ],
)
def test_bad_texts_say_why(text, message):
    with pytest.raises(ValueError, match=message.replace("(", "\\(")):
        make_space({"lr": text})


def test_bad_spaces_say_why():
    with pytest.raises(ValueError, match="space is empty"):
        make_space({})
    with pytest.raises(ValueError, match="list of values must not be empty"):
        make_space({"lr": []})
    with pytest.raises(TypeError, match=r"lr: takes a text such as .* got \{\}"):
        make_space({"lr": {}})


@given(st.floats(-150, 150), st.floats(0.01, 150), st.floats(0, 1), st.booleans())
def test_values_of_a_range_lie_in_it(exponent, decades, share, log):
    low, high = 10.0**exponent, 10.0 ** (exponent + decades)
    d = Range(low, high, log)
    value = d.value(share)
    assert low <= value <= high
    assert math.isclose(d.share(value), share, rel_tol=1e-6, abs_tol=1e-6)


def test_random_points_are_a_pure_function_of_seed_and_number():
    space = make_space({**XY, "z": "a,b,c", "m": "0:1:linear"})
    known = random_point(space, 3, 5)
    assert known == random_point(space, 3, 5)
    assert known != random_point(space, 3, 6)
    assert known != random_point(space, 4, 5)
    # a dimension does not depend on the others
    assert random_point(make_space({"y": "1e-3:1e3"}), 3, 5)["y"] == known["y"]
    assert random_point(make_space({"x": "1e-4:1"}), 7, 1) == {"x": 0.00050941048125}


def test_random_points_are_uniform_in_the_logarithm():
    space = make_space({"x": "1e-4:1", "z": "a,b,c,d"})
    drawn = [random_point(space, 0, n) for n in range(2000)]
    shares = np.sort([space["x"].share(p["x"]) for p in drawn])
    # Kolmogorov-Smirnov: 1.95 / sqrt(n) is exceeded once in a thousand seeds
    assert np.abs(shares - (np.arange(2000) + 0.5) / 2000).max() < 1.95 / math.sqrt(2000)
    counts = [sum(p["z"] == z for p in drawn) for z in "abcd"]
    assert sum((count - 500) ** 2 / 500 for count in counts) < 16.3


def test_grids_take_what_fits():
    space = make_space(XY)
    assert grid_shape(space, 100) == {"x": 10, "y": 10}
    assert grid_shape(space, 50) == {"x": 7, "y": 7}
    assert grid_shape(space, 57) == {"x": 8, "y": 7}
    listed = make_space({"x": "1e-4:1", "b": [16, 32], "m": 0.9})
    shape = grid_shape(listed, 10)
    assert shape == {"x": 5, "b": 2, "m": 1}
    found = [grid_point(listed, shape, n) for n in range(10)]
    assert len({tuple(p.values()) for p in found}) == 10
    assert {p["x"] for p in found} == {1e-4, 1e-3, 1e-2, 1e-1, 1.0}
    with pytest.raises(ValueError, match="at least 4 points, more than the 3 trials"):
        grid_shape(space, 3)


@settings(max_examples=50)
@given(st.integers(1, 4), st.integers(0, 3), st.integers(16, 300))
def test_grids_never_exceed_the_trials(ranges, lists, trials):
    given_space = {f"r{i}": "1:10" for i in range(ranges)} | {f"c{i}": [1, 2] for i in range(lists)}
    space = make_space(given_space)
    if 2 ** (ranges + lists) > trials:
        return
    shape = grid_shape(space, trials)
    assert math.prod(shape.values()) <= trials
    assert math.prod(shape.values()) * 2 > trials or ranges > 1
    assert min(shape.values()) >= 2


def test_narrowing_keeps_what_does_not_matter_wide():
    space = make_space({"x": "1e-4:1", "y": "1e-4:1", "b": [16, 32, 64]})
    small = narrow(
        space, [{"x": 1e-2, "y": 1e-4, "b": 32}, {"x": 2e-2, "y": 1.0, "b": 64}, {"x": 1e-2, "y": 0.1, "b": 32}]
    )
    assert small["y"] == space["y"]
    assert math.isclose(small["x"].low, 1e-2 / 10**0.4, rel_tol=1e-9)
    assert math.isclose(small["x"].high, 2e-2 * 10**0.4, rel_tol=1e-9)
    assert small["b"] == Choice((32, 64))
    assert narrow(space, [{"x": 1e-4, "y": 1.0, "b": 16}])["x"].low == 1e-4


def test_the_edge_of_a_range_is_told():
    space = make_space({"x": "1e-4:1", "b": [1, 2]})
    assert at_edge(space, {"x": 0.01, "b": 1}) == []
    (low,) = at_edge(space, {"x": 1.2e-4, "b": 1})
    assert low == (
        "the best x, 0.00012, lies at the lower edge of 0.0001:1: "
        "a better one may lie beyond; widen the range, as far as 1e-06"
    )
    (high,) = at_edge(space, {"x": 0.9, "b": 1})
    assert "upper edge" in high
    assert "as far as 100" in high
    (fine,) = at_edge(make_space({"x": "1e-3:1e-2"}), {"x": 0.0099}, space)
    assert fine == (
        "the best x, 0.0099, lies at the upper edge of 0.001:0.01: "
        "the stage before may have narrowed too far, and more trials would help it"
    )
    (end,) = at_edge(make_space({"x": "1e-2:1"}), {"x": 0.99}, space)
    assert "as far as 100" in end


@given(st.integers(2, 9), st.data())
def test_an_edge_is_warned_of_where_trials_as_good_as_the_best_lie(count, data):
    """Whichever of equal trials is the best: by its loss, or by its number. Those at both ends say nothing."""
    from fastconv.search.plan import Plan
    from fastconv.search.result import summary

    space = make_space({"x": "1e-4:1"})
    places = st.sampled_from([1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    rows = [
        {"number": n + 1, "stage": 1, "status": "finished", "params": {"x": data.draw(places)},
         "value": data.draw(st.sampled_from([0.5, 0.9])), "validation_loss": data.draw(st.sampled_from([0.1, 0.2]))}
        for n in range(count)
    ]  # fmt: skip
    plan = Plan({}, space, (count,), (None,), "random", "none", "maximize", 0)
    found = summary(plan, [(space, rows)], False)
    top = max(row["value"] for row in rows)
    tied = [row for row in rows if row["value"] == top]
    least = min(row["validation_loss"] for row in tied)
    alike = [row for row in tied if row["validation_loss"] == least]
    assert found.best == alike[0]
    ends = [{row["params"]["x"] for row in some} & {1e-4, 1.0} for some in (alike, tied)]
    deciding = ends[0] or ends[1]
    if len(deciding) != 1:
        assert found.warnings == []
    else:
        (end,) = deciding
        (warning,) = found.warnings
        side = "upper" if end == 1.0 else "lower"
        assert f"lies at the {side} edge of 0.0001:1: a better one may lie beyond" in warning
        assert warning.startswith("the best x, " if found.best["params"]["x"] == end else f"x {end:.3g}, as good as")


def test_trials_and_budgets_by_stage():
    assert share_out(10, 3) == (4, 3, 3)
    assert share_out((5, 2), 2) == (5, 2)
    assert spread(16, 3) == (1, 4, 16)
    assert spread((2, 8), 2) == (2, 8)
    for trials, stages, message in ((1, 2, "too few"), ((1, 2), 3, "3 stages but 2"), (1, 0, "at least 1")):
        with pytest.raises(ValueError, match=message):
            share_out(trials, stages)


@given(st.integers(1, 64), st.integers(1, 32))
def test_threads_are_shared_out(threads, workers):
    shares = share_threads(threads, workers)
    assert len(shares) == workers
    assert min(shares) >= 1
    assert sum(shares) == max(threads, workers)
    assert max(shares) - min(shares) <= 1


# ---- searching by one process


def test_it_finds_the_minimum_from_coarse_to_fine():
    found = search(objectives.bowl, XY, trials=40, stages=2, direction="minimize")
    assert isinstance(found, SearchResult)
    assert [row["number"] for row in found.trials] == list(range(1, 41))
    assert [stage["trials"] for stage in found.stages] == [20, 20]
    assert found.best["stage"] == 2
    assert found.best["value"] == min(row["value"] for row in found.trials) < 2e-3
    wide, fine = (parse(stage["space"]["x"]) for stage in found.stages)
    assert wide.low < fine.low < 0.01 < fine.high < wide.high
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_same_seed_gives_the_same_trials():
    for sampler in ("random", "grid", "tpe"):
        first, second = (search(objectives.bowl, XY, trials=16, sampler=sampler, seed=5) for _ in range(2))
        assert points(first) == points(second)
        other = search(objectives.bowl, XY, trials=16, sampler=sampler, seed=6)
        assert (points(first) == points(other)) == (sampler == "grid")


def test_grid_search_makes_the_trials_that_fit():
    found = search(objectives.bowl, XY, trials=10, sampler="grid")
    assert found.asked == len(found.trials) == 9
    assert len({tuple(row["params"].values()) for row in found.trials}) == 9


def test_tpe_learns():
    found = search(objectives.bowl, XY, trials=40, sampler="tpe", direction="minimize")
    late = np.median([row["value"] for row in found.trials[25:]])
    assert late < np.median([row["value"] for row in found.trials[:10]])


def test_equal_values_are_told_apart_by_loss():
    def objective(attempt):
        attempt.facts["validation_loss"] = attempt["x"]
        return 1.0

    found = search(objective, {"x": [0.3, 0.1, 0.2]}, sampler="grid", trials=3)
    assert found.best["params"] == {"x": 0.1}


def test_trials_that_end_early_are_kept_apart():
    def objective(attempt):
        if attempt["x"] == 1:
            raise Cut("enough")
        if attempt["x"] == 2:
            return math.nan
        if attempt["x"] == 3:
            raise FloatingPointError("overflow")
        if attempt["x"] == 4:
            raise MemoryError("3 GiB")
        return 0.5

    found = search(objective, {"x": [1, 2, 3, 4, 5]}, sampler="grid", trials=5)
    told = [(row["status"], row["reason"], row["value"]) for row in found.trials]
    assert told == [
        ("cut", "enough", None),
        ("diverged", "its value is nan", None),
        ("diverged", "overflow", None),
        ("failed", "out of memory: 3 GiB", None),
        ("finished", None, 0.5),
    ]
    nothing = search(objective, {"x": [1, 2]}, sampler="grid", trials=4, stages=2)
    assert (nothing.best, len(nothing.trials)) == (None, 2)


def test_pruners_give_up_bad_trials():
    def objective(attempt):
        for step in range(20):
            attempt.report(attempt["x"], step)
        return attempt["x"]

    for pruner in ("median", "halving"):
        found = search(objective, {"x": "1:10"}, trials=40, pruner=pruner)
        cut = [row for row in found.trials if row["status"] == "cut"]
        assert 5 < len(cut) < 40
        assert "given up by the pruner at step" in cut[0]["reason"]
        assert found.best["value"] == max(row["params"]["x"] for row in found.trials)
    assert not [row for row in search(objective, {"x": "1:10"}, trials=20).trials if row["status"] == "cut"]


def test_an_error_of_the_objective_comes_out_and_the_trial_waits(tmp_path):
    where = f"journal:{tmp_path / 'j'}"
    options = dict(trials=4, storage=where)
    with pytest.raises(KeyError, match="no such column"):
        search(objectives.mistaken, {"x": "1:2"}, **options)
    with pytest.raises(RuntimeError, match=r"trial 2: KeyError: 'no such column' \(objectives.py, line \d+\)"):
        search(objectives.mistaken, {"x": "1:2"}, workers=2, **options)


def test_bad_arguments_say_why():
    for options, message in (
        ({"sampler": "nope"}, "unknown sampler 'nope'; known are random, grid, tpe"),
        ({"pruner": "nope"}, "unknown pruner 'nope'"),
        ({"direction": "up"}, "unknown direction 'up'"),
        ({"trials": 0}, "too few"),
        ({"trials": (0,)}, "at least 1 trial"),
        ({"budgets": 0}, "budget must be at least 1"),
        ({"stages": 2, "budgets": (1, 2, 3)}, "2 stages but 3 budgets"),
        ({"seed": -1}, "seed must be"),
        ({"workers": 0}, "workers must be at least 1"),
        ({"workers": 2}, "several workers need an objective that is a function of a module"),
        ({"storage": "nowhere"}, "storage 'nowhere' is unknown: write journal:PATH"),
        ({"storage": "journal:"}, "lacks the path"),
        ({"resume": True}, "name the storage or the folder"),
    ):
        with pytest.raises(ValueError, match=message):
            search(lambda attempt: 1.0, {"x": "1:2"}, **options)
    with pytest.raises(ValueError, match="nothing to search in a second stage"):
        search(lambda attempt: 1.0, {"x": "1"}, stages=2)


# ---- storages, several workers, kills


@pytest.mark.parametrize(("kind", "stages"), [("journal:{}/j", 2), ("sqlite:///{}/db", 1)])
def test_several_workers_make_exactly_the_trials_asked_for(tmp_path, notes, kind, stages):
    options = dict(trials=12 * stages, stages=stages, direction="minimize")
    found = search(objectives.noted, XY, workers=3, storage=kind.format(tmp_path), **options)
    assert notes() == list(range(1, 12 * stages + 1))
    assert points(found) == points(search(objectives.bowl, XY, **options))


def test_two_parties_on_one_journal_share_the_trials(tmp_path, notes):
    where = f"journal:{tmp_path / 'j'}"
    results = []

    def party(workers):
        options = dict(trials=30, stages=2, workers=workers, storage=where, direction="minimize")
        results.append(search(objectives.noted, XY, **options))

    parties = [threading.Thread(target=party, args=(workers,)) for workers in (1, 2)]
    for thread in parties:
        thread.start()
    for thread in parties:
        thread.join()
    assert notes() == list(range(1, 31))
    assert points(results[0]) == points(results[1])
    assert len(results[0].trials) == 30
    assert results[0].best == results[1].best


def test_a_killed_worker_loses_nothing_but_its_try(tmp_path, notes):
    found = search(objectives.killed_once, XY, trials=8, workers=2, storage=f"journal:{tmp_path / 'j'}")
    assert notes() == list(range(1, 9))
    assert [row["status"] for row in found.trials] == ["finished"] * 8
    assert points(found) == points(search(objectives.bowl, XY, trials=8))


def test_a_trial_that_kills_its_worker_twice_has_failed(tmp_path):
    found = search(objectives.always_killed, XY, trials=4, workers=1 + 1, storage=f"journal:{tmp_path / 'j'}")
    assert [row["status"] for row in found.trials] == ["finished", "failed", "finished", "finished"]
    assert found.trials[1]["reason"] == "its worker died (exit code -9), 2 times"


def test_a_killed_search_is_gone_on_with(tmp_path):
    """The whole process dies in a trial, again and again: the next one finds that out and repeats the trial."""
    where = f"journal:{tmp_path / 'j'}"
    code = f"""
import os, objectives
from fastconv.search import search
def objective(attempt):
    if attempt.number == 4:
        os._exit(9)
    return objectives.bowl(attempt)
search(objective, {XY!r}, trials=8, storage={where!r})
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL).returncode == 9

    def objective(attempt):
        return objectives.bowl(attempt)

    objective.__qualname__ = "objective"
    found = search(objective, XY, trials=8, storage=where, resume=True)
    assert points(found) == points(search(objectives.bowl, XY, trials=8))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["worker", "searcher", "silence"]), max_size=8))
def test_only_a_worker_that_dies_while_its_searcher_lives_counts(deaths):
    from fastconv.search import ledger as ledgers
    from fastconv.search.plan import Plan
    from fastconv.search.storage import open_storage, quiet

    plan = Plan({}, make_space(XY), (1,), (None,), "random", "none", "maximize", 0)
    storage, alive = open_storage(None), set()
    with quiet(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledgers, "_alive", lambda pid: pid in alive)
        mine = ledgers.Ledger(storage, "search", plan, plan.space, 0)
        mine.open({})
        for number, death in enumerate(deaths):
            searcher = 10**9 + number
            worker = ledgers.Ledger(storage, "search", plan, plan.space, 0, searcher)
            if worker.take() is None:
                break
            alive = {searcher}
            mine.put_back_lost()
            assert mine.waiting() == 0  # its searcher lives and will see to it
            if death == "worker":
                assert mine.put_back_of(os.getpid(), "its worker died (exit code -9)")
            elif death == "searcher":
                alive = set()
                mine.put_back_lost()
            else:
                mine._beats[0] = (mine._beats[0][0], time.monotonic() - 61)
                mine.put_back_lost()
        failed = deaths.count("worker") >= 2
        assert mine.done() == failed
        assert mine.waiting() == (not failed)
        assert [row["reason"] for row in mine.rows()] == ["its worker died (exit code -9), 2 times"] * failed


def test_a_trial_of_another_machine_that_gives_no_sign_of_life_is_put_back(tmp_path, monkeypatch):
    from fastconv.search import ledger as ledgers
    from fastconv.search.plan import Plan
    from fastconv.search.storage import open_storage, quiet

    plan = Plan({}, make_space(XY), (2,), (None,), "random", "none", "maximize", 0)
    there, here = (
        ledgers.Ledger(open_storage(f"journal:{tmp_path / 'j'}"), "search", plan, plan.space, 0) for _ in range(2)
    )
    with quiet():
        there.open({})
        here.open({})
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(ledgers.platform, "node", lambda: "elsewhere")
        lost = there.take()
    here.put_back_lost()
    assert here.waiting() == 1  # it may live: there has been no time to see
    here._beats[0] = (here._beats[0][0], time.monotonic() - 61)
    there.beat(lost._trial_id, 1)
    here.put_back_lost()
    assert here.waiting() == 1  # it lives
    here._beats[0] = (here._beats[0][0], time.monotonic() - 61)
    here.put_back_lost()
    assert here.waiting() == 2
    again = here.take()
    assert (again.number, again.params) == (lost.number, lost.params)
    here.finish(again, "finished", 1.0, {})
    there.finish(lost, "finished", 2.0, {})  # too late, and of no effect
    assert [row["value"] for row in here.rows()] == [1.0]


def test_another_search_in_the_storage_is_refused(tmp_path):
    where = f"journal:{tmp_path / 'j'}"
    search(objectives.bowl, XY, trials=4, storage=where)
    for changed, message in (
        (dict(space={**XY, "x": "1e-3:1"}), "space x is 0.0001:1 there, 0.001:1 here"),
        (dict(space={"x": "1e-4:1"}), "space y is 0.001:1000 there, missing here"),
        (dict(trials=5), "trials is 4 there, 5 here"),
        (dict(seed=1), "seed is 0 there, 1 here"),
        (dict(sampler="tpe"), "sampler is random there, tpe here"),
    ):
        with pytest.raises(ValueError, match=f"another search named 'search': {message}"):
            search(objectives.bowl, **{"space": XY, "trials": 4, "storage": where, **changed})
    again = search(objectives.bowl, XY, trials=4, storage=where)  # the same: nothing is left to do
    assert len(again.trials) == 4
    other = search(objectives.bowl, XY, trials=5, storage=where, name="other")
    assert len(other.trials) == 5


def test_storages_that_cannot_be_used_say_why(tmp_path):
    (tmp_path / "text").write_text("hello\nworld\n")
    (tmp_path / "json").write_text('{"a": 1}\n[]\n')
    for where, error, message in (
        (f"journal:{tmp_path}/no/j", OSError, "No such file or directory"),
        (f"journal:{tmp_path}", OSError, "Is a directory"),
        (f"journal:{tmp_path}/text/j", OSError, "Not a directory"),
        (f"journal:{tmp_path}/text", ValueError, "damaged or no journal"),
        (f"journal:{tmp_path}/json", ValueError, "damaged or no journal"),
        (f"sqlite:///{tmp_path}/no/db", ValueError, "cannot be used"),
        (f"sqlite:///{tmp_path}/text", ValueError, "cannot be used"),
        ("nosuch://user:secret@host/db", ValueError, "nosuch://user:\\*\\*\\*@host/db cannot be used"),
    ):
        with pytest.raises(error, match=message) as caught:
            search(objectives.bowl, XY, trials=2, storage=where)
        assert "secret" not in str(caught.value)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError, match=r"journal:.*pipe cannot be used: not a regular file"):
            search(objectives.bowl, XY, trials=2, storage=f"journal:{tmp_path}/pipe")
    with pytest.raises(FileNotFoundError, match="no search named 'search'"):
        search(objectives.bowl, XY, storage=f"journal:{tmp_path}/new", resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileExistsError, match="not an empty folder"):
        search(objectives.bowl, XY, out=tmp_path / "full")
    with pytest.raises(FileNotFoundError, match="holds no search"):
        search(objectives.bowl, XY, out=tmp_path / "full", resume=True)


def test_ctrl_c_keeps_what_was_done(tmp_path):
    calls = []

    def objective(attempt):
        calls.append(attempt.number)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return objectives.bowl(attempt)

    for sampler in ("random", "tpe"):
        calls.clear()
        options = dict(trials=12, stages=2, out=tmp_path / sampler, sampler=sampler, seed=2)
        first = search(objective, XY, **options)
        assert first.interrupted
        assert len(first.trials) == 4
        second = search(objective, XY, resume=True, **options)
        assert not second.interrupted
        assert calls == [1, 2, 3, 4, 5, *range(5, 13)]
        whole = search(objectives.bowl, XY, trials=12, stages=2, sampler=sampler, seed=2)
        assert points(second) == points(whole)


# ---- training


def test_trials_train_and_keep_their_runs(tmp_path):
    options = fill("digits", model="linear", batch_size=16, augment=False)
    found = search(options, {"lr": "1e-3:1e-1", "l2": [0.0, 0.1]}, trials=4, budgets=2, out=tmp_path / "out")
    assert [path.name for path in find_runs(tmp_path / "out")] == [f"trial-000{n}" for n in range(1, 5)]
    record = read_record(tmp_path / "out" / "trial-0002")
    row = found.trials[1]
    assert record.status == "finished"
    assert len(record.history) == 2
    assert max(record.history["validation_accuracy"]) == row["value"] == record.result["validation_accuracy"]
    assert record.config["options"] == {**record.config["options"], **row["params"], "epochs": 2}
    assert record.config["search"] == {"trial": 2, "stage": 1, "budget": 2, "unit": "epochs"}
    assert load_run(tmp_path / "out" / "trial-0002").model is not None


def test_a_search_begins_with_the_weights_and_the_normalisation_that_options_name(tmp_path):
    """A rate of next to nothing leaves them."""
    source = tmp_path / "weights.safetensors"
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    model[1].bias.data[...] = range(1, 11)  # what no seed draws, and no zero, which any step would move
    before = model.state_dict()
    serialize.save(model, source)
    options = fill("digits", model="linear", pretrained=source, normalize="zero-to-one", epochs=1)
    search(options, {"lr": 1e-30}, trials=1, out=tmp_path / "out")
    run = load_run(tmp_path / "out" / "trial-0001")
    assert all(np.array_equal(a, before[name]) for name, a in run.model.state_dict().items())
    scale = read_record(tmp_path / "out" / "trial-0001").config["standardizer"]
    assert scale == {"mean": [[[0.0]]], "deviation": [[[16.0]]]}
    with pytest.raises(ValueError, match="lenet5 needs images of at least 28×28"):
        search(fill("digits", model="lenet5"), {"lr": 0.1}, trials=1, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_trials_give_what_training_alone_gives():
    from fastconv.train.setup import prepare

    options = fill("digits", model="linear", batch_size=16, lr=0.02, epochs=3)
    found = search(options, {"lr": 0.02}, trials=1, budgets=3)
    setup = prepare(options, progress=False)
    setup.trainer.fit(setup.train, setup.validation, epochs=3)
    assert found.best["value"] == max(setup.trainer.history["validation_accuracy"])


def test_exploding_trials_are_cut_off(tmp_path):
    training = Training(fill("digits", model="linear", batch_size=1, augment=False, momentum=0.0), "steps")
    space = {"lr": [1e-3, 3.0, 1e6]}
    found = search(training, space, sampler="grid", trials=3, budgets=400, out=tmp_path / "out")
    good, cut, lost = found.trials
    assert good["status"] == "finished"
    assert good["steps"] == 400
    assert cut["status"] == "cut"
    assert "over 3 × the original" in cut["reason"]
    assert cut["steps"] < 400
    assert lost["status"] in ("cut", "diverged")
    assert lost["value"] is None
    assert [read_record(path).status for path in find_runs(tmp_path / "out")][:2] == ["finished", "stopped"]


def test_budgets_in_steps_go_through_epochs():
    training = Training(fill("digits", model="linear", batch_size=64, validation=0.5), "steps", checks=4)
    assert training.options.validation == 0.5
    found = search(training, {"lr": 0.01}, trials=1, budgets=30)  # an epoch has 12 batches
    assert found.best["steps"] == 30


def test_what_cannot_be_trained_says_why():
    options = fill("digits")
    for space, message in (
        ({"epochs": [1, 2]}, "unknown hyperparameter 'epochs'; known are lr, l2"),
        ({"lr": "0:1:linear"}, "lr: takes numbers above 0, or LOW:HIGH"),
        ({"lr": "he"}, "lr: takes numbers above 0, or LOW:HIGH"),
        ({"l2": "-1:1:linear"}, "l2: takes numbers of at least 0, or LOW:HIGH"),
        ({"batch_size": "16:64"}, "batch_size: takes a list such as 16,32,64, not a range"),
        ({"batch_size": "16,0"}, "batch_size: takes whole numbers of at least 1"),
        ({"batch_size": "16,20.5"}, "batch_size: takes whole numbers"),
        ({"init": "nope"}, "unknown initialisation 'nope'"),
    ):
        with pytest.raises(ValueError, match=message):
            search(options, space, trials=2)
    with pytest.raises(ValueError, match="adam has no momentum"):
        search(fill("digits", optimizer="adam"), {"momentum": [0.5, 0.9]}, trials=2)
    with pytest.raises(ValueError, match="validation must be above 0"):
        Training(fill("digits", validation=0.0))
    with pytest.raises(ValueError, match="unit must be"):
        Training(options, "weeks")


def test_attempts_show_themselves():
    attempt = Attempt(3, 1, {"lr": 0.1}, None, None, lambda value, step: False)
    assert attempt["lr"] == 0.1
    assert repr(attempt) == "Attempt(3, {'lr': 0.1})"
    attempt.report(0.5, 1)


# ---- the command

SMALL = ("--model", "linear", "--batch-size", "32", "--epochs", "1")


def test_the_command_shows_a_table_and_json(run, tmp_path):
    done = run(*SMALL, "--lr", "1e-3:1", "--l2", "1e-6:1", "--trials", 4, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    result = json.loads(line)
    assert result.keys() >= {"best_params", "best_value", "trials", "stages", "warnings"}
    assert result["best_params"].keys() == {"lr", "l2", "batch_size"}
    assert "stage 1: 4 trials of 1 epoch: lr 0.001:1, l2 1e-06:1" in done.stderr
    assert "Try 4/4  val accuracy " in done.stderr
    assert len(find_runs(tmp_path / "out")) == 4
    again = run(*SMALL, "--lr", "1e-3:1", "--l2", "1e-6:1", "--trials", 4, "--json")
    assert json.loads(again.stdout.splitlines()[-1])["best_params"] == result["best_params"]


def test_a_best_value_at_the_edge_is_warned_of(run):
    done = run(*SMALL, "--lr", "1e-6:1e-4", "--sampler", "grid", "--trials", 3)
    assert done.exit_code == 0
    assert "warning        the best lr, 0.0001, lies at the upper edge of 1e-06:0.0001" in done.output


def test_nothing_finished_is_exit_code_3(run):
    done = run(*SMALL, "--lr", "1e6:1e8", "--trials", 2)
    assert done.exit_code == 3
    assert "of 2 of 2 trials not one finished" in done.output


def test_a_search_that_is_interrupted_before_its_first_trial_gives_no_advice():
    from pathlib import Path

    from fastconv.cli.search import _closing

    said = _closing(SearchResult([], None, [], [], 60, True, signal.SIGINT), Path("tries"), None)
    assert said.strip() == "interrupted    after 0 of 60 trials; go on with: fastconv search --out tries --resume"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr", "1e-3:1e-7"], "lr: range 0.001:1e-07: the lower end must come first"),
        (["--lr", "0:1"], "needs ends above 0"),
        (["--lr", "fast"], "lr: takes numbers above 0, or LOW:HIGH"),
        (["--lr", "nan"], "'nan' is not a finite number"),
        (["--batch-size", "1:9"], "takes a list"),
        (["--dataset", "nope"], "unknown data set 'nope'"),
        (["--model", "nope"], "unknown model 'nope'"),
        (["--sampler", "nope"], "unknown sampler 'nope'; known are random, grid, tpe"),
        (["--pruner", "nope"], "unknown pruner 'nope'"),
        (["--trials", "0"], "'0' is no whole number of at least 1"),
        (["--trials", "4,x"], "'4,x' is no whole number"),
        (["--epochs", "1,2", "--trials", "1,2,3"], "numbers by stage differ in length: 2, 3"),
        (["--epochs", "1", "--steps", "2"], "give one of the two"),
        (["--stages", "0"], "--stages"),
        (["--workers", "0"], "--workers"),
        (["--cut-off", "1"], "--cut-off"),
        (["--storage", "journal:/no/such/folder/j"], "journal:/no/such/folder/j cannot be used: No such file"),
        (["--storage", "nope"], "storage 'nope' is unknown"),
        (["--resume"], "name the storage or the folder"),
        (["--resume", "--out", "/no/such/folder"], "/no/such/folder holds no search"),
        (["--resume", "--storage", "journal:/no/such/j"], "there is no /no/such/j"),
        (["--validation", "0"], "validation must be above 0"),
    ],
)
def test_wrong_usage_is_one_line_and_2(run, arguments, message):
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_resuming_takes_the_options_it_was_started_with(run, tmp_path):
    out = tmp_path / "out"
    assert run(*SMALL, "--lr", "1e-3:1", "--trials", 3, "--seed", 4, "--out", out).exit_code == 0
    done = run("--resume", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    assert "3 trials of 1 epoch (3 done before): lr 0.001:1" in done.stderr
    for changed, message in (
        (("--lr", "1e-4:1"), "space lr is 0.001:1 there, 0.0001:1 here"),
        (("--trials", 5), "trials is 3 there, 5 here"),
        (("--model", "mlp"), "options model is linear there, mlp here"),
    ):
        refused = run("--resume", "--out", out, *changed)
        assert refused.exit_code == 2
        assert message in refused.stderr
    again = run(*SMALL, "--lr", "1e-3:1", "--out", out)
    assert again.exit_code == 2
    assert "to go on with its search resume it" in again.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_command_is_resumed(tmp_path, workers):
    out = tmp_path / "out"
    asked = [*SMALL[:4], "--epochs", "4", "--lr", "1e-3:1", "--trials", "12", "--out", str(out)]
    command = [sys.executable, "-m", "fastconv", "search", "--json", "--workers", str(workers)]
    process = subprocess.Popen([*command, *asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("Try"):
            break
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert f"go on with: fastconv search --out {out} --resume" in stderr
    first = json.loads(stdout)
    assert first["interrupted"]
    assert 1 <= len(first["trials"]) < 12
    done = subprocess.run([*command, "--out", str(out), "--resume"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    second = json.loads(done.stdout)
    assert [row["number"] for row in second["trials"]] == list(range(1, 13))
    assert len(find_runs(out)) == 12
    assert {read_record(path).status for path in find_runs(out)} <= {"finished", "stopped"}
    kept = {row["number"]: row["value"] for row in first["trials"]}
    assert all(second["trials"][number - 1]["value"] == value for number, value in kept.items())


@pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")
@pytest.mark.parametrize("seed", range(4))
def test_signals_at_drawn_moments_leave_a_search_that_goes_on(tmp_path, seed):
    """Ctrl-C at a terminal, which goes to workers too, once or several times in a row; then SIGTERM."""
    draw, out = random.Random(seed), tmp_path / "out"
    trials = ["--lr", "1e-3:1", "--trials", "12"]
    command = [sys.executable, "-W", "ignore", "-m", "fastconv", "search", "--workers", str(1 + seed % 2)]
    arguments = [*SMALL, *trials, "--out", str(out)]
    for number in (signal.SIGINT, signal.SIGTERM):
        process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        process.stdout.readline()  # the stage has begun
        time.sleep(draw.uniform(0, 0.6))
        for _ in range(draw.choice([1, 2, 3]) if number == signal.SIGINT else 1):
            if process.poll() is None:
                os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
            time.sleep(draw.choice([0, 0.001, 0.01]))
        _, stderr = process.communicate(timeout=60)
        assert process.returncode in (0, 128 + number, -number), stderr  # -number: again, while it was ending
        assert "Traceback" not in stderr
        assert "ignored" not in stderr
        arguments = ["--out", str(out), "--resume"]
    done = subprocess.run([*command, *arguments, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["trials"]
    assert [row["status"] for row in found] == ["finished"] * 12
    space = make_space({"lr": "1e-3:1"})
    assert [row["params"]["lr"] for row in found] == [random_point(space, 0, n + 1)["lr"] for n in range(12)]


def test_a_request_to_end_is_answered_at_the_next_report():
    """One signal lets the objective come to a good moment; the trial waits again."""
    reached = []

    def objective(attempt):
        if attempt.number == 3:
            signal.raise_signal(signal.SIGTERM)
            reached.append("after the signal")
            attempt.report(1.0, 1)
            reached.append("after the report")
        return 1.0

    found = search(objective, {"x": "1:2"}, trials=5)
    assert reached == ["after the signal"]
    assert (found.interrupted, found.signal, len(found.trials)) == (True, signal.SIGTERM, 2)


def test_a_second_signal_inside_the_table_waits_for_its_end(monkeypatch):
    """A KeyboardInterrupt inside tqdm's lock leaves it with a RuntimeError of its own."""
    from fastconv.search.progress import Show

    line, after = Show.line, []

    def interrupted(self, text):
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        after.append(text)
        line(self, text)

    monkeypatch.setattr(Show, "line", interrupted)
    table = io.StringIO()
    found = search_aloud(objectives.bowl, XY, trials=5, file=table)
    assert found.interrupted
    assert len(after) == len(table.getvalue().splitlines()) == 1


def test_a_worker_that_cannot_begin_leaves_one_line(tmp_path):
    """Its objective is nowhere: said once, by the searcher, without a traceback."""
    code = f"""
import sys, types
from fastconv.search import WorkerError, search
gone = types.ModuleType("gone")
exec("def objective(attempt): return 1.0", gone.__dict__)
sys.modules["gone"] = gone
if __name__ == "__main__":
    try:
        search(gone.objective, {{"x": "1:2"}}, trials=4, workers=2, out={str(tmp_path / "out")!r}, progress=False)
    except WorkerError as error:
        sys.exit(f"WorkerError: {{error}}")
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("WorkerError: ModuleNotFoundError: No module named 'gone'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("workers", "fault"), [(1, "removed"), (2, "garbled")])
def test_a_database_that_fails_under_a_search_is_one_line(tmp_path, workers, fault):
    where, database = f"sqlite:///{tmp_path / 'db'}", tmp_path / "db"
    command = [sys.executable, "-W", "ignore", "-m", "fastconv", "search", "--storage", where, "--trials", "60"]
    process = subprocess.Popen(
        [*command, *SMALL, "--workers", str(workers)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("Try"):
            break
    if fault == "removed":
        database.unlink()
    else:
        with database.open("r+b") as file:
            file.write(b"x" * 5000)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 2, stderr
    assert len(stderr.splitlines()) == 1
    assert "the storage failed: " in stderr


def test_a_missing_optuna_says_what_to_install(tmp_path):
    (tmp_path / "optuna.py").write_text("raise ImportError('no optuna')")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-m", "fastconv", "search"], capture_output=True, text=True, env=env, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.strip() == "fastconv search: searching needs Optuna: pip install 'fastconv[search]'"


def test_it_shows_no_terminal_codes_in_a_file(run):
    started = time.perf_counter()
    done = run(*SMALL, "--trials", 2)
    assert "\x1b" not in done.output
    assert "\r" not in done.output
    assert time.perf_counter() - started < 60
