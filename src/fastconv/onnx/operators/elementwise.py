"""Activations, arithmetic and sums over axes."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import functional as F
from fastconv.graph.value import Value
from fastconv.onnx.operators._registry import (
    integers,
    operator,
    refuse,
    reshaped,
    scalar,
)

if TYPE_CHECKING:
    from fastconv.onnx.model import Pass
    from fastconv.onnx.reading import Step


_HIGHEST = 16  # power

# ---- elementwise


def _alone(kind: str, function: Callable[..., Any], **settings: tuple[str, float]) -> None:
    """Register an activation; ``settings`` maps its parameters to ONNX's attribute and default."""

    @operator(kind)
    def activation(run: "Pass", step: "Step", x: Any) -> Any:
        return function(x, **{name: float(step.settings.get(*entry)) for name, entry in settings.items()})


_alone("Relu", F.relu)
_alone("Tanh", F.tanh)
_alone("Softplus", F.softplus)
_alone("Softsign", F.softsign)
_alone("HardSwish", F.hardswish)
_alone("Mish", F.mish)
_alone("Exp", F.exp)
_alone("Log", F.log)
_alone("Sqrt", F.sqrt)
_alone("Erf", F.erf)
_alone("LeakyRelu", F.leaky_relu, negative_slope=("alpha", 0.01))
_alone("Elu", F.elu, alpha=("alpha", 1.0))


@operator("Identity")
def _identity(run: "Pass", step: "Step", x: Any) -> Any:
    return x


@operator("Sigmoid")
def _sigmoid(run: "Pass", step: "Step", x: Any) -> Any:
    y = F.sigmoid(x)
    run.gates[id(y)] = x
    return y


@operator("Swish")
def _swish(run: "Pass", step: "Step", x: Any) -> Any:
    alpha = float(step.settings.get("alpha", 1.0))
    return F.silu(x) if alpha == 1 else F.mul(x, F.sigmoid(F.mul(x, alpha)))


@operator("HardSigmoid")
def _hard_sigmoid(run: "Pass", step: "Step", x: Any) -> Any:
    alpha, beta = (float(step.settings.get(*entry)) for entry in (("alpha", 0.2), ("beta", 0.5)))
    if np.float32(alpha) == np.float32(1 / 6) and beta == 0.5:
        return F.hardsigmoid(x)
    return F.hardtanh(F.add(F.mul(x, alpha), beta), 0.0, 1.0)


@operator("Selu")
def _selu(run: "Pass", step: "Step", x: Any) -> Any:
    alpha = float(step.settings.get("alpha", 1.67326319217681884765625))
    return F.mul(F.elu(x, alpha), float(step.settings.get("gamma", 1.05070102214813232421875)))


@operator("Gelu")
def _gelu(run: "Pass", step: "Step", x: Any) -> Any:
    return F.gelu(x, step.settings.get("approximate", "none"))


@operator("PRelu")
def _prelu(run: "Pass", step: "Step", x: Any, slope: Any) -> Any:
    if step.layer:
        return run.layer(step)(x)
    return F.sub(F.relu(x), F.mul(slope, F.relu(F.mul(x, -1.0))))


@operator("Clip")
def _clip(run: "Pass", step: "Step", x: Any, low: Any = None, high: Any = None) -> Any:
    low, high = (
        step.settings.get(name) if value is None else np.asarray(value).reshape(-1)[0]
        for name, value in (("min", low), ("max", high))
    )
    most = float(np.finfo(x.dtype).max)
    low, high = -most if low is None else max(float(low), -most), most if high is None else min(float(high), most)
    if (low, high) == (-most, most):
        return x
    if low >= high:  # as NumPy's, the upper one comes last
        return F.add(F.mul(x, 0.0), high)
    if low == 0 and high in (6.0, most):
        return F.relu6(x) if high == 6 else F.relu(x)
    return F.hardtanh(x, low, high)


@operator("Neg")
def _neg(run: "Pass", step: "Step", x: Any) -> Any:
    return F.mul(x, -1.0)


@operator("Abs")
def _abs(run: "Pass", step: "Step", x: Any) -> Any:
    return _size(x)


@operator("Reciprocal")
def _reciprocal(run: "Pass", step: "Step", x: Any) -> Any:
    return F.div(1.0, x)


@operator("Pow")
def _pow(run: "Pass", step: "Step", x: Any, exponent: Any) -> Any:
    power = scalar(exponent)
    if not isinstance(power, float) or not 0 < abs(power) <= _HIGHEST:
        shown = f"{power:g}" if isinstance(power, float) else f"an array of shape {exponent.shape}"
        refuse(f"a power other than one number from {-_HIGHEST} to {_HIGHEST} that is not 0: {shown}")
    if 2 * power != int(2 * power):
        return F.exp(F.mul(F.log(x), power))
    found, square, left = F.sqrt(x) if power % 1 else None, x, int(abs(power))
    while left:
        if left % 2:
            found = square if found is None else F.mul(found, square)
        left //= 2
        square = F.mul(square, square) if left else square
    return found if power > 0 else F.div(1.0, found)


@operator("Max", "Min")
def _extreme(run: "Pass", step: "Step", *operands: Any) -> Any:
    sign = 1.0 if step.kind == "Max" else -1.0
    operands = tuple(scalar(operand) for operand in operands)
    shape = np.broadcast_shapes(*(operand.shape for operand in operands if not isinstance(operand, float)))
    dtype = next(operand.dtype for operand in operands if not isinstance(operand, float))
    zeros = np.zeros(shape, dtype)
    found = None
    for operand in operands:
        whole = isinstance(operand, Value) and operand.shape == shape
        part = operand if whole else F.add(operand, zeros)
        part = part if sign > 0 else F.mul(part, sign)
        # the larger one of two, exactly, is what pooling finds of both side by side
        pair = None if found is None else F.reshape(F.stack([found, part]), 1, 1, 2, -1)
        found = part if pair is None else F.reshape(F.max_pool2d(pair, (2, 1)), *shape)
    return found if sign > 0 else F.mul(found, sign)


@operator("Softmax", "LogSoftmax")
def _softmax(run: "Pass", step: "Step", x: Any) -> Any:
    function = F.softmax if step.kind == "Softmax" else F.log_softmax
    axis = step.settings.get("axis", -1 if run.net.opset >= 13 else 1)
    axis %= x.ndim
    if run.net.opset >= 13 or axis == x.ndim - 1:
        return function(x, axis)
    rows = function(F.reshape(x, math.prod(x.shape[:axis]), math.prod(x.shape[axis:])), 1)
    return reshaped(rows, x.shape)


def _binary(kind: str, function: Callable[..., Any]) -> None:
    @operator(kind)
    def arithmetic(run: "Pass", step: "Step", a: Any, b: Any) -> Any:
        if kind == "Mul":
            for gate, x in ((a, b), (b, a)):
                if isinstance(x, Value) and run.gates.get(id(gate)) is x:
                    return F.silu(x)
        return function(scalar(a), scalar(b))


for _kind, _function in (("Add", F.add), ("Sub", F.sub), ("Mul", F.mul), ("Div", F.div)):
    _binary(_kind, _function)


@operator("Sum", "Mean")
def _sum(run: "Pass", step: "Step", *operands: Any) -> Any:
    found = scalar(operands[0])
    for operand in operands[1:]:
        found = F.add(found, scalar(operand))
    return found if step.kind == "Sum" else F.mul(found, 1 / len(operands))


@operator("Dropout")
def _dropout(run: "Pass", step: "Step", x: Any, ratio: Any = None, training: Any = None) -> Any:
    if len([name for name in step.outputs if name]) > 1 and step.outputs[1] in run.read:
        refuse("the mask of a Dropout")
    y = run.layer(step)(x) if step.layer else x
    return (y, *[None] * (len(step.outputs) - 1)) if len(step.outputs) > 1 else y


@operator("Cast", "CastLike")
def _cast(run: "Pass", step: "Step", x: Any, like: Any = None) -> Any:
    import onnx

    to = x.dtype if like is not None else onnx.helper.tensor_dtype_to_np_dtype(step.settings["to"])
    if to not in (x.dtype, np.float16):
        refuse(f"a cast from {x.dtype} to {np.dtype(to)}")
    return x


# ---- sums over axes


def _itself(x: Any) -> Any:
    return x


def _size(x: Any) -> Any:
    return F.add(F.relu(x), F.relu(F.mul(x, -1.0)))


def _square(x: Any) -> Any:
    return F.mul(x, x)


# What becomes of the elements before they are added, and of the sums
_REDUCED: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "ReduceL1": (_size, _itself), "ReduceL2": (_square, F.sqrt), "ReduceSumSquare": (_square, _itself),
    "ReduceLogSum": (_itself, F.log),
}  # fmt: skip


@operator("ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum")
def _reduce(run: "Pass", step: "Step", x: Any, axes: Any = None) -> Any:
    axes = step.settings.get("axes") if axes is None else integers(axes)
    nowhere = not axes and step.settings.get("noop_with_empty_axes", 0)
    before, after = _REDUCED.get(step.kind, (_itself, _itself))
    x = before(x)
    if not nowhere:
        function = F.mean if step.kind == "ReduceMean" else F.sum
        x = function(x, tuple(axes) if axes else None, bool(step.settings.get("keepdims", 1)))
    return after(x)
