"""Evaluation: labels of any integer dtype, means whatever the batches, nothing changed; and what is refused."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv
from fastconv import diagnose, nn, optim
from fastconv import functional as F
from fastconv.data import Batches, Dataset, Samples, Standardizer
from fastconv.diagnose.subject import Inputs
from fastconv.train import Trainer, evaluate
from fastconv.viz import input_gradient, mistakes

INTEGERS = [order + kind for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8") for order in ("<", ">")]
few = settings(deadline=None, max_examples=40)


def scores_of(labels, classes, rng):
    """Scores of which about half put the label first."""
    scores = rng.normal(size=(len(labels), classes)).astype(np.float32)
    lift = rng.random(len(labels)) < 0.5
    scores[np.flatnonzero(lift), labels[lift]] += 9
    return scores


class Passing(nn.Module):
    """Gives what it gets, times a weight of 1."""

    def __init__(self):
        self.weight = nn.Parameter(np.ones(1, np.float32))

    def forward(self, input):
        return self._save(input * self.weight.data, input)

    def backward(self, grad_output):
        grad_output, input = self._recall(grad_output)
        self.weight.grad += (grad_output * input).sum()
        return grad_output


@few
@given(kind=st.sampled_from(INTEGERS), classes=st.integers(2, 400), n=st.integers(1, 60), seed=st.integers(0, 999))
def test_labels_of_any_integer_dtype_give_the_same_figures(kind, classes, n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, min(classes, np.iinfo(kind).max + 1), n)
    narrow, scores = labels.astype(kind), scores_of(labels, classes, rng)
    model, loss = Passing(), nn.CrossEntropyLoss()
    found, expected = (evaluate(model, loss, [(scores, y)]) for y in (narrow, labels))
    np.testing.assert_array_equal(found.confusion, expected.confusion)
    assert (found.loss, found.accuracy) == (expected.loss, expected.accuracy)
    assert expected.accuracy == (scores.argmax(axis=1) == labels).mean()
    figures = []
    for y in (narrow, labels):
        for train in ([(scores, y)], (scores, y)):  # as they are, and through Batches
            model = Passing()
            run = Trainer(model, loss, optim.SGD(model.parameters(), lr=0.0), progress=False)
            record = run.fit(train, train, epochs=1, batch_size=n)[-1]
            figures.append([record[name] for name in ("accuracy", "validation_loss", "validation_accuracy")])
    assert figures[0] == figures[2]  # in Batches the order is another, and with it the last bit of the loss
    assert figures[1] == figures[3]
    assert figures[0][0] == figures[1][0] == expected.accuracy
    assert Inputs.of((scores, narrow)).targets.tolist() == labels.tolist()
    assert Inputs.of((scores, narrow)).labelled


@few
@given(n=st.integers(1, 60), seed=st.integers(0, 999))
def test_booleans_are_the_labels_of_two_classes(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    scores = scores_of(labels, 2, rng)
    for loss in (nn.CrossEntropyLoss(), nn.MultiMarginLoss()):
        found, expected = (evaluate(Passing(), loss, Batches(scores, y, 7)) for y in (labels > 0, labels))
        np.testing.assert_array_equal(found.confusion, expected.confusion)
        assert found.loss == expected.loss
        assert loss(scores, labels > 0) == loss(scores, labels)
        grads = []
        for y in (labels > 0, labels):
            loss(scores, y)
            grads.append(loss.backward().copy())
        np.testing.assert_array_equal(*grads)
    with pytest.raises(TypeError, match="array of integer labels, got bool"):
        F.cross_entropy(np.zeros((n, 3)), labels > 0)


def test_pictures_and_checks_take_them_too():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(48, 1, 4, 4)).astype(np.float32)
    labels = (x[:, 0].sum(axis=(1, 2)) > 0).astype(np.int64)
    fastconv.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    expected = input_gradient(model, x, labels)
    whole = diagnose.check(model, (x, labels), steps=["data", "loss"])
    for y in (labels > 0, labels.astype(np.uint8), labels.astype(">i2")):
        np.testing.assert_array_equal(input_gradient(model, x, y), expected)
        assert mistakes(x, y, model.predict(x))._suptitle.get_text() == (
            mistakes(x, labels, model.predict(x))._suptitle.get_text()
        )
        report = diagnose.check(model, (x, y), steps=["data", "loss"])
        assert str([f.figures for f in report.findings]) == str([f.figures for f in whole.findings])
    images = rng.integers(0, 255, (6, 1, 2, 2)).astype(np.uint8)
    made = Dataset("toy", ("a", "b"), *[Samples(images, np.arange(6, dtype=kind) % 2) for kind in ("u1", ">i4")])
    assert [part.labels.dtype for part in (made.train, made.test)] == [np.dtype(np.int64)] * 2
    with pytest.raises(ValueError, match=r"labels\[1\] is 18446744073709551615, but labels must be below"):
        Batches(np.zeros((2, 3)), np.array([0, 2**64 - 1], np.uint64), 1)


@few
@given(seed=st.integers(0, 999), classes=st.integers(1, 4), cut=st.integers(1, 30))
def test_integers_that_are_no_labels_have_no_accuracy(seed, classes, cut):
    """Counts, as a Poisson likelihood takes them: some batches of them may look like labels."""

    class Poisson:
        def __call__(self, output, target):
            return float((np.exp(output[:, 0]) - target * output[:, 0]).mean())

    rng = np.random.default_rng(seed)
    counts = rng.poisson(2.0, 30)
    counts[rng.integers(30)] = 9
    outputs = rng.normal(size=(30, classes)).astype(np.float32)
    found = evaluate(Passing(), Poisson(), [(outputs[:cut], counts[:cut]), (outputs[cut:], counts[cut:])])
    assert (found.accuracy, found.confusion, found.samples) == (None, None, 30)


@few
@given(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=6), seed=st.integers(0, 999))
def test_figures_are_means_over_samples_whatever_the_batches(sizes, seed):
    """Small integers: every order of sums is exact."""
    rng = np.random.default_rng(seed)
    n = sum(sizes) + 1
    outputs, targets = (rng.integers(-4, 5, (n, 2)).astype(np.float32) for _ in range(2))
    ends = np.cumsum([0, *sizes, 1])
    batches = [(outputs[a:b], targets[a:b]) for a, b in itertools.pairwise(ends)]
    square = float(np.square(outputs - targets).sum())
    summed = evaluate(Passing(), nn.MSELoss("sum"), batches).loss
    assert summed == square / n
    model = Passing()
    run = Trainer(model, nn.MSELoss("sum"), optim.SGD(model.parameters(), lr=0.0), progress=False)
    record = run.fit(batches, batches, epochs=1)[-1]
    assert (record["loss"], record["validation_loss"]) == (square / n, square / n)
    labels = rng.integers(0, 2, n)
    a, b = (evaluate(Passing(), nn.CrossEntropyLoss(how), [(outputs, labels)]).loss for how in ("mean", "sum"))
    assert a == b


@few
@given(taken=st.integers(0, 9), at=st.tuples(st.integers(0, 3), st.integers(0, 4)), shuffle=st.booleans())
def test_batches_are_evaluated_whole_and_stay_where_they_are(taken, at, shuffle):
    labels = np.arange(40) % 4
    scores = scores_of(labels, 4, np.random.default_rng(0))
    batches = Batches(scores, labels, 9, shuffle=shuffle)
    batches.position = at
    for _ in zip(range(taken), batches, strict=False):
        pass
    position = batches.position
    found = evaluate(Passing(), nn.CrossEntropyLoss(), batches)
    assert found.samples == 40
    np.testing.assert_array_equal(found.confusion.sum(axis=1), [10] * 4)
    assert batches.position == position


def test_training_data_may_be_evaluated_while_they_are_trained_on():
    """The order of the epochs stays that of a fit nobody looks into, also from a checkpoint."""
    x = np.arange(20, dtype=np.float32).reshape(20, 1)
    orders, positions = [], []
    for look in (False, True):

        class Look(fastconv.train.Callback):
            def on_step_end(self, trainer, look=look):
                if look:
                    evaluate(trainer.model, trainer.loss, trainer._train)

            def on_safe_point(self, trainer):
                positions[-1].append(trainer.state_dict()["position"])

        fastconv.manual_seed(0)
        model = nn.Sequential(nn.Linear(1, 2))
        seen = []
        orders.append(seen)
        positions.append([])
        model[0].register_forward_hook(
            lambda module, input, output, seen=seen: seen.append(input.ravel().tolist()) if module.training else None
        )
        batches = Batches(x, np.arange(20) % 2, 6)
        run = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), callbacks=[Look()], progress=False)
        run.fit(batches, batches, epochs=3)
    assert orders[0] == orders[1]
    assert positions[0] == positions[1]
    assert sorted(sample for batch in orders[0][:4] for sample in batch) == list(range(20))


def test_masks_are_not_read_through():
    x = np.ma.masked_array(np.ones((4, 1, 2, 2), np.float32), mask=np.arange(16).reshape(4, 1, 2, 2) == 3)
    plain, labels = x.filled(0), np.ma.masked_array([0, 1, 0, 1], mask=[0, 0, 1, 0])
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    statistics = Standardizer.fit(plain + np.arange(4, dtype=np.float32).reshape(4, 1, 1, 1))
    run = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters()), progress=False)
    whole = labels.filled(0)
    for call in (
        lambda: Batches(x, whole, 2),
        lambda: Batches(plain, labels, 2),
        lambda: Standardizer.fit(x),
        lambda: statistics(x),
        lambda: Dataset("toy", ("a", "b"), Samples(x, whole), Samples(plain, whole)),
        lambda: Dataset("toy", ("a", "b"), Samples(plain, whole), Samples(plain, labels)),
        lambda: F.cross_entropy(np.zeros((4, 2)), labels),
        lambda: F.multi_margin_loss(np.zeros((4, 2)), labels),
        lambda: evaluate(model, nn.CrossEntropyLoss(), [(plain, labels)]),
        lambda: run.fit((x, whole), epochs=1),
        lambda: run.fit((plain, whole), (plain, labels), epochs=1),
        lambda: run.fit([(plain, labels)], epochs=1),
        lambda: diagnose.check(model, (x, whole)),
        lambda: diagnose.check(model, (plain, labels)),
        lambda: input_gradient(model, plain, labels),
    ):
        with pytest.raises(TypeError, match=r"is a masked array \(1 of (4|16) elements masked\).*filled\(value\)"):
            call()
    assert run.step == 0
