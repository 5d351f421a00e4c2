"""JSON of another form in every record of the package, drawn: taken as it is, or refused in one clear error."""

import copy
import json
import warnings

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import data, nn, optim, schema
from fastconv.cli import main
from fastconv.data import Dataset, Samples
from fastconv.deep import Paths, Record, create
from fastconv.train import (
    Checkpoint,
    ChillOut,
    RunWriter,
    StopOnExplosion,
    Trainer,
    load_latest,
    save_checkpoint,
    shapes,
)  # fmt: skip
from fastconv.train.checkpoint import checkpoints
from fastconv.train.run import trained
from fastconv.train.setup import Options, fill

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=4),
    st.sampled_from([[], {}, [[1]], [None], {"array": 2}, {"dict": []}, "4", -1, 10**30]),
)  # fmt: skip


def places(value, path=()):
    """Yield the paths to all that is in a value of dicts and lists."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in entries:
        yield (*path, key)
        yield from places(item, (*path, key))


def changed(value, path, odd):
    """Return a copy with another value in one place; None there deletes half of the time."""
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        if isinstance(inner[key], tuple):
            inner[key] = list(inner[key])
        inner = inner[key]
    inner[path[-1]] = odd
    return value


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A run with all that it may hold, and a sound one beside it."""
    root = tmp_path_factory.mktemp("runs")
    config = {
        "options": fill("digits", epochs=2).__dict__, "input_shape": [1, 8, 8], "classes": list("0123456789"),
        "levels": 16, "light_on_dark": True, "standardizer": {"mean": [[[5.0]]], "deviation": [[[6.0]]]},
        "observed": {"checkpoint_every": "5min", "tensorboard": False, "watch_every": 3},
    }  # fmt: skip
    for name in ("bad", "sound"):
        with RunWriter.start(root / name, config) as run:
            layers = {"1": {"layer": "ReLU", "mean": 0.4, "dead": 0.0}}
            run.write({"kind": "step", "step": 1, "loss": 2.3, "lr": 0.1, "update_ratio": {"w": 1e-3},
                       "grad_norm": {"w": 1.0}, "activations": layers})  # fmt: skip
            run.write({"kind": "epoch", "epoch": 1, "steps": 3, "loss": 2.0, "accuracy": 0.5, "validation_loss": 1.0,
                       "validation_accuracy": 0.6, "lr": 0.1, "seconds": 1.0, "step_ms": 2.0})  # fmt: skip
            run.write({"kind": "event", "step": 2, "event": "chill out", "text": "lower"})
            run.finish({"status": "finished", "reason": None, "steps": 3, "test_accuracy": 0.5, "best_epoch": 1})
    env = json.loads((root / "bad" / "env.json").read_text())
    (root / "bad" / "env.json").write_text(json.dumps({**env, "resumed": [{**env, "step": 2}]}))
    return root


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_one_bad_run_takes_no_other_away(root, data):
    path = root / "bad" / data.draw(st.sampled_from(["config.json", "env.json", "result.json", "metrics.jsonl"]))
    before = path.read_text()
    lines = before.splitlines() if path.suffix == ".jsonl" else [before]
    at = data.draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[at])
    lines[at] = json.dumps(changed(value, data.draw(st.sampled_from(list(places(value)))), data.draw(ODD)))
    path.write_text("\n".join(lines) + "\n")
    try:
        bad = root / "bad"
        for words in (["list", root, "--json"], ["list", root], ["show", bad], ["show", bad, "--json"]):
            done = CliRunner().invoke(main, ["runs", *map(str, words)])
            assert done.exception is None or isinstance(done.exception, SystemExit), (lines[at], done.exception)
            assert done.exit_code == 0 or (words[0] == "show" and done.stderr.count("\n") == 1)
            assert words[0] == "show" or "sound" in done.stdout
            assert words[0] == "show" or "bad" in done.stdout or "left out: " in done.stderr
    finally:
        path.write_text(before)


def test_any_entry_may_be_null_or_stops_with_one_line(root):
    bad = root / "bad"
    for name in ("config.json", "env.json", "result.json", "metrics.jsonl"):
        before = (bad / name).read_text()
        lines = before.splitlines() if name == "metrics.jsonl" else [before]
        try:
            for at, line in enumerate(lines):
                for place in places(value := json.loads(line)):
                    odd = [*lines[:at], json.dumps(changed(value, place, None)), *lines[at + 1 :]]
                    (bad / name).write_text("\n".join(odd) + "\n")
                    done = CliRunner().invoke(main, ["runs", "show", str(bad)])
                    assert done.exit_code in (0, 2), (name, place, done.exception)
                    assert done.exit_code == 0 or done.stderr.count("\n") == 1, done.stderr
        finally:
            (bad / name).write_text(before)


@given(step=ODD, kind=st.sampled_from(["epoch", "step", "event", "mine"]))
def test_going_on_behind_any_step_or_one_error(tmp_path_factory, step, kind):
    folder = tmp_path_factory.mktemp("run") / "run"
    RunWriter.start(folder, {}).close()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"kind": kind, "step": step}) + "\n")
    if shapes.METRIC.fits({"kind": kind, "step": step}):
        RunWriter.resume(folder, 12, []).close()
    else:
        with pytest.raises(ValueError, match=r"metrics\.jsonl"):
            RunWriter.resume(folder, 12, [])


@settings(deadline=None)
@given(st.data())
def test_options_of_a_run_are_whole_or_refused(root, data):
    config = json.loads((root / "bad" / "config.json").read_text())
    config = changed(config, data.draw(st.sampled_from(list(places(config)))), data.draw(ODD))
    try:
        options = Options.of(trained(root / "bad", config)["options"])
    except ValueError:
        return
    shapes.OPTIONS.check(options.__dict__)
    assert fill(**options.__dict__) == options or options.momentum is None or options.weight_decay is None


def test_the_shape_of_options_names_them_all():
    assert {**shapes.OPTIONS.must, **shapes.OPTIONS.may}.keys() == Options.__dataclass_fields__.keys()


def make_trainer(folder):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 2))
    guards = [ChillOut(1), StopOnExplosion(), Checkpoint(folder, steps=2, signals=False)]
    descent = optim.SGD(model.parameters(), 0.05, momentum=0.9)
    return Trainer(model, nn.CrossEntropyLoss(), descent, callbacks=guards, progress=False)


def make_batches():
    rng = np.random.default_rng(0)
    return data.Batches(rng.normal(size=(24, 3)).astype(np.float32), rng.integers(0, 2, 24), 8)


@settings(max_examples=60, deadline=None)
@given(draw=st.data())
def test_a_checkpoint_of_another_form_falls_back_to_the_one_before(tmp_path_factory, draw):
    """The digest is right, the state is not a trainer's: the one before counts, or the run goes on to its end."""
    folder = tmp_path_factory.mktemp("checkpoints")
    make_trainer(folder).fit(make_batches(), make_batches(), epochs=3)
    newest, before = checkpoints(folder)[:-3:-1]
    state = load_latest(folder)[0]
    path = draw.draw(st.sampled_from(list(places(state))))
    state = changed(state, path, draw.draw(ODD | st.just(np.zeros((2, 2), np.float32))))
    save_checkpoint(newest, state)
    again = make_trainer(folder)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _, taken = load_latest(folder, again.load_state_dict)
    assert taken in (newest, before)
    assert (taken == before) == any("going on from the one before it" in str(w.message) for w in caught)
    if taken == before:
        assert not newest.exists()
        assert newest.with_name(newest.name + ".damaged").exists()
        again.resume(make_batches(), make_batches())
        assert again.step == 9


def test_where_no_state_fits_the_newest_says_why_and_no_name_changes(tmp_path):
    make_trainer(tmp_path).fit(make_batches(), epochs=3)
    names = sorted(path.name for path in tmp_path.iterdir())
    model = nn.Linear(3, 2)
    other = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), 0.05), progress=False)
    with pytest.raises(ValueError, match=r"step-00000008\.safetensors is not a checkpoint of this run: "):
        load_latest(tmp_path, other.load_state_dict)
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    paths = Paths.of(tmp_path_factory.mktemp("deep") / "net")
    record = Record(4, 30, 0.2, "softsign", 12, 10, 3)
    create(paths, record)
    sampler = {"seed": 3, "batch": 16, "epoch": 0, "index": 4, "samples": 200}
    record.sampler = {**sampler, "layer_rate": 0.1, "head_rate": 0.1}
    record.write(paths)
    return paths


@settings(deadline=None)
@given(st.data())
def test_records_of_deep_nets(deep, data):
    before = deep.record.read_text()
    value = json.loads(before)
    path = data.draw(st.sampled_from(list(places(value))))
    value = changed(value, path, data.draw(ODD))
    deep.record.write_text(json.dumps(value))
    try:
        found = Record.read(deep.record)
    except ValueError:
        with pytest.raises(ValueError, match="not a record of a deep net: "):
            Record.read(deep.record)
    else:
        assert {name: value[name] for name in found.__dict__} == found.__dict__
        assert found.core.width == found.width
    finally:
        deep.record.write_text(before)


def test_a_head_takes_no_memory_before_its_length_is_right(deep):
    from fastconv.deep.evaluation import evaluate

    before = deep.record.read_text()
    samples = Samples(np.zeros((2, 1, 3, 4), np.uint8), np.zeros(2, np.int64))
    dataset = Dataset("small", tuple("0123456789"), samples, samples)
    deep.record.write_text(before.replace('"inputs": 12', '"inputs": 2000000000'))
    try:
        with pytest.raises(ValueError, match="a head of 2000000000 inputs"):
            evaluate(deep, dataset.test, dataset.levels)
    finally:
        deep.record.write_text(before)


@settings(max_examples=30, deadline=None)
@given(draw=st.data())
def test_journals(tmp_path_factory, draw):
    pytest.importorskip("optuna")
    from fastconv.search import search, stored

    folder = tmp_path_factory.mktemp("journal")
    where = f"journal:{folder / 'j'}"
    goal = {"space": {"x": "1e-4:1", "y": "1,2,3"}, "trials": 3, "storage": where, "progress": False}
    search(_distance, **goal)
    lines = (folder / "j").read_text().splitlines()
    at = draw.draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[at])
    lines[at] = json.dumps(changed(value, draw.draw(st.sampled_from(list(places(value)))), draw.draw(ODD)))
    (folder / "j").write_text("\n".join(lines) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            stored(where)
            found = search(_distance, **goal, resume=True)
        except (ValueError, OSError):
            return
    assert len(found.trials) == 3


def _distance(attempt):
    return -abs(attempt["x"] - 0.1) - attempt["y"]


def test_json_is_read_in_one_place():
    from pathlib import Path

    package = Path(schema.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text("utf-8").replace("json.loads(json.dumps(", "")  # a copy with lists for tuples
        assert path.name == "schema.py" or ("json.load" not in text and "literal_eval" not in text), path
        assert "import pickle" not in text or path.parent.name == "search", path
