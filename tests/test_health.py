"""The symptoms of a loss curve: each threshold from both sides."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(
    st.integers(2, 1000),
    st.lists(st.floats(1.001, 3.0), min_size=2, max_size=6),
    st.floats(-1, 1),
    st.floats(0.8, 0.999),
)
def test_a_run_that_is_no_better_than_guessing_is_not_learning(classes, above, gain, below):
    """Its loss may fall, from a clumsy start, but never below ln(classes), and accuracy stays near 1/classes."""
    chance, limit = math.log(classes), 1 / classes + ACCURACY_GAP
    losses = [chance * factor for factor in sorted(above, reverse=True)]
    share = min(max(limit + gain * 0.1, 0.0), 1.0)
    shares = dict(accuracy=[share] * len(losses), validation_accuracy=[share] * len(losses))
    found = health(curve(losses, losses, **shares), classes=classes)
    if losses[0] - losses[-1] < BARELY * losses[0] * (1 + 1e-9):
        return
    assert (found.name == "learning") == (share - 1 / classes > ACCURACY_GAP)
    better = health(curve([*losses, chance * below], [*losses, chance * below], accuracy=[0.0] * (len(losses) + 1)),
                    classes=classes)  # fmt: skip
    assert better.name == "learning"
    assert health(curve(losses, losses)).name == "learning"  # of unknown classes nothing more is known


def test_guessing_is_told_with_its_figures(tmp_path):
    guesses = record(tmp_path, [2.9, 2.32])
    for epoch, share in zip(guesses.history, (0.09, 0.118), strict=True):
        epoch |= {"accuracy": 0.1, "validation_accuracy": share}
    assert judge(guesses).name == "too slow"
    assert judge(guesses).reason == (
        "no better than guessing: loss 2.32 at best, where ln(10) is 2.303, and accuracy 11.8 %"
    )
    for epoch in guesses.history:
        epoch["validation_accuracy"] = 0.35  # sure of its mistakes, and right more often than not
    assert judge(guesses).name == "learning"
