"""An operation run at once on arrays, or written down where it is given values."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from fastconv.functional._check import check_apart, check_array, check_count, number, same_dtype
from fastconv.graph.operation import Array, Call, Frame, Operation, Spec, lies_well, place
from fastconv.graph.value import functions, graph_of, write

_NUMBERS = (int, float, np.number)

Function = TypeVar("Function", bound=Callable[..., Any])


def describes(name: str) -> Callable[[Function], Function]:
    """Register what a function of `functional` does with values."""

    def register(function: Function) -> Function:
        functions[name] = function
        return function

    return register


def apply(where: str, op: Operation, *operands: Any, out: Array | None = None) -> Any:
    """Write a node, where an operand is a value; else run the operation on arrays."""
    if graph_of(operands) is not None:
        return write(op, *operands)
    first = next((a for a in operands if isinstance(a, np.ndarray)), None)
    if first is None:
        raise TypeError(f"{where}: at least one operand must be a NumPy array")
    dtype = same_dtype(where, array=first)
    arrays = [
        _checked(where, op, i, np.asarray(number(where, f"operand {i}", a), dtype) if isinstance(a, _NUMBERS) else a)
        for i, a in enumerate(operands)
    ]
    specs = _specs(arrays)
    outputs = op.infer(*specs)
    made = [_result(where, out, spec, arrays) for spec in outputs]
    frame = Frame([_laid_out(where, a) for a in arrays], made, work=_memory(where, op.work(False, specs, outputs)))
    if op.is_view(specs, outputs):
        viewed = op.view(frame.x[0], outputs[0])
        assert viewed is not None
        np.copyto(made[0], viewed)
    else:
        _run(op.forward(frame))
    return made[0] if len(made) == 1 else tuple(made)


def apply_backward(where: str, op: Operation, grad_output: Array, *operands: Array | None) -> Any:
    """Return the gradients of all operands of an operation; what it saves, forward makes once more."""
    arrays = [_checked(where, op, i, a) for i, a in enumerate(operands)]
    specs = _specs(arrays)
    outputs = op.infer(*specs)
    same_dtype(where, grad_output=grad_output)
    gy = grad_output
    if gy.shape != outputs[0].shape:
        raise ValueError(f"{where}: grad_output must have shape {outputs[0].shape}, got {gy.shape}")
    if gy.dtype.newbyteorder("=") != outputs[0].dtype:
        raise TypeError(f"{where}: grad_output must be {outputs[0].dtype}, got {gy.dtype}")
    for spec in (*filter(None, specs), *outputs):
        check_count(where, "an array", *spec.shape)
    gy = _laid_out(where, gy)
    grads: list[Any] = [
        None if spec is None else np.zeros(spec.shape, gy.dtype) if i in op.accumulates else _memory(where, (spec,))[0]
        for i, spec in enumerate(specs)
    ]
    passed = op.passes(specs, outputs)
    for i in passed:
        np.copyto(grads[i], op.view_back(gy, specs, i))
    if len(passed) < len(grads):
        x, y = [_laid_out(where, a) for a in arrays], _memory(where, outputs)
        saved = _memory(where, op.saved(specs, outputs))
        if op.reads_outputs or saved:
            _run(op.forward(Frame(x, y, saved, work=_memory(where, op.work(False, specs, outputs)))))
        targets = [None if i in passed else grad for i, grad in enumerate(grads)]
        _run(op.backward(Frame(x, y, saved, [gy], targets, _memory(where, op.work(True, specs, outputs)))))
    return grads[0] if len(grads) == 1 else tuple(grads)


def _specs(arrays: Sequence[Array | None]) -> tuple[Any, ...]:
    return tuple(None if a is None else Spec(a.shape, a.dtype.newbyteorder("=")) for a in arrays)


def _checked(where: str, op: Operation, place: int, a: Any) -> Any:
    if a is not None or place not in op.optional:
        same_dtype(where, **{f"operand {place}": a})
    return a


def _result(where: str, out: Array | None, spec: Spec, operands: Sequence[Array | None]) -> Array:
    """Return ``out`` if it can take the result, or a new array."""
    if out is None:
        return _memory(where, (spec,))[0]
    check_array(where, "out", out)
    if out.shape != spec.shape or out.dtype != spec.dtype or not lies_well(out) or not out.flags.writeable:
        wanted = "channels-last" if spec.ndim in (3, 4) else "C-contiguous"
        raise ValueError(
            f"{where}: out must be writable, {wanted}, of shape {spec.shape} and {spec.dtype}, got {out.shape} and "
            f"{out.dtype} with strides {out.strides}"
        )
    check_apart(where, {"out": out}, {f"operand {i}": a for i, a in enumerate(operands)})
    return out


def _laid_out(where: str, a: Any) -> Any:
    """Return an array as operations take it: in the memory order of its rank, native and aligned."""
    if a is None or lies_well(a):
        return a
    [copy] = _memory(where, (Spec(a.shape, a.dtype.newbyteorder("=")),))
    np.copyto(copy, a)
    return copy


def _memory(where: str, specs: tuple[Spec, ...]) -> list[Array]:
    for spec in specs:
        check_count(where, "an array", *spec.shape)
    return [place(np.empty(math.prod(spec.shape), spec.dtype), spec) for spec in specs]


def _run(calls: Iterator[Call]) -> None:
    for function, arguments in calls:
        function(*arguments)
