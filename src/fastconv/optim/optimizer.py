"""What all optimisers share: parameters side by side in memory, their state, and runs of them updated in one pass."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import is_
from typing import Any, ClassVar

import numpy as np

from fastconv.functional._check import number
from fastconv.nn import Module, Parameter
from fastconv.nn._flat import Block
from fastconv.optim.layers import Leading

Array = np.ndarray

_PLACES = ("_blocks", "_flat", "_known", "_runs", "_loose")  # where things lie in memory, which a copy has to find anew


@dataclass
class _Run:
    """What one kernel call updates: a stretch of a block, or a parameter that lies elsewhere.

    Its state also holds "step", the number of this update of its first parameter, the first being 1; `_phase` is the
    same for the others.
    """

    param: Array
    grad: Array
    state: dict[str, Any]
    members: list[int]  # which of the optimiser's parameters
    done: int = 0  # updates not counted yet


class Optimizer(Leading):
    """Base of all optimisers: the parameters, the learning rate, the step count and the state arrays.

    Parameters
    ----------
    params : iterable of Parameter
        What to train, as ``model.parameters()`` gives it: their ``data`` and ``grad`` become views of one
        block of memory. Parameters with ``requires_grad=False`` are left alone. An optimizer is copied or pickled
        together with its model, as ``copy.deepcopy((model, optimizer))``: one alone takes copies of the parameters
        along.
    lr : float
        Learning rate, finite and at least 0. The attribute ``lr`` may be set at any time.

    Raises
    ------
    TypeError
        If ``params`` is or holds something else.
    ValueError
        If there are no parameters, if one occurs twice, or if a hyperparameter is out of its range.
    """

    _hyper: ClassVar[tuple[str, ...]] = ("lr",)

    def __init__(self, params: Iterable[Parameter], lr: float) -> None:
        name = type(self).__name__
        self.params = self._collect(params)
        self.lr = number(name, "lr", lr)
        self.steps = 0
        self._updates = [0] * len(self.params)  # of each parameter, when they were last counted
        if not self.params:
            raise ValueError(f"{name}: no parameters to train")
        if len({id(p) for p in self.params}) != len(self.params):
            raise ValueError(f"{name}: a parameter occurs more than once among the {len(self.params)} given")
        self._check("lr", self.lr, 0.0, math.inf)
        self._move_in()

    def _collect(self, params: Any) -> list[Parameter]:
        found = list(params) if isinstance(params, Iterable) and not isinstance(params, Module) else [params]
        for param in found:
            if not isinstance(param, Parameter):
                raise TypeError(
                    f"{type(self).__name__}: params must be an iterable of Parameter, as model.parameters() gives it, "
                    f"got {'' if param is params else 'one that holds '}{type(param).__name__}"
                )
        return found

    def _move_in(self) -> None:
        """Put the parameters side by side, with no state yet."""
        kinds: dict[Any, list[Parameter]] = {param.data.dtype: [] for param in self.params}
        for param in self.params:
            kinds[param.data.dtype].append(param)
        self._blocks = [Block.of(params) for params in kinds.values()]
        self._states: dict[str, list[Array]] = {}  # name to an array for each parameter
        self._flat: dict[str, list[Array]] = {}  # name to the memory of these, one for each block
        self._known: list[Any] = []
        self._runs: list[_Run] = []
        self._loose: list[Parameter] = []

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry the parameters, which must be copied along with their model, and the state."""
        self._count()
        return {name: value for name, value in vars(self).items() if name not in _PLACES}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(kept)
        self.params, self._updates = list(self.params), list(self._updates)
        self._move_in()
        self._lead()
        for name, arrays in kept["_states"].items():
            self._add_state(name)
            for array, value in zip(self._states[name], arrays, strict=True):
                array[...] = value

    def _check(self, name: str, value: Any, low: float, high: float) -> None:
        """Refuse a hyperparameter that is no number, or outside ``low <= value < high`` (NaN among them)."""
        if not low <= number(type(self).__name__, name, value) < high:
            raise ValueError(f"{type(self).__name__}: {name} must be in [{low:g}, {high:g}), got {value!r}")

    def _add_state(self, name: str, value: float = 0.0) -> None:
        made = [block.like(value) for block in self._blocks]
        views = {
            id(param): view
            for block, (_, arrays) in zip(self._blocks, made, strict=True)
            for param, view in zip(block.params, arrays, strict=True)
        }
        self._flat[name] = [flat for flat, _ in made]
        self._states[name] = [views[id(param)] for param in self.params]

    def step(self) -> None:
        """Update every trained parameter in place from its gradient."""
        self.steps += 1
        self._look()
        for run in self._runs:
            run.state["step"] += 1
            run.done += 1
            self._update(run.param, run.grad, run.state)

    def _update(self, param: Array, grad: Array, state: dict[str, Any]) -> None:
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to zero."""
        self._look()
        for block in self._blocks:
            block.grad.fill(0)
        for param in self._loose:
            param.grad.fill(0)

    def _look(self) -> None:
        """Plan the runs anew if a parameter was given another array, or was frozen or thawed."""
        known = [x for p in self.params for x in (p.data, p.grad, p.requires_grad)]
        if len(known) == len(self._known) and all(map(is_, known, self._known)):
            return
        self._count()
        self._known, self._runs, self._loose = known, [], []
        places = {id(param): index for index, param in enumerate(self.params)}
        for place, block in enumerate(self._blocks):
            members = [places[id(param)] for param in block.params]
            at_home = [block.holds(param) for param in block.params]
            trained = [home and param.requires_grad for home, param in zip(at_home, block.params, strict=True)]
            labels = [self._phase(self._updates[k]) if take else None for k, take in zip(members, trained, strict=True)]
            for span, inside in block.runs(labels):
                state = {name: flat[place][span] for name, flat in self._flat.items()}
                self._add_run(block.data[span], block.grad[span], state, [members[k] for k in inside])
            self._loose += [param for param, home in zip(block.params, at_home, strict=True) if not home]
        for param in self._loose:
            if param.requires_grad:
                index = places[id(param)]
                state = {name: arrays[index] for name, arrays in self._states.items()}
                self._add_run(param.data, param.grad, state, [index])

    def _add_run(self, param: Array, grad: Array, state: dict[str, Any], members: list[int]) -> None:
        self._runs.append(_Run(param, grad, {**state, "step": self._updates[members[0]]}, members))

    def _count(self) -> None:
        """Note how many updates each parameter has had."""
        for run in self._runs:
            for index in run.members:
                self._updates[index] += run.done
            run.done = 0

    def _phase(self, updates: int) -> int:
        """Return what the next update of a parameter depends on, of how many it has had: equal ones run as one."""
        return updates

    def state_dict(self) -> dict[str, Array]:
        """Return copies of everything a resumed run needs, as a flat dictionary of arrays."""
        state = {"step": np.array(self.steps, np.int64), "lr": np.array(self.lr, np.float64)}
        for name, arrays in self._states.items():
            state |= {f"{name}.{index}": array.copy() for index, array in enumerate(arrays)}
        self._count()
        return {**state, "updates": np.array(self._updates, np.int64)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state that `state_dict` returned.

        Without ``updates``, as older versions wrote it, every parameter counts as updated in every step.

        Raises
        ------
        ValueError
            If names, shapes or kinds of dtype are not those of this optimiser's own state, or counts or the learning
            rate are out of range; nothing is changed then.
        """
        where, own = type(self).__name__, self.state_dict()
        if not isinstance(state, Mapping):
            raise TypeError(f"{where}: state must be a mapping, got {type(state).__name__}")
        found = {name: np.asarray(array) for name, array in state.items()}
        if "step" in found:
            found.setdefault("updates", np.full(len(self.params), found["step"]))
        if missing := sorted(own.keys() - found.keys()):
            raise ValueError(f"{where}: state lacks {', '.join(missing)}")
        if foreign := sorted(found.keys() - own.keys()):
            raise ValueError(f"{where}: state has unknown entries {', '.join(foreign)}")
        for name, array in own.items():
            if found[name].shape != array.shape:
                raise ValueError(f"{where}: {name} has shape {found[name].shape}, needs {array.shape}")
            if not np.can_cast(found[name].dtype, array.dtype, "same_kind"):
                raise ValueError(f"{where}: {name} is {found[name].dtype}, needs {array.dtype}")
        steps, lr, updates = int(found["step"]), float(found["lr"]), found["updates"].tolist()
        if steps < 0 or min(updates) < 0 or max(updates) > steps:
            raise ValueError(f"{where}: step and updates must be between 0 and step, got {steps} and {updates}")
        self._check("lr", lr, 0.0, math.inf)
        self.steps, self.lr, self._updates = steps, lr, updates
        self._known, self._runs = [], []  # to be planned anew, with these counts
        for name, arrays in self._states.items():
            for index, array in enumerate(arrays):
                array[...] = found[f"{name}.{index}"]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._hyper)
        return f"{type(self).__name__}({shown})"
