"""`load`: one name in, one checked `Dataset` out."""

import gzip
import importlib.util
import os
import textwrap
from pathlib import Path

import numpy as np

from fastconv.choices import Resize
from fastconv.data import folders
from fastconv.data._shuffle import permutation
from fastconv.data.catalogue import CIFAR_FILES, IDX_FILES, SOURCES, Source
from fastconv.data.dataset import Dataset, Samples, check_labels
from fastconv.data.formats import read_cifar, read_idx
from fastconv.data.tables import is_table, load_table
from fastconv.functional._check import flag, nearest
from fastconv.paths import PathLike, expand


def names() -> tuple[str, ...]:
    """Return the names that `load` takes.

    Examples
    --------
    >>> names()
    ('cifar10', 'digits', 'fashion_mnist', 'mnist')
    """
    return tuple(sorted(("digits", *SOURCES)))


def resolve(name: PathLike) -> str:
    """Return a name of `names` as it is, and the path of a folder or of a table made absolute.

    Parameters
    ----------
    name : str or path-like

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If it is none of them.

    Examples
    --------
    >>> import os
    >>> from fastconv import data
    >>> data.resolve("mnist"), data.resolve(".") == os.getcwd()
    ('mnist', True)
    >>> data.resolve("minst")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ValueError: unknown data set 'minst'; known are cifar10, digits, fashion_mnist, mnist, or a folder of images, ...
    """
    name = os.fspath(name)
    if name in names():
        return name
    path = os.path.abspath(expand(name))
    if os.path.isdir(path) or (is_table(path) and os.path.isfile(path)):
        return path
    if is_table(path):
        raise ValueError(f"there is no table {name!r}")
    others = "or a folder of images, or a table (.csv, .tsv, .npz)"
    raise ValueError(f"unknown data set {name!r}; known are {', '.join(names())}, {others}{nearest(name, names())}")


def load(
    name: PathLike,
    *,
    download: bool = True,
    image_size: int | tuple[int, int] | None = None,
    resize: Resize | None = None,
    channels: int | None = None,
    cache: bool = False,
    target: str | None = None,
    task: str | None = None,
) -> Dataset:
    """Load a data set by name, a folder of images, or a table.

    ``digits`` (8x8, 1437 + 360 images) comes with scikit-learn and needs no network. The files of ``mnist``,
    ``fashion_mnist`` and ``cifar10`` are looked for in the folder that the environment variable
    FASTCONV_DATA names (in ``mnist/`` and the like below it, then directly in it), then in the user's cache
    folder; then they are downloaded into the latter.

    A folder of images has a folder for each class, or ``train/`` and perhaps ``val/`` and ``test/`` with such folders.
    Without ``test/`` a fifth of each class is drawn for the test, always the same; with ``val/`` alone that is it.
    A folder with ``images/`` and ``masks/``, perhaps in ``train/`` and so on, has a class for each pixel: masks are PNG
    files, grey or with a palette, with the size and, but for the ending, the name of their images; they hold the number
    of each pixel's class, or 255 where it is of none. Names of classes may stand in ``classes.txt``.

    Images of any size and mode are brought to one (`load_image`), and decoded by threads when they are looked at, so
    that memory does not grow with their number; all are looked at once here. Files that are damaged are left out
    (`Dataset.damaged`).

    A table is a CSV or an NPZ file: `read_table` says what may be in it. A fifth of its rows is drawn for the test,
    of each class, always the same, unless the file has arrays of its own for that.

    Parameters
    ----------
    name : str or path-like
        One of `names`, a folder, or a table. A name comes first: ``./digits`` is the folder.
    download : bool
        False: never use the network.
    image_size : int or (int, int), optional
        Of a folder's images: height and width, 64 by default.
    resize : "crop", "pad" or "stretch", optional
        How they are brought to it, "crop" by default.
    channels : int, optional
        3 (RGB, the default) or 1 (grey).
    cache : bool
        Keep a folder's images, decoded and resized, in one file of the user's cache folder, and read them from there
        until a file of the folder changes. It takes N * C * H * W bytes; not for a set by name.
    target : str, optional
        Of a table: the column that is to be told, the last by default.
    task : "classification" or "regression", optional
        Of a table: what targets are; by default text and whole numbers are classes.

    Returns
    -------
    Dataset
        Images uint8 (N, C, H, W) over a channels-last buffer, read-only; labels int64. Of a table rows float32
        (N, columns, 1, 1), and labels float64 where they are numbers.

    Raises
    ------
    FileNotFoundError
        If the files are nowhere and could not be downloaded.
    ImportError
        If scikit-learn, which holds ``digits``, or Pillow is missing; the message says what to install.
    ValueError
        If the name is unknown or a file is damaged or is not of that data set; of a folder, if it has less than two
        classes, or no image that can be read, or an image without a mask; of a table, as `read_table`.

    Examples
    --------
    >>> from fastconv import data
    >>> digits = data.load("digits")
    >>> digits
    Dataset('digits', 10 classes, 1437 training and 360 test images of (1, 8, 8))
    >>> digits.train.images[0, 0]  # grey levels 0..16
    array([[ 0,  0,  0, 12, 13,  5,  0,  0],
           [ 0,  0,  0, 11, 16,  9,  0,  0],
           [ 0,  0,  3, 15, 16,  6,  0,  0],
           [ 0,  7, 15, 16, 16,  2,  0,  0],
           [ 0,  0,  1, 16, 16,  3,  0,  0],
           [ 0,  0,  1, 16, 16,  6,  0,  0],
           [ 0,  0,  1, 16, 16,  6,  0,  0],
           [ 0,  0,  0, 11, 16, 10,  0,  0]], dtype=uint8)
    >>> int(digits.train.labels[0])
    1
    """
    download, cache = flag("load: download", download), flag("load: cache", cache)
    name = resolve(name)
    given = {"image_size": image_size, "resize": resize, "channels": channels}
    given = {key: value for key, value in given.items() if value is not None}
    if is_table(name):
        if given:
            raise ValueError(f"load: {next(iter(given))} is for folders of images; {name} is a table")
        return load_table(name, target, task)
    if target is not None or task is not None:
        raise ValueError(f"load: {'task' if target is None else 'target'} is for tables; {name} is none")
    if name not in names():
        from fastconv.data.image_folder import load_folder

        return load_folder(name, cache=cache, **given)  # type: ignore[arg-type]
    if given:
        raise ValueError(f"load: {next(iter(given))} is for folders of images; {name} has its own")
    if name == "digits":
        return _digits()
    source = SOURCES[name]
    paths = _locate(source, download)
    if source.name == "cifar10":
        return _dataset(source, *_read_cifar(paths, source.test))
    return _dataset(
        source, _read_mnist(paths, "train", source.train), _read_mnist(paths, "t10k", source.test)
    )


def _locate(source: Source, may_download: bool) -> dict[str, Path]:
    """Return the paths of all files, downloading them when they are nowhere."""
    if paths := folders.find(source):
        return paths
    reason, cause = "downloading was not allowed", None
    if may_download:
        from fastconv.data.download import download  # tarfile, tempfile and the like: not for everyone

        try:
            download(source, folders.cache_folder() / source.name)
        except (OSError, ImportError, ValueError) as error:
            reason, cause = str(error), error
        else:
            if paths := folders.find(source):
                return paths
    raise FileNotFoundError(
        f"{source.title} was not found, looked in:\n{folders.describe(source)}\n"
        f"  expected files (plain or .gz): {', '.join(source.files)}\n{textwrap.indent(reason, '  ')}\n"
        "  without a network, use the data set 'digits' (pip install 'fastconv[demo]')"
    ) from cause


def _dataset(source: Source, train: Samples, test: Samples) -> Dataset:
    counts = tuple(np.bincount(test.labels, minlength=len(source.classes)).tolist())
    if counts != source.test_counts:
        raise ValueError(
            f"these are not the files of {source.title}: the test set has {counts} images of each class, "
            f"expected {source.test_counts} (MNIST and Fashion-MNIST use the same file names)"
        )
    light = source.name != "cifar10"
    return Dataset(source.name, source.classes, train, test, light_on_dark=light)


def _read_mnist(paths: dict[str, Path], part: str, n: int) -> Samples:
    images_path, labels_path = (paths[name] for name in IDX_FILES if name.startswith(part))
    images, labels = read_idx(images_path), read_idx(labels_path)
    for path, array, shape in ((images_path, images, (n, 28, 28)), (labels_path, labels, (n,))):
        if array.shape != shape:
            raise ValueError(f"{path}: holds an array of shape {array.shape}, expected {shape}")
    check_labels(labels, 10, str(labels_path))
    return Samples(images[:, np.newaxis], labels.astype(np.int64))


def _read_cifar(paths: dict[str, Path], records: int) -> tuple[Samples, Samples]:
    n = len(CIFAR_FILES)
    images, labels = np.empty((n, records, 32, 32, 3), np.uint8), np.empty((n, records), np.int64)
    for i, name in enumerate(CIFAR_FILES):
        _, labels[i] = read_cifar(paths[name], records, out=images[i])
    images.setflags(write=False)
    train = images[:-1].reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
    return Samples(train, labels[:-1].ravel()), Samples(images[-1].transpose(0, 3, 1, 2), labels[-1])


DIGITS_TEST = 360  # a fifth of 1797


def _digits() -> Dataset:
    table = _digits_table()
    images, labels = table[:, :64].reshape(-1, 1, 8, 8), table[:, 64].astype(np.int64)
    order = permutation(len(labels), seed=0, stream="digits")
    test, train = np.sort(order[:DIGITS_TEST]), np.sort(order[DIGITS_TEST:])
    parts = [Samples(images[rows], labels[rows]) for rows in (train, test)]
    for part in parts:
        part.images.setflags(write=False)
    return Dataset("digits", tuple("0123456789"), parts[0], parts[1], levels=16, light_on_dark=True)


def _digits_table() -> np.ndarray:
    """Return scikit-learn's digits, uint8 (1797, 65): 64 pixels of 0..16 and the label."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None:
        raise ModuleNotFoundError("the data set 'digits' needs scikit-learn: pip install 'fastconv[demo]'")
    # Importing scikit-learn takes a second or two, reading its file of digits ten milliseconds.
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
            if table.shape == (1797, 65) and table[:, :64].max() <= 16 and table[:, 64].max() <= 9:
                return table
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return np.column_stack([images, labels]).astype(np.uint8)
