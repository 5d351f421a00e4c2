"""Channels in another order or as pixels, and borders that mirror the image."""

from fastconv.functional._check import Array, whole
from fastconv.functional._ops import rearrange as _ops
from fastconv.functional._ops._run import apply, apply_backward

Sides = int | tuple[int, int, int, int]


def pixel_shuffle(input: Array, upscale_factor: int, *, out: Array | None = None) -> Array:
    """Return larger images of fewer channels: each block of r by r pixels comes from r * r channels.

    (Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel convolutional neural
    network", CVPR 2016.)

    Parameters
    ----------
    input : ndarray of shape (N, C * r * r, H, W), float32 or float64
    upscale_factor : int
        r. Channel ``c * r * r + i * r + j`` becomes the pixels (i, j) of the blocks of channel c.
    out : ndarray of shape (N, C, H * r, W * r), optional

    Returns
    -------
    ndarray of shape (N, C, H * r, W * r)

    Raises
    ------
    TypeError
        If the input is not float32 or float64.
    ValueError
        If it is not 4-d, or the channels are no multiple of r * r.

    Examples
    --------
    >>> import numpy as np
    >>> pixel_shuffle(np.arange(4.0).reshape(1, 4, 1, 1), 2)
    array([[[[0., 1.],
             [2., 3.]]]])
    """
    op = _ops.PixelShuffle(whole("pixel_shuffle: upscale_factor", upscale_factor))
    result: Array = apply("pixel_shuffle", op, input, out=out)
    return result


def pixel_shuffle_backward(grad_output: Array, input: Array, upscale_factor: int) -> Array:
    """Return the gradient of :func:`pixel_shuffle`, which moves it back; arguments and errors as there.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`pixel_shuffle`, and if ``grad_output`` has another shape than the result.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(4.0).reshape(1, 4, 1, 1)
    >>> pixel_shuffle_backward(pixel_shuffle(x, 2), x, 2).ravel()
    array([0., 1., 2., 3.])
    """
    where = "pixel_shuffle_backward"
    op = _ops.PixelShuffle(whole(f"{where}: upscale_factor", upscale_factor))
    grad: Array = apply_backward(where, op, grad_output, input)
    return grad


def channel_shuffle(input: Array, groups: int, *, out: Array | None = None) -> Array:
    """Return the channels dealt out in turns: the first of each group, then the second of each, and so on.

    (Zhang et al., "ShuffleNet", CVPR 2018.)

    Parameters
    ----------
    input : ndarray of shape (N, C), (N, C, L) or (N, C, H, W), float32 or float64
    groups : int
        Divides C.
    out : ndarray of the input's shape, optional

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError
        If the input is not float32 or float64.
    ValueError
        If it has another rank, or the groups do not divide the channels.

    Examples
    --------
    >>> import numpy as np
    >>> channel_shuffle(np.arange(6.0).reshape(1, 6), 2)
    array([[0., 3., 1., 4., 2., 5.]])
    """
    op = _ops.ChannelShuffle(whole("channel_shuffle: groups", groups))
    result: Array = apply("channel_shuffle", op, input, out=out)
    return result


def channel_shuffle_backward(grad_output: Array, input: Array, groups: int) -> Array:
    """Return the gradient of :func:`channel_shuffle`, which moves it back; arguments and errors as there.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`channel_shuffle`, and if ``grad_output`` has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.arange(6.0).reshape(1, 6)
    >>> channel_shuffle_backward(channel_shuffle(x, 2), x, 2)
    array([[0., 1., 2., 3., 4., 5.]])
    """
    where = "channel_shuffle_backward"
    grad: Array = apply_backward(where, _ops.ChannelShuffle(whole(f"{where}: groups", groups)), grad_output, input)
    return grad


def reflection_pad2d(input: Array, padding: Sides, *, out: Array | None = None) -> Array:
    """Return images with a border that mirrors them, as ``torch.nn.functional.pad(..., mode="reflect")``.

    Parameters
    ----------
    input : ndarray of shape (N, C, H, W), float32 or float64
    padding : int or (left, right, top, bottom)
        Smaller than the image: its outermost pixels, at which it is mirrored, are not repeated.
    out : ndarray of shape (N, C, H + top + bottom, W + left + right), optional

    Returns
    -------
    ndarray of shape (N, C, H + top + bottom, W + left + right)

    Raises
    ------
    TypeError
        If the input is not float32 or float64.
    ValueError
        If it is not 4-d, or the padding is negative or not smaller than the image.

    Examples
    --------
    >>> import numpy as np
    >>> reflection_pad2d(np.array([[[[1.0, 2.0, 3.0]]]]), (2, 1, 0, 0))
    array([[[[3., 2., 1., 2., 3., 2.]]]])
    """
    op = _ops.ReflectionPad(_ops.borders_of("reflection_pad2d", padding))
    result: Array = apply("reflection_pad2d", op, input, out=out)
    return result


def reflection_pad2d_backward(grad_output: Array, input: Array, padding: Sides) -> Array:
    """Return the gradient of :func:`reflection_pad2d`: a pixel adds those of its mirror images, rows' first.

    Arguments and errors as of the forward call; `grad_output` has the result's shape.

    Returns
    -------
    ndarray of the input's shape

    Raises
    ------
    TypeError, ValueError
        As :func:`reflection_pad2d`, and if ``grad_output`` has another shape than the result.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[[[1.0, 2.0, 3.0]]]])
    >>> reflection_pad2d_backward(np.ones((1, 1, 1, 6)), x, (2, 1, 0, 0))
    array([[[[1., 3., 2.]]]])
    """
    where = "reflection_pad2d_backward"
    grad: Array = apply_backward(where, _ops.ReflectionPad(_ops.borders_of(where, padding)), grad_output, input)
    return grad
