"""Paths as people give them, and names as a terminal may show them."""

import os
from pathlib import Path

PathLike = str | os.PathLike[str]


def expand(path: PathLike) -> Path:
    """Return a path with ``~`` and ``~name`` at its beginning replaced by the home folder.

    Not all that hands a path over is a shell: settings in files of services and containers arrive as written.
    """
    return Path(os.path.expanduser(path))


def printable(text: PathLike) -> str:
    """Return a text or path with � for all that would do something to a terminal, or has no form in UTF-8."""
    return "".join(c if c.isprintable() else "�" for c in os.fspath(text))


def inside(folder: Path, name: str) -> Path:
    """Return the path of an entry that is written in a folder, which must not lead out of it.

    Raises
    ------
    OSError
        If the entry is a symbolic link.
    """
    path = folder / name
    if path.is_symlink():
        raise OSError(f"{path} is a symbolic link: what is written there would change another place; remove it")
    return path
