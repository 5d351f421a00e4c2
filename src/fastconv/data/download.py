"""Downloading the files of a data set: several mirrors, checksums, and never half a file in place."""

import contextlib
import hashlib
import os
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fastconv.data.catalogue import Archive, Source
from fastconv.data.formats import unpack
from fastconv.terminal import is_terminal

TIMEOUT = 30  # seconds without a byte before the next mirror is asked


def download(source: Source, folder: Path) -> None:
    """Bring the missing files of a set into ``folder``, uncompressed.

    Parameters
    ----------
    source : Source
    folder : Path
        Made when missing. A file appears in it under its name only when it is whole and checked.

    Raises
    ------
    ImportError
        If pooch is not installed.
    ConnectionError
        If no mirror gave a good copy; the message holds what went wrong with each.
    ValueError
        If no checksum is known for a file: such a file is never downloaded.
    OSError
        If the folder cannot be written.
    """
    for archive in source.archives:
        if all((folder / name).is_file() for name in archive.files):
            continue
        if not (archive.sha256 or archive.content_sha256):
            raise ValueError(
                f"{source.name}: no checksum of {archive.name} is known, so it is not downloaded; "
                f"fetch it yourself from {' or '.join(source.mirrors)} and unpack it into {folder}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        failures = []
        for mirror in source.mirrors:
            try:
                _fetch(archive, mirror + archive.name, folder)
            except (ConnectionError, TimeoutError, _Refused) as error:
                failures.append(f"  {mirror + archive.name}: {error}")
            else:
                break
        else:
            raise ConnectionError(f"could not download {archive.name}:\n" + "\n".join(failures))


class _Refused(Exception):
    """What a mirror gave is not what was asked for."""


def _fetch(archive: Archive, url: str, folder: Path) -> None:
    """Download one archive, check it, and put its files in place."""
    with _scratch(folder) as (_, packed):
        # Deflate never makes data longer by a thousandth; tar adds headers of 512 bytes.
        room = len(archive.files) * archive.nbytes
        limited = _Limited(packed, room + room // 1000 + (1 << 20))
        _http_get(url, limited)
        if archive.sha256 and limited.sha256.hexdigest() != archive.sha256:
            raise _Refused(f"SHA-256 {limited.sha256.hexdigest()} of the archive, expected {archive.sha256}")
        packed.flush()
        packed.seek(0)
        try:
            for name, content in _members(archive, packed):
                digest = hashlib.sha256(content).hexdigest()
                if archive.content_sha256 and digest != archive.content_sha256:
                    raise _Refused(
                        f"SHA-256 {digest} of the uncompressed {name}, expected {archive.content_sha256}"
                    )
                if len(content) != archive.nbytes:
                    raise _Refused(f"{name} has {len(content)} bytes, expected {archive.nbytes}")
                _put(folder / name, content)
        except (ValueError, tarfile.TarError, EOFError, zlib.error) as error:
            raise _Refused(str(error)) from error


def _members(archive: Archive, packed: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the wanted files only; nothing else in a tar is ever written."""
    if not archive.name.endswith(".tar.gz"):
        yield archive.files[0], unpack(packed.read(), archive.nbytes, archive.name)
        return
    wanted = set(archive.files)
    with tarfile.open(fileobj=packed, mode="r|gz") as tar:
        for member in tar:
            name = member.name.rpartition("/")[2]
            if name in wanted and member.isfile() and member.size == archive.nbytes:
                wanted.remove(name)
                stream = tar.extractfile(member)
                yield name, stream.read() if stream else b""
    if wanted:
        raise _Refused(f"the archive lacks {', '.join(sorted(wanted))}")


def _http_get(url: str, out: "_Limited") -> None:
    try:
        import pooch
    except ImportError:
        raise ImportError("downloading data sets needs pooch: pip install 'fastconv[data]'") from None
    from requests import RequestException  # pooch's own dependency

    get = pooch.HTTPDownloader(progressbar=is_terminal(sys.stderr), timeout=TIMEOUT)
    try:
        get(url, out, None)
    except RequestException as error:
        raise ConnectionError(str(error)) from error


class _Limited:
    """A file to write to that hashes what passes and takes no more than ``limit`` bytes."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._left, self._limit = file, limit, limit
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise _Refused(f"larger than {self._limit} bytes")
        self.sha256.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Open a temporary file in ``folder`` (renaming must not cross file systems); gone afterwards."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=".fastconv-", suffix=".part")
    try:
        with os.fdopen(handle, "w+b") as file:
            yield name, file
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _put(path: Path, content: bytes) -> None:
    with _scratch(path.parent) as (name, file):
        file.write(content)
        file.close()
        os.replace(name, path)
