"""Turning, looking at parts, recolouring, covering: against float64 twins; the same whatever the batches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv.data import Augment, Batches
from fastconv.data._pixels import recolour, resample, window


def pictures(n, c=3, h=12, w=15, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, c, h, w), dtype=np.uint8)


AUGMENTS = st.builds(
    Augment, shift=st.integers(0, 3), flip=st.booleans(), fill=st.just((10, 200, 30)), scale=st.floats(0.05, 1),
    rotation=st.floats(0, 180), brightness=st.floats(0, 1), contrast=st.floats(0, 1), saturation=st.floats(0, 1),
    cutout=st.integers(0, 20),
)  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(augment=AUGMENTS, order=st.permutations(range(7)), size=st.integers(1, 7), seed=st.integers(0, 2**64 - 1))
def test_order_and_batch_size_do_not_matter(augment, order, size, seed):
    images = pictures(7)
    whole = augment(images, np.arange(7), seed=seed, epoch=3)
    for start in range(0, 7, size):
        rows = order[start : start + size]
        np.testing.assert_array_equal(augment(images[rows], rows, seed=seed, epoch=3), whole[rows])


@settings(deadline=None, max_examples=30)
@given(augment=AUGMENTS, seed=st.integers(0, 99))
def test_batches_augment_by_sample(augment, seed):
    images = pictures(9)
    batches = Batches(images, np.arange(9), 4, seed=seed, augment=augment)
    for epoch in range(2):
        whole = augment(images, np.arange(9), seed=seed, epoch=epoch)
        for x, y in batches:
            np.testing.assert_array_equal(x, whole[y])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 99), epoch=st.integers(0, 9), off=st.sampled_from(["scale", "rotation", "cutout"]))
def test_each_draws_for_itself(seed, epoch, off):
    """What one does stays when another is turned on: their draws are the same."""
    every = {"shift": 2, "flip": True, "scale": 0.5, "rotation": 20, "contrast": 0.3, "cutout": 4}
    few = {name: value for name, value in every.items() if name != off}
    np.testing.assert_array_equal(Augment(**every).draws(9, seed, epoch), Augment(**few).draws(9, seed, epoch))
    np.testing.assert_array_equal(Augment(2, True).draws(9, seed, epoch), Augment(**every).draws(9, seed, epoch)[:3])


def seen(image, y, x, fill):
    """The bilinear twin in float64."""
    h, w, _ = image.shape
    top, left = int(np.floor(y)), int(np.floor(x))
    total = 0.0
    for row, weight in ((top, top + 1 - y), (top + 1, y - top)):
        for column, part in ((left, left + 1 - x), (left + 1, x - left)):
            pixel = image[row, column] if 0 <= row < h and 0 <= column < w else fill
            total = total + weight * part * pixel.astype(float)
    return total


@settings(deadline=None, max_examples=40)
@given(
    h=st.integers(1, 9), w=st.integers(1, 9), area=st.floats(0.05, 1), ratio=st.floats(0.75, 1.33),
    down=st.floats(0, 1), right=st.floats(0, 1), degrees=st.floats(-180, 180),
)  # fmt: skip
def test_resampling_equals_its_slow_twin(h, w, area, ratio, down, right, degrees):
    image = pictures(1, h=h, w=w)[0].transpose(1, 2, 0)
    fill = np.array([0, 99, 255])
    out = resample(image, window(h, w, area, ratio, down, right, degrees), fill)
    across, along, turn = min(1, (area * ratio) ** 0.5), min(1, (area / ratio) ** 0.5), np.radians(degrees)
    for i in range(h):
        for j in range(w):
            u, v = (j - (w - 1) / 2) * across, (i - (h - 1) / 2) * along
            x = (w - 1) / 2 + (right - 0.5) * (1 - across) * w + u * np.cos(turn) - v * np.sin(turn)
            y = (h - 1) / 2 + (down - 0.5) * (1 - along) * h + u * np.sin(turn) + v * np.cos(turn)
            # a place is a multiple of 1/256 there: each axis is off by less than 1/256 of at most 255, and half a level
            assert np.abs(out[i, j] - seen(image, y, x, fill)).max() <= 2 * 255 * (1 / 256 + 10 / 65536) + 0.5


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, 1), (-90, -1), (180, 2)])
def test_right_angles_are_exact(degrees, turns):
    image = pictures(1, h=8, w=8)[0].transpose(1, 2, 0)
    out = resample(image, window(8, 8, 1, 1, 0.5, 0.5, degrees), np.zeros(3))
    np.testing.assert_array_equal(out, np.rot90(image, turns))


@settings(deadline=None, max_examples=60)
@given(by=st.tuples(*[st.integers(0, 512)] * 3), c=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_colours_equal_their_slow_twin(by, c, seed):
    image = pictures(1, c=c, seed=seed)[0].transpose(1, 2, 0)
    by = by if c == 3 else (*by[:2], 256)
    lightness, contrast, saturation = (b / 256 for b in by)
    grey = (lambda x: x @ np.array([0.299, 0.587, 0.114])) if c == 3 else (lambda x: x[..., 0])
    step = np.clip(image * lightness, 0, 255)
    step = np.clip(step * contrast + grey(step).mean() * (1 - contrast), 0, 255)
    step = np.clip(step * saturation + grey(step)[..., None] * (1 - saturation), 0, 255)
    # each of the roundings to whole levels, of values, greys and the mean, is scaled by what comes after it
    slack = 0.5 + max(saturation, 1) * (0.5 + max(contrast, 1) * 0.5 + abs(1 - contrast))
    slack += 1.5 * abs(1 - saturation) * (1 + contrast + abs(1 - contrast))
    assert np.abs(recolour(image, *by) - step).max() <= slack


@settings(deadline=None, max_examples=30)
@given(side=st.integers(1, 30), seed=st.integers(0, 999))
def test_cutout_covers_one_square(side, seed):
    out = Augment(cutout=side, fill=255)(np.zeros((20, 1, 16, 16), np.uint8), np.arange(20), seed=seed, epoch=0)
    for image in out[:, 0]:
        rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
        assert (image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 255).all()
        assert len(rows) <= side
        assert len(columns) <= side
        assert side // 2 <= max(len(rows), 1)


@pytest.mark.parametrize(("name", "value"), [
    ("scale", 0), ("scale", 1.5), ("rotation", -1), ("rotation", 181), ("brightness", 2), ("contrast", float("nan")),
    ("saturation", -0.1), ("cutout", -1),
])  # fmt: skip
def test_what_is_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"Augment: {name}"):
        Augment(**{name: value})


@pytest.mark.parametrize(("augment", "images", "said"), [
    (Augment(saturation=0.5), pictures(2, c=1), "RGB"),
    (Augment(rotation=5), np.zeros((2, 3, 8, 8), np.float32), "uint8"),
])  # fmt: skip
def test_images_that_do_not_fit(augment, images, said):
    with pytest.raises(ValueError, match=said):
        Batches(images, np.zeros(2, int), 2, augment=augment)
