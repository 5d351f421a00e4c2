"""Initial weights, each rule with its paper: the standard deviation of a normal, or an orthogonal start.

``apply(model, "he", seed=0)`` draws every weight of two or more dimensions and sets every bias to zero; the
scales of batch normalisation stay as they are. Each weight draws from a stream named after itself, so that
the others stay when a layer is added to a model.

Fans are PyTorch's: ``fan_in = weight.shape[1] * receptive field`` and ``fan_out = weight.shape[0] * receptive
field``.
"""

import math
from collections.abc import Callable

import numpy as np

from fastconv import functional as F
from fastconv import nn, random
from fastconv.functional._check import short

__all__ = [
    "NAMES", "apply", "fans", "lsuv", "orthogonal", "std_caffe", "std_he", "std_kaiming_toolbox",
    "std_lecun", "std_small", "std_xavier",
]  # fmt: skip


def std_small(fan_in: int, fan_out: int) -> float:
    """Small random normal, 0.01 whatever the fans.

    A. Krizhevsky, I. Sutskever and G. Hinton, "ImageNet classification with deep convolutional neural
    networks", NIPS 2012, section 5. Signals die out within a few layers of a deep net.

    Parameters
    ----------
    fan_in, fan_out : int
        Inputs and outputs of a unit, see `fans`.

    Returns
    -------
    float
        Standard deviation.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import init
    >>> rng = np.random.default_rng(2)
    >>> x = rng.normal(size=(50, 100))
    >>> for _ in range(5):  # five layers of 100 tanh units
    ...     x = np.tanh(x @ rng.normal(0, init.std_small(100, 100), (100, 100)))
    >>> print(f"{x.std():.0e}")  # was 1
    1e-05
    """
    return 0.01


def std_lecun(fan_in: int, fan_out: int) -> float:
    """LeCun's heuristic, ``sqrt(1 / (3 fan_in))``: the deviation of U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Y. LeCun, L. Bottou, G. Orr and K.-R. Müller, "Efficient BackProp", 1998, section 4.6, in the form that
    Glorot and Bengio (2010), equation 1, call the commonly used heuristic.

    Parameters
    ----------
    fan_in, fan_out : int
        Inputs and outputs of a unit, see `fans`.

    Returns
    -------
    float
        Standard deviation.

    Examples
    --------
    >>> from fastconv import init
    >>> round(init.std_lecun(fan_in=300, fan_out=50), 4)
    0.0333
    >>> round(init.std_he(300, 50) / init.std_lecun(300, 50), 3)  # the root of 6: what rectified units need more
    2.449
    """
    return math.sqrt(1.0 / (3.0 * fan_in))


def std_xavier(fan_in: int, fan_out: int) -> float:
    """``sqrt(2 / (fan_in + fan_out))``: keeps the variance of signals and of gradients through linear layers.

    X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    AISTATS 2010, equation 12.

    Parameters
    ----------
    fan_in, fan_out : int
        Inputs and outputs of a unit, see `fans`.

    Returns
    -------
    float
        Standard deviation.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import init
    >>> rng = np.random.default_rng(2)
    >>> x = rng.normal(size=(50, 100))
    >>> for _ in range(5):  # five linear layers of 100 units
    ...     x = x @ rng.normal(0, init.std_xavier(100, 100), (100, 100))
    >>> print(f"{x.std():.1f}")  # was 1
    1.0
    """
    return math.sqrt(2.0 / (fan_in + fan_out))


def std_caffe(fan_in: int, fan_out: int) -> float:
    """``sqrt(1 / fan_in)``, Xavier's rule as Caffe's filler has it: keeps the variance of signals alone.

    Y. Jia et al., "Caffe: convolutional architecture for fast feature embedding", ACM MM 2014; the rule is
    equation 10 of Glorot and Bengio (2010).

    Parameters
    ----------
    fan_in, fan_out : int
        Inputs and outputs of a unit, see `fans`.

    Returns
    -------
    float
        Standard deviation.

    Examples
    --------
    >>> from fastconv import init
    >>> init.std_caffe(fan_in=100, fan_out=50)
    0.1
    >>> init.std_caffe(100, 100) == init.std_xavier(100, 100)  # the same where a layer keeps its width
    True
    """
    return math.sqrt(1.0 / fan_in)


def std_kaiming_toolbox(fan_in: int, fan_out: int) -> float:
    """``sqrt(4 / (fan_in + fan_out))``, Kaiming's rule as in the torch-toolbox: He's with the fans' mean.

    K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers", ICCV 2015, in the form of e-lab's
    torch-toolbox (weight-init.lua).

    Parameters
    ----------
    fan_in, fan_out : int
        Inputs and outputs of a unit, see `fans`.

    Returns
    -------
    float
        Standard deviation.

    Examples
    --------
    >>> from fastconv import init
    >>> init.std_kaiming_toolbox(fan_in=300, fan_out=100)
    0.1
    >>> init.std_kaiming_toolbox(200, 200) == init.std_he(200, 200)  # the same where a layer keeps its width
    True
    """
    return math.sqrt(4.0 / (fan_in + fan_out))


def std_he(fan_in: int, fan_out: int) -> float:
    """``sqrt(2 / fan_in)``: keeps the variance of signals through layers of rectified units.

    K. He, X. Zhang, S. Ren and J. Sun, "Delving deep into rectifiers: surpassing human-level performance on
    ImageNet classification", ICCV 2015, equation 10.

    Parameters
    ----------
    fan_in, fan_out : int
        Inputs and outputs of a unit, see `fans`.

    Returns
    -------
    float
        Standard deviation.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import init
    >>> rng = np.random.default_rng(2)
    >>> x = rng.normal(size=(50, 100))
    >>> for _ in range(5):  # five layers of 100 rectified units
    ...     x = np.maximum(x @ rng.normal(0, init.std_he(100, 100), (100, 100)), 0)
    >>> print(f"{(x**2).mean() ** 0.5:.1f}")  # was 1
    1.0
    """
    return math.sqrt(2.0 / fan_in)


_STD: dict[str, Callable[[int, int], float]] = {
    "small": std_small,
    "lecun": std_lecun,
    "xavier": std_xavier,
    "caffe": std_caffe,
    "kaiming-toolbox": std_kaiming_toolbox,
    "he": std_he,
}

NAMES = (*_STD, "orthogonal", "lsuv")
"""What `apply` takes."""


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight of shape (out, in, ...).

    Parameters
    ----------
    shape : tuple of int

    Raises
    ------
    ValueError
        If the shape has fewer than two dimensions.

    Examples
    --------
    >>> fans((16, 8, 5, 5))
    (200, 400)
    """
    if len(shape) < 2:
        raise ValueError(f"init.fans: a weight has at least two dimensions, got shape {shape}")
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def orthogonal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return a random weight whose rows (columns, if there are fewer) are orthonormal as (out, in * ...).

    Parameters
    ----------
    shape : tuple of int
        (out, in, ...), at least two dimensions.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray
        float64, uniformly distributed over such matrices: normal vectors, each made orthogonal to those
        before (Gram-Schmidt, done twice). It runs on fastconv's own kernels, so it has the same bits on every
        machine, which LAPACK's QR has not.

    Raises
    ------
    ValueError
        If the array has less than two dimensions.

    References
    ----------
    A. Saxe, J. McClelland and S. Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep
    linear neural networks", ICLR 2014.

    Examples
    --------
    >>> q = orthogonal((3, 5), np.random.default_rng(0))
    >>> bool(np.allclose(q @ q.T, np.eye(3)))
    True
    """
    fans(shape)
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"init.orthogonal: rng must be a numpy.random.Generator, got {type(rng).__name__}")
    rows, columns = shape[0], math.prod(shape[1:])
    short, long = min(rows, columns), max(rows, columns)
    basis = rng.standard_normal((short, long))
    for k in range(short):
        vector = basis[k : k + 1]
        for _ in range(2 if k else 0):
            along = F.linear(vector, basis[:k])
            vector -= F.linear(along, np.ascontiguousarray(basis[:k].T))
        vector /= math.sqrt(float(F.linear(vector, vector)[0, 0]))
    return (basis if rows <= columns else basis.T).reshape(shape)


def apply(model: nn.Module, name: str, seed: int = 0, *, batch: np.ndarray | None = None) -> None:
    """Draw all weights of a model anew.

    Parameters
    ----------
    model : Module
        Changed in place: weights of two or more dimensions are drawn, biases set to zero.
    name : str
        One of ``NAMES``.
    seed : int
        0 <= seed < 2**64.
    batch : ndarray, optional
        A few training images, (N, C, H, W); only ``"lsuv"`` looks at data, and needs them.

    Raises
    ------
    ValueError
        If there is no such rule, or ``"lsuv"`` has no batch.

    Examples
    --------
    >>> from fastconv import init, nn
    >>> model = nn.Sequential(nn.Linear(200, 500), nn.ReLU(), nn.Linear(500, 10))
    >>> for rule in ("small", "he"):
    ...     init.apply(model, rule)
    ...     print(rule, [round(float(model[place].weight.data.std()), 3) for place in (0, 2)])
    small [0.01, 0.01]
    he [0.1, 0.064]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"init.apply: model must be a Module, got {type(model).__name__}")
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(f"init.apply: no initialisation {short(name)}; there are {', '.join(NAMES)}")
    if name == "lsuv":
        if batch is None:
            raise ValueError("init.apply: 'lsuv' looks at data; give it a batch of training images")
        lsuv(model, batch, seed)
        return
    for key, param in model.named_parameters():
        if param.data.ndim >= 2:
            rng = random.generator(seed, f"init.{key}")
            if name == "orthogonal":
                param.data[...] = orthogonal(param.data.shape, rng)
            else:
                param.data[...] = rng.standard_normal(param.data.shape) * _STD[name](*fans(param.data.shape))
        elif key.rpartition(".")[2] == "bias":
            param.data.fill(0)


def lsuv(model: nn.Module, batch: np.ndarray, seed: int = 0, *, tolerance: float = 0.1, iterations: int = 10) -> None:
    """Layer-sequential unit variance: orthogonal weights, then each layer scaled to outputs of variance 1.

    Layer after layer, front to back, the batch runs through the model in evaluation mode and the layer's
    weight is divided by the deviation of its output, until the variance is within ``tolerance`` of 1.

    Parameters
    ----------
    model : Module
        Changed in place; every module that holds a ``weight`` of two or more dimensions is such a layer.
    batch : ndarray, shape (N, ...)
        Some hundred training inputs, as the model takes them, prepared as for training.
    seed : int
        0 <= seed < 2**64.
    tolerance : float
    iterations : int
        Most runs for one layer.

    Raises
    ------
    ValueError
        If a layer gives the same value everywhere, or one that is not finite.

    References
    ----------
    D. Mishkin and J. Matas, "All you need is a good init", ICLR 2016, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import diagnose, init, nn
    >>> x = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float32)
    >>> model = nn.Sequential(*(layer for _ in range(9) for layer in (nn.Linear(20, 20), nn.Tanh())))
    >>> init.apply(model, "lecun")
    >>> [round(layer.std, 2) for layer in diagnose.activation_statistics(model, x).values()][::4]  # signals die out
    [0.57, 0.14, 0.04, 0.01, 0.0]
    >>> init.lsuv(model, x)
    >>> [round(layer.std, 2) for layer in diagnose.activation_statistics(model, x).values()][::4]
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    apply(model, "orthogonal", seed)
    for name, layer in list(model.named_modules()):
        weight = getattr(layer, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.data.ndim < 2:
            continue
        for _ in range(iterations):
            variance = _output_variance(model, layer, batch)
            if not 0 < variance < math.inf:
                raise ValueError(f"init.lsuv: outputs of {name} have variance {variance} on this batch")
            if abs(variance - 1) < tolerance:
                break
            weight.data /= math.sqrt(variance)


def _output_variance(model: nn.Module, layer: nn.Module, batch: np.ndarray) -> float:
    seen: list[float] = []
    remove = layer.register_forward_hook(lambda module, input, output: seen.append(float(output.var(dtype=np.float64))))
    try:
        model.predict(batch)
    finally:
        remove()
    return seen[0] if seen else math.nan
