"""Metrics by name and by function: in evaluation, the history, what is judged by them, runs and searches."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import fastconv
from fastconv import nn, optim
from fastconv.cli import main
from fastconv.train import KeepBest, Patience, Trainer, evaluate, metrics

X = np.random.default_rng(0).normal(size=(96, 2)).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int64) + (X[:, 0] > 1)


def net(outputs=3):
    fastconv.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, outputs))


def trainer(loss=None, outputs=3, **given):
    model = net(outputs)
    return Trainer(model, loss or nn.CrossEntropyLoss(), optim.Adam(model, lr=0.02), progress=False, **given)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(2, 9), st.integers(0, 2**32 - 1))
def test_they_are_those_of_scikit_learn(count, classes, seed):
    theirs = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    true, scores = rng.integers(0, classes, count), rng.normal(size=(count, classes))
    found = scores.argmax(1)
    assert_allclose(metrics.accuracy(true, found), theirs.accuracy_score(true, found), rtol=1e-14)
    assert_allclose(metrics.f1_macro(true, found), theirs.f1_score(true, found, average="macro"), rtol=1e-14)
    assert_allclose(metrics.iou(true, found), theirs.jaccard_score(true, found, average="macro"), rtol=1e-14)
    if classes > 5:
        expected = theirs.top_k_accuracy_score(true, scores, k=5, labels=range(classes))
        assert_allclose(metrics.top5(true, scores), expected, rtol=1e-14)
    else:
        assert metrics.top5(true, scores) == 1
    shape = (count + 1, 2) if seed % 2 else (count + 1,)
    wanted, given_ = rng.normal(size=shape), rng.normal(size=shape)
    assert_allclose(metrics.mae(wanted, given_), theirs.mean_absolute_error(wanted, given_), rtol=1e-12)
    assert_allclose(metrics.r2(wanted, given_), theirs.r2_score(wanted, given_), rtol=1e-10)


def test_r2_of_targets_that_do_not_vary():
    assert metrics.r2(np.ones(4), np.ones(4)) == 1
    assert metrics.r2(np.ones(4), np.zeros(4)) == 0


def test_any_function_of_scikit_learn():
    theirs = pytest.importorskip("sklearn.metrics")
    run = trainer(metrics=["f1_macro", theirs.balanced_accuracy_score, theirs.cohen_kappa_score])
    history = run.fit(X, Y, (X, Y), epochs=3)
    predicted = run.model.predict(X).argmax(1)
    best = history[run.best_epoch - 1]
    assert best["validation_f1_macro"] == metrics.f1_macro(Y, predicted)
    assert best["validation_balanced_accuracy_score"] == theirs.balanced_accuracy_score(Y, predicted)
    assert best["validation_cohen_kappa_score"] == theirs.cohen_kappa_score(Y, predicted)
    found = evaluate(run.model, nn.CrossEntropyLoss(), [(X[:50], Y[:50]), (X[50:], Y[50:])], metrics={"n": "accuracy"})
    assert found.metrics == {"n": found.accuracy}
    assert evaluate(run.model, nn.CrossEntropyLoss(), [(X, Y)]).metrics == {}


def test_regression():
    theirs = pytest.importorskip("sklearn.metrics")
    target = (X[:, :1] + X[:, 1:]).astype(np.float32)
    run = trainer(nn.MSELoss(), 1, metrics=["r2", "mae", theirs.max_error], monitor="mae")
    history = run.fit(X, target, (X, target), epochs=30)
    assert history["validation_r2"][-1] > 0.5
    assert run.best_epoch == 1 + int(np.argmin(history["validation_mae"]))
    output = run.model.predict(X)
    assert history["validation_max_error"][run.best_epoch - 1] == theirs.max_error(target[:, 0], output[:, 0])
    assert history["accuracy"] == [None] * 30


def test_pixels_are_labels_too():
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 1))
    images = np.random.default_rng(1).normal(size=(6, 1, 4, 5)).astype(np.float32)
    classes = np.random.default_rng(2).integers(0, 3, (6, 4, 5))
    classes[0, 0] = -100  # left out
    found = evaluate(model, nn.CrossEntropyLoss(), [(images, classes)], metrics=["iou", "accuracy", "top5"])
    predicted = model.predict(images).argmax(1)
    known = classes >= 0
    assert found.metrics["iou"] == metrics.iou(classes[known], predicted[known])
    assert found.metrics["accuracy"] == np.mean(classes[known] == predicted[known])
    assert found.metrics["top5"] == 1


class _Drawn:
    """A metric whose values are given."""

    def __init__(self, *values):
        self.values = list(values)

    def __call__(self, true, predicted):
        return self.values.pop(0)


def test_epochs_are_judged_by_what_is_monitored():
    values = (0.1, 0.5, float("nan"), 0.4, 0.4, 0.9)
    run = trainer(metrics={"drawn": _Drawn(*values)}, monitor="drawn", callbacks=[Patience(3)])
    history = run.fit(X, Y, (X, Y), epochs=6)
    assert history["validation_drawn"] == [0.1, 0.5, None, 0.4, 0.4, 0.9]
    assert (run.best_epoch, run.stop_reason) == (6, None)
    run = trainer(metrics={"drawn_loss": _Drawn(*values)}, monitor="drawn_loss", callbacks=[Patience(2)])
    run.fit(X, Y, (X, Y), epochs=6)
    assert run.best_epoch == 1  # less is better
    assert "since epoch 1" in run.stop_reason
    assert next(c for c in run.callbacks if isinstance(c, KeepBest)).epoch == 1


def test_what_is_no_metric():
    for given_, error, words in (
        ("f1", ValueError, "Trainer: no metric 'f1'; there are accuracy, top5, f1_macro, iou, mae, r2, or give"),
        ([3], TypeError, r"must be a name or a function of \(y_true, y_pred\), got 3"),
        (3, TypeError, "must be a name or a function"),
        ({"a b": "r2"}, ValueError, "'a b' is no name for a metric"),
        ({"loss": "r2"}, ValueError, "'loss' is no name"),
        (["r2", "r2"], ValueError, "two metrics are called 'r2'"),
        ([lambda a, b: 1.0], ValueError, "has no name; give a dict"),
    ):
        with pytest.raises(error, match=words):
            trainer(metrics=given_)
    with pytest.raises(ValueError, match="no figure 'f1_macro' to monitor; there are accuracy, loss; metrics="):
        trainer(monitor="f1_macro")
    with pytest.raises(ValueError, match="the metric 'mae' is for numbers, and the targets are labels"):
        trainer(metrics="mae").fit(X, Y, (X, Y), epochs=1)
    with pytest.raises(ValueError, match="the metric 'iou' is for labels, and the targets are numbers"):
        evaluate(net(2), nn.MSELoss(), [(X, X)], metrics="iou")
    with pytest.raises(TypeError, match=r"the metric 'pair' gave \(1, 2\), which is no number"):
        evaluate(net(), nn.CrossEntropyLoss(), [(X, Y)], metrics={"pair": lambda a, b: (1, 2)})


@pytest.mark.slow
def test_commands_know_them(tmp_path):
    pytest.importorskip("sklearn")

    def call(*words):
        found = CliRunner().invoke(main, [*map(str, words)])
        assert found.exit_code == 0, found.output
        return found.output

    out = tmp_path / "runs" / "a"
    result = json.loads(call(
        "train", "--epochs", 2, "--model", "mlp", "--metric", "f1_macro", "--out", out, "--json"
    ).splitlines()[-1])  # fmt: skip
    assert 0.5 < result["test_f1_macro"] <= 1
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    best = max(line["validation_f1_macro"] for line in lines if line["kind"] == "epoch")
    listed = call("runs", "list", tmp_path / "runs")
    assert "val f1_macro" in listed
    assert f"{best:.4f}" in listed
    assert f"f1_macro {best:.4f}" in call("runs", "show", out)
    found = CliRunner().invoke(main, ["train", "--metric", "mae"])
    assert found.exit_code == 2
    assert "the metric 'mae' is for numbers, and digits has classes to predict" in found.output
    pytest.importorskip("optuna")
    text = call("search", "--trials", 2, "--epochs", 1, "--model", "linear", "--metric", "iou", "--lr", "0.01:0.1")
    assert "val iou 0." in text
    assert text.count("val iou") == 3
