"""The parameters and the state of a tree of layers, as names and arrays."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastconv.functional._check import flag, integer
from fastconv.nn._children import Children
from fastconv.nn._parameter import Array, Parameter, writable
from fastconv.nn._turns import turn


class State(Children):
    """Finds the parameters, buffers and counters of a module and all below it."""

    buffer_names: tuple[str, ...] = ()
    extra_names: tuple[str, ...] = ()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        for name in self.buffer_names:
            setattr(self, name, writable(getattr(self, name)))

    def _entries(self) -> Iterator[tuple[str, Any, str, bool]]:
        """Yield (full name, owner, attribute, learned) of all parameters and buffers, in PyTorch's order."""
        for path, module in self.named_modules():
            dot = f"{path}." if path else ""
            for name, value in list(vars(module).items()):
                if isinstance(value, Parameter):
                    yield dot + name, module, name, True
            for name in module.buffer_names:
                yield dot + name, module, name, False

    def _slots(self) -> Iterator[tuple[str, Any, str]]:
        """Yield (full name, owner, attribute) wherever a parameter stands, a shared one more than once."""
        for name, owner, attribute, learned in self._entries():
            if learned:
                yield name, owner, attribute

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield (name, parameter), each parameter once even when it is shared."""
        seen: set[int] = set()
        for name, owner, attribute in self._slots():
            parameter = getattr(owner, attribute)
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def parameters(self) -> Iterator[Parameter]:
        """Yield the parameters, in the order of `named_parameters`."""
        yield from (parameter for _, parameter in self.named_parameters())

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze all parameters here and below (False), or train them; returns self.

        Parameters
        ----------
        requires_grad : bool
            Whether they are trained.
        """
        requires_grad = flag(f"{type(self).__name__}.requires_grad_: requires_grad", requires_grad)
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self) -> None:
        """Set the gradients of all parameters here and below to 0."""
        for parameter in self.parameters():
            parameter.grad.fill(0)

    def astype(self, dtype: npt.DTypeLike) -> Self:
        """Convert parameters, their gradients and floating-point buffers in place; returns self.

        Parameters
        ----------
        dtype : dtype
            float32 or float64.
        """
        for parameter in self.parameters():
            parameter.data, parameter.grad = parameter.data.astype(dtype), parameter.grad.astype(dtype)
        for _, owner, attribute, learned in self._entries():
            if not learned and getattr(owner, attribute).dtype.kind == "f":
                setattr(owner, attribute, getattr(owner, attribute).astype(dtype))
        for module in self.modules():
            module._forget()
        return self

    def named_buffers(self) -> Iterator[tuple[str, Array]]:
        """Yield (name, array) of the state that is not learned."""
        yield from ((name, getattr(owner, at)) for name, owner, at, learned in self._entries() if not learned)

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers under PyTorch's names, in PyTorch's order and shapes.

        ``{k: torch.from_numpy(v) for k, v in model.state_dict().items()}`` loads into the same net built of
        ``torch.nn`` layers, and ``model.load_state_dict(torch_model.state_dict())`` takes one from there.
        """
        return {name: array.copy() for name, array in self.named_state()}

    def named_state(self) -> Iterator[tuple[str, Array]]:
        """Yield (name, array) of all parameters and buffers: the arrays themselves."""
        for name, owner, attribute, learned in self._entries():
            value = getattr(owner, attribute)
            yield name, value.data if learned else value

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copy values into parameters and buffers; all is checked first, so an error changes nothing.

        Parameters
        ----------
        state : mapping of str to array
            Anything `numpy.asarray` takes, PyTorch's CPU tensors included; converted to this model's dtypes.
        strict : bool
            False lets names be missing or left over.

        Returns
        -------
        missing, unexpected : list of str

        Raises
        ------
        ValueError
            Names differ (when strict), or shapes or kinds of dtype do, or a parameter that has two names would get two
            values.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict: state must be a mapping, got {type(state).__name__}")
        strict = flag("load_state_dict: strict", strict)
        own = dict(self.named_state())
        missing = [name for name in own if name not in state]
        unexpected = [name for name in state if name not in own]
        if strict and (missing or unexpected):
            raise ValueError(
                f"load_state_dict: {len(missing)} of {len(own)} names missing {missing[:8]}, "
                f"{len(unexpected)} unexpected {unexpected[:8]}"
            )
        arrays = {name: np.asarray(state[name]) for name in own if name in state}
        for name, array in arrays.items():
            if array.shape != own[name].shape:
                raise ValueError(
                    f"load_state_dict: {name} has shape {own[name].shape} here, {array.shape} in the state"
                )
            if not np.can_cast(array.dtype, own[name].dtype, "same_kind"):
                raise ValueError(f"load_state_dict: {name} is {own[name].dtype} here, {array.dtype} in the state")
        first: dict[int, str] = {}
        for name, owner, attribute in self._slots():
            other = first.setdefault(id(getattr(owner, attribute)), name)
            if name == other or not {name, other} <= arrays.keys():
                continue
            if not np.array_equal(arrays[name], arrays[other], equal_nan=True):
                raise ValueError(f"load_state_dict: {other} and {name} are one parameter here and differ in the state")
        modules = [module for _, module in self.named_modules()]
        with turn(modules), contextlib.ExitStack() as held:
            for module in modules:
                held.enter_context(module._changing())
            blank = {name: np.array(a, own[name].dtype, order="C") for name, a in arrays.items()
                     if not own[name].flags.writeable}  # of layers built in `nn.blank`, which have no memory yet
            for name in arrays.keys() - blank.keys():
                np.copyto(own[name], arrays[name], casting="same_kind")
            self.replace_state(blank)
        return missing, unexpected

    def _changing(self) -> contextlib.AbstractContextManager[None]:
        """See for a block in which the state of this module is written that it may be."""
        return contextlib.nullcontext()

    def replace_state(self, arrays: Mapping[str, Array]) -> None:
        """Put these very arrays, by names of `named_state`, in the place of the present ones."""
        for name, owner, attribute, learned in self._entries():
            if name not in arrays:
                continue
            if learned:
                parameter = getattr(owner, attribute)
                parameter.data, parameter.grad = arrays[name], np.zeros_like(arrays[name])
            else:
                setattr(owner, attribute, arrays[name])

    def extra_state(self) -> dict[str, int]:
        """Return the integers beside the arrays that continue a run exactly, e.g. ``{"3.step": 117}``."""
        return {name: int(getattr(owner, attribute)) for name, owner, attribute in self._extras()}

    def load_extra_state(self, state: Mapping[str, int]) -> None:
        """Set what `extra_state` returned; a ValueError when the names differ, a TypeError for other than integers."""
        if not isinstance(state, Mapping):
            raise TypeError(f"load_extra_state: state must be a mapping, got {type(state).__name__}")
        extras = {name: (owner, attribute) for name, owner, attribute in self._extras()}
        if extras.keys() != state.keys():
            raise ValueError(f"load_extra_state: expected {sorted(extras)}, got {sorted(state)}")
        values = {name: integer(f"load_extra_state: {name}", state[name]) for name in extras}
        for name, (owner, attribute) in extras.items():
            setattr(owner, attribute, values[name])

    def _extras(self) -> Iterator[tuple[str, Any, str]]:
        for path, module in self.named_modules():
            for name in module.extra_names:
                yield f"{path}.{name}" if path else name, module, name
