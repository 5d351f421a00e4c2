"""idx and CIFAR-10 files: good ones are read to the byte, hostile ones refused before they cost anything."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastconv.data import read_cifar, read_idx
from fastconv.data.formats import unpack


def idx(array, magic=None):
    """Return an array as the bytes of an idx file."""
    head = magic if magic is not None else bytes([0, 0, 8, array.ndim])
    return head + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def flip_byte(data, at):
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


@pytest.fixture(params=["plain", "gzip"])
def write(request, tmp_path):
    """Return a function that writes bytes to a file, plain or compressed, and returns its path."""

    def to_file(data):
        path = tmp_path / "file"
        path.write_bytes(data if request.param == "plain" else gzip.compress(data))
        return path

    return to_file


@pytest.mark.parametrize("shape", [(7,), (3, 4), (5, 4, 3), (2, 3, 4, 5), (0,), (0, 28, 28)])
def test_idx_round_trip(write, shape):
    array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    read = read_idx(write(idx(array)))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array)
    assert not read.flags.writeable


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 9, 15, 16, 17, 27])
def test_idx_cut_short(write, cut):
    data = idx(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))
    with pytest.raises(ValueError, match="truncated"):
        read_idx(write(data[:cut]))


def test_idx_with_trailing_bytes(write):
    data = idx(np.arange(12, dtype=np.uint8))
    with pytest.raises(ValueError, match="goes on after its expected end"):
        read_idx(write(data + b"x"))


@pytest.mark.parametrize(
    "magic", [b"\0\0\x0d\x03", b"\0\1\x08\x03", b"\0\0\x08\x00", b"\0\0\x08\x09", b"PK\3\4"]
)
def test_idx_wrong_magic(write, magic):
    with pytest.raises(ValueError, match=f"begins {magic.hex()}, expected"):
        read_idx(write(idx(np.zeros((3, 2, 2), np.uint8), magic)))


@pytest.mark.parametrize("dims", [(0xFFFFFFFF,) * 4, (60_000, 28, 28), (1 << 20,)])
def test_idx_header_that_promises_too_much_allocates_nothing(write, dims):
    path = write(bytes([0, 0, 8, len(dims)]) + struct.pack(f">{len(dims)}I", *dims) + b"tiny")
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="truncated: a header that promises"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_gzip_bomb_stops_at_the_promised_size(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx(np.zeros(10, np.uint8)) + bytes(50_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="goes on after its expected end"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@settings(deadline=None)
@given(st.data())
def test_gzip_cut_anywhere_is_refused(tmp_path_factory, data):
    packed = gzip.compress(idx(np.random.default_rng(0).integers(0, 256, 300).astype(np.uint8)))
    path = tmp_path_factory.mktemp("cut") / "file.gz"
    path.write_bytes(packed[: data.draw(st.integers(0, len(packed) - 1))])
    with pytest.raises(ValueError, match=r"truncated|not an idx file|goes on"):
        read_idx(path)


@settings(deadline=None)
@given(st.data())
def test_gzip_damaged_anywhere_is_refused_or_harmless(tmp_path_factory, data):
    array = np.random.default_rng(0).integers(0, 4, 300).astype(np.uint8)
    packed = gzip.compress(idx(array), mtime=0)
    path = tmp_path_factory.mktemp("damaged") / "file.gz"
    path.write_bytes(flip_byte(packed, data.draw(st.integers(0, len(packed) - 1))))
    try:
        read = read_idx(path)
    except ValueError:
        return
    np.testing.assert_array_equal(read, array)  # a byte of the gzip header that carries no data


@settings(deadline=None)
@given(st.lists(st.integers(0, 316), max_size=6), st.integers(0, 9))
def test_gzip_of_several_members_is_one_content(tmp_path_factory, cuts, level):
    """As `cat a.gz b.gz`, bgzip and pigz make them; empty members, too, and cuts within the header."""
    array = np.random.default_rng(0).integers(0, 256, 300).astype(np.uint8)
    whole, cuts = idx(array), sorted(cuts)
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    packed = b"".join(gzip.compress(part, level) for part in parts)
    path = tmp_path_factory.mktemp("members") / "file.gz"
    path.write_bytes(packed)
    np.testing.assert_array_equal(read_idx(path), array)
    path.write_bytes(packed[:-1])
    with pytest.raises(ValueError, match=r"truncated|goes on"):
        read_idx(path)
    path.write_bytes(packed + gzip.compress(b"x"))
    with pytest.raises(ValueError, match="goes on after its expected end"):
        read_idx(path)


def test_gzip_with_trailing_garbage(tmp_path):
    path = tmp_path / "file.gz"
    path.write_bytes(gzip.compress(idx(np.arange(9, dtype=np.uint8))) + b"garbage")
    with pytest.raises(ValueError, match="7 bytes too many after the gzip data"):
        read_idx(path)


def test_unpack_takes_plain_and_gzip_up_to_its_limit():
    assert unpack(b"hello", 5, "x") == unpack(gzip.compress(b"hello"), 5, "x") == b"hello"
    assert unpack(gzip.compress(b""), 5, "x") == b""
    with pytest.raises(ValueError, match="goes on"):
        unpack(gzip.compress(b"hello"), 4, "x")


def records(n, seed=0):
    table = np.random.default_rng(seed).integers(0, 256, (n, 3073)).astype(np.uint8)
    table[:, 0] %= 10
    return table


def test_cifar_round_trip(write):
    table = records(6)
    images, labels = read_cifar(write(table.tobytes()), 6)
    np.testing.assert_array_equal(labels, table[:, 0])
    np.testing.assert_array_equal(images, table[:, 1:].reshape(6, 3, 32, 32))
    assert images.transpose(0, 2, 3, 1).flags.c_contiguous


def test_cifar_into_a_buffer(write):
    table = records(6)
    buffer = np.empty((6, 32, 32, 3), np.uint8)
    images, _ = read_cifar(write(table.tobytes()), 6, out=buffer)
    assert np.shares_memory(images, buffer)
    np.testing.assert_array_equal(images, table[:, 1:].reshape(6, 3, 32, 32))
    with pytest.raises(ValueError, match=r"out must be uint8 \(6, 32, 32, 3\), got uint8 \(5, 32, 32, 3\)"):
        read_cifar(write(table.tobytes()), 6, out=buffer[:5])


@pytest.mark.parametrize("change", [-3073, -1, 1, 3073])
def test_cifar_of_another_length(write, change):
    data = records(5).tobytes()
    data = data[:change] if change < 0 else data + bytes(change)
    with pytest.raises(ValueError, match=r"truncated: 5 records of 3073 bytes|goes on"):
        read_cifar(write(data), 5)


def test_cifar_label_out_of_range(write):
    table = records(5)
    table[3, 0] = 10
    with pytest.raises(ValueError, match=r"record 3 has label 10, expected 0\.\.9"):
        read_cifar(write(table.tobytes()), 5)
