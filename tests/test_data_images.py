"""Image files as a model's input."""

import struct
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv.data import images_below, load_image, upright_size

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def save(tmp_path):
    """Return a function that saves pixels (H, W) or (H, W, C), or a picture, and returns the path."""

    def to_file(pixels, name="image.png", **options):
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        picture.save(tmp_path / name, **options)
        return tmp_path / name

    return to_file


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def test_grey_png_of_the_right_size_is_kept(save):
    image = pixels(28, 28)
    out = load_image(save(image), (1, 28, 28))
    assert (out.dtype, out.shape) == (np.float32, (1, 28, 28))
    np.testing.assert_array_equal(out[0], image)


def test_rgb_png_of_the_right_size_is_kept(save):
    image = pixels(32, 32, 3)
    np.testing.assert_array_equal(load_image(save(image), (3, 32, 32)), image.transpose(2, 0, 1))


def test_colour_to_grey_and_grey_to_colour(save):
    colour = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    assert (load_image(save(colour), (1, 8, 8)) == 76).all()  # 299 / 1000 of 255, ITU-R 601
    grey = pixels(8, 8)
    np.testing.assert_array_equal(load_image(save(grey), (3, 8, 8)), np.stack([grey] * 3))


def test_levels_and_inversion(save):
    image = np.zeros((8, 8), np.uint8)
    image[2:6, 2:6] = 255
    path = save(image)
    out = load_image(path, (1, 8, 8), levels=16)
    assert set(np.unique(out)) == {0, 16}
    np.testing.assert_array_equal(load_image(path, (1, 8, 8), levels=16, invert=True), 16 - out)
    np.testing.assert_array_equal(load_image(path, (1, 8, 8), levels=16, invert="auto"), out)
    on_paper = save(255 - image, "paper.png")
    np.testing.assert_array_equal(load_image(on_paper, (1, 8, 8), levels=16, invert="auto"), out)


def test_proportions_are_kept_and_the_border_continued(save):
    image = np.full((20, 40), 200, np.uint8)
    image[5:15, 10:30] = 0
    out = load_image(save(image), (1, 20, 20))[0]
    assert (out[:5] == 200).all()
    assert (out[15:] == 200).all()
    assert (out[9:11, 7:13] == 0).all()


def test_jpeg(save):
    image = np.full((30, 30, 3), (10, 200, 90), np.uint8)
    out = load_image(save(image, "image.jpg", quality=95), (3, 15, 15))
    assert np.abs(out - np.array([10, 200, 90]).reshape(3, 1, 1)).max() <= 3


def test_exif_orientation(save):
    image = np.zeros((8, 8), np.uint8)
    image[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180 degrees
    out = load_image(save(image, exif=exif), (1, 8, 8))[0]
    np.testing.assert_array_equal(out, image[::-1, ::-1])


def test_transparency_becomes_white(save):
    image = np.zeros((8, 8, 4), np.uint8)
    image[2:6, 2:6, 3] = 255
    out = load_image(save(image), (1, 8, 8))[0]
    assert (out[2:6, 2:6] == 0).all()
    assert (out[0] == 255).all()


def test_palette_and_black_and_white(save):
    image = np.where(pixels(8, 8) > 127, 255, 0).astype(np.uint8)
    for mode in ("1", "P"):
        out = load_image(save(Image.fromarray(image).convert(mode), f"{mode}.png"), (1, 8, 8))
        np.testing.assert_array_equal(out[0], image)


def test_16_bit_grey_is_scaled_not_clipped(save):
    image = pixels(8, 8)
    wide = image.astype(np.uint16) * 257
    np.testing.assert_array_equal(load_image(save(wide), (1, 8, 8))[0], image)


# Hostile and unfit files


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.png"):
        load_image(tmp_path / "nothing.png", (1, 8, 8))
    with pytest.raises(FileNotFoundError, match=r"nothing\.npy"):
        load_image(tmp_path / "nothing.npy", (1, 8, 8))


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0" + bytes(20), b"GIF89a" + bytes(20)]
)
def test_not_an_image(tmp_path, content):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"image.png: not a readable image"):
        load_image(path, (1, 8, 8))


@pytest.mark.parametrize("name", ["image.png", "image.jpg"])
def test_truncated_image(save, name):
    path = save(pixels(64, 64), name)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="not a readable image"):
        load_image(path, (1, 8, 8))


@pytest.mark.parametrize("side", [9_000, 100_000, 2**31 - 1])
def test_png_of_enormous_size(tmp_path, side):
    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path = tmp_path / "image.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"not a readable image: .*pixels"):
            load_image(path, (1, 8, 8))
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_channels_a_picture_cannot_have(save):
    with pytest.raises(ValueError, match=r"1 or 3 channels, the model takes 4; give a \.npy file"):
        load_image(save(pixels(8, 8)), (4, 8, 8))


def test_without_pillow(save, monkeypatch):
    path = save(pixels(8, 8))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'fastconv\[image\]'"):
        load_image(path, (1, 8, 8))
    with pytest.raises(ImportError, match=r"pip install 'fastconv\[image\]'"):
        upright_size(path)


def test_paths_may_be_texts(save):
    path = save(pixels(3, 5))
    assert upright_size(str(path)) == (5, 3)
    assert images_below(str(path.parent)) == images_below(path.parent) == [path]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": (8, 8)}, r"shape must be \(C, H, W\)"),
        ({"shape": (1, 0, 8)}, r"shape must be \(C, H, W\)"),
        ({"shape": (1, 8, 8), "invert": "yes"}, "invert must be True, False or 'auto', got 'yes'"),
        ({"shape": (1, 8, 8), "levels": 0}, "levels must be positive, got 0"),
    ],
)
def test_options_are_checked(save, options, message):
    with pytest.raises(ValueError, match=message):
        load_image(save(pixels(8, 8)), **options)


# Arrays


@pytest.fixture
def save_array(tmp_path):
    def to_file(array, **options):
        np.save(tmp_path / "array.npy", array, **options)
        return tmp_path / "array.npy"

    return to_file


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64, ">f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_array_is_taken_as_it_is(save_array, dtype, order):
    array = np.asarray(pixels(2, 8, 6) % 17, dtype=dtype, order=order)
    out = load_image(save_array(array), (2, 8, 6), levels=16)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, array)
    np.testing.assert_array_equal(load_image(save_array(array[0]), (1, 8, 6), levels=16)[0], array[0])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((8, 9)), r"shape \(8, 9\), the model takes \(1, 8, 8\)"),
        (np.zeros((8, 8), complex), "real numbers, has complex128"),
        (np.full((8, 8), "a"), "real numbers"),
        (np.full((8, 8), 300), r"values must be 0\.\.255, found 300\.\.300"),
        (np.full((8, 8), -1.0), r"found -1\.\.-1"),
        (np.full((8, 8), np.nan), "found nan"),
    ],
)
def test_array_that_does_not_fit(save_array, array, message):
    with pytest.raises(ValueError, match=message):
        load_image(save_array(array), (1, 8, 8))


def test_pickled_array_is_refused(save_array):
    with pytest.raises(ValueError, match=r"not a readable \.npy file"):
        load_image(save_array(np.array([{}], object), allow_pickle=True), (1, 8, 8))


def test_array_header_that_promises_too_much(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }".ljust(117) + b"\n"
    path = tmp_path / "array.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"tiny")
    with pytest.raises(ValueError, match=r"not a readable \.npy file"):
        load_image(path, (1, 8, 8))


@pytest.mark.parametrize(
    "content", [b"", b"PK\3\4" + bytes(30), b"\x80\x04N.", b"\x93NUMPY\x01\x00\xff\xff{"]
)
def test_not_an_array(tmp_path, content):
    path = tmp_path / "array.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"array\.npy: "):
        load_image(path, (1, 8, 8))


# Damage anywhere: an image or a ValueError, nothing else


def read_or_refuse(path):
    try:
        out = load_image(path, (1, 8, 8))
    except ValueError:
        return
    assert out.shape == (1, 8, 8)


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "array.npy"])
@settings(deadline=None)
@given(data=st.data())
def test_damaged_files(name, tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / name
    if name == "array.npy":
        np.save(path, pixels(8, 8))
    else:
        exif = Image.Exif()
        exif[0x0112] = 3
        Image.fromarray(pixels(8, 8)).save(path, exif=exif)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    read_or_refuse(path)


@settings(deadline=None)
@given(
    content=st.binary(max_size=100),
    start=st.sampled_from([b"\x93NUMPY\x01\x00", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]),
)
def test_random_files(tmp_path_factory, content, start):
    for name in ("image.png", "array.npy"):
        path = tmp_path_factory.mktemp("random") / name
        path.write_bytes(start + content)
        read_or_refuse(path)
