"""Where data files are looked for: FASTCONV_DATA, then the user's cache folder."""

import os
import sys
from pathlib import Path

from fastconv.data.catalogue import Source
from fastconv.paths import expand


def cache_folder() -> Path:
    """Return the folder downloads are kept in; it need not exist.

    ``$XDG_CACHE_HOME/fastconv`` (default ``~/.cache/fastconv``), on macOS ``~/Library/Caches/fastconv``, on
    Windows ``%LOCALAPPDATA%\\fastconv\\Cache``.
    """
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "fastconv" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "fastconv"
    base = os.path.expanduser(os.environ.get("XDG_CACHE_HOME", ""))
    return (
        Path(base) if os.path.isabs(base) else home / ".cache"
    ) / "fastconv"  # the standard: absolute or ignored


def candidates(source: Source) -> list[Path]:
    """Return the folders that may hold the files of a set, in the order they are looked at."""
    folders = []
    if named := os.environ.get("FASTCONV_DATA"):
        folders += [*(expand(named) / below for below in source.folders), expand(named)]
    return folders + [cache_folder() / below for below in source.folders]


def find(source: Source) -> dict[str, Path] | None:
    """Return the path of every file of a set, from the first folder that has them all, else None."""
    for folder in candidates(source):
        paths = [_existing(folder / name) for name in source.files]
        if all(paths):
            return {name: path for name, path in zip(source.files, paths, strict=True) if path}
    return None


def _existing(path: Path) -> Path | None:
    # Plain before gzip: it loads ten times as fast.
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


def describe(source: Source) -> str:
    """Say, for an error message, which folders were looked at and what each lacks."""
    lines = []
    for folder in candidates(source):
        missing = [name for name in source.files if not _existing(folder / name)]
        if not folder.is_dir():
            lines.append(f"  {folder}: no such folder")
        elif len(missing) == len(source.files):
            lines.append(f"  {folder}: none of the files")
        else:
            lines.append(f"  {folder}: lacks {', '.join(missing)}")
    if not os.environ.get("FASTCONV_DATA"):
        lines.append("  FASTCONV_DATA: not set; it may name a folder of data sets")
    return "\n".join(lines)
