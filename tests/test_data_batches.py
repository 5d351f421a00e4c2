"""Orders, splits, statistics, batches and augmentation, each against a twin one can read in a minute."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv.data import Augment, Batches, Dataset, Samples, Standardizer, split
from fastconv.data._shuffle import permutation, words

SEEDS = st.integers(0, 2**64 - 1)


def bytes_images(n, c=1, h=5, w=4, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, c, h, w)).astype(np.uint8)


def channels_last(images):
    return images.transpose(0, 2, 3, 1).flags.c_contiguous


# Orders


@settings(deadline=None)
@given(n=st.integers(0, 300), seed=SEEDS, step=st.integers(0, 2**64 - 1))
def test_permutation_is_one(n, seed, step):
    order = permutation(n, seed, "test", step)
    assert order.dtype == np.int64
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    np.testing.assert_array_equal(order, permutation(n, seed, "test", step))


def test_permutation_never_changes():
    """Pinned: a saved run must find its batches again under any version of NumPy."""
    assert permutation(10, 7, "shuffle", 3).tolist() == [6, 5, 1, 8, 9, 0, 2, 3, 7, 4]
    assert words(2, 7, "augment", 3).tolist() == [12671709412750295145, 14958007593824867951]


def test_permutations_are_even():
    """Each of 3! orders about 1000 times in 6000; 5 sigma is 144."""
    counts = {}
    for step in range(6000):
        key = tuple(permutation(3, 0, "test", step).tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 6
    assert max(abs(n - 1000) for n in counts.values()) < 144


def test_words_do_not_depend_on_how_many():
    np.testing.assert_array_equal(words(100, 1, "s", 2)[:7], words(7, 1, "s", 2))


# Split


@settings(deadline=None)
@given(n=st.integers(0, 60), share=st.floats(0.01, 0.99), seed=SEEDS)
def test_split_is_a_partition(n, share, seed):
    images, labels = bytes_images(n), np.arange(n)
    train, held = split((images, labels), share, seed)
    assert len(held.labels) == round(n * share)
    np.testing.assert_array_equal(np.sort(np.concatenate([train.labels, held.labels])), labels)
    for part in (train, held):
        np.testing.assert_array_equal(part.images, images[part.labels])
        assert (np.diff(part.labels) > 0).all()
        assert channels_last(part.images)
    again = split((images, labels), share, seed)
    np.testing.assert_array_equal(again[1].labels, held.labels)


def test_split_by_count_and_seed():
    samples = (bytes_images(50), np.arange(50))
    assert [len(part.labels) for part in split(samples, 0)] == [50, 0]
    assert [len(part.labels) for part in split(samples, 50)] == [0, 50]
    assert split(samples, 10, seed=1)[1].labels.tolist() != split(samples, 10, seed=2)[1].labels.tolist()


@pytest.mark.parametrize("validation", [0.0, 1.0, -0.5, 51, -1, math.nan])
def test_split_refuses(validation):
    with pytest.raises(ValueError, match=r"split: (validation must be|cannot set aside)"):
        split((bytes_images(50), np.arange(50)), validation)


def test_split_refuses_unequal_lengths():
    with pytest.raises(ValueError, match="50 images but 49 labels"):
        split((bytes_images(50), np.arange(49)))


# Data set


def good():
    return Samples(bytes_images(6), np.arange(6) % 3)


def test_dataset_says_what_it_is():
    dataset = Dataset("toy", ("a", "b", "c"), good(), good())
    assert dataset.shape == (1, 5, 4)
    assert repr(dataset) == "Dataset('toy', 3 classes, 6 training and 6 test images of (1, 5, 4))"
    images, labels = dataset.train
    assert images.shape == (6, 1, 5, 4)
    assert labels.shape == (6,)


def test_dataset_takes_pairs_of_arrays():
    dataset = Dataset("toy", ("a", "b", "c"), tuple(good()), tuple(good()), validation=tuple(good()))
    for part in (dataset.train, dataset.test, dataset.validation):
        assert isinstance(part, Samples)
        np.testing.assert_array_equal(part.images, good().images)
        np.testing.assert_array_equal(part.labels, good().labels)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (Samples(bytes_images(6)[:, 0], good().labels), r"must be \(N, C, H, W\)"),
        (Samples(bytes_images(6).astype(np.int32), good().labels), "must be uint8 or floating, got int32"),
        (Samples(bytes_images(5), good().labels), r"must be integers \(5,\)"),
        (Samples(bytes_images(6), good().labels.astype(np.float32)), "got float32"),
        (Samples(bytes_images(6), good().labels + 1), r"must be 0\.\.2, found 1\.\.3"),
        (Samples(bytes_images(6), good().labels - 1), r"must be 0\.\.2, found -1\.\.1"),
        (Samples(bytes_images(6, h=6), good().labels), "differ in shape"),
    ],
)
def test_dataset_refuses(samples, message):
    with pytest.raises(ValueError, match=message):
        Dataset("toy", ("a", "b", "c"), good(), samples)


@pytest.mark.parametrize("part", ["train", "test", "validation"])
@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((bytes_images(6), [0, 1, 2, 0, 1, 2]), r"labels must be an array .*, got \[0, 1, 2, 0, 1, 2\]"),
        ((bytes_images(6).tolist(), good().labels), "images must be an array"),
        (bytes_images(6), r"must be \(images, labels\), got array"),
        ((*good(), good().labels), r"must be \(images, labels\)"),
    ],
)
def test_dataset_refuses_parts_that_are_no_pairs_of_arrays(part, pair, message):
    parts = {"train": good(), "test": good(), "validation": good()} | {part: pair}
    with pytest.raises(TypeError, match=f"Dataset toy: {part} {message}"):
        Dataset("toy", ("a", "b", "c"), **parts)


# Standardisation


@pytest.mark.parametrize("per", ["channel", "pixel"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 255, 256, 257, 700])
def test_statistics(per, dtype, n):
    images = bytes_images(n, c=3).astype(dtype)
    axes = (0, 2, 3) if per == "channel" else (0,)
    fitted = Standardizer.fit(images, per)
    wide = images.astype(np.float64)
    assert fitted.per == per
    np.testing.assert_allclose(fitted.mean, wide.mean(axes).reshape(fitted.mean.shape), rtol=1e-14)
    np.testing.assert_allclose(
        fitted.deviation, wide.std(axes).reshape(fitted.mean.shape), rtol=1e-13, atol=0
    )


@pytest.mark.parametrize("per", ["channel", "pixel"])
def test_statistics_of_bytes_are_exact_at_the_largest_values(per):
    """All 255 but one: the case in which float32 sums of squares come closest to 2**24."""
    images = np.full((513, 1, 2, 2), 255, np.uint8)
    images[100, 0, 1, 1] = 0
    fitted = Standardizer.fit(images, per)
    n = 513 * 4 if per == "channel" else 513
    assert fitted.mean[0, -1, -1] == 255 * (n - 1) / n
    assert fitted.deviation[0, -1, -1] == math.sqrt(255**2 * (n - 1) / n**2)
    if per == "pixel":
        assert fitted.deviation[0, 0, 0] == 0.0


@pytest.mark.parametrize("per", ["channel", "pixel"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_standardized_training_set_has_mean_0_and_deviation_1(per, dtype):
    images = bytes_images(500, c=3)
    axes = (0, 2, 3) if per == "channel" else (0,)
    out = Standardizer.fit(images, per)(images, dtype)
    assert out.dtype == dtype
    assert channels_last(out)
    eps = 8 * np.finfo(dtype).eps
    np.testing.assert_allclose(out.mean(axes, dtype=np.float64), 0, atol=eps)
    np.testing.assert_allclose(out.std(axes, dtype=np.float64), 1, atol=eps)


def test_constant_pixels_become_0_also_where_the_test_set_differs():
    train = bytes_images(20)
    train[:, 0, 0, 0] = 9
    test = train.copy()
    test[:, 0, 0, 0] = 200
    fitted = Standardizer.fit(train, "pixel")
    for images in (train, test):
        out = fitted(images)
        assert np.isfinite(out).all()
        assert (out[:, 0, 0, 0] == 0).all()
    assert (Standardizer.fit(np.full((4, 2, 3, 3), 7, np.uint8))(train[:0].repeat(2, 1)) == 0).all()


@pytest.mark.parametrize("per", ["channel", "pixel"])
def test_layout_does_not_matter(per):
    images = bytes_images(300, c=3)
    other = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    a, b = Standardizer.fit(images, per), Standardizer.fit(other, per)
    np.testing.assert_array_equal(a(images), b(other))


@pytest.mark.parametrize("per", ["channel", "pixel"])
def test_statistics_survive_json(per):
    images = bytes_images(30, c=3)
    fitted = Standardizer.fit(images, per)
    restored = Standardizer.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert restored.per == per
    np.testing.assert_array_equal(fitted(images), restored(images))


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"mean": [[[1.0]]]},
        {"mean": [[[1.0]]], "deviation": [[[-1.0]]]},
        {"mean": [[[1.0]]], "deviation": [[[math.inf]]]},
        {"mean": [[[math.nan]]], "deviation": [[[1.0]]]},
        {"mean": [[[1.0]]], "deviation": [[[1.0, 2.0]]]},
        {"mean": [1.0], "deviation": [1.0]},
        {"mean": [[[]]], "deviation": [[[]]]},
        {"mean": None, "deviation": None},
        {"mean": [[["a"]]], "deviation": [[[1.0]]]},
        {"mean": [[[{}]]], "deviation": [[[1.0]]]},
    ],
)
def test_damaged_statistics_are_refused(state):
    with pytest.raises(ValueError, match=r"Standardizer|could not convert"):
        Standardizer.from_dict(state)


def test_standardizer_refuses():
    fitted = Standardizer.fit(bytes_images(3, c=3), "pixel")
    with pytest.raises(ValueError, match=r"images of shape \(3, 4, 4\) do not fit"):
        fitted(bytes_images(2, c=3, h=4))
    with pytest.raises(ValueError, match="not empty"):
        Standardizer.fit(bytes_images(0))
    with pytest.raises(ValueError, match="'channel' or 'pixel', got 'image'"):
        Standardizer.fit(bytes_images(3), "image")
    with pytest.raises(TypeError, match="int64"):
        Standardizer.fit(bytes_images(3).astype(np.int64))


# Batches


@settings(deadline=None)
@given(n=st.integers(0, 40), size=st.integers(1, 12), seed=SEEDS, shuffle=st.booleans(), drop=st.booleans())
def test_an_epoch_is_a_permutation(n, size, seed, shuffle, drop):
    images, labels = bytes_images(n), np.arange(n)
    batches = Batches(images, labels, size, seed, shuffle, drop)
    assert len(batches) == (n // size if drop else -(-n // size))
    for _ in range(2):
        seen = []
        for x, y in batches:
            np.testing.assert_array_equal(x, images[y])
            seen += y.tolist()
        assert len(seen) == (n - n % size if drop else n)
        assert len(set(seen)) == len(seen)
        if not shuffle:
            assert seen == list(range(len(seen)))
    assert batches.position == (2, 0)


@settings(deadline=None)
@given(seed=SEEDS, epoch=st.integers(0, 2**40), index=st.integers(0, 4))
def test_any_batch_can_be_made_again(seed, epoch, index):
    images, labels = bytes_images(23, c=3), np.arange(23)
    options = {"augment": Augment(1, True), "standardize": Standardizer.fit(images)}
    first = Batches(images, labels, 5, seed, **options)
    second = Batches(images, labels, 5, seed, **options)
    for x, _ in second:
        x[...] = 99  # what is left in the buffers does not matter
    a, b = first.batch(epoch, index), second.batch(epoch, index)
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])
    np.testing.assert_array_equal(a[1], first.indices(epoch, index))
    assert first.position == (0, 0)


def test_iteration_goes_on_from_position():
    images, labels = bytes_images(20), np.arange(20)
    straight = Batches(images, labels, 6, 5)
    expected = [y.tolist() for _ in range(3) for _, y in straight]
    assert expected[:4] != expected[4:8]
    stopped = Batches(images, labels, 6, 5)
    seen = []
    for _ in range(2):
        for _, y in stopped:
            seen.append(y.tolist())
            if len(seen) == 6:
                break
    resumed = Batches(images, labels, 6, 5)
    resumed.position = stopped.position
    assert resumed.position == (1, 2)
    seen += [y.tolist() for _ in range(2) for _, y in resumed]
    assert seen == expected


def test_batches_equal_the_set_standardized_at_once():
    images, labels = bytes_images(50, c=3), np.arange(50)
    for per in ("channel", "pixel"):
        standardize = Standardizer.fit(images, per)
        for dtype in (np.float32, np.float64):
            whole = standardize(images, dtype)
            for x, y in Batches(images, labels, 8, standardize=standardize, dtype=dtype):
                np.testing.assert_array_equal(x, whole[y])
                assert x.dtype == dtype
                assert x.shape[1:] == (3, 5, 4)
                assert channels_last(x)


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64, np.int64, np.bool_])
def test_images_of_any_real_dtype_and_layout(kind):
    images = bytes_images(12, c=3).astype(kind)
    last = np.ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for given_images in (images, np.asfortranarray(images), images[::-1][::-1], last):
        before = given_images.copy()
        for x, y in Batches(given_images, np.arange(12), 5, augment=Augment(1), dtype=np.float32):
            assert x.dtype == np.float32
            assert len(x) == len(y)
        np.testing.assert_array_equal(given_images, before)


def test_other_ranks_and_floating_targets():
    features = np.arange(20.0).reshape(10, 2)
    for x, y in Batches(features, features * 2, 4, dtype=np.float64):
        np.testing.assert_array_equal(y, 2 * x)
        assert y.dtype == np.float64


def test_buffers_are_used_again():
    images = bytes_images(4096, c=3, h=16, w=16)
    options = {"augment": Augment(2, True), "standardize": Standardizer.fit(images)}
    batches = Batches(images, np.arange(4096), 128, **options)
    first = batches.batch(0, 0)[0]
    tracemalloc.start()
    try:
        for index in range(len(batches)):
            assert np.shares_memory(batches.batch(0, index)[0], first)
        assert tracemalloc.get_traced_memory()[1] < first.nbytes // 4
    finally:
        tracemalloc.stop()


def test_batches_refuse():
    images, labels = bytes_images(6), np.arange(6)
    for arguments, options, error, message in (
        ((images, labels[:5], 2), {}, ValueError, "6 images but 5 labels"),
        ((images, labels, 0), {}, ValueError, "batch_size must be at least 1, got 0"),
        ((images, labels, 2), {"dtype": np.float16}, TypeError, "float16"),
        ((images.astype(complex), labels, 2), {}, TypeError, "complex128"),
        ((images, labels.astype(str), 2), {}, TypeError, "must be real"),
        ((images[:, 0], labels, 2), {"augment": Augment(1)}, ValueError, r"need images \(N, C, H, W\)"),
        (
            (images, labels, 2),
            {"augment": Augment(4)},
            ValueError,
            "shift 4 moves images of 5 x 4 out of sight",
        ),
        (
            (images, labels, 2),
            {"augment": Augment(1, fill=(1, 2))},
            ValueError,
            "2 fill values for 1 channels",
        ),
        ((images, labels, 2), {"augment": Augment(1, fill=0.5)}, ValueError, "0.5 is not a value of uint8"),
        (
            (images, labels, 2),
            {"standardize": Standardizer.fit(bytes_images(3, c=2))},
            ValueError,
            "do not fit",
        ),
    ):
        with pytest.raises(error, match=message):
            Batches(*arguments, **options)
    batches = Batches(images, labels, 4)
    with pytest.raises(IndexError, match=r"batches 0\.\.1, got 2"):
        batches.batch(0, 2)
    with pytest.raises(ValueError, match="step"):
        batches.batch(-1, 0)


# Augmentation


def slow_twin(image, down, right, mirrored, fill):
    """Pixel by pixel: (C, H, W) mirrored, then moved, with ``fill`` where nothing comes from."""
    out = np.empty_like(image)
    channels, height, width = image.shape
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                y, x = i - down, j - right
                inside = 0 <= y < height and 0 <= x < width
                out[c, i, j] = image[c, y, width - 1 - x if mirrored else x] if inside else fill[c]
    return out


@settings(deadline=None)
@given(
    shift=st.integers(0, 3),
    flip=st.booleans(),
    seed=SEEDS,
    epoch=st.integers(0, 2**40),
    c=st.integers(1, 3),
    fill=st.integers(0, 255),
)
def test_augmentation_equals_its_slow_twin(shift, flip, seed, epoch, c, fill):
    images = bytes_images(6, c=c)
    fills = tuple(max(fill - k, 0) for k in range(c))
    augment = Augment(shift, flip, fills)
    out = augment(images, np.arange(6), seed=seed, epoch=epoch)
    drawn = augment.draws(6, seed, epoch)
    assert (np.abs(drawn[:2]) <= shift).all()
    for k in range(6):
        np.testing.assert_array_equal(out[k], slow_twin(images[k], *drawn[:, k].tolist(), fills))


@pytest.mark.parametrize(("down", "right"), [(0, 0), (2, 0), (-1, 3), (3, -3), (-3, -2)])
@pytest.mark.parametrize("mirrored", [0, 1])
def test_shift_by_a_known_amount(down, right, mirrored):
    image = bytes_images(1, c=2, h=6, w=7)
    out = np.empty((1, 6, 7, 2), np.uint8)
    drawn = np.array([[down], [right], [mirrored]])
    Augment(3, True, 50).place(image.transpose(0, 2, 3, 1), np.array([0]), drawn, out)
    padded = np.pad(
        image[0, :, :, ::-1] if mirrored else image[0], ((0, 0), (3, 3), (3, 3)), constant_values=50
    )
    expected = padded[:, 3 - down : 9 - down, 3 - right : 10 - right]
    np.testing.assert_array_equal(out[0].transpose(2, 0, 1), expected)


@settings(deadline=None)
@given(order=st.permutations(range(9)), size=st.integers(1, 9))
def test_order_and_batch_size_do_not_matter(order, size):
    images = bytes_images(9)
    augment = Augment(2, True)
    whole = augment(images, np.arange(9), seed=3, epoch=4)
    for start in range(0, 9, size):
        rows = order[start : start + size]
        np.testing.assert_array_equal(augment(images[rows], rows, seed=3, epoch=4), whole[rows])


def test_batches_augment_by_sample():
    images = bytes_images(30, c=3)
    augment = Augment(2, True)
    for shuffle in (True, False):
        batches = Batches(images, np.arange(30), 7, seed=8, shuffle=shuffle, augment=augment)
        for epoch in range(2):
            whole = augment(images, np.arange(30), seed=8, epoch=epoch)
            for x, y in batches:
                np.testing.assert_array_equal(x, whole[y])


def test_all_shifts_occur_alike():
    """49 shifts x 2 mirrorings, 98,000 draws: each about 1000 times; 5 sigma is 158."""
    drawn = Augment(3, True).draws(98_000, seed=0, epoch=0)
    _, counts = np.unique(drawn, axis=1, return_counts=True)
    assert len(counts) == 98
    assert np.abs(counts - 1000).max() < 158


def test_epochs_and_seeds_draw_anew():
    augment = Augment(3, True)
    first = augment.draws(100, 0, 0)
    assert (augment.draws(100, 0, 1) != first).any()
    assert (augment.draws(100, 1, 0) != first).any()
    assert (Augment(3).draws(100, 0, 0)[2] == 0).all()
    np.testing.assert_array_equal(Augment(3).draws(100, 0, 0)[:2], first[:2])


def test_augment_refuses():
    with pytest.raises(ValueError, match="shift must not be negative, got -1"):
        Augment(-1)
    with pytest.raises(ValueError, match="fill must be finite"):
        Augment(1, fill=math.nan)
    with pytest.raises(ValueError, match="samples must be 2"):
        Augment(1)(bytes_images(2), [0], seed=0, epoch=0)


def test_batches_hand_back_what_they_are_cut_from():
    images, labels = bytes_images(7), np.arange(7)
    found = Batches(images, labels, 3).samples
    assert found.images.dtype == np.uint8
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.labels, labels)
    rows = Batches(np.ones((4, 5), np.float32), np.ones((4, 2), np.float32), 3).samples
    assert (rows.images.shape, rows.labels.shape) == ((4, 5), (4, 2))
