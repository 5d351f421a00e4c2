"""`diagnose.check` where a net predicts numbers: what saying the mean costs, and mistakes that people make there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv
from fastconv import nn, optim
from fastconv.diagnose import Verdict, check
from fastconv.diagnose.numbers import FAR
from fastconv.diagnose.subject import Inputs, Subject

LOSSES = [nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(delta=0.5)]


def table(n=300, outputs=1, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    y = x @ rng.normal(size=(5, outputs)) + 0.3 * rng.normal(size=(n, outputs))
    return x, ((y - y.mean(axis=0)) / y.std(axis=0)).astype(np.float32)


def net(*last, outputs=1):
    fastconv.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 24), nn.ReLU(), nn.Linear(24, outputs), *last)


def looked(model, data, steps=("data", "loss", "overfit"), loss=None, **options):
    loss = nn.MSELoss() if loss is None else loss
    return check(model, data, loss=loss, optimizer=optim.SGD(model, lr=0.05), steps=steps, seconds=60, **options)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_sound_regression_is_good(loss, outputs):
    x, y = table(360, outputs)
    model = net(outputs=outputs)
    report = looked(model, (x[:300], y[:300]), steps=("data", "loss", "gradients", "signal", "overfit", "rates"),
                    loss=loss, validation=(x[300:], y[300:]))  # fmt: skip
    assert report.verdict == Verdict.GOOD, str(report)
    assert report["overfit"].figures["r2"] > 0.9
    assert "always saying the mean costs" in str(report)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 60), outputs=st.integers(1, 3), shift=st.floats(-5, 5), scale=st.floats(0.1, 9),
    dtype=st.sampled_from([np.float32, np.float64]), seed=st.integers(0, 99),
)  # fmt: skip
def test_no_constant_costs_less(n, outputs, shift, scale, dtype, seed):
    """The variance of the targets under MSE; under the others nothing on a fine grid, one output, does better."""
    y = (shift + scale * np.random.default_rng(seed).normal(size=(n, outputs))).astype(dtype)
    model = net(outputs=outputs).astype(dtype)
    x = np.zeros((n, 5), dtype)
    eps = 64 * n * outputs * np.finfo(dtype).eps
    for loss in LOSSES:
        level = Subject(model, loss, Inputs(x, y), None).constant_loss(y)
        if isinstance(loss, nn.MSELoss):
            np.testing.assert_allclose(level, y.astype(np.float64).var(axis=0).mean(), rtol=eps)
        if isinstance(loss, nn.L1Loss):
            others = [float(loss(np.broadcast_to(row, y.shape).copy(), y)) for row in y]
            assert level <= min(others) * (1 + eps)
    for other in (nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss()):
        assert Subject(model, other, Inputs(x, y), None).constant_loss(y) is None


def test_the_loss_of_the_mean_and_r2_are_told():
    x, y = table()
    figures = looked(net(), (x, y), ("loss",))["loss"].figures
    model = net()
    rows = figures["samples"]
    assert rows == 256
    assert 0.7 < figures["expected"] < 1.3  # standardised
    assert figures["r2"] == pytest.approx(1 - figures["loss"] / figures["expected"])
    assert len(list(model.parameters())) == 4


MISTAKES = {
    "far from where the net starts": (lambda x, y: (net(), (x, y + 40)), "loss", "Standardise the targets"),
    "of a large scale": (lambda x, y: (net(), (x, 300 + 100 * y)), "loss", "Standardise the targets"),
    "beyond what a sigmoid gives": (lambda x, y: (net(nn.Sigmoid()), (x, y)), "loss", "Leave out the last activation"),
    "below what a ReLU gives": (lambda x, y: (net(nn.ReLU()), (x, y)), "loss", "Leave out the last activation"),
    "NaN": (lambda x, y: (net(), (x, np.where(np.arange(len(y)) == 7, np.nan, y.T).T.astype(np.float32))), "data",
            "Leave those samples out"),
    "all the same": (lambda x, y: (net(), (x, np.full_like(y, 0.25))), "data", "Look at how targets are read"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_with_targets_are_found(name):
    make, step, advice = MISTAKES[name]
    report = looked(*make(*table()), steps=("data", "loss"))
    assert report[step].verdict != Verdict.GOOD, str(report)
    assert advice in str(report[step].remarks)


def test_a_net_that_has_learned_is_told():
    x, y = table()
    model = net()
    trainer = fastconv.train.Trainer(model, nn.MSELoss(), optim.Adam(model, lr=0.01), progress=False)
    trainer.fit(x, y, epochs=20)
    report = looked(model, (x, y), ("loss",))
    assert "has learned already" in str(report["loss"].remarks)
    assert report["loss"].figures["r2"] > 0.5


def test_far_is_where_targets_begin_to_be_called_so():
    x, y = table()
    verdicts = [looked(net(), (x, (y + shift).astype(np.float32)), ("loss",))["loss"] for shift in (0, 1, 5)]
    assert [found.figures["loss"] > FAR * found.figures["expected"] for found in verdicts] == [
        bool(found.remarks and "times that" in found.remarks[0].text) for found in verdicts
    ]
