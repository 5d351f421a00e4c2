"""Data sets, standardisation, minibatches and augmentation.

Everything random here is a pure function of a seed and a position (`fastconv.random`): a batch can be made
again from (seed, epoch, index), an augmented image from (seed, epoch, sample).
"""

from fastconv.data.augment import Augment
from fastconv.data.batches import Batches
from fastconv.data.dataset import Dataset, Samples, split
from fastconv.data.decode import RESIZES
from fastconv.data.formats import read_cifar, read_idx
from fastconv.data.images import load_image
from fastconv.data.listing import images_below
from fastconv.data.loading import load, names, resolve
from fastconv.data.pictures import Pictures
from fastconv.data.standardize import Standardizer

DataLoader = Batches
"""What other libraries call it."""

__all__ = [
    "RESIZES",
    "Augment", "Batches", "DataLoader", "Dataset", "Pictures", "Samples", "Standardizer",
    "images_below", "load", "load_image", "names", "read_cifar", "read_idx", "resolve", "split",
]  # fmt: skip
