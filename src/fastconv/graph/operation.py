"""What an operation is: shapes out of shapes, what its backward reads, and its kernel calls each way.

An operation holds hyperparameters and nothing else. What belongs to one call (arrays, saved memory, gradients)
comes in a `Frame` when a program is bound, so one operation may stand in any number of nodes and programs.
"""

from __future__ import annotations

import math
import operator
import reprlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, dataclass_transform, get_origin

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Call = tuple[Callable[..., Any], tuple[Any, ...]]

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

# No array, and no padded image, has more numbers: 256 TiB of float64, which 48-bit addresses end at. What the kernels
# work out of such sizes, times threads and a few images side by side, stays far below 2**63.
MOST_NUMBERS = 1 << 45


class Spec(NamedTuple):
    """Shape and dtype of an array; where it lies in memory follows from its rank (see `layout`)."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def layout(ndim: int) -> tuple[int, ...]:
    """Return the axes of an array in the order of its memory: channels last for signals and images, else C order."""
    return (0, *range(2, ndim), 1) if ndim in (3, 4) else tuple(range(ndim))


_LAYOUTS = {ndim: layout(ndim) for ndim in (3, 4)}


def place(flat: Array, spec: Spec) -> Array:
    """Return the elements of a flat array as an array of this shape, in the memory order of its rank."""
    order = layout(spec.ndim)
    return flat.reshape([spec.shape[axis] for axis in order]).transpose(np.argsort(order))


def flat(a: Array) -> Array:
    """Return the elements of an array that lies well in the order of its memory: a view."""
    return (a.transpose(layout(a.ndim)) if a.ndim in (3, 4) else a).reshape(-1)


def lies_well(a: Array) -> bool:
    """Return whether an array lies as kernels take it: the memory order of its rank, native and aligned."""
    flags = (a.transpose(_LAYOUTS[a.ndim]) if a.ndim in (3, 4) else a).flags
    return bool(flags.c_contiguous and flags.aligned and a.dtype.isnative)


def lies_in_rows(a: Array) -> bool:
    """Return whether an array lies well, or would but for gaps of one size between its pixels."""
    if lies_well(a):
        return True
    if a.ndim not in (2, 3, 4) or not (a.dtype.isnative and a.flags.aligned):
        return False
    ordered = a.transpose(layout(a.ndim)) if a.ndim > 2 else a
    pitch = next((n for size, n in zip(ordered.shape[-2::-1], ordered.strides[-2::-1], strict=True) if size > 1), 0)
    step, expected = pitch, True
    for size, stride in zip(ordered.shape[-2::-1], ordered.strides[-2::-1], strict=True):
        expected = expected and (size == 1 or stride == step)
        step *= size
    return expected and pitch > 0 and ordered.strides[-1] == a.itemsize and pitch % a.itemsize == 0


def rows_of(a: Array) -> Array:
    """Return an array that lies well, or whose pixels lie at one distance, as rows of its channels: a view."""
    return a if a.ndim == 2 else np.moveaxis(a, 1, -1).reshape(-1, a.shape[1])


def matrices(*arrays: Array) -> list[Array]:
    """Return arrays of one shape as matrices that hold the elements in one order: views.

    They are single columns where all lie well, else rows of channels.
    """
    if all(map(lies_well, arrays)):
        return [flat(a).reshape(-1, 1) for a in arrays]
    return [rows_of(a) for a in arrays]


def in_order(shape: tuple[int, ...]) -> bool:
    """Return whether an array of this shape lies in C order though its rank has a memory order of its own."""
    moved = [axis for axis in layout(len(shape)) if shape[axis] != 1]
    return moved == sorted(moved)


def same_order(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Return whether a reshape from one shape to the other moves nothing in memory."""
    return before == after or (in_order(before) and in_order(after))


@dataclass(eq=False, repr=False)
class Frame:
    """The arrays of one node in one program.

    Attributes
    ----------
    x, y : list of ndarray
        Inputs (None where an optional one is missing) and outputs.
    saved : list of ndarray
        Memory asked for by `Operation.saved`, kept from forward to backward.
    gy, gx : list of ndarray
        In backward: the outputs' gradients, and where the inputs' go (None where not wanted).
    work : list of ndarray
        Memory asked for by `Operation.work`, for this one direction.
    activation : (str or None, tuple)
        Forward: name and parameters of an activation to apply last. Backward of an operation that `masks`: the same; of
        one that `takes_along`: those of the activation before it.
    slopes : ndarray or None
        Forward: the parameter of an activation that has one number per channel, in the place of others.
    add : ndarray or None
        Forward: an array of the output's shape to be added before the activation.
    pre : ndarray or None
        Forward: where to keep what the activation is given, for its gradient.
    coefficients : ndarray or None
        Forward: scale and shift of a normalisation in evaluation, applied before `add`.
    kept : dict or None
        Forward in evaluation: what may be kept of the parameter that the operation `keeps`, from run to run.
    memo : dict
        What the operation works out of shapes once, and finds again when it is bound to other arrays.
    """

    x: list[Any]
    y: list[Any]
    saved: list[Any] = field(default_factory=list)
    gy: list[Any] = field(default_factory=list)
    gx: list[Any] = field(default_factory=list)
    work: list[Any] = field(default_factory=list)
    activation: tuple[Any, ...] = (None, ())
    slopes: Any = None
    add: Any = None
    pre: Any = None
    coefficients: Any = None
    kept: Any = None
    memo: dict[str, Any] = field(default_factory=dict)


class Operation:
    """Base class; a subclass is a frozen record of hyperparameters, made by `operation`.

    Attributes
    ----------
    settings : tuple of str
        The names of the hyperparameters, in the order of the constructor.
    takes : tuple of str
        What may run in the same pass behind it: "bias", "scale" (a normalisation in evaluation), "add",
        "activation", which it keeps the input of, too, where `Frame.pre` asks for that, "slopes" (an activation with a
        parameter a channel).
    takes_part_as : str
        What it is to the operation before it: one of these words, or "".
    optional : tuple of int
        Inputs that may be None.
    accumulates : tuple of int
        Inputs to whose gradients backward adds; to those of the others it writes.
    inplace : bool
        The output may lie where the first input lies, once nobody else reads that.
    masks : tuple of str
        Activations fused behind it whose gradient its own backward takes along (it then reads its output).
    takes_along : bool
        Of a pooling: it takes the gradient of the activation before it along in its own backward, and reads its input
        for it; else its `mask` does that before, to the gradient of its output.
    stateful : bool
        It does something beside its outputs (a hook, counters), so that it runs even where nobody reads them.
    runs_again : bool
        `again` computes its outputs once more without what it does beside them.
    keeps_saved : bool
        What it saved is needed for that.
    trains_itself : bool
        Its backward runs even where nothing before it is trained.
    calls_out : bool
        It runs code that is not the package's.
    blocks : bool
        No gradient goes through.
    results : int
        How many outputs it has.
    reads_inputs, reads_outputs
        What backward reads: places of inputs, and whether the outputs.
    spaced_inputs, spaced_output, spaced_gradient
        What may have gaps between its pixels, as some of the channels of a larger array have: places of inputs, for
        both directions; the output, which forward writes and backward may read; the gradient that backward is given.
    """

    settings: ClassVar[tuple[str, ...]]
    takes: ClassVar[tuple[str, ...]] = ()
    takes_part_as: str = ""
    optional: ClassVar[tuple[int, ...]] = ()
    accumulates: ClassVar[tuple[int, ...]] = ()
    inplace: bool = False
    masks: ClassVar[tuple[str, ...]] = ()
    takes_along: ClassVar[bool] = False
    stateful: bool = False
    keeps_saved: ClassVar[bool] = False
    trains_itself: bool = False
    calls_out: ClassVar[bool] = False
    blocks: bool = False
    results: int = 1
    reads_inputs: tuple[int, ...] = ()
    reads_outputs: bool = False
    spaced_inputs: ClassVar[tuple[int, ...]] = ()
    spaced_output: ClassVar[bool] = False
    spaced_gradient: ClassVar[bool] = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kind = type(self)
        given = dict(zip(kind.settings, args, strict=False), **kwargs)
        found = {name: given[name] if name in given else getattr(kind, name, given) for name in kind.settings}
        missing = [name for name, value in found.items() if value is given]
        if missing or len(args) > len(kind.settings) or not given.keys() <= found.keys():
            raise TypeError(f"{kind.__name__} takes {', '.join(kind.settings)}, got {args} and {sorted(kwargs)}")
        vars(self).update(found)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Refuse settings that do not fit together: they may come from a file."""

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be set: settings of an operation do not change")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def but(self, **changes: Any) -> Self:
        """Return the same operation with other settings."""
        return type(self)(**{**vars(self), **changes})

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def runs_again(self) -> bool:
        return not self.stateful

    def reads(self, wanted: tuple[bool, ...]) -> tuple[int, ...]:
        """Return the places of the inputs that backward reads, when these inputs' gradients are wanted."""
        return self.reads_inputs

    def infer(self, *inputs: Any) -> tuple[Spec, ...]:
        """Return the outputs' specs, or raise ValueError or TypeError if the inputs do not fit."""
        raise NotImplementedError

    def saved(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        """Return the memory that forward fills for backward."""
        return ()

    def work(self, backward: bool, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[Spec, ...]:
        """Return the memory that one direction needs while it runs."""
        return ()

    def view(self, x: Array, output: Spec) -> Array | None:
        """Return the output as a view of the first input, where it is one for every array of this shape."""
        return None

    def is_view(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> bool:
        return False

    def passes(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[int, ...]:
        """Return the inputs whose gradient is the output's itself, or a view of it."""
        return ()

    def view_back(self, gy: Array, inputs: tuple[Any, ...], position: int) -> Array:
        """Return the gradient of an input that `passes` named, as a view of the output's."""
        return gy

    def parts(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[tuple[slice, ...], ...]:
        """Return which part of the output each input is, for an operation that puts its inputs together.

        A part is a slice with both ends an axis. In `forward` and `again` an input is its spec where it lies there
        already.
        """
        return ()

    def cut(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> tuple[slice, ...]:
        """Return which part of its first input the output is, if that is all the operation does.

        A part is a slice with both ends an axis. Those who take gaps between pixels then read it where it lies.
        """
        return ()

    def keeps(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> int:
        """Return the bytes that forward keeps of its second input, if that is a parameter and no backward will run.

        It finds them in `Frame.kept`, and has to see in each run whether the parameter is another one by now.
        """
        return 0

    def forward(self, f: Frame) -> Iterator[Call]:
        raise NotImplementedError

    def in_strips(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> str:
        """Return how it can run a strip of rows at a time, together with its neighbours.

        "pixels" where each pixel of the output reads that pixel of the first input alone, "rows" where it reads rows
        around it, "" where it cannot.
        """
        return ""

    def forward_in_strips(self, middle: int, ops: Sequence[Operation], frames: Sequence[Frame]) -> Iterator[Call]:
        """Yield the calls that run several operations together: this one, of "rows", is in the ``middle``.

        What goes from one to the next is its spec, both as input and as output.
        """
        raise NotImplementedError

    def again(self, f: Frame) -> Iterator[Call]:
        """Yield the calls that compute the outputs once more."""
        return self.forward(f)

    def backward(self, f: Frame) -> Iterator[Call]:
        raise NotImplementedError(f"{self.name} has no gradient")

    def flops(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> float:
        """Return the operations of its products forward, 2 a multiply-add."""
        return 0.0

    def way(self, inputs: tuple[Any, ...], outputs: tuple[Spec, ...]) -> str:
        """Return a word for how it is computed, where that is not the only or the usual way: for `plan`."""
        return ""


_Kind = TypeVar("_Kind", bound=type[Operation])


@dataclass_transform(frozen_default=True)
def operation(kind: _Kind) -> _Kind:
    """Let the annotations of a class be its settings, after those of its base classes, as in a frozen dataclass.

    `dataclasses` compiles six methods for each class, half a millisecond of every import; here one base class has them.
    """
    own = (name for name, hint in kind.__annotations__.items() if get_origin(hint) is not ClassVar)
    kind.settings = tuple(dict.fromkeys((*getattr(kind, "settings", ()), *own)))
    return kind


def check_count(where: str, what: str, *sizes: int) -> None:
    """Raise ValueError if an array of these sizes is larger than any memory."""
    if 0 in sizes:  # NumPy, too, counts an empty batch as one
        sizes = tuple(n or 1 for n in sizes)
    if math.prod(map(int, sizes)) > MOST_NUMBERS:  # Python's integers, which never overflow
        raise ValueError(f"{where}: {what} of {'x'.join(short(int(n)) for n in sizes)} is larger than any memory, "
                         f"2**{MOST_NUMBERS.bit_length() - 1} numbers at most")  # fmt: skip


class _Short(reprlib.Repr):
    """The repr of any object, cut in the middle where it is long."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxlong = self.maxother = 80
        self.maxtuple = self.maxlist = 8

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # it has more digits than Python writes
            return f"an integer of {x.bit_length():,} bits"


_short = _Short()


def short(value: Any) -> str:
    """Return the repr of an offending value for an error message, on one line and cut where it is long."""
    return " ".join(line.strip() for line in _short.repr(value).splitlines())


def integer(what: str, value: Any) -> int:
    """Return a whole number as an int, whatever integer it is; ``what`` names it in the TypeError for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be a whole number, got {short(value)}") from None


def flag(what: str, value: Any) -> bool:
    """Return whether a setting holds: True or False, NumPy's too, or 0 or 1.

    ``what`` names it in the TypeError for anything else: a word is mostly a mistake, and an array may hold in part.
    """
    if isinstance(value, bool | np.bool_) or (isinstance(value, int | np.integer) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{what} must be True or False, got {short(value)}")


def integers(what: str, values: Any) -> tuple[int, ...]:
    """Return whole numbers in a tuple, a list or an array as a tuple of int; TypeError for anything else."""
    if not isinstance(values, tuple | list) and not (isinstance(values, np.ndarray) and values.ndim):
        raise TypeError(f"{what} must be whole numbers, got {short(values)}")
    return tuple(integer(what, value) for value in values)


def one_dtype(where: str, *specs: Any) -> np.dtype[Any]:
    """Return the one float dtype of the specs that are not None, or raise TypeError."""
    found = {spec.dtype.newbyteorder("=") for spec in specs if spec is not None}
    for dtype in found:
        if dtype not in FLOATS:
            raise TypeError(f"{where}: arrays must be float32 or float64, got {dtype}")
    if len(found) > 1:
        listed = ", ".join(f"{spec.dtype.newbyteorder('=')} {tuple(spec.shape)}" for spec in specs if spec is not None)
        raise TypeError(f"{where}: the arrays must have one dtype, but got {' and '.join(sorted(map(str, found)))} "
                        f"({listed}); a.astype(dtype) converts one")  # fmt: skip
    return found.pop()


def axis_of(where: str, axis: Any, shape: tuple[int, ...], more: int = 0) -> int:
    """Return an axis counted from the first one; ``more`` axes are to be added to those of the shape."""
    if isinstance(axis, bool) or not isinstance(axis, int | np.integer):
        raise TypeError(f"{where}: axis must be an int, got {short(axis)}")
    ndim = len(shape) + more
    if not -ndim <= axis < ndim:
        raise ValueError(f"{where}: axis {axis} is out of range for shape {shape}")
    return int(axis) % ndim


def one_of(what: str, value: Any, choices: Collection[Any]) -> None:
    """Raise ValueError unless a setting, named by ``what``, is one of these words or numbers, or None if that is one.

    It may be any object: what is neither, an array say, is not compared.
    """
    if not isinstance(value, str | int | None) or value not in choices:
        *rest, last = map(repr, choices)
        listed = f"{', '.join(rest)} or {last}" if rest else last
        raise ValueError(f"{what} must be {listed}, got {short(value)}")
