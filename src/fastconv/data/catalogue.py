"""The data sets that come as files: what the files are called, where they lie, what they must hold.

Checksums. MNIST's are SHA-256 of the uncompressed files, so a mirror may have compressed them anew. For
Fashion-MNIST and CIFAR-10 the published checksums are those of the archives as served, which fixes the
content just as well; another compression of the same content is refused.
"""

from typing import NamedTuple


class Archive(NamedTuple):
    """A file on a mirror and what it unpacks to."""

    name: str
    files: tuple[str, ...]  # a .gz holds one, a .tar.gz several
    nbytes: int  # uncompressed size of each of them
    sha256: str | None = None  # of the archive as served
    content_sha256: str | None = None  # of the one uncompressed file


class Source(NamedTuple):
    """A data set that comes as files."""

    name: str
    title: str
    folders: tuple[str, ...]  # looked for below a data folder, in this order
    mirrors: tuple[str, ...]  # asked in this order; each ends with a slash
    archives: tuple[Archive, ...]
    classes: tuple[str, ...]
    test_counts: tuple[int, ...]  # how often each class occurs in the test set: tells look-alikes apart
    train: int = 60_000
    test: int = 10_000

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all (uncompressed) files of the set."""
        return tuple(name for archive in self.archives for name in archive.files)


IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
IDX_SIZES = (16 + 60_000 * 784, 8 + 60_000, 16 + 10_000 * 784, 8 + 10_000)
FASHION_CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")

MNIST = Source(
    name="mnist",
    title="MNIST (LeCun, Cortes, Burges: http://yann.lecun.com/exdb/mnist/)",
    folders=("mnist", "MNIST/raw"),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    archives=tuple(
        Archive(f"{name}.gz", (name,), nbytes, content_sha256=sha256)
        for name, nbytes, sha256 in zip(
            IDX_FILES,
            IDX_SIZES,
            (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
            strict=True,
        )
    ),
    classes=tuple("0123456789"),
    test_counts=(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
)

FASHION_MNIST = Source(
    name="fashion_mnist",
    title="Fashion-MNIST (Xiao, Rasul, Vollgraf: https://github.com/zalandoresearch/fashion-mnist)",
    folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
    mirrors=(
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/"
        "b2617bb6d3ffa2e429640350f613e3291e10b141/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    archives=tuple(
        Archive(f"{name}.gz", (name,), nbytes, sha256=sha256)
        for name, nbytes, sha256 in zip(
            IDX_FILES,
            IDX_SIZES,
            (
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
            strict=True,
        )
    ),
    classes=FASHION_CLASSES,
    test_counts=(1000,) * 10,
)

CIFAR10 = Source(
    name="cifar10",
    title="CIFAR-10, binary version (Krizhevsky: https://www.cs.toronto.edu/~kriz/cifar.html)",
    folders=("cifar10/cifar-10-batches-bin", "cifar10", "cifar-10-batches-bin"),
    mirrors=(
        "https://www.cs.toronto.edu/~kriz/",
        "https://cave.cs.toronto.edu/kriz/",
        "https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/",
    ),
    archives=(
        Archive(
            "cifar-10-binary.tar.gz",
            CIFAR_FILES,
            10_000 * 3073,
            sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    test_counts=(1000,) * 10,
    train=50_000,
)

SOURCES = {source.name: source for source in (MNIST, FASHION_MNIST, CIFAR10)}
