"""Mixup: its draws, what it makes of a batch, and training with it to the same bits."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv import config, data, nn
from fastconv.cli import main
from fastconv.train import evaluate


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 4.0])
def test_shares_are_of_the_beta_distribution(alpha):
    """By the Kolmogorov-Smirnov distance; 1.95 / sqrt(n) is passed once in a thousand draws of a right sampler."""
    beta = pytest.importorskip("scipy.stats").beta
    mixup = data.Mixup(alpha, 2)
    drawn = np.sort([mixup.draw(1, 3, 0, index)[0] for index in range(2000)])
    steps = np.arange(1, len(drawn) + 1) / len(drawn)
    width = 1 / (1 << 16)  # what is drawn is rounded to
    low, high = beta.cdf(drawn - width, alpha, alpha), beta.cdf(drawn + width, alpha, alpha)
    assert max((low - steps).max(), (steps - 1 / len(drawn) - high).max()) < 1.95 / np.sqrt(len(drawn))


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(1, 20), classes=st.integers(2, 5), batch=st.integers(1, 7), seed=st.integers(0, 2**64 - 1),
    alpha=st.floats(0.01, 4), dtype=st.sampled_from([np.float32, np.float64]), augment=st.booleans(),
)  # fmt: skip
def test_batches_are_pairs_between_two_samples(n, classes, batch, seed, alpha, dtype, augment):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (n, 3, 4, 5)).astype(np.uint8), rng.integers(0, classes, n)
    how = {"augment": data.Augment(shift=1, flip=True) if augment else None, "dtype": dtype}
    plain = data.Batches(images, labels, batch, seed, **how)
    mixed = data.Batches(images, labels, batch, seed, mixup=data.Mixup(alpha, classes), **how)
    for epoch in (0, 5):
        for index in reversed(range(len(plain))):  # any order: a batch is a function of its place
            x, y = (a.copy() for a in plain.batch(epoch, index))
            u, q = mixed.batch(epoch, index)
            share, order = mixed.mixup.draw(len(y), seed, epoch, index)
            assert 0 <= share <= 1
            assert sorted(order) == list(range(len(y)))
            np.testing.assert_array_equal(u, x * dtype(share) + x[order] * dtype(1 - share))
            one_hot = np.eye(classes, dtype=dtype)
            np.testing.assert_array_equal(q, one_hot[y] * dtype(share) + one_hot[y[order]] * dtype(1 - share))
            np.testing.assert_array_equal(q.sum(axis=1), 1)  # shares are multiples of 1/65536
            assert (u.dtype, q.dtype) == (dtype, dtype)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), smoothing=st.sampled_from([0.0, 0.1]))
def test_the_loss_is_that_of_both_labels(seed, smoothing):
    rng = np.random.default_rng(seed)
    scores, labels = rng.standard_normal((9, 4)), rng.integers(0, 4, 9)
    share, order = data.Mixup(1.0, 4).draw(9, seed, 0, 0)
    q = np.eye(4)[labels] * share + np.eye(4)[labels[order]] * (1 - share)
    loss = nn.CrossEntropyLoss(label_smoothing=smoothing)
    both = share * loss(scores, labels) + (1 - share) * loss(scores, labels[order])
    assert loss(scores, q) == pytest.approx(both, rel=1e-12)


class Looked(nn.Module):
    """Its scores are its input."""

    def forward(self, x):
        return x * 1


def test_accuracy_is_that_of_the_larger_part():
    scores = np.array([[3, 1, 2], [0, 2, 1], [0, 1, 5]], np.float32)
    q = np.array([[0.6, 0.0, 0.4], [0.7, 0.3, 0.0], [0.0, 0.2, 0.8]], np.float32)
    found = evaluate(Looked(), nn.CrossEntropyLoss(), [(scores, q)])
    assert found.accuracy == pytest.approx(2 / 3)
    assert found.confusion.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert evaluate(Looked(), nn.MSELoss(), [(scores, q)]).accuracy is None


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda: data.Mixup(0, 2), r"alpha must be in \(0, 4\], got 0"),
    (lambda: data.Mixup(float("nan"), 2), "alpha must be"),
    (lambda: data.Mixup(5, 2), "got 5"),
    (lambda: data.Mixup(1, 1), "classes must be"),
    (lambda: data.Batches(np.zeros((3, 1, 2, 2)), np.array([0, 1, 2]), 2, mixup=data.Mixup(1, 2)), r"found 0\.\.2"),
    (lambda: data.Batches(np.zeros((3, 1, 2, 2)), np.zeros((3, 2, 2), int), 2, mixup=data.Mixup(1, 2)), "one label"),
    (lambda: data.Batches(np.zeros((3, 1, 2, 2)), np.zeros(3), 2, mixup=data.Mixup(1, 2)), "one label"),
    (lambda: data.Batches(np.zeros((3, 1, 2, 2)), np.zeros(3, int), 2, mixup=data.Mixup(1, 2),
                          sample_weight=np.ones(3)), "no sample_weight"),
])  # fmt: skip
def test_what_is_refused(spoil, said):
    with pytest.raises(ValueError, match=said):
        spoil()


def trained(out, *more):
    args = ["train", "--dataset", "digits", "--epochs", "2", "--mixup", "0.4", "--json", "--out", str(out), *more]
    done = CliRunner().invoke(main, args)
    assert done.exit_code == 0, done.output
    return done.output


def test_same_bits_on_any_threads_killed_and_resumed(tmp_path):
    pytest.importorskip("sklearn", reason="digits come with scikit-learn")
    output = trained(tmp_path / "whole")
    assert "images mixed by 0.4" in output
    whole = json.loads(output.splitlines()[-1])
    assert whole["test_accuracy"] > 0.5
    before = config.threads()
    config.threads(1 if before > 1 else 2)
    try:
        other = json.loads(trained(tmp_path / "other", "--checkpoint-every", "30").splitlines()[-1])
    finally:
        config.threads(before)
    assert other["state_sha256"] == whole["state_sha256"]
    for name in ("result.json", "model.safetensors"):  # as a kill leaves it
        (tmp_path / "other" / name).unlink()
    sorted((tmp_path / "other" / "checkpoints").iterdir())[-1].unlink()
    again = CliRunner().invoke(main, ["train", "--resume", str(tmp_path / "other"), "--json"])
    assert json.loads(again.output.splitlines()[-1])["state_sha256"] == whole["state_sha256"]
    plain = json.loads(trained(tmp_path / "plain", "--mixup", "0").splitlines()[-1])
    assert plain["state_sha256"] != whole["state_sha256"]


@given(alpha=st.floats(0, 4, exclude_min=True), seed=st.integers(0, 2**63))
def test_every_alpha_that_is_taken_gives_a_share(alpha, seed):
    """Down to the smallest, whose logarithms of powers are infinite."""
    share, _ = data.Mixup(alpha, 2).draw(3, seed, 0, 0)
    assert 0 <= share <= 1
    assert (share * 65536).is_integer()
