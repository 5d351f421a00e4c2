"""Nonlinearities, element by element or along an axis."""

from typing import Any

from fastconv import functional as F
from fastconv.functional._check import integer, number
from fastconv.functional._epilogue import gelu_name
from fastconv.nn.base import Module, Parameter, initial, size


class Identity(Module):
    """The input itself, whatever arguments it is built with: a place that holds no layer.

    Parameters
    ----------
    *args, **kwargs
        Taken and left, so that it can stand in the place of any layer.

    Examples
    --------
    >>> from fastconv import nn
    >>> model = nn.Sequential(nn.Linear(4, 2), nn.Softmax())
    >>> model[1] = nn.Identity()
    >>> model
    Sequential(
      (0): Linear(in_features=4, out_features=2, bias=True)
      (1): Identity()
    )
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def forward(self, input: Any) -> Any:
        return input


class ReLU(Module):
    """max(x, 0); NaN stays NaN. It runs in the pass of the Conv, Linear, Bias or BatchNorm before it.

    V. Nair and G. Hinton, ICML 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.ReLU()
    >>> layer(np.array([[-1.0, 2.0, np.nan]]))
    array([[ 0.,  2., nan]])
    >>> layer.backward(np.array([[5.0, 5.0, 5.0]]))
    array([[0., 5., 5.]])
    """

    def forward(self, input: Any) -> Any:
        return F.relu(input)


class LeakyReLU(Module):
    """x where x > 0, else `negative_slope` · x (Maas et al., "Rectifier nonlinearities...", ICML 2013).

    Parameters
    ----------
    negative_slope : float

    Raises
    ------
    TypeError
        If the slope is no number.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.LeakyReLU(0.1)
    >>> layer(np.array([[-2.0, 3.0]]))
    array([[-0.2,  3. ]])
    >>> layer.backward(np.ones((1, 2)))
    array([[0.1, 1. ]])
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = number("LeakyReLU", "negative_slope", negative_slope)

    def forward(self, input: Any) -> Any:
        return F.leaky_relu(input, self.negative_slope)


class PReLU(Module):
    """x where x > 0, else `weight` · x, the weight learned (He et al., "Delving deep into rectifiers", ICCV 2015).

    Parameters
    ----------
    num_parameters : int
        1, or the channels of the input, axis 1.
    init : float
        The weight's first value.

    Attributes
    ----------
    weight : Parameter, shape (num_parameters,)

    Raises
    ------
    ValueError
        If `num_parameters` is below 1; in forward, if the channels do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.PReLU()
    >>> x = np.array([[-2.0, 3.0]], np.float32)
    >>> layer(x)
    array([[-0.5,  3. ]], dtype=float32)
    >>> _ = layer.backward(np.ones_like(x))
    >>> layer.weight.grad
    array([-2.], dtype=float32)
    """

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        self.num_parameters, self.init = size("PReLU", "num_parameters", num_parameters), number("PReLU", "init", init)
        self.weight = Parameter(initial((self.num_parameters,), self.init))

    def forward(self, input: Any) -> Any:
        return F.prelu(input, self.weight)


class ReLU6(Module):
    """min(max(x, 0), 6); NaN stays NaN. A. Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.ReLU6()(np.array([[-1.0, 4.0, 8.0]]))
    array([[0., 4., 6.]])
    """

    def forward(self, input: Any) -> Any:
        return F.relu6(input)


class Hardtanh(Module):
    """min(max(x, `min_val`), `max_val`); NaN stays NaN.

    Parameters
    ----------
    min_val, max_val : float
        The first below the second.

    Raises
    ------
    ValueError
        If `min_val` is not below `max_val`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.Hardtanh(0.0, 2.0)(np.array([[-1.0, 1.5, 8.0]]))
    array([[0. , 1.5, 2. ]])
    >>> nn.Hardtanh(2.0, 0.0)
    Traceback (most recent call last):
        ...
    ValueError: Hardtanh: min_val must be less than max_val, got 2.0 and 0.0
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        self.min_val, self.max_val = number("Hardtanh", "min_val", min_val), number("Hardtanh", "max_val", max_val)
        if not self.min_val < self.max_val:
            raise ValueError(f"Hardtanh: min_val must be less than max_val, got {min_val} and {max_val}")

    def forward(self, input: Any) -> Any:
        return F.hardtanh(input, self.min_val, self.max_val)


class ELU(Module):
    """x where x > 0, else `alpha` · (exp(x) - 1), `alpha` at least 0 (Clevert et al., 2015).

    Parameters
    ----------
    alpha : float
        At least 0.

    Raises
    ------
    ValueError
        If `alpha` is negative or no number.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.ELU()(np.array([[-100.0, -1.0, 2.0]])).round(4)
    array([[-1.    , -0.6321,  2.    ]])
    >>> nn.ELU(alpha=-1.0)
    Traceback (most recent call last):
        ...
    ValueError: ELU: alpha must be at least 0, got -1.0
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = number("ELU", "alpha", alpha)
        if not self.alpha >= 0:
            raise ValueError(f"ELU: alpha must be at least 0, got {alpha}")

    def forward(self, input: Any) -> Any:
        return F.elu(input, self.alpha)


class GELU(Module):
    """x · Φ(x), Φ the normal distribution, or with ``approximate="tanh"`` its approximation by tanh.

    D. Hendrycks and K. Gimpel, "Gaussian error linear units", arXiv 1606.08415, 2016.

    Parameters
    ----------
    approximate : {"none", "tanh"}

    Raises
    ------
    ValueError
        If `approximate` is another word.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.GELU()(np.array([[-1.0, 0.0, 1.0]])).round(5)
    array([[-0.15866,  0.     ,  0.84134]])
    >>> nn.GELU("tanh")(np.array([[-1.0, 0.0, 1.0]])).round(5)
    array([[-0.15881,  0.     ,  0.84119]])
    """

    def __init__(self, approximate: str = "none") -> None:
        gelu_name("GELU", approximate)  # refuses any other
        self.approximate = approximate

    def forward(self, input: Any) -> Any:
        return F.gelu(input, self.approximate)


class SiLU(Module):
    """x · sigmoid(x). S. Elfwing, E. Uchibe and K. Doya, "Sigmoid-weighted linear units", arXiv 1702.03118, 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.SiLU()(np.array([[-1.0, 0.0, 10.0]])).round(4)
    array([[-0.2689,  0.    ,  9.9995]])
    """

    def forward(self, input: Any) -> Any:
        return F.silu(input)


class Mish(Module):
    """x · tanh(log(1 + exp(x))). D. Misra, "Mish: a self regularized non-monotonic activation function", BMVC 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.Mish()(np.array([[-1.0, 0.0, 10.0]])).round(4)
    array([[-0.3034,  0.    , 10.    ]])
    """

    def forward(self, input: Any) -> Any:
        return F.mish(input)


class Hardswish(Module):
    """x · min(max(x + 3, 0), 6) / 6. A. Howard et al., "Searching for MobileNetV3", ICCV 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.Hardswish()(np.array([[-1.5, 0.0, 1.5, 4.0]]))
    array([[-0.375,  0.   ,  1.125,  4.   ]])
    """

    def forward(self, input: Any) -> Any:
        return F.hardswish(input)


class Hardsigmoid(Module):
    """min(max(x + 3, 0), 6) / 6. A. Howard et al., "Searching for MobileNetV3", ICCV 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.Hardsigmoid()(np.array([[-4.0, 0.0, 1.5, 4.0]]))
    array([[0.  , 0.5 , 0.75, 1.  ]])
    """

    def forward(self, input: Any) -> Any:
        return F.hardsigmoid(input)


class Softplus(Module):
    """log(1 + exp(`beta` · x)) / `beta`, and x itself where `beta` · x > `threshold`.

    C. Dugas et al., "Incorporating second-order functional knowledge", NIPS 2000.

    Parameters
    ----------
    beta : float
        Above 0.
    threshold : float

    Raises
    ------
    ValueError
        If `beta` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.Softplus()(np.array([[-5.0, 0.0, 5.0]])).round(4)
    array([[0.0067, 0.6931, 5.0067]])
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta, self.threshold = number("Softplus", "beta", beta), number("Softplus", "threshold", threshold)
        if not self.beta > 0:
            raise ValueError(f"Softplus: beta must be greater than 0, got {beta}")

    def forward(self, input: Any) -> Any:
        return F.softplus(input, self.beta, self.threshold)


class Tanh(Module):
    """The hyperbolic tangent.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.Tanh()
    >>> layer(np.array([[-1.0, 0.0, 1.0]])).round(4)
    array([[-0.7616,  0.    ,  0.7616]])
    >>> layer.backward(np.ones((1, 3))).round(4)
    array([[0.42, 1.  , 0.42]])
    """

    def forward(self, input: Any) -> Any:
        return F.tanh(input)


class Sigmoid(Module):
    """1 / (1 + exp(-x)).

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> layer = nn.Sigmoid()
    >>> layer(np.array([[-1.0, 0.0, 1.0]])).round(4)
    array([[0.2689, 0.5   , 0.7311]])
    >>> layer.backward(np.ones((1, 3))).round(4)
    array([[0.1966, 0.25  , 0.1966]])
    """

    def forward(self, input: Any) -> Any:
        return F.sigmoid(input)


class Softsign(Module):
    """``x / (1 + |x|)``. J. Bergstra et al., "Quadratic polynomials learn better image features", 2009.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.Softsign()(np.array([[-3.0, 0.0, 1.0]]))
    array([[-0.75,  0.  ,  0.5 ]])
    """

    def forward(self, input: Any) -> Any:
        return F.softsign(input)


class _AlongAxis(Module):
    def __init__(self, axis: int = 1) -> None:
        self.axis = integer(f"{type(self).__name__}: axis", axis)


class Softmax(_AlongAxis):
    """exp(x) / sum of exp(x) along `axis`, computed without overflow.

    Parameters
    ----------
    axis : int

    Raises
    ------
    TypeError
        If `axis` is no int.
    ValueError
        In forward, if the input has no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.Softmax()(np.array([[0.0, 0.0], [1.0, 1001.0]]))
    array([[0.5, 0.5],
           [0. , 1. ]])
    >>> nn.Softmax(axis=0)(np.array([[0.0, 0.0], [0.0, 0.0]]))
    array([[0.5, 0.5],
           [0.5, 0.5]])
    """

    def forward(self, input: Any) -> Any:
        return F.softmax(input, self.axis)


class LogSoftmax(_AlongAxis):
    """log(softmax(x)) along `axis`, computed in one stable step.

    Parameters
    ----------
    axis : int

    Raises
    ------
    TypeError
        If `axis` is no int.
    ValueError
        In forward, if the input has no such axis.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import nn
    >>> nn.LogSoftmax()(np.zeros((1, 4))).round(4)
    array([[-1.3863, -1.3863, -1.3863, -1.3863]])
    >>> nn.LogSoftmax()(np.array([[0.0, 1000.0]]))
    array([[-1000.,     0.]])
    """

    def forward(self, input: Any) -> Any:
        return F.log_softmax(input, self.axis)
