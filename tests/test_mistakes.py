"""Precision, recall and the worst mistakes: counted by hand, told in test.json, read with suspicion by the report."""

import base64
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import data, nn
from fastconv.train import evaluate
from fastconv.train.mistakes import SHOWN, Mistakes, by_class, told
from fastconv.train.shapes import TEST
from fastconv.viz.report.mistakes import sheet_of


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=40))
def test_precision_and_recall_are_counted(pairs):
    confusion = np.zeros((4, 4), np.int64)
    for pair in pairs:
        confusion[pair] += 1
    for k, found in enumerate(by_class(confusion)):
        own, said = [p for p in pairs if p[0] == k], [p for p in pairs if p[1] == k]
        both = len([p for p in own if p[1] == k])
        assert (found["samples"], found["right"]) == (len(own), both)
        assert found["recall"] == (both / len(own) if own else None)
        assert found["precision"] == (both / len(said) if said else None)


class Looked(nn.Module):
    """Its scores are its input's pixels."""

    def forward(self, x):
        return x[:, :, 0, 0]


def seen(n, seed=0, batch=7):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n, 5, 2, 2)).astype(np.float32)
    labels = rng.integers(0, 5, n)
    mistakes = Mistakes()
    batches = data.Batches(images, labels, batch, shuffle=False)
    found = evaluate(Looked(), nn.CrossEntropyLoss(), batches, watch=mistakes)
    return images, labels, found, mistakes


@settings(deadline=None, max_examples=20)
@given(n=st.integers(1, 60), seed=st.integers(0, 99), batch=st.integers(1, 20))
def test_the_worst_are_those_held_least_likely(n, seed, batch):
    images, labels, _, mistakes = seen(n, seed, batch)
    scores = images[:, :, 0, 0].astype(np.float64)
    own = (np.exp(scores) / np.exp(scores).sum(1, keepdims=True))[np.arange(n), labels]
    wrong = np.flatnonzero(scores.argmax(1) != labels)
    assert [m.row for m in mistakes.worst] == wrong[np.argsort(own[wrong], kind="stable")][:SHOWN].tolist()
    for m in mistakes.worst:
        assert (m.label, m.taken) == (labels[m.row], scores[m.row].argmax())
        assert m.own == pytest.approx(own[m.row], rel=1e-5)


def dataset(shape, dtype, levels, n=40):
    rng = np.random.default_rng(1)
    images = (rng.random((n, *shape)) * levels).astype(dtype)
    samples = data.Samples(images, rng.integers(0, 5, n))
    return data.Dataset("drawn", tuple("abcde"), samples, samples, levels=levels)


@pytest.mark.parametrize(("shape", "dtype", "levels"), [
    ((3, 8, 8), np.uint8, 255), ((1, 8, 8), np.uint8, 16), ((3, 200, 90), np.uint8, 255), ((5, 7, 4), np.float32, 1),
])  # fmt: skip
def test_told_and_shown(tmp_path, shape, dtype, levels):
    _, _, found, mistakes = seen(40)
    drawn = dataset(shape, dtype, levels)
    value = told(drawn, found.confusion, mistakes)
    TEST.check(value, "")
    (tmp_path / "test.json").write_text(json.dumps(value))
    sheet = sheet_of(tmp_path / "test.json")
    assert sheet["confusion"] == found.confusion.tolist()
    assert [row[0] for row in sheet["rows"]] == list("abcde")
    assert [row[1] for row in sheet["rows"]] == found.confusion.sum(axis=1).tolist()
    for one in value["by_class"]:
        one["images"] = one.pop("samples")
    (tmp_path / "test.json").write_text(json.dumps(value))  # as runs of earlier versions have it
    assert sheet_of(tmp_path / "test.json") == sheet
    first, mistake = value["worst"][0], mistakes.worst[0]
    height, width, channels = first["shape"]
    pixels = np.frombuffer(base64.b64decode(first["pixels"]), np.uint8).reshape(height, width, channels)
    step = -(-max(shape[1:]) // 64)
    image = drawn.test.images[mistake.row][: channels, ::step, ::step].transpose(1, 2, 0)
    np.testing.assert_array_equal(pixels, np.rint(image / levels * 255).astype(np.uint8))
    assert sheet["worst"][0]["uri"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda v: v["classes"].pop(), "4 classes, but figures of another number"),
    (lambda v: v["by_class"][1].pop("samples"), "does not say how many samples each class has"),
    (lambda v: v["confusion"][0].pop(), "5 classes, but figures"),
    (lambda v: v["worst"][0].update(label=5), "between classes 5"),
    (lambda v: v["worst"][0].update(pixels="AAAA"), "3 bytes for an image of"),
    (lambda v: v["worst"][0].update(pixels="é"), "not base64"),
    (lambda v: v["worst"][0].update(shape=[1, 1, 2]), "for an image of"),
    (lambda v: v["worst"][0].update(chance=2), "chance"),
])  # fmt: skip
def test_what_is_damaged_is_named(tmp_path, spoil, said):
    _, _, found, mistakes = seen(40)
    value = told(dataset((3, 8, 8), np.uint8, 255), found.confusion, mistakes)
    spoil(value)
    (tmp_path / "test.json").write_text(json.dumps(value))
    with pytest.raises(ValueError, match=said):
        sheet_of(tmp_path / "test.json")
