"""Windows of a mapped weights file: content, advice, what the disk has to give, resident memory."""

import gc
import mmap
import os
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from fastconv import config
from fastconv._ext.stream import advise, cached
from fastconv.deep.storage import READ, Mapped, initialize_weights, pieces
from fastconv.functional.residual import ResidualCore

CORE = ResidualCore(4, 300_000)  # 24 MB


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("storage") / "w"
    initialize_weights(path, CORE, 0)
    return path


def resident(path):
    """Bytes of a mapped file that are in this process's memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(str(path)):
            return next(int(entry.split()[1]) << 10 for entry in lines if entry.startswith("Rss:"))
    return 0


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_windows_hold_what_the_file_holds_and_changes_go_there(weights, threads):
    content = np.fromfile(weights, np.float32).reshape(CORE.layers, CORE.row)
    ranges = pieces(CORE, 5_000_000)
    with config.threads(threads), closing(Mapped(CORE, weights)) as mapped:
        for n, (first, end) in enumerate(ranges):
            if n + 1 < len(ranges):
                mapped.ahead(*ranges[n + 1])
            window = mapped.window(first, end, change=True)
            np.testing.assert_array_equal(window, content[first:end])
            window[0, 0] += 1
            mapped.done(first, end)
    firsts = [first for first, _ in ranges]
    content[firsts, 0] += 1
    np.testing.assert_array_equal(np.fromfile(weights, np.float32).reshape(content.shape), content)


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="the system does not tell what is resident")
def test_a_window_is_mapped_when_taken_and_given_back_when_done(weights):
    with closing(Mapped(CORE, weights)) as mapped:
        assert resident(weights) == 0
        first, end = pieces(CORE, 8 << 20)[1]
        nbytes = (end - first) * CORE.row * 4
        mapped.window(first, end)
        if resident(weights) == 0:
            pytest.skip("this kernel does not map ahead (before Linux 5.14)")
        assert nbytes <= resident(weights) < nbytes + (4 << 20)
        mapped.done(first, end)
        assert resident(weights) < 256 << 10  # the system maps some pages around those asked for


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system does not tell what is in its file cache")
def test_ahead_has_the_disk_read_what_is_not_in_the_cache(weights):
    nbytes = CORE.layers * CORE.row * 4
    with closing(Mapped(CORE, weights)) as mapped:
        mapped.flush()
        os.posix_fadvise(mapped._file.fileno(), 0, nbytes, os.POSIX_FADV_DONTNEED)
        if cached(mapped._bytes, 0, nbytes, mmap.PAGESIZE):
            pytest.skip("this file system keeps everything in memory")
        mapped.ahead(0, CORE.layers)
        limit = time.monotonic() + 60
        while not cached(mapped._bytes, 0, nbytes, mmap.PAGESIZE):
            assert time.monotonic() < limit
            time.sleep(0.01)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system does not tell what is in its file cache")
def test_asking_what_is_in_the_cache_reads_nothing(weights):
    nbytes = CORE.layers * CORE.row * 4
    pages = range(0, nbytes - mmap.PAGESIZE, mmap.PAGESIZE)
    with closing(Mapped(CORE, weights)) as mapped:
        mapped.flush()
        os.posix_fadvise(mapped._file.fileno(), 0, nbytes, os.POSIX_FADV_DONTNEED)
        before = [cached(mapped._bytes, at, 1, mmap.PAGESIZE) for at in pages]
        mapped._cached(0, nbytes)
        assert [cached(mapped._bytes, at, 1, mmap.PAGESIZE) for at in pages] == before
        assert mapped._cached(0, nbytes) == all(before[:: READ // mmap.PAGESIZE])


def test_advice_stays_within_the_mapping(weights):
    nbytes = CORE.layers * CORE.row * 4
    with closing(Mapped(CORE, weights, writable=False)) as mapped:
        for first, n in ((0, nbytes + 1), (0, 0), (-mmap.PAGESIZE, mmap.PAGESIZE), (mmap.PAGESIZE, nbytes)):
            for ask in (advise, cached):
                with pytest.raises(IndexError, match=rf"\[{first}, {first + n}\) of a mapping of {nbytes}"):
                    ask(mapped._bytes, first, n, mmap.PAGESIZE if ask is cached else mmap.MADV_WILLNEED)
        assert advise(mapped._bytes, 0, nbytes, mmap.MADV_WILLNEED) == 0
        assert advise(mapped._bytes, 1, 100, mmap.MADV_WILLNEED) != 0  # not the beginning of a page
        assert not cached(mapped._bytes, 1, 100, mmap.PAGESIZE)


def test_a_mapping_that_fails_leaves_no_open_file(weights, monkeypatch):
    def no_memory(*args, **kwargs):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", no_memory)
    with pytest.raises(OSError, match="Cannot allocate"):
        Mapped(CORE, weights)
    gc.collect()  # a file left open would be a ResourceWarning, which is an error here
