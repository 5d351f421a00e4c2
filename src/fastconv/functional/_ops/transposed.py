"""Transposed convolutions: the input gradient of a convolution as a layer of its own."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastconv._ext.conv.algorithms import instances, kernel
from fastconv._ext.conv.geometry import Geometry
from fastconv._ext.conv.input_gradient import pack, packed_bytes
from fastconv._ext.conv.packing import same_bytes
from fastconv.functional._check import (
    OfSignals,
    as_given,
    check_count,
    check_rank,
    check_shape,
    empty_aligned,
    memory,
    pair,
    scratch,
)
from fastconv.functional._epilogue import NOTHING, Epilogue
from fastconv.functional._geometry import area, check_groups, length_1d
from fastconv.functional._geometry import convolution as geometry_of
from fastconv.functional._ops._run import describes
from fastconv.functional._ops.convolution import _bias_gradient, _fixed, _into, ready
from fastconv.graph.operation import Array, Call, Frame, Operation, Spec, one_dtype, one_of, operation, rows_of
from fastconv.graph.value import write

_pack = instances(pack)

# With more pixels than this, packing is below a hundredth of the work.
MOST_PIXELS = 1024


class PackedWeight:
    """A weight as kernels read it, for evaluation, which finds the same weight again and again.

    Nothing tells when somebody writes to an array. So each run compares the weight, byte by byte, with a copy of what
    was packed: two reads of memory in the place of a read and a write in another order.

    Parameters
    ----------
    pack : callable
    nbytes : int
        What packs, and how many bytes that takes.
    weight : ndarray (K, C / groups, R, S)
    geometry : Geometry
    """

    def __init__(self, pack: Any, nbytes: int, weight: Array, geometry: Any) -> None:
        self.pack, self.panels = pack, empty_aligned(nbytes, np.uint8)
        self.copy = weight.copy()
        self.bytes = self.copy.reshape(-1).view(np.uint8)
        self.pack(self.copy, geometry, self.panels, scratch)

    def refresh(self, weight: Array, known: Array, geometry: Any) -> None:
        """Pack the weight, whose bytes are ``known``, if it is another one than before."""
        if not same_bytes(known, self.bytes):
            np.copyto(self.copy, weight)
            self.pack(self.copy, geometry, self.panels, scratch)

    def call(self, weight: Array, geometry: Any) -> Call:
        """Return the call that sees to it in each run."""
        return self.refresh, (weight, weight.reshape(-1).view(np.uint8), geometry)


@operation
class TransposedConvolution(Operation):
    """A transposed convolution in one or two dimensions; inputs are x, weight (in, out / groups, ...) and bias."""

    dimensions: int
    stride: Any
    padding: Any
    output_padding: Any
    dilation: Any
    groups: int
    takes = ("add", "activation", "slopes")
    optional = (2,)
    accumulates = (1, 2)
    spaced_output = True

    def __post_init__(self) -> None:
        one_of("TransposedConvolution: dimensions", self.dimensions, (1, 2))
        self._sizes()
        check_groups(self.where, self.groups)

    @property
    def where(self) -> str:
        return OfSignals("conv_transpose1d") if self.dimensions == 1 else "conv_transpose2d"

    def reads(self, wanted: tuple[bool, ...]) -> tuple[int, ...]:
        return tuple(i for i in (0, 1) if wanted[1 - i])

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        x, weight, bias = inputs
        dtype = one_dtype(self.where, x, weight, bias)
        check_rank(self.where, "input", x, self.dimensions + 2)
        check_rank(self.where, "weight", weight, self.dimensions + 2)
        shape = self._output(x.shape, weight.shape)
        if bias is not None:
            check_shape(self.where, "bias", bias, (shape[1],))
        self.geometry(shape, weight.shape, x.shape)
        return (Spec(shape if self.dimensions == 2 else (shape[0], shape[1], shape[3]), dtype),)

    def _sizes(self) -> tuple[tuple[int, int], ...]:
        """Return stride, padding, output padding and dilation of two dimensions."""
        where = self.where
        if self.dimensions == 1:
            stride, dilation = (
                length_1d(where, name, value)
                for name, value in (("stride", self.stride), ("dilation", self.dilation))
            )
            [padding], [more] = (
                pair(where, name, (value, value), 0)[:1]
                for name, value in (("padding", self.padding), ("output_padding", self.output_padding))
            )
            return stride, (0, padding), (0, more), dilation
        return (
            pair(where, "stride", self.stride), pair(where, "padding", self.padding, 0),
            pair(where, "output_padding", self.output_padding, 0), pair(where, "dilation", self.dilation),
        )  # fmt: skip

    def _output(self, x: tuple[int, ...], weight: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Return (N, K, P, Q); one dimension less has P = 1."""
        x, weight = (shape if self.dimensions == 2 else (*shape[:2], 1, shape[2]) for shape in (x, weight))
        stride, padding, more, dilation = self._sizes()
        if x[1] % self.groups or x[1] != weight[0]:
            raise ValueError(
                f"{self.where}: weight expects {weight[0]} input channels, input has {x[1]}, and groups must divide "
                f"them (input.shape={as_given(self.where, x)}, weight.shape={as_given(self.where, weight)}, "
                f"groups={self.groups})"
            )
        p, q = (
            (x[i] - 1) * stride[i - 2] - 2 * padding[i - 2] + dilation[i - 2] * (weight[i] - 1) + more[i - 2] + 1
            for i in (2, 3)
        )
        if p < 1 or q < 1 or any(m >= max(s, d) for m, s, d in zip(more, stride, dilation, strict=True)):
            names = ("stride", "padding", "output_padding", "dilation")
            values = (sizes if self.dimensions == 2 else sizes[1] for sizes in (stride, padding, more, dilation))
            settings = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
            raise ValueError(
                f"{self.where}: {settings} make an output of {area(self.where, p, q)} of an input of shape "
                f"{as_given(self.where, x)}; output_padding must be below stride or dilation"
            )
        channels = weight[1] * self.groups
        check_count(self.where, "an output", max(x[0], 1), channels, p, q)
        return x[0], channels, p, q

    def geometry(self, y: tuple[int, ...], weight: tuple[int, ...], x: tuple[int, ...]) -> Any:
        """Return the convolution from outputs to inputs, whose input gradient this is."""
        if self.dimensions == 1:
            weight, x = (*weight[:2], 1, weight[2]), (*x[:2], 1, x[2])
        stride, padding, _, dilation = self._sizes()
        g = geometry_of(self.where, y, weight, stride, padding, dilation, self.groups)
        if (g.p, g.q) != x[2:]:  # an output padding of a stride and more: the convolution's last pixels have no twin
            p, q = x[2:]
            g = Geometry(
                g.n, g.c, g.h, g.w, g.k, g.r, g.s, p, q, g.sh, g.sw, g.top, g.left, g.dh, g.dw, g.groups
            )
        return g

    def _image(self, a: Array) -> Array:
        return memory(a) if a.ndim == 4 else memory(a[:, :, None])

    def _filters(self, a: Array) -> Array:
        return a if a.ndim == 4 else a[:, :, None]

    def _known(self, f: Frame, x: Any, weight: Any) -> Any:
        if "geometry" not in f.memo:
            f.memo["geometry"] = self.geometry(self._output(x.shape, weight.shape), weight.shape, x.shape)
        return f.memo["geometry"]

    def forward(self, f: Frame) -> Iterator[Call]:
        x, weight, bias = f.x
        [y] = f.y
        weight, calls = ready(weight)
        yield from calls
        if bias is not None:
            bias, calls = ready(bias)
            yield from calls
        g = self._known(f, x, weight)
        add, pre = (None if a is None else self._image(a) for a in (f.add, f.pre))
        epilogue = Epilogue(*f.activation, bias, None, add, pre)
        run, filters = kernel("input_gradient", g, y.itemsize), self._filters(weight)
        arguments = (self._image(x), filters, self._image(y), g, epilogue, scratch)
        if f.kept is None:
            yield run, arguments
            return
        key = (self, weight.shape, weight.dtype, min(g.sh, g.h), min(g.sw, g.w))  # the last two: how many phases
        if key not in f.kept:
            f.kept[key] = PackedWeight(_pack[y.itemsize], packed_bytes(g, y.itemsize), filters, g)
        packed = f.kept[key]
        yield packed.call(filters, g)
        yield run, (*arguments, packed.panels)

    def keeps(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> int:
        x, weight = inputs[:2]
        g = self.geometry(self._output(x.shape, weight.shape), weight.shape, x.shape)
        if not 0 < g.n * g.p * g.q <= MOST_PIXELS:
            return 0
        return int(weight.nbytes + packed_bytes(g, weight.dtype.itemsize))

    def backward(self, f: Frame) -> Iterator[Call]:
        x, weight, _ = f.x
        gx, grad_weight, grad_bias = f.gx
        [gy] = f.gy
        g = self._known(f, x, weight)
        if grad_weight is not None:
            run = kernel("weight_gradient", g, gy.itemsize)
            yield from _into(
                grad_weight, lambda to: (run, (self._image(gy), self._image(x), self._filters(to), g, scratch))
            )
        if grad_bias is not None:
            yield from _into(grad_bias, lambda to: (_bias_gradient[gy.dtype], (rows_of(gy), to, scratch)))
        if gx is not None:
            weight, calls = ready(weight)
            yield from calls
            run = kernel("forward", g, gy.itemsize)
            yield run, (self._image(gy), self._filters(weight), self._image(gx), g, NOTHING, scratch)

    def flops(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> float:
        x, weight = inputs[:2]
        g = self.geometry(self._output(x.shape, weight.shape), weight.shape, x.shape)
        return 2.0 * g.n * g.p * g.q * g.k * (g.c // g.groups) * g.r * g.s


def transposed(dimensions: int, stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any) -> Any:
    """Return the operation of `conv_transpose2d` or `conv_transpose1d`, whose arguments come in torch's order."""
    settings = (_fixed(stride), _fixed(padding), _fixed(output_padding), _fixed(dilation))
    return TransposedConvolution(dimensions, *settings, groups)


@describes("conv_transpose2d")
def conv_transpose2d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    return write(transposed(2, stride, padding, output_padding, groups, dilation), input, weight, bias)


@describes("conv_transpose1d")
def conv_transpose1d(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0,
    groups: int = 1, dilation: Any = 1,
) -> Any:  # fmt: skip
    return write(transposed(1, stride, padding, output_padding, groups, dilation), input, weight, bias)
