"""Files that appear whole or not at all, and JSON that every reader takes."""

import contextlib
import errno
import json
import math
import os
import secrets
import stat
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from fastconv.paths import PathLike, expand


@contextlib.contextmanager
def replacing(path: PathLike, *, follow: bool = True) -> Iterator[Path]:
    """Give the name of an empty draft beside `path`; at the end of the block it takes the place of `path`.

    The draft is on disk before it is renamed, and the rename itself before this returns: whoever is killed, or
    loses power, leaves the old file or the new one. A symbolic link is followed, or else (not ``follow``) replaced
    itself. On an exception the draft goes and what was there before is untouched.

    Raises
    ------
    OSError
        If a folder, a pipe or a device is there, whose place no file is to take.
    """
    path = expand(path)
    target = Path(os.path.realpath(path)) if follow else Path(os.path.realpath(path.parent), path.name)
    check_replaceable(target, path)
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    with speaking_of(path, draft):
        draft.touch(exist_ok=False)
        try:
            former = target if target.exists() and (follow or not target.is_symlink()) else draft
            mode = former.stat().st_mode  # a library's own may be 0600
            yield draft
            with draft.open("r+b") as file:
                os.fsync(file.fileno())
            draft.chmod(stat.S_IMODE(mode))
            os.replace(draft, target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    sync_folder(target.parent)


def check_replaceable(target: Path, path: Path) -> None:
    """Raise OSError, which names ``path``, if a folder, a pipe or a device is at ``target``; a link itself may go."""
    try:
        mode = target.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise OSError(errno.EINVAL, "Not a regular file, which a new one could replace", str(path))


@contextlib.contextmanager
def speaking_of(path: PathLike, draft: Path) -> Iterator[None]:
    """Let an OSError about a draft, or a file in it, name what it is the draft of; so one that names no file."""
    try:
        yield
    except OSError as error:
        if error.errno is None or not str(error.filename or draft).startswith(str(draft)):
            raise
        name = os.fspath(path) + str(error.filename or draft)[len(str(draft)) :]
        raise OSError(error.errno, error.strerror, name) from error


def allocate(file: int, nbytes: int) -> None:
    """Reserve the first bytes of an open file on the disk, where the system can; the file becomes as long at least.

    Raises
    ------
    OSError
        If there is no room.
    """
    if not hasattr(os, "posix_fallocate") or nbytes == 0:
        return
    try:
        os.posix_fallocate(file, 0, nbytes)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot
            raise OSError(error.errno, f"no room for {nbytes} bytes: {error.strerror}") from None


class Room:
    """Room on a disk, kept for later by an open file without a name: it goes with its process, or with this.

    Parameters
    ----------
    folder : path-like
    nbytes : int

    Raises
    ------
    OSError
        If there is not as much.
    """

    def __init__(self, folder: PathLike, nbytes: int) -> None:
        file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._close = weakref.finalize(self, file.close)
        try:
            allocate(file.fileno(), nbytes)
        except OSError as error:
            self.close()
            raise OSError(error.errno, error.strerror, os.fspath(folder)) from None

    def close(self) -> None:
        """Give it back."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def sync_folder(folder: PathLike) -> None:
    """Wait until what was renamed or removed in a folder is so on disk."""
    if os.name == "nt":  # which has no such call
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: PathLike, value: Any, *, follow: bool = True) -> None:
    """Replace a file by a value as indented JSON; what `json_line` says of figures and texts holds here."""
    text = _text(value, indent=2)
    with replacing(path, follow=follow) as draft:
        draft.write_text(text + "\n", "utf-8")


def json_line(value: Any) -> str:
    """Return a value as JSON on one line, without its end.

    What `finite` says of figures holds here. Names that are no UTF-8, which Python holds as lone surrogates, stand as
    escapes, from which a reader gets them back.
    """
    return _text(value)


def _text(value: Any, indent: int | None = None) -> str:
    text = json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def finite(value: Any) -> Any:
    """Return a copy with plain numbers and lists for NumPy's and None for floats that are NaN or infinite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if type(value).__module__ == "numpy":
        plain = value.tolist()
        return finite(float(plain) if type(plain) is type(value) else plain)  # of a long double nothing else is plain
    return None if isinstance(value, float) and not math.isfinite(value) else value
