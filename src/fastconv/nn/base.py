"""What every layer is made of: parameters, buffers that are reused, and the walk over a tree of layers.

A layer writes ``forward`` and ``backward`` and sets its parameters as attributes; the rest of what people
expect of a module follows from the attributes. ``super().__init__()`` is not needed::

    class Scale(nn.Module):
        def __init__(self, features):
            self.features = features
            self.weight = nn.Parameter(np.ones(features, np.float32))

        def forward(self, input):
            return self._save(input * self.weight.data, input)

        def backward(self, grad_output):
            grad_output, input = self._recall(grad_output)
            self.weight.grad += (grad_output * input).sum(axis=0)
            return grad_output * self.weight.data
"""

import contextlib
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt

from fastconv.nn._parameter import (
    Array,
    Parameter,
    blank,
    initial,
    integer,
    next_generator,
    next_key,
    real,
    size,
)
from fastconv.nn._plan import Plan, make_plan
from fastconv.nn._state import State
from fastconv.nn._turns import turn
from fastconv.nn._workspace import _OWN, Workspace, _run, as_image

__all__ = [
    "Affine", "Array", "Fusing", "Module", "Parameter", "Plain", "Workspace",
    "as_image", "blank", "in_mode", "initial", "integer", "next_generator", "next_key", "real", "size", "turn",
]  # fmt: skip


_LEAVES = frozenset((bool, int, float, str, type(None), np.ndarray, Parameter))  # passed by without a look
_PLAIN = (list, tuple, dict, set, frozenset)
_LOOK = 1000  # items of a container that are looked at for modules; a longer one holds data


def _items(container: Any) -> Iterator[Any]:
    """Yield what plain containers within each other hold, of each the first thousand."""
    for item in itertools.islice(container.values() if isinstance(container, dict) else container, _LOOK):
        if isinstance(item, _PLAIN):
            yield from _items(item)
        else:
            yield item


@functools.cache
def _arguments(layer: Any) -> tuple[str, ...]:
    """Return the names of the constructor's arguments."""
    parameters = list(inspect.signature(layer.__init__).parameters.values())[1:]
    return tuple(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))


# Modes that hold in this context alone, by identity of the module: they come before the modules' own.
_modes: ContextVar[dict[int, bool]] = ContextVar("modes", default={})  # noqa: B039  (never changed)


@contextlib.contextmanager
def in_mode(model: "Module", training: bool) -> Iterator[None]:
    """Run a model in a mode inside a ``with`` block, for this thread alone; afterwards there is no backward to do.

    Other threads see the modules in their own modes, and wait with `predict` and the steps of a trainer.

    Raises
    ------
    RuntimeError
        If a run of a net that has entered the model is under way in this thread, as in a forward hook.
    """
    modules = list(model.modules())
    run = _run.get()
    if run is not None and any(module._entered is run for module in modules):
        raise RuntimeError(
            f"{type(model).__name__}: cannot begin another run inside one of its own, as in a forward hook: its layers "
            "hold what the outer run needs; use a copy (copy.deepcopy)"
        )
    with turn(modules):
        modes = _modes.set({**_modes.get(), **{id(module): training for module in modules}})
        outside = _run.set(None)
        try:
            yield
        finally:
            _modes.reset(modes)
            _run.reset(outside)
            for module in modules:
                module._saved = None  # a backward now would belong to no training forward


class Module(Workspace, State):
    """Base class of all layers.

    ``forward(input)`` returns the output; ``backward(grad_output)`` returns the gradient of the input of the
    latest forward and *adds* those of the parameters to ``Parameter.grad``. An array that forward or backward
    returns belongs to the layer until its next call; copy what must last. The input must not be changed
    between forward and backward.

    Attributes
    ----------
    training : bool
        True for dropout and batch statistics; see `train` and `eval`.
    need_input_grad : bool
        False lets `backward` return None instead of the gradient of the input.
    trains_itself : bool
        True for a layer whose `backward` changes its weights: it is run wherever the layer stands.
    buffer_names : tuple of str
        Names of attributes that are arrays of the state but not learned (running statistics).
    extra_names : tuple of str
        Names of attributes that are integers needed to continue a run exactly (dropout's counters).
    """

    need_input_grad: bool = True
    trains_itself: ClassVar[bool] = False
    fuses_as: str | None = None  # how Sequential may merge this layer into those before: "bias", "norm", "relu", "pool"
    _hooks: tuple[Callable[["Module", Array, Array], None], ...] = ()

    @property
    def training(self) -> bool:
        mode = _modes.get().get(id(self))
        return vars(self).get("training", True) if mode is None else mode

    @training.setter
    def training(self, mode: bool) -> None:
        modes = _modes.get()
        if id(self) in modes:  # for as long as they hold
            modes[id(self)] = mode
        else:
            vars(self)["training"] = mode

    # ---- running

    def forward(self, input: Array) -> Array:
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def backward(self, grad_output: Array) -> Array | None:
        raise NotImplementedError(f"{type(self).__name__} defines no backward")

    def __call__(self, input: Array) -> Array:
        if _run.get() is None:
            self._entered = object()
            begun = _run.set(self._entered)
            try:
                output = self.forward(input)
            finally:
                _run.reset(begun)
        else:
            again = self._enter()
            output = self.forward(input)
            if again:
                self._saved = ()
        for hook in self._hooks:
            hook(self, input, output)
        return output

    def predict(self, input: Array, batch_size: int | None = None) -> Array:
        """Run `forward` in evaluation mode and return a copy; the model stays in the mode it is in.

        Any number of threads may predict with one model, or with models that share layers, at the same time: each
        has the very bits of a thread alone, one waiting for the other, and none sees a mode or statistics change.
        They also may while a `fastconv.train.Trainer` trains the model: between two steps. A loop of your own has to
        see to it that nobody predicts between its forward and its backward, which use the same buffers.

        Parameters
        ----------
        input : ndarray, shape (N, ...)
        batch_size : int, optional
            Examples a run; all at once by default. It bounds memory and changes no bit of the result.

        Raises
        ------
        ValueError
            If `batch_size` is below 1.
        RuntimeError
            If called from inside a run of this model, as in one of its forward hooks.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"predict: batch_size must be at least 1, got {batch_size}")
        with in_mode(self, False):
            size = batch_size or max(len(input), 1)
            first = self(input if size >= len(input) else input[:size])
            result = np.empty_like(first, shape=(len(input), *first.shape[1:]))
            result[:size] = first
            for start in range(size, len(input), size):
                result[start : start + size] = self(input[start : start + size])
        return result

    def register_forward_hook(self, hook: Callable[["Module", Array, Array], None]) -> Callable[[], None]:
        """Call ``hook(module, input, output)`` after every forward; returns a function that removes it.

        While any layer of a Sequential has a hook, its layers run one by one: same bits, less speed.
        """
        entry = lambda module, input, output: hook(module, input, output)  # noqa: E731  (its own identity)
        self._hooks = (*self._hooks, entry)

        def remove() -> None:
            self._hooks = tuple(h for h in self._hooks if h is not entry)

        return remove

    def plan(self, input_shape: tuple[int, ...], training: bool = True) -> Plan:
        """Return what a step on such a batch will do and hold; nothing is computed and the model stays as it is.

        Parameters
        ----------
        input_shape : tuple of int
            (N, ...), the batch included.
        training : bool
            A training step, forward and backward; else evaluation.

        Returns
        -------
        Plan
            Which layers run as one, shapes, parameters, operations and bytes; ``print`` it.

        Raises
        ------
        ValueError
            If a size is below 1, or a layer cannot take what comes to it.

        Examples
        --------
        >>> from fastconv import nn
        >>> plan = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10)).plan((64, 784))
        >>> [row.layers for row in plan.rows], plan.parameters
        ([('Linear', 'ReLU'), ('Linear',)], 101770)
        """
        return make_plan(self, input_shape, training)

    # ---- the tree

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """Yield (attribute, module) of the direct children.

        Raises
        ------
        TypeError
            If an attribute is a list, tuple, set or dict with a module or a parameter in it that is no attribute
            itself: nothing would save, train or convert it.
        """
        attributes = list(vars(self).items())
        for name, value in attributes:
            if type(value) in _LEAVES:
                continue
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, _PLAIN) and name not in _OWN:
                self._refuse_hidden(name, value, [v for _, v in attributes])

    def _refuse_hidden(self, name: str, value: Any, known: list[Any]) -> None:
        for item in _items(value):
            if isinstance(item, Module | Parameter) and not any(item is other for other in known):
                kind, held = type(value).__name__, type(item).__name__
                way = "nn.ModuleDict" if isinstance(value, dict) else "nn.ModuleList"
                way = f"use {way}" if isinstance(item, Module) else "make each an attribute of its own, by setattr"
                raise TypeError(
                    f"{type(self).__name__}.{name} is a {kind} that holds a {held}, which would be neither trained nor "
                    f"saved: {way}"
                )

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """Yield (dotted path, module) of this module (path "") and all below it."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def _parts(self) -> Iterator[tuple["Module", ...]]:
        """Yield the modules below that run one after the other, together those that run as one."""
        yield from ((child,) for _, child in self.named_children())

    def modules(self) -> Iterator["Module"]:
        """Yield this module and all below it."""
        yield from (module for _, module in self.named_modules())

    # ---- modes

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and below; returns self."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        return self.train(False)

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.grad.fill(0)

    def astype(self, dtype: npt.DTypeLike) -> Self:
        """Convert parameters, their gradients and floating-point buffers in place; returns self."""
        for parameter in self.parameters():
            parameter.data, parameter.grad = parameter.data.astype(dtype), parameter.grad.astype(dtype)
        for _, owner, attribute, learned in self._entries():
            if not learned and getattr(owner, attribute).dtype.kind == "f":
                setattr(owner, attribute, getattr(owner, attribute).astype(dtype))
        for module in self.modules():
            module._forget()
        return self

    # ---- description

    def _settings(self) -> tuple[Any, ...]:
        """Return the values of the constructor's arguments."""
        kind: Any = type(self)
        return tuple([getattr(self, name) for name in _arguments(kind)])

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments by name, read from the attributes of the same names."""
        kind: Any = type(self)
        values = {name: getattr(self, name) for name in _arguments(kind)}
        if "bias" in values:
            values["bias"] = values["bias"] is not None
        return values

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Build a layer from what `config` returned."""
        return cls(**config)

    def extra_repr(self) -> str:
        """Return what stands between the parentheses of the repr: by default all hyperparameters."""
        return ", ".join(f"{name}={value}" for name, value in self.config().items())

    def __repr__(self) -> str:
        children = list(self.named_children())
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = (f"({name}): {child!r}".replace("\n", "\n  ") for name, child in children)
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


class Plain(Module):
    """A layer without parameters: a subclass writes `_forward` and `_backward`, which hyperparameters alone change."""

    def forward(self, input: Array) -> Array:
        output: Array = self._repeat("forward", (input, *self._settings()), self._forward, input)
        return output

    def _forward(self, input: Array) -> Array:
        raise NotImplementedError

    def backward(self, grad_output: Array) -> Array:
        key = (grad_output, self._saved, *self._settings())
        grad_input: Array = self._repeat("backward", key, self._backward, grad_output)
        return grad_input

    def _backward(self, grad_output: Array) -> Array:
        raise NotImplementedError


class Fusing(Module):
    """A layer that can run layers behind it in its own pass, which is how Sequential fuses.

    `fused` runs it with any bias and activation, and `backward` undoes what the latest forward did.

    Attributes
    ----------
    takes : tuple of str
        What may follow, as named by `fuses_as`: "bias", "norm" (in evaluation), "relu".
    """

    takes: ClassVar[tuple[str, ...]] = ()

    def fused(
        self, input: Array, bias: Parameter | None, activation: str | None, masked: bool = False
    ) -> Array:  # fmt: skip
        """Return activation(this layer, with `bias` in the place of its own where it `takes` one).

        With ``masked`` the gradient that comes to `backward` has been through the activation's already.
        """
        raise NotImplementedError


class Normalising(Protocol):
    """A normalisation as the layer before it sees one: in evaluation a scale and a shift of each channel."""

    training: bool

    def statistics(self) -> tuple[Any, ...]: ...

    def coefficients(self) -> Array: ...


class Affine(Fusing):
    """A layer that ends in adding a bias: a subclass defines `_apply` and `_apply_backward`, one call each.

    One whose `takes` names "norm" has ``coefficients=`` in `_apply` too.
    """

    takes: ClassVar[tuple[str, ...]] = ("bias", "relu")

    weight: Parameter | None = None
    bias: Parameter | None

    def forward(self, input: Array) -> Array:
        return self.fused(input, self.bias, None)

    def fused(
        self, input: Array, bias: Parameter | None, activation: str | None, masked: bool = False
    ) -> Array:  # fmt: skip
        arrays = [None if p is None else p.data for p in (self.weight, bias)]
        key = (input, *arrays, bias, activation, masked, *self._window())
        output: Array = self._repeat("forward", key, self._affine, input, bias, activation, masked)
        return output

    def _affine(self, input: Array, bias: Parameter | None, activation: str | None, masked: bool) -> Array:
        input = self._accept(input)
        out = self._held("output", input)
        output = self._hold("output", input, self._apply(input, bias, activation, out))
        return self._save(output, input, output, bias, None if masked else activation)

    def normalised(
        self, input: Array, bias: Parameter | None, norm: Normalising, activation: str | None
    ) -> Array:  # fmt: skip
        """Return activation(norm in evaluation(this layer)) in one pass; it leaves nothing to run backward with."""
        arrays = [None if p is None else p.data for p in (self.weight, bias)]
        key = (input, *arrays, norm, *norm.statistics(), activation, *self._window())
        output: Array = self._repeat("normalised", key, self._normalised, input, bias, norm, activation)
        return output

    def _normalised(
        self, input: Array, bias: Parameter | None, norm: Normalising, activation: str | None
    ) -> Array:  # fmt: skip
        input = self._accept(input)
        out = self._held("output", input)
        output = self._apply(input, bias, activation, out, norm.coefficients())
        return self._save(self._hold("output", input, output), input)

    def backward(self, grad_output: Array) -> Array | None:
        bias = self._saved[1][2] if self._saved else None
        sinks = [None if p is None else p.sink for p in (self.weight, bias)]
        weight = None if self.weight is None else self.weight.data
        key = (grad_output, self._saved, weight, *sinks, self.need_input_grad)
        grad_input: Array | None = self._repeat("backward", key, self._affine_backward, grad_output)
        return grad_input

    def _affine_backward(self, grad_output: Array) -> Array | None:
        grad_output, input, output, bias, activation = self._recall(grad_output)
        held = self._held("grad_input", input) if self.need_input_grad else None
        grad = self._apply_backward(grad_output, input, output, bias, activation, held)
        return None if grad is None else self._hold("grad_input", input, grad)

    def _window(self) -> tuple[Any, ...]:
        """Return the hyperparameters on which the result depends."""
        return ()

    def _apply(
        self, input: Array, bias: Parameter | None, activation: str | None, out: Array | None,
        coefficients: Array | None = None,
    ) -> Array:  # fmt: skip
        raise NotImplementedError

    def _apply_backward(
        self, grad_output: Array, input: Array, output: Array, bias: Parameter | None, activation: str | None,
        grad_input: Array | None,
    ) -> Array | None:  # fmt: skip
        raise NotImplementedError
