"""What every layer is made of: parameters, hyperparameters, and the walk over a tree of layers.

A layer writes ``forward`` with other layers, functions of `fastconv.functional` and arithmetic, and sets its
parameters as attributes; its backward and the rest of what people expect of a module follow.
``super().__init__()`` is not needed::

    class Block(nn.Module):
        def __init__(self, features):
            self.features = features
            self.conv = nn.Conv2d(features, features, 3, padding=1)
            self.scale = nn.Parameter(np.ones((features, 1, 1), np.float32))

        def forward(self, x):
            return F.relu(x + self.scale * self.conv(x))

Such a forward is written down once for each shape of input, mode and setting of the layers' attributes, with values
that have a shape and no numbers. It is written down anew when an attribute of a layer is assigned, or a list, dict,
set or dataclass among the attributes holds something else. What it reads from elsewhere, global variables, those of
enclosing functions and objects of other classes, is taken as it was the first time; so is what NumPy computes from an
array (the array itself may be written to). A list that grows with every step belongs outside the model: each change
costs writing it down again. A layer that needs numbers defines ``backward`` too and works on NumPy arrays::

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
import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from fastconv.functional._check import check_array, empty_aligned, flag, short
from fastconv.graph.operation import Spec, place
from fastconv.graph.value import Value, graph_of
from fastconv.nn import _running
from fastconv.nn._origin import note
from fastconv.nn._parameter import Array, Parameter, blank, initial, next_generator, next_key, size
from fastconv.nn._running import modes
from fastconv.nn._settings import OWN, assigned
from fastconv.nn._state import State
from fastconv.nn._turns import turn
from fastconv.nn._workspace import Workspace

if TYPE_CHECKING:
    from fastconv.graph.report import Plan

__all__ = [
    "Array", "Module", "Parameter", "Value", "blank", "in_mode", "initial", "next_generator", "next_key",
    "size", "turn",
]  # fmt: skip


@functools.cache
def _arguments(layer: Any) -> tuple[str, ...]:
    """Return the names of the constructor's arguments."""
    parameters = list(inspect.signature(layer.__init__).parameters.values())[1:]
    return tuple(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))


@contextlib.contextmanager
def in_mode(model: "Module", training: bool) -> Iterator[None]:
    """Run a model in a mode inside a ``with`` block, for this thread alone; afterwards there is no backward to do.

    Other threads see the modules in their own modes, and wait with `predict` and the steps of a trainer.
    """
    modules = list(model.modules())
    with turn(modules):
        former = modes.set({**modes.get(), **{id(module): training for module in modules}})
        try:
            yield
        finally:
            modes.reset(former)
            for module in modules:
                module._saved = None  # a backward now would belong to no training forward
                if "_tree" in vars(module):
                    vars(module)["_tree"].drop()


class Module(Workspace, State):
    """Base class of all layers.

    ``forward(input)`` returns the output; ``backward(grad_output)`` returns the gradient of the input of the
    latest forward and *adds* those of the parameters to ``Parameter.grad``; it runs once for a forward. An array
    that forward or backward returns belongs to the layer until its next call; copy what must last. The input must
    not be changed between forward and backward. Several inputs and outputs are several arguments and a tuple.

    A subclass that defines `forward` alone is written down as a graph, and its backward follows (see the module's
    text above). One that defines `backward` too runs as it is, on arrays.

    Attributes
    ----------
    training : bool
        True for dropout and batch statistics; see `train` and `eval`.
    need_input_grad : bool
        False lets `backward` return None instead of the gradient of the input.
    trains_itself : bool
        True says that `backward` changes more than `Parameter.grad`: it runs wherever the layer stands.
    checkpoint : bool
        True keeps no results inside the layer for backward, which computes them once more: the same bits, less memory,
        more time (`plan` shows both). It is for layers inside a model.
    memory_limit : int or None
        Bytes that a step may hold for parameters, activations and gradients. Where it would hold more, parts of the
        model are computed twice as with `checkpoint`. It is for the model that is called.
    buffer_names : tuple of str
        Names of attributes that are arrays of the state but not learned (running statistics).
    extra_names : tuple of str
        Names of attributes that are integers needed to continue a run exactly (dropout's counters).

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import functional as F, nn
    >>> class Twice(nn.Module):
    ...     def __init__(self):
    ...         self.layer = nn.Linear(4, 4)
    ...     def forward(self, x):
    ...         return self.layer(F.relu(self.layer(x)))
    >>> model = Twice()
    >>> model(np.ones((2, 4), np.float32)).shape, model.backward(np.ones((2, 4), np.float32)).shape
    ((2, 4), (2, 4))
    >>> [name for name, _ in model.named_parameters()]
    ['layer.weight', 'layer.bias']
    """

    _replaced: ClassVar[tuple[str, ...]] = ()  # containers that are never changed in their own place
    need_input_grad: bool = True
    trains_itself: bool = False
    checkpoint: bool = False
    _memory_limit: int | None = None
    _training: bool = True
    _version: int = 0
    _hooks: tuple[Callable[..., None], ...] = ()

    # ---- running

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "forward" in vars(cls):
            cls.forward = _entrance(cls, vars(cls)["forward"])  # type: ignore[method-assign]

    def forward(self, *inputs: Any, **more: Any) -> Any:
        """Return what comes of the inputs; of what shapes and dtypes they are, the class says.

        Parameters
        ----------
        *inputs, **more : ndarray of float32 or float64
            In a model that is called, values of a graph instead: shapes without numbers.

        Returns
        -------
        ndarray, or several
            It belongs to the model until its next call.

        Raises
        ------
        TypeError, ValueError
            If inputs are of other shapes or dtypes than the class takes.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def backward(self, *grad_outputs: Any, **more: Any) -> Any:
        """Return the gradients of the latest forward's inputs, and add those of the parameters.

        Parameters
        ----------
        *grad_outputs : ndarray
            Gradients of the loss with respect to the outputs, of their shapes and dtypes.
        **more
            For layers that take more by name; a model does not.

        Raises
        ------
        RuntimeError
            If no forward came before, or its backward has run already.
        ValueError, TypeError
            If a gradient has another shape or dtype than its output.
        """
        if more:
            name = type(self).__name__
            raise TypeError(f"{name}.backward takes gradients by position, got {', '.join(more)} by name")
        return self._running().backward(grad_outputs)

    def __call__(self, *inputs: Any) -> Any:
        if not self.is_opaque() or graph_of(inputs) is not None:
            output = self.forward(*inputs)
        else:
            output = self._run_opaque(inputs)
            self._call_hooks(*_bundled(inputs, output))
        note(self, inputs, output)
        return output

    def is_opaque(self) -> bool:
        """Return whether the layer defines `backward` itself, so that a graph holds it as one node."""
        return type(self).backward is not Module.backward

    def output_specs(self, *inputs: Spec) -> tuple[Spec, ...]:
        """Return shapes and dtypes of the outputs of a layer that defines `backward` itself.

        By default a copy of the layer runs on small drawn numbers; a layer that is large, or that takes no such
        numbers, says it by a method of its own.

        Parameters
        ----------
        *inputs : tuple of (shape, dtype)
        """
        twin = copy.deepcopy(self)
        rng = np.random.default_rng(0)
        arrays = []
        for spec in inputs:
            flat = empty_aligned(spec.nbytes // spec.dtype.itemsize, spec.dtype)
            flat[...] = rng.random(flat.size)
            arrays.append(place(flat, spec))
        with np.errstate(all="ignore"):
            found = twin._run_opaque(arrays)
        outputs = found if isinstance(found, tuple) else (found,)
        return tuple(Spec(a.shape, a.dtype) for a in outputs)

    def _run_opaque(self, inputs: Any) -> Any:
        """Run a forward of one's own; layers that it calls twice keep both runs for backward."""
        used = _running.frame.get()
        if used is None:
            token = _running.frame.set({id(self)})
            try:
                return self.forward(*inputs)
            finally:
                _running.frame.reset(token)
        output = self.forward(*inputs)
        if id(self) in used and self._saved is not None:
            self._saved = ()
        used.add(id(self))
        return output

    def _call_hooks(self, inputs: Any, outputs: Any) -> None:
        for hook in self._hooks:
            hook(self, inputs, outputs)

    def _running(self) -> _running.Tree:
        tree: _running.Tree | None = vars(self).get("_tree")
        if tree is None:
            tree = vars(self).setdefault("_tree", _running.Tree(self))  # one, whoever comes first
        return tree

    def __setattr__(self, name: str, value: Any) -> None:
        known = vars(self)
        other = not (name in known and known[name] is value)
        if other and name not in OWN:
            known["_version"] = self._version + 1
        super().__setattr__(name, value)
        if other:
            assigned(name)

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        vars(self)["_version"] = self._version + 1
        assigned(name)

    def predict(self, *inputs: Any, batch_size: int | None = None) -> Any:
        """Run `forward` in evaluation mode and return a copy; the model stays in the mode it is in.

        Any number of threads may predict with one model, or with models that share layers, at the same time: each
        has the very bits of a thread alone, one waiting for the other, and none sees a mode or statistics change.
        They also may while a `fastconv.train.Trainer` trains the model: between two steps.

        Parameters
        ----------
        *inputs : ndarray, shape (N, ...)
            Or a list or a tensor; numbers of another kind than the parameters become of theirs.
        batch_size : int, optional
            Examples a run; all at once by default. It bounds memory and changes no bit of the result.

        Returns
        -------
        ndarray, or a tuple of them

        Raises
        ------
        ValueError
            If `batch_size` is below 1.
        """
        if len(inputs) > 1 and not _holds_numbers(inputs[-1]):  # as the second argument
            *arrays, batch_size = inputs
            inputs = tuple(arrays)
        dtype = next((param.data.dtype for param in self.parameters()), None)
        inputs = tuple(_as_input(type(self).__name__, a, dtype) for a in inputs)
        count = max(len(inputs[0]), 1) if batch_size is None else size("predict", "batch_size", batch_size)
        return self._running().predict(inputs, count)

    def register_forward_hook(self, hook: Callable[..., None]) -> Callable[[], None]:
        """Call ``hook(module, input, output)`` after every forward; returns a function that removes it.

        Input and output are tuples where there are several. What a hook looks at is computed on its own, not as one
        with its neighbours: same bits, less speed; `plan` shows it.

        Parameters
        ----------
        hook : callable
            ``hook(module, input, output)``; what it returns is left.
        """
        entry = lambda module, input, output: hook(module, input, output)  # noqa: E731  (its own identity)
        self._hooks = (*self._hooks, entry)

        def remove() -> None:
            self._hooks = tuple(h for h in self._hooks if h is not entry)

        return remove

    def plan(self, input_shape: tuple[int, ...], training: bool = True) -> "Plan":
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
        from fastconv.nn import _tracing

        return _tracing.plan(self, input_shape, flag(f"{type(self).__name__}.plan: training", training))

    @property
    def memory_limit(self) -> int | None:
        return self._memory_limit

    @memory_limit.setter
    def memory_limit(self, nbytes: int | None) -> None:
        whole = isinstance(nbytes, int | np.integer) and not isinstance(nbytes, bool)
        if nbytes is not None and not (whole and nbytes >= 1):
            raise ValueError(f"memory_limit must be a whole number of bytes, at least 1, or None, got {short(nbytes)}")
        self._memory_limit = None if nbytes is None else int(nbytes)

    # ---- modes

    @property
    def training(self) -> bool:
        mode = modes.get().get(id(self))
        return self._training if mode is None else mode

    @training.setter
    def training(self, mode: bool) -> None:
        self._set_training(flag(f"{type(self).__name__}: training", mode))

    def _set_training(self, mode: bool) -> None:
        forced = modes.get()
        if id(self) in forced:  # for as long as they hold
            forced[id(self)] = mode
        elif self._training != mode:
            vars(self)["_training"] = mode
            assigned("_training")

    def train(self, mode: bool = True) -> Self:
        """Set training mode here and below; returns self.

        Parameters
        ----------
        mode : bool
            Training (True) or evaluation.
        """
        mode = flag(f"{type(self).__name__}.train: mode", mode)
        for module in self.modules():
            module._set_training(mode)
        return self

    def eval(self) -> Self:
        """Set evaluation mode here and below; returns self."""
        return self.train(False)

    # ---- description

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments by name, read from the attributes of the same names."""
        kind: Any = type(self)
        values = {name: getattr(self, name) for name in _arguments(kind)}
        if "bias" in values:
            values["bias"] = values["bias"] is not None
        return values

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Build a layer from what `config` returned.

        Parameters
        ----------
        config : dict

        Returns
        -------
        Module
        """
        return cls(**config)

    def extra_repr(self) -> str:
        """Return what stands between the parentheses of the repr: by default all hyperparameters."""
        return ", ".join(f"{name}={value}" for name, value in self.config().items())

    def _repr_html_(self) -> str:
        from fastconv.nn._shown import shown

        return shown(self)

    def __repr__(self) -> str:
        children = list(self.named_children())
        if not children:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = (f"({name}): {child!r}".replace("\n", "\n  ") for name, child in children)
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def _holds_numbers(value: Any) -> bool:
    return isinstance(value, list) or (hasattr(value, "__array__") and not isinstance(value, np.generic))


def _as_input(where: str, value: Any, dtype: np.dtype | None) -> Array:
    """Return an array of the dtype of a model's parameters; without any, of float32 unless it is of one already."""
    array = np.asarray(value) if _holds_numbers(value) and not isinstance(value, np.ndarray) else value
    check_array(where, "input", array)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{where}: input must hold real numbers, got {array.dtype}")
    if not array.ndim:
        raise ValueError(f"{where}: input must have a batch, got shape ()")
    floats = array.dtype.kind == "f" and array.dtype.itemsize in (4, 8)
    wanted = (array.dtype if floats else np.dtype(np.float32)) if dtype is None else dtype
    return array if array.dtype.newbyteorder("=") == wanted.newbyteorder("=") else array.astype(wanted)


def _bundled(inputs: Any, output: Any) -> tuple[Any, Any]:
    return inputs[0] if len(inputs) == 1 else tuple(inputs), output


def _entrance(owner: type[Module], raw: Callable[..., Any]) -> Callable[..., Any]:
    """Return the `forward` that is called: it writes nodes where it is given values, else runs a program."""

    @functools.wraps(raw)
    def forward(self: Module, *inputs: Any) -> Any:
        graph = graph_of(inputs)
        if graph is None:
            if owner.backward is not Module.backward:
                return raw(self, *inputs)
            for a in inputs:
                check_array(type(self).__name__, "input", a)
            return self._running().forward(raw, inputs)
        if graph.modules[-1] is self:  # super().forward(...)
            return raw(self, *inputs)
        from fastconv.nn import _tracing

        return _tracing.write(graph, self, raw, inputs)

    forward.raw = raw  # type: ignore[attr-defined]
    return forward
