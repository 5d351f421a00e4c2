"""What exporters write in parts, put together: GELU, normalisation of layers, groups, pixels, linear layers.

The last step of such parts becomes one that does it all, of the same name; those that nobody reads any more go. It has
the rounding and the gradient of one function, and nothing lies in memory between.
"""

import math
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv.graph.operation import Array

if TYPE_CHECKING:
    from fastconv.onnx.reading import Step

_FACTORS = 8  # of a product that are looked at
_CHANNELS = {"axes": (1,)}  # of a layer normalisation that no file has: over this axis instead of those from "axis" on
_NEAR = 1e-6  # relative: constants stand in files in single precision


def assemble(steps: Sequence["Step"], constants: Mapping[str, Array], learned: Set[str]) -> list["Step"]:
    """Return the steps in their order, the last ones of known parts replaced.

    Parameters
    ----------
    steps : sequence of Step
    constants : mapping of str to ndarray
        What is known by name.
    learned : set of str
        Names of weights.
    """
    parts = _Parts(constants, learned)
    for step in steps:
        parts.add(step)
        for whole in _WHOLES.get(step.kind, ()):
            found = whole(parts, step)
            if found is not None:
                parts.steps.pop()
                parts.add(found)
                break
    return parts.steps


class _Parts:
    """The steps so far, and which one gives which name."""

    def __init__(self, constants: Mapping[str, Array], learned: Set[str]) -> None:
        self.constants, self.learned = constants, learned
        self.steps: list[Step] = []
        self.makers: dict[str, Step] = {}

    def add(self, step: "Step") -> None:
        self.steps.append(step)
        self.makers.update((name, step) for name in step.outputs if name)

    def maker(self, name: str, *kinds: str) -> "Step | None":
        """Return the step that gives ``name``, if it is one of these operators and gives nothing else."""
        step = self.makers.get(name)
        return step if step is not None and step.kind in kinds and len(step.outputs) == 1 else None

    def number(self, name: str) -> float | None:
        """Return a constant that is one number."""
        array = self.constants.get(name)
        if array is None or array.size != 1 or array.ndim > 1 or array.dtype.kind not in "fiu":
            return None
        return float(array.reshape(-1)[0])

    def filled(self, name: str, number: float) -> bool:
        """Return whether a value is so many times this number, and no weight."""
        array = self.constants.get(name)
        return array is not None and name not in self.learned and bool((array == number).all())

    def beside(self, step: "Step | None", number: float) -> str:
        """Return the other operand of a step of two, of which one is this number; "" where none is."""
        for one, other in () if step is None else (step.inputs, step.inputs[::-1]):
            found = self.number(one)
            if found is not None and _same(found, number):
                return other
        return ""

    def product(self, name: str, whole: str = "") -> tuple[float, list[str]]:
        """Return a value as a number times other values; ``whole`` is not looked into."""
        factors: list[str] = []
        number, unseen = 1.0, [name]
        while unseen and len(factors) + len(unseen) <= _FACTORS:
            name = unseen.pop()
            known = self.number(name)
            step = None if name == whole else self.maker(name, "Mul", "Div", "Pow")
            by = None if step is None or step.kind == "Mul" else self.number(step.inputs[1])
            if known is not None:
                number *= known
            elif step is not None and step.kind == "Mul":
                unseen += step.inputs
            elif step is not None and step.kind == "Div" and by:
                number /= by
                unseen.append(step.inputs[0])
            elif step is not None and step.kind == "Pow" and by in (2, 3):
                unseen += [step.inputs[0]] * int(by)
            else:
                factors.append(name)
        return number, sorted(factors + unseen)

    def is_product(self, name: str, number: float, *factors: str) -> bool:
        found, of = self.product(name, factors[0])
        return _same(found, number) and of == sorted(factors)


def _same(number: float, other: float) -> bool:
    return math.isclose(number, other, rel_tol=_NEAR)


def _gelu(parts: _Parts, step: "Step") -> "Step | None":
    """x (1 + erf(x / sqrt(2))) / 2, or x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3))) / 2, factors in any order."""
    [y] = step.outputs
    for gate in parts.product(y)[1]:
        curve = parts.maker(parts.beside(parts.maker(gate, "Add"), 1.0), "Erf", "Tanh")
        if curve is None:
            continue
        [inner] = curve.inputs
        if curve.kind == "Erf":
            scaled = parts.maker(inner, "Mul", "Div")
            for x in () if scaled is None else scaled.inputs:
                if parts.is_product(inner, math.sqrt(0.5), x) and parts.is_product(y, 0.5, x, gate):
                    return replace(step, kind="Gelu", inputs=(x,), settings={})
            continue
        for name in parts.product(inner)[1]:
            cubic = parts.maker(name, "Add")
            for x, cube in () if cubic is None else (cubic.inputs, cubic.inputs[::-1]):
                if (
                    parts.is_product(inner, math.sqrt(2 / math.pi), name)
                    and parts.is_product(cube, 0.044715, x, x, x)
                    and parts.is_product(y, 0.5, x, gate)
                ):
                    return replace(step, kind="Gelu", inputs=(x,), settings={"approximate": "tanh"})
    return None


def _axes(parts: _Parts, mean: "Step") -> tuple[int, ...]:
    """Return the axes that a mean goes over and keeps: (1,) or the last, counted from behind; () if they are others."""
    axes = mean.settings.get("axes") or ()
    if len(mean.inputs) > 1 and mean.inputs[1]:
        axes = parts.constants.get(mean.inputs[1], np.zeros(0)).reshape(-1).tolist()
    found = tuple(sorted(axes))
    known = found == (1,) or found == tuple(range(-len(axes), 0))
    return found if known and mean.settings.get("keepdims", 1) else ()


def _normalised(parts: _Parts, step: "Step") -> "Step | None":
    """d / sqrt(mean(d**2) + eps), d = x - mean(x), both means over the last axes, or over channels."""
    minus, root = parts.maker(step.inputs[0], "Sub"), parts.maker(step.inputs[1], "Sqrt")
    total = None if root is None else parts.maker(root.inputs[0], "Add")
    mean = None if minus is None else parts.maker(minus.inputs[1], "ReduceMean")
    if minus is None or mean is None or total is None or mean.inputs[0] != minus.inputs[0]:
        return None
    axes = _axes(parts, mean)
    for name, other in (total.inputs, total.inputs[::-1]):
        variance, eps = parts.maker(name, "ReduceMean"), parts.number(other)
        if axes and eps is not None and variance is not None and _axes(parts, variance) == axes:
            number, factors = parts.product(variance.inputs[0])
            differences = [parts.maker(factor, "Sub") for factor in factors]
            if number == 1 and len(factors) == 2 and all(d and d.inputs == minus.inputs for d in differences):
                over: dict[str, Any] = {"axis": axes[0]} if axes[0] < 0 else _CHANNELS
                settings = {**over, "epsilon": float(str(np.float32(eps)))}
                return replace(step, kind="LayerNormalization", inputs=minus.inputs[:1], settings=settings)
    return None


def _affine(parts: _Parts, step: "Step") -> "Step | None":
    """The scale that a layer normalisation is multiplied by, or what is added behind it."""
    for name, weight in (step.inputs, step.inputs[::-1]):
        norm, array = parts.maker(name, "LayerNormalization"), parts.constants.get(weight)
        if norm is None or array is None or len(norm.inputs) != (1 if step.kind == "Mul" else 2):
            continue
        if "axes" in norm.settings:  # a number for each channel: (C, 1, 1)
            fits = array.ndim > 1 and array.size == max(array.shape[:2])
        else:
            fits = array.ndim == -norm.settings.get("axis", -1)
        if fits and array.size > 1:
            return replace(norm, name=step.name, inputs=(*norm.inputs, weight), outputs=step.outputs)
    return None


def _channels(parts: _Parts, step: "Step") -> "Step | None":
    """Channels moved to the end, normalised there, and moved back."""
    norm = parts.maker(step.inputs[0], "LayerNormalization")
    there = None if norm is None else parts.maker(norm.inputs[0], "Transpose")
    order = () if there is None else tuple(there.settings.get("perm", ()))
    if norm is None or there is None or order != (0, *range(2, len(order)), 1):
        return None
    back = (0, len(order) - 1, *range(1, len(order) - 1))
    if tuple(step.settings.get("perm", ())) != back or norm.settings.get("axis", -1) not in (-1, len(order) - 1):
        return None
    settings = {**_CHANNELS, **{name: value for name, value in norm.settings.items() if name != "axis"}}
    return replace(norm, name=step.name, inputs=(there.inputs[0], *norm.inputs[1:]), outputs=step.outputs,
                   settings=settings)  # fmt: skip


def _biased(parts: _Parts, step: "Step") -> "Step | None":
    """A product with a known matrix and what is added to it: one step, hence one layer."""
    for name, bias in (step.inputs, step.inputs[::-1]):
        product, array = parts.maker(name, "MatMul"), parts.constants.get(bias)
        weight = None if product is None else parts.constants.get(product.inputs[1])
        if product is None or array is None or weight is None or len(product.inputs) > 2:
            continue
        if weight.ndim == 2 and array.shape == weight.shape[1:] and array.dtype == weight.dtype:
            return replace(product, name=step.name, inputs=(*product.inputs, bias), outputs=step.outputs)
    return None


def _bare(parts: _Parts, step: "Step") -> "Step | None":
    """What is normalised, times one plus zero, which nobody learns."""
    bare = len(step.inputs) == 3 and parts.filled(step.inputs[1], 1) and parts.filled(step.inputs[2], 0)
    return replace(step, inputs=step.inputs[:1]) if bare else None


def _grouped(parts: _Parts, step: "Step") -> "Step | None":
    """Groups of channels in a row, normalised as instances, and all in its shape again."""
    norm, shape = parts.maker(step.inputs[0], "InstanceNormalization"), parts.maker(step.inputs[1], "Shape")
    rows = None if norm is None else parts.maker(norm.inputs[0], "Reshape")
    if norm is None or rows is None or shape is None or len(norm.inputs) > 1 or shape.settings:
        return None
    target = parts.constants.get(rows.inputs[1], np.zeros(0)).reshape(-1).tolist()
    if shape.inputs[0] != rows.inputs[0] or len(target) != 3 or target[::2] != [0, -1] or target[1] < 1:
        return None
    settings = {"num_groups": int(target[1]), **norm.settings}
    return replace(step, kind="GroupNormalization", inputs=rows.inputs[:1], settings=settings)


_WHOLES: dict[str, tuple[Callable[[_Parts, "Step"], "Step | None"], ...]] = {
    "Add": (_affine, _biased), "Div": (_gelu, _normalised), "GroupNormalization": (_bare,),
    "InstanceNormalization": (_bare,), "LayerNormalization": (_bare,), "Mul": (_gelu, _affine), "Reshape": (_grouped,),
    "Transpose": (_channels,),
}  # fmt: skip
