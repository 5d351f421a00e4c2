"""Nodes that are no mathematics of their own: dropout, layers with a backward of their own, hooks, detached values."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv import functional as F
from fastconv.graph.operation import Array, Call, Frame, Operation, Spec, one_dtype, operation


@operation
class Dropout(Operation):
    """Dropout in training; the layer counts its steps."""

    p: float
    layer: Any
    stateful = True
    runs_again = True
    keeps_saved = True

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        return (Spec(inputs[0].shape, one_dtype("dropout", inputs[0])),)

    def saved(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return (Spec(outputs[0].shape, np.dtype(np.uint8)),)

    def forward(self, f: Frame) -> Iterator[Call]:
        mask = f.saved[0] if f.saved else None
        yield _drop, (self.layer, self.p, f.x[0], mask, f.y[0])

    def again(self, f: Frame) -> Iterator[Call]:
        yield _drop_back, (f.x[0], f.saved[0], self.p, f.y[0])

    def backward(self, f: Frame) -> Iterator[Call]:
        yield _drop_back, (f.gy[0], f.saved[0], self.p, f.gx[0])


@operation
class DropWhole(Operation):
    """Dropout of whole channels of samples, whole samples ("row") or the whole batch; the layer counts its steps."""

    p: float
    kind: str
    layer: Any
    stateful = True
    runs_again = True
    keeps_saved = True

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        [x] = inputs
        if x.ndim < (2 if self.kind == "channel" else 1):
            kind = type(self.layer).__name__
            raise ValueError(f"{kind}: there is no {self.kind} to drop of an array of shape {x.shape}")
        return (Spec(x.shape, one_dtype("dropout", x)),)

    def saved(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        n, c = outputs[0].shape[0], outputs[0].shape[1] if self.kind == "channel" else 1
        return (Spec((1 if self.kind == "batch" else n, c), outputs[0].dtype),)

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        return () if backward else self.saved(inputs, outputs)

    def forward(self, f: Frame) -> Iterator[Call]:
        factors = (f.saved or f.work)[0]
        yield _draw_factors, (self.layer, self.p, factors)
        yield np.multiply, (f.x[0], _spread(factors, f.y[0]), f.y[0])

    def again(self, f: Frame) -> Iterator[Call]:
        yield np.multiply, (f.x[0], _spread(f.saved[0], f.y[0]), f.y[0])

    def backward(self, f: Frame) -> Iterator[Call]:
        yield np.multiply, (f.gy[0], _spread(f.saved[0], f.gy[0]), f.gx[0])


def _spread(factors: Array, like: Array) -> Array:
    return factors.reshape(factors.shape + (1,) * (like.ndim - 2)) if like.ndim > 1 else factors[:, 0]


def _draw_factors(layer: Any, p: float, factors: Array) -> None:
    keys = {"seed": layer.seed, "stream": layer.stream, "step": layer.step}
    factors.fill(1)
    F.dropout(factors, p, True, **keys, out=factors)
    vars(layer)["step"] = layer.step + 1


def _image(a: Any) -> Any:
    return a[:, :, None] if a is not None and a.ndim == 3 else a


def _drop(layer: Any, p: float, x: Array, mask: Array | None, y: Array) -> None:
    keys = {"seed": layer.seed, "stream": layer.stream, "step": layer.step}
    F.dropout(_image(x), p, True, **keys, mask=_image(mask), out=_image(y))
    vars(layer)["step"] = layer.step + 1


def _drop_back(gy: Array, mask: Array, p: float, gx: Array) -> None:
    F.dropout_backward(_image(gy), _image(mask), p, grad_input=_image(gx))


@operation
class Opaque(Operation):
    """A layer that defines forward and backward itself, in NumPy; its arrays are copied in and out."""

    layer: Any
    outputs: tuple[Spec, ...]
    stateful = True
    calls_out = True

    @property
    def trains_itself(self) -> bool:  # type: ignore[override]
        layer = self.layer
        return bool(layer.trains_itself or any(p.requires_grad for p in layer.parameters()))

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        return self.outputs

    def reads(self, wanted: tuple[bool, ...]) -> tuple[int, ...]:
        return tuple(range(len(wanted)))  # the layer may have kept them

    def forward(self, f: Frame) -> Iterator[Call]:
        yield _call_layer, (self.layer, f.x, f.y)

    def backward(self, f: Frame) -> Iterator[Call]:
        yield _call_back, (self.layer, f.gy, f.gx)


def _call_layer(layer: Any, x: list[Array], y: list[Array]) -> None:
    found = layer._run_opaque(x)
    for target, array in zip(y, found if isinstance(found, tuple) else (found,), strict=True):
        if array.shape != target.shape or array.dtype != target.dtype:
            raise ValueError(
                f"{type(layer).__name__}: forward gave shape {array.shape} and dtype {array.dtype}, where it gave "
                f"{target.shape} and {target.dtype} for such inputs before"
            )
        if array is not target:
            np.copyto(target, array)


def _call_back(layer: Any, gy: list[Array], gx: list[Array | None]) -> None:
    before, layer.need_input_grad = layer.need_input_grad, any(a is not None for a in gx)
    try:
        found = layer.backward(*gy)
    finally:
        layer.need_input_grad = before
    for target, grad in zip(gx, found if isinstance(found, tuple) else (found,), strict=True):
        if target is not None:
            if grad is None or grad.shape != target.shape:
                got = None if grad is None else grad.shape
                raise ValueError(
                    f"{type(layer).__name__}.backward: the gradient of the input has shape {got}, the input "
                    f"{target.shape}"
                )
            np.copyto(target, grad)


@operation
class Observe(Operation):
    """A layer's hooks: inputs are the layer's inputs, then its outputs; nothing comes out."""

    layer: Any
    count: int
    stateful = True
    calls_out = True

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        return ()

    def forward(self, f: Frame) -> Iterator[Call]:
        inputs, outputs = (
            part[0] if len(part) == 1 else tuple(part) for part in (f.x[: self.count], f.x[self.count :])
        )
        yield self.layer._call_hooks, (inputs, outputs)


@operation
class Same(Operation):
    """The value itself under another name."""

    def passes(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[int, ...]:
        return (0,)

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        return (inputs[0],)

    def is_view(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> bool:
        return True

    def view(self, x: Array, output: Spec) -> Array:
        return x


@operation
class Detach(Same):
    """The value itself; no gradient goes through."""

    blocks = True
