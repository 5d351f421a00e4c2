"""Data sets, standardisation, minibatches and augmentation.

Everything random here is a pure function of a seed and a position (`fastconv.random`): a batch can be made
again from (seed, epoch, index), an augmented image from (seed, epoch, sample).
"""

from fastconv.choices import RESIZES
from fastconv.data.augment import Augment
from fastconv.data.batches import Batches
from fastconv.data.dataset import Dataset, Samples, split
from fastconv.data.decode import IGNORED, unfitted, upright_size
from fastconv.data.formats import read_cifar, read_idx
from fastconv.data.images import load_image
from fastconv.data.listing import images_below
from fastconv.data.loading import load, names, resolve
from fastconv.data.mask_listing import has_masks
from fastconv.data.mixup import Mixup
from fastconv.data.palette import painted, palette
from fastconv.data.pictures import Masks, Pictures
from fastconv.data.standardize import Standardizer
from fastconv.data.tables import Table, TargetScale, is_table, read_table

DataLoader = Batches
"""What other libraries call it."""

__all__ = [
    "IGNORED", "RESIZES",
    "Augment", "Batches", "DataLoader", "Dataset", "Masks", "Mixup", "Pictures", "Samples", "Standardizer",
    "Table", "TargetScale",
    "has_masks", "images_below", "is_table", "load", "load_image", "names", "painted", "palette",
    "read_cifar", "read_idx", "read_table", "resolve", "split", "unfitted", "upright_size",
]  # fmt: skip
