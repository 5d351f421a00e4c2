"""All pictures of one run's folder, each made when its turn comes."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastconv import data
from fastconv.functional._check import check_name
from fastconv.nn import Conv2d, Linear, Module, ReLU, Sigmoid, Softsign, Tanh
from fastconv.paths import expand
from fastconv.serialize.files import replacing
from fastconv.train.evaluation import together
from fastconv.train.run import load_run, read_record, trained
from fastconv.train.setup import Options, dataset_of
from fastconv.viz._curves import curves
from fastconv.viz._errors import confusion, mean_and_deviation, mistakes, predictions
from fastconv.viz._gradients import saliency
from fastconv.viz._histograms import activation_histograms
from fastconv.viz._layers import feature_maps, layer_outputs
from fastconv.viz._steps import dead_units, gradient_norms, update_ratios
from fastconv.viz._style import Array, Figure
from fastconv.viz._units import hidden_units
from fastconv.viz._weights import filters, sparsity, templates

_ACTIVATIONS = (ReLU, Tanh, Sigmoid, Softsign)
_BATCH = 250
_PIXELS = 1 << 21  # of images whose pixels have scores


class Missing(Exception):
    """What a picture needs is not there; the text says what.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import viz
    >>> from fastconv.train import RunWriter
    >>> with tempfile.TemporaryDirectory() as root:
    ...     RunWriter.start(f"{root}/run", {}).close()
    ...     try:
    ...         viz.RunPictures(f"{root}/run").draw("updates")
    ...     except viz.Missing as error:
    ...         print(error)
    the run was not watched: see 'fastconv train --watch-every'
    """


class RunPictures:
    """The pictures of a run that has been kept in a folder.

    Parameters
    ----------
    folder : path-like
        Its records are read at once; model and data set when a picture needs them.
    samples : int
        Test images that pictures of the net at work look at.

    Raises
    ------
    OSError, ValueError
        If it is no run, or is damaged.

    Notes
    -----
    Pictures of the model and of the data set need a run that ``fastconv train`` or `fastconv.train.setup` has made,
    and that has ended.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv import viz
    >>> from fastconv.train import RunWriter
    >>> with tempfile.TemporaryDirectory() as root:
    ...     with RunWriter.start(f"{root}/run", {}) as run:
    ...         run.write({"kind": "epoch", "epoch": 1, "loss": 0.5, "accuracy": 0.9})
    ...     figure = viz.RunPictures(f"{root}/run").draw("curves")
    >>> [ax.get_title(loc="left") for ax in figure.axes], viz.RUN_PICTURES[:4]
    (['Loss', 'Accuracy'], ('curves', 'updates', 'gradients', 'dead'))
    """

    def __init__(self, folder: str | os.PathLike[str], samples: int = 2000) -> None:
        self.folder = expand(folder)
        self.samples = samples
        self.record = read_record(folder)

    def draw(self, name: str) -> Figure:
        """Return one of `RUN_PICTURES`.

        Parameters
        ----------
        name : str

        Returns
        -------
        Figure

        Raises
        ------
        ValueError
            If there is no such picture.
        Missing
            If the run, as it is, has nothing to draw there.

        Examples
        --------
        >>> import tempfile
        >>> from fastconv import viz
        >>> from fastconv.train import RunWriter
        >>> with tempfile.TemporaryDirectory() as root:
        ...     with RunWriter.start(f"{root}/run", {}) as run:
        ...         run.write({"kind": "step", "step": 1, "update_ratio": {"0.weight": 1e-3}})
        ...     figure = viz.RunPictures(f"{root}/run").draw("updates")
        >>> figure.axes[0].get_ylabel()
        '|update| / |weight|'
        """
        check_name("picture", name, RUN_PICTURES)
        try:
            return _PICTURES[name](self)
        except (OSError, ImportError, ValueError) as error:
            raise Missing(str(error)) from error

    @cached_property
    def model(self) -> Module:
        return load_run(self.folder).model

    @cached_property
    def dataset(self) -> data.Dataset:
        options = self.record.config.get("options") or {}
        if not isinstance(options.get("dataset"), str):
            raise Missing("config.json names no data set")
        if options["dataset"] in data.names():  # of a trainer's own run, perhaps
            return data.load(options["dataset"])
        return dataset_of(Options.of(trained(self.folder, self.record.config)["options"]))

    @cached_property
    def images(self) -> Array:
        return self.dataset.test.images[: self._looked_at]

    @cached_property
    def labels(self) -> Array:
        return self.dataset.test.labels[: self._looked_at]

    @property
    def _looked_at(self) -> int:
        """How many test images; of large ones whose pixels have scores fewer."""
        _, height, width = self.dataset.shape
        return min(self.samples, max(1, _PIXELS // (height * width))) if self.dataset.per_pixel else self.samples

    def of_pictures(self) -> None:
        """Raise Missing where samples are the rows of a table."""
        if self.dataset.columns:
            raise Missing("it was trained on the rows of a table, and this is a picture of images")

    def of_classes(self) -> None:
        """Raise Missing where samples have numbers to predict, or it is pixels that have classes."""
        if self.dataset.numbers:
            raise Missing("it predicts numbers, not classes")
        if not self.dataset.columns:
            self.of_images()

    def of_images(self) -> None:
        """Raise Missing where it is pixels that have classes, or samples are the rows of a table."""
        self.of_pictures()
        if self.dataset.per_pixel:
            raise Missing(
                "each pixel has a class: 'fastconv predict' writes masks, and the report shows the worst"
            )

    @cached_property
    def x(self) -> Array:
        config = trained(self.folder, self.record.config)
        return data.Standardizer.from_dict(config["standardizer"])(self.images)

    @cached_property
    def scores(self) -> Array:
        return self.model.predict(self.x, min(_BATCH, together(self.dataset.shape, self.dataset.per_pixel)))

    def has(self, kind: type[Module]) -> bool:
        """Whether the net has a layer of a kind.

        Parameters
        ----------
        kind : type
        """
        return any(isinstance(module, kind) for module in self.model.modules())

    def outputs(self, count: int) -> dict[str, Array]:
        """Return outputs of the activations for a few samples, named by place and type.

        Parameters
        ----------
        count : int
            Samples.
        """
        types = {name: type(module).__name__ for name, module in self.model.named_modules()}
        found = layer_outputs(self.model, self.x[:count], _ACTIVATIONS)
        return {f"{name}\n{types[name]}": output for name, output in found.items()}


def _curves(run: RunPictures) -> Figure:
    if not len(run.record.history):
        raise Missing("no epoch of it has ended")
    return curves(run.record)


def _steps(draw: Callable[[Any], Figure]) -> Callable[[RunPictures], Figure]:
    def picture(run: RunPictures) -> Figure:
        if not any("update_ratio" in step for step in run.record.steps):
            raise Missing("the run was not watched: see 'fastconv train --watch-every'")
        return draw(run.record.steps)

    return picture


def _maps(run: RunPictures) -> Figure:
    run.of_pictures()
    return feature_maps(run.model, run.x[0], run.images[0])


def _units(run: RunPictures) -> Figure:
    run.of_classes()
    hidden = [output for output in run.outputs(400).values() if output.ndim == 2]
    if not hidden:
        raise Missing("the model has no activation between fully connected layers")
    return hidden_units(hidden[-1], run.labels[:400])


def _activations(run: RunPictures) -> Figure:
    found = list(run.outputs(200).items())
    few = sorted(set(np.linspace(0, len(found) - 1, min(12, len(found))).round().astype(int)))
    return activation_histograms(dict(found[i] for i in few))


def _sparsity(run: RunPictures) -> Figure:
    if not run.has(Conv2d):
        raise Missing("the model has no convolution before its first fully connected layer")
    return sparsity(run.model)


def _templates(run: RunPictures) -> Figure:
    run.of_pictures()
    if run.has(Conv2d) or sum(isinstance(module, Linear) for module in run.model.modules()) != 1:
        raise Missing("the model has more than one layer")
    return templates(run.model, run.dataset.shape, run.dataset.classes)


def _mean(run: RunPictures) -> Figure:
    run.of_pictures()
    return mean_and_deviation(run.dataset.train.images)


def _predictions(run: RunPictures) -> Figure:
    table = trained(run.folder, run.record.config).get("table", {})
    if "mean" not in table:
        raise Missing("it tells classes, not numbers")
    scale = data.TargetScale(table["mean"], table["deviation"])
    return predictions(run.labels, scale.back(run.scores), table["target"])


def _confusion(run: RunPictures) -> Figure:
    if run.dataset.numbers:
        raise Missing("it predicts numbers, not classes")
    classes = len(run.dataset.classes)
    labels, predicted = run.labels, run.scores.argmax(axis=1)
    if run.dataset.per_pixel:
        known = labels != data.IGNORED
        labels, predicted = labels[known].astype(np.int64), predicted[known]
    pairs = labels * classes + predicted
    return confusion(np.bincount(pairs, minlength=classes**2).reshape(classes, classes), run.dataset.classes)


def _mistakes(run: RunPictures) -> Figure:
    run.of_images()
    return mistakes(run.images, run.labels, run.scores, run.dataset.classes)


def _saliency(run: RunPictures) -> Figure:
    run.of_images()
    few = slice(0, 8)
    return saliency(run.model, run.x[few], run.labels[few], run.images[few], run.dataset.classes)


_PICTURES: dict[str, Callable[[RunPictures], Figure]] = {
    "curves": _curves,
    "updates": _steps(update_ratios),
    "gradients": _steps(gradient_norms),
    "dead": _steps(dead_units),
    "filters": lambda run: filters(run.model),
    "maps": _maps,
    "units": _units,
    "activations": _activations,
    "sparsity": _sparsity,
    "templates": _templates,
    "mean": _mean,
    "confusion": _confusion,
    "predictions": _predictions,
    "mistakes": _mistakes,
    "saliency": _saliency,
}
RUN_PICTURES = tuple(_PICTURES)
"""What `RunPictures.draw` takes."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure; the file appears whole or not at all.

    Parameters
    ----------
    figure : Figure
    path : path-like
        Its suffix tells the format: .png, .pdf, .svg and what else matplotlib writes. Folders that are not there are
        made.

    Raises
    ------
    ValueError
        If matplotlib knows no such format; no file is written then.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from fastconv import viz
    >>> figure = viz.predictions([1.0, 2.0], [1.5, 2.0])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     viz.save(figure, Path(folder, "pictures", "predictions.png"))
    ...     [path.name for path in Path(folder).rglob("*.png")]
    ['predictions.png']
    """
    path = expand(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, follow=False) as draft:
        figure.savefig(draft, format=path.suffix[1:])
