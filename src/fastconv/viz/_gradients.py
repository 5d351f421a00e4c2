"""Which pixels count: gradients of a score with respect to the image, plain and guided."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from fastconv.functional._check import as_labels, flag
from fastconv.nn import Module, ReLU
from fastconv.viz._mosaic import colours
from fastconv.viz._style import AMOUNT, INK, SMALL, Array, Figure, Picture, bare, photo, short, values


class _GuidedReLU(ReLU):
    """A ReLU that hands back positive gradients only. A subclass, so that Sequential does not fuse it."""

    def backward(self, grad_output: Array) -> Array:
        return super().backward(np.maximum(grad_output, 0))


def input_gradient(model: Module, x: Array, labels: Array | Sequence[int] | None = None, guided: bool = False) -> Array:
    """Return the gradient of one score of each sample with respect to the sample.

    Parameters
    ----------
    model : Module
        Runs as a copy in evaluation mode; it is not changed.
    x : ndarray, shape (N, C, H, W)
        As the net takes it.
    labels : sequence of int, length N, optional
        Whose scores; the highest of each sample by default.
    guided : bool
        True masks negative gradients at every ReLU as well as those of units at 0: guided back-propagation.

    Returns
    -------
    ndarray, shape of `x`

    Raises
    ------
    ValueError
        If labels do not fit.

    References
    ----------
    K. Simonyan, A. Vedaldi and A. Zisserman, "Deep inside convolutional networks", ICLR 2014 workshop;
    J. Springenberg et al., "Striving for simplicity: the all convolutional net", ICLR 2015 workshop, section 3.4.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn, viz
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> model[1].weight.data[...] = [[1, 2, 3, 4], [0, 0, 0, 9]]
    >>> x = np.ones((1, 1, 2, 2), np.float32)
    >>> viz.input_gradient(model, x)[0, 0]  # class 0 scores 10, class 1 scores 9: the weights of class 0
    array([[1., 2.],
           [3., 4.]], dtype=float32)
    >>> viz.input_gradient(model, x, labels=[1])[0, 0]
    array([[0., 0.],
           [0., 9.]], dtype=float32)
    """
    guided = flag("viz.input_gradient: guided", guided)
    twin = copy.deepcopy(model).eval()
    for module in twin.modules():
        module.need_input_grad = True
        if guided and type(module) is ReLU:
            module.__class__ = _GuidedReLU
    scores = twin(x)
    chosen = scores.argmax(axis=1) if labels is None else as_labels("viz", "labels", np.asanyarray(labels))
    if chosen.shape != scores.shape[:1] or ((chosen < 0) | (chosen >= scores.shape[1])).any():
        raise ValueError(f"viz.input_gradient: labels {chosen.tolist()} for scores of shape {scores.shape}")
    seed = np.zeros(scores.shape, scores.dtype)
    seed[np.arange(len(chosen)), chosen] = 1
    gradient = twin.backward(seed)
    assert gradient is not None
    return gradient.copy()


def saliency_map(gradient: Array) -> Array:
    """Return the largest magnitude over the channels of `input_gradient`: (N, C, H, W) to (N, H, W).

    Parameters
    ----------
    gradient : ndarray of shape (N, C, H, W)

    Returns
    -------
    ndarray of shape (N, H, W)

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import viz
    >>> gradient = np.array([[[[1.0, -2.0]], [[-3.0, 0.5]]]])  # of an image of two channels, two pixels wide
    >>> viz.saliency_map(gradient)
    array([[[3., 2.]]])
    """
    return np.abs(gradient).max(axis=1)


def saliency(
    model: Module,
    x: Array,
    labels: Array | Sequence[int] | None = None,
    images: Array | None = None,
    classes: Sequence[str] | None = None,
) -> Figure:
    """Draw images, and below each its saliency map and its gradient by guided back-propagation.

    Parameters
    ----------
    model, x, labels
        As of `input_gradient`; about eight samples fill a picture.
    images : ndarray, shape (N, C, H, W), optional
        As a person sees them; `x` by default.
    classes : sequence of str, optional
        Names the scores.

    Returns
    -------
    Figure
        Of matplotlib.

    Raises
    ------
    ValueError
        If there is no sample, or labels do not fit.

    Examples
    --------
    >>> from fastconv import data, models, viz
    >>> digits = data.load("digits")
    >>> model = models.build("mnist-small", digits.shape, 10)
    >>> figure = viz.saliency(model, digits.test.images[:4] / np.float32(16), digits.test.labels[:4])
    >>> len(figure.axes)  # four images, what each score hangs on, and guided back-propagation
    12
    """
    if not len(x):
        raise ValueError("viz.saliency: no sample")
    chosen = model.predict(x).argmax(axis=1) if labels is None else as_labels("viz", "labels", np.asanyarray(labels))
    maps = saliency_map(input_gradient(model, x, chosen))
    guided = input_gradient(model, x, chosen, guided=True)
    n = len(x)
    figure = Picture(0.9 + 1.15 * n, 0.3 + 1.15 * 3)
    rows = figure.subplots(3, n, squeeze=False)
    for i in range(n):
        name = classes[chosen[i]] if classes else str(chosen[i])
        photo(rows[0, i], (x if images is None else images)[i])
        rows[0, i].set_title(short(name, 12), fontsize=SMALL, color=INK)
        for ax in rows[1:, i]:
            bare(ax)
        rows[1, i].imshow(maps[i], cmap=AMOUNT, vmin=0, interpolation="nearest")
        if guided.shape[1] == 3:
            rows[2, i].imshow(colours(guided[i].transpose(1, 2, 0)), interpolation="nearest")
        else:
            values(rows[2, i], guided[i].mean(axis=0))
    for ax, text in zip(rows[:, 0], ("image", "saliency", "guided"), strict=True):
        ax.set_ylabel(text, fontsize=SMALL, color=INK, rotation=0, ha="right", va="center")
    return figure
