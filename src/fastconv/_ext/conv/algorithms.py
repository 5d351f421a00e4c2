"""The algorithms of a convolution, in the order in which they are asked whether they pay.

An algorithm has an order of sums of its own, so which one runs decides bits. Therefore its tests read the shape and the
dtype alone: never the instruction set, the number of threads or a timing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from fastconv._ext.conv.forward import forward
from fastconv._ext.conv.geometry import Geometry
from fastconv._ext.conv.input_gradient import input_gradient
from fastconv._ext.conv.weight_gradient import weight_gradient
from fastconv._ext.conv.winograd import forward as winograd_forward
from fastconv._ext.conv.winograd_gradient import weight_gradient as winograd_weight_gradient
from fastconv._ext.conv.winograd_input_gradient import input_gradient as winograd_input_gradient

# forward, input_gradient or weight_gradient; the sizes; bytes of an element
Test = Callable[[str, Geometry, int], Any]


class Algorithm(NamedTuple):
    """One way to compute a convolution and its gradients.

    Attributes
    ----------
    name : str
        As ``algorithm=`` takes it.
    refusal : callable
        Given an operation, the sizes and the bytes of an element: why it cannot be done so, or "".
    pays : callable
        Given the same: whether ``"auto"`` takes it.
    forward, input_gradient, weight_gradient : dict
        Kernels by the bytes of an element; the last one makes the bias's gradient along with the weight's.
    """

    name: str
    refusal: Test
    pays: Test
    forward: dict[int, Any]
    input_gradient: dict[int, Any]
    weight_gradient: dict[int, Any]


def instances(function: Any) -> dict[int, Any]:
    """Return the instances of a fused function by the bytes of an element."""
    return {4: function["float"], 8: function["double"]}


DIRECT = Algorithm(
    "direct",
    refusal=lambda operation, geometry, itemsize: "",
    pays=lambda operation, geometry, itemsize: True,
    forward=instances(forward),
    input_gradient=instances(input_gradient),
    weight_gradient=instances(weight_gradient),
)



def _winograd_refusal(operation: str, g: Geometry, itemsize: int) -> str:
    if (g.r, g.s) not in ((3, 3), (5, 5)):
        return f"winograd needs kernel (3, 3) or (5, 5), got {g.r, g.s}"
    for name, value, wanted in (("stride", (g.sh, g.sw), (1, 1)), ("groups", g.groups, 1)):
        if value != wanted:
            return f"winograd needs {name} {wanted}, got {value}"
    return ""


def _winograd_pays(operation: str, g: Geometry, itemsize: int) -> bool:
    """Return whether it is the faster one, as measured for float32, and its tiles are filled to a half."""
    side, channels = (4, 8) if g.r == 3 else (2, 32)
    rows, cols = (side * d * -(-pixels // (side * d)) for pixels, d in ((g.p, g.dh), (g.q, g.dw)))
    filled = 2 * g.p * g.q >= rows * cols
    return itemsize == 4 and g.c >= channels and g.k >= channels and filled


WINOGRAD = Algorithm(
    "winograd",
    refusal=_winograd_refusal,
    pays=_winograd_pays,
    forward=instances(winograd_forward),
    input_gradient=instances(winograd_input_gradient),
    weight_gradient=instances(winograd_weight_gradient),
)

# The last one takes everything.
ALGORITHMS = [WINOGRAD, DIRECT]


def choose(operation: str, geometry: Geometry, itemsize: int, algorithm: str = "auto") -> Algorithm:
    """Return the algorithm of this name, or the first that pays.

    Raises
    ------
    ValueError
        If there is none of this name, or it cannot do the operation with these sizes.
    """
    for one in ALGORITHMS:
        if algorithm in ("auto", one.name):
            refusal = one.refusal(operation, geometry, itemsize)
            if algorithm == one.name and refusal:
                raise ValueError(f"algorithm {algorithm!r} cannot compute this {operation}: {refusal}")
            if not refusal and (algorithm == one.name or one.pays(operation, geometry, itemsize)):
                return one
    names = ", ".join(repr(one.name) for one in ALGORITHMS)
    raise ValueError(f"algorithm must be 'auto' or one of {names}, got {algorithm!r}")


def kernel(operation: str, geometry: Geometry, itemsize: int, algorithm: str = "direct") -> Any:
    """Return the kernel that computes an operation: forward, input_gradient or weight_gradient."""
    return getattr(choose(operation, geometry, itemsize, algorithm), operation)[itemsize]
