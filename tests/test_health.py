"""The symptoms of a loss curve: each threshold from both sides."""

import math

import pytest

from fastconv.diagnose.health import ACCURACY_GAP, BARELY, EXPLOSION, FAINT, NAMES, RISE, health, judge
from fastconv.train import History
from fastconv.train.run import RunRecord


def curve(losses, validation=None, **columns):
    validation = validation or [None] * len(losses)
    records = [{"epoch": i + 1, "loss": a, "validation_loss": b} for i, (a, b) in enumerate(zip(losses, validation))]  # noqa: B905
    for key, values in columns.items():
        for record, value in zip(records, values, strict=True):
            record[key] = value
    return History(records)


@pytest.mark.parametrize(
    ("name", "history"),
    [
        ("learning", curve([2.3, 1.0, 0.4])),
        ("learning", curve([2.3, 1.0, 0.4], [2.2, 1.1, 0.6])),
        ("too slow", curve([2.3, 2.299, 2.298])),
        ("too slow", curve([2.3, 2.4, 2.6])),
        ("exploded", curve([2.3, 7.0])),
        ("exploded", curve([2.3, math.nan])),
        ("exploded", curve([2.3, math.inf])),
        ("exploded", curve([2.3, None])),
        ("overfitting", curve([2.3, 1.0, 0.2], [2.2, 1.1, 1.4])),
        ("unknown", curve([])),
        ("unknown", curve([2.3])),
    ],
)
def test_each_symptom_has_its_name_and_figures(name, history):
    found = health(history)
    assert found.name == name
    assert found.name in NAMES
    assert found.reason


def test_a_run_that_goes_on_is_judged_once_there_are_two_losses():
    assert health(History(), "running").name == "running"
    assert health(curve([2.3]), "running").name == "running"
    assert health(curve([2.3, 1.0]), "running").name == "learning"
    assert health(curve([1.0]), "running", first_loss=2.3).name == "learning"


def test_a_diverged_run_has_exploded_whatever_its_records():
    assert health(History(), "diverged").name == "exploded"
    assert health(curve([2.3, 1.0]), "diverged").name == "exploded"


def test_a_run_that_came_back_is_judged_by_where_it_is():
    assert health(curve([2.3, 90.0, 1.0])).name == "learning"


@pytest.mark.parametrize("above", [False, True])
def test_the_thresholds_are_the_documented_ones(above):
    more = 1 + 1e-9 if above else 1 - 1e-9
    assert (health(curve([2.0, 2.0 * EXPLOSION * more])).name == "exploded") == above
    assert (health(curve([2.0, 2.0 - 2.0 * BARELY * more])).name == "learning") == above
    rising = health(curve([2.0, 1.0, 0.5], [2.0, 1.0, 1.0 + RISE * more]))
    assert (rising.name == "overfitting") == above
    faint = health(curve([2.0, 0.1, 0.05], [2.0, 0.1, 0.1 + FAINT * 2.0 * more]))
    assert (faint.name == "overfitting") == above
    gap = curve([2.0, 1.0], [2.0, 1.0], accuracy=[0.1, 0.9], validation_accuracy=[0.1, 0.9 - ACCURACY_GAP * more])
    assert (health(gap).name == "overfitting") == above


def test_a_validation_loss_that_rises_with_the_training_loss_is_no_overfitting():
    assert health(curve([2.3, 1.0, 1.5], [2.2, 1.1, 1.6])).name == "learning"


def record(tmp_path, losses, steps=(), classes=10, result=None):
    config, status = {"classes": [str(i) for i in range(classes)]}, (result or {}).get("status", "finished")
    return RunRecord(tmp_path, "r", config, {}, curve(losses), list(steps), [], result, status)


def test_the_first_loss_is_that_of_step_one_or_of_chance(tmp_path):
    assert judge(record(tmp_path, [1.90, 1.88])).name == "learning"  # from ln 10, not from 1.90
    assert judge(record(tmp_path, [1.90, 1.88], classes=0)).name == "too slow"
    assert judge(record(tmp_path, [1.90, 1.88], [{"step": 1, "loss": 1.91}])).name == "too slow"
    assert judge(record(tmp_path, [50.0, 10.0])).name == "learning"  # a clumsy start is no explosion
    assert judge(record(tmp_path, [50.0, 10.0], [{"step": 1, "loss": 2.3}])).name == "exploded"
    assert judge(record(tmp_path, [0.4])).name == "learning"
    assert judge(record(tmp_path, [])).name == "unknown"


def test_a_run_that_diverged_says_what_its_trainer_said(tmp_path):
    found = judge(record(tmp_path, [2.3], result={"status": "diverged", "reason": "the loss is nan after 7 updates"}))
    assert (found.name, found.reason) == ("exploded", "the loss is nan after 7 updates")
