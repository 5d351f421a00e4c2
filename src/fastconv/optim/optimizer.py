"""What all optimisers share: parameters side by side in memory, in groups, and runs of them updated in one pass."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any, ClassVar

import numpy as np

from fastconv.functional._check import Keywords, flag, number, short
from fastconv.functional._optim import Arrays, arrays_of, zero
from fastconv.nn import Module, Parameter
from fastconv.nn._flat import Block
from fastconv.nn._settings import latest
from fastconv.optim.groups import ParamGroup
from fastconv.optim.layers import Leading

Array = np.ndarray

# Where things lie in memory, which a copy has to find anew.
_PLACES = ("_blocks", "_flat", "_known", "_change", "_runs", "_loose")


@dataclass
class _Run:
    """What one kernel call updates: a stretch of a block, or a parameter that lies elsewhere."""

    param: Array
    grad: Array
    state: dict[str, Array]
    group: dict[str, Any]  # what settings its group has of its own
    step: int  # the number of this update of its first parameter, the first being 1; `_label` is the same for others
    members: list[int]  # places among the optimiser's parameters
    done: int = 0  # updates not counted yet
    checked: Arrays | None = None

    def arrays(self, where: str) -> Arrays:
        """Return the arrays as kernels take them, checked once where they are views."""
        found = self.checked
        if found is None:
            found = arrays_of(where, self.param, self.grad, self.state)
            if np.may_share_memory(found.grad, self.grad):
                self.checked = found
        return found


class Optimizer(Keywords, Leading):
    """Base of all optimisers: the parameters, their groups and settings, the step count and the state arrays.

    Parameters
    ----------
    params : iterable of Parameter, Module, or iterable of dict
        What to train, as ``model.parameters()`` gives it, or the model; or groups, each a dictionary of ``params`` and
        the settings it has of its own. Their ``data`` and ``grad`` become views of one block of memory. Parameters
        with ``requires_grad=False`` are left alone. An optimizer is copied or pickled together with its model, as
        ``copy.deepcopy((model, optimizer))``: one alone takes copies of the parameters along.
    lr : float
        Learning rate, finite and at least 0. The attribute ``lr`` may be set at any time; groups with a rate of their
        own keep its ratio to this one.
    decay_bias_norm : bool
        False: parameters of fewer than two dimensions, that is biases and the scales and shifts of normalisations, have
        no weight decay. They become groups of their own.
    settings
        What a method has beside the rate.

    Attributes
    ----------
    param_groups : list of ParamGroup

    Raises
    ------
    TypeError
        If ``params`` is or holds something else.
    ValueError
        If there are no parameters, if one occurs twice, if a group has a setting that is unknown, or if a
        hyperparameter is out of its range.

    Examples
    --------
    >>> from fastconv import nn, optim
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> optim.SGD([{"params": model[0], "lr": 0.01}, {"params": model[2]}], lr=0.1)  # the first layer learns slowly
    SGD(lr=0.1, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, 2 groups)
    >>> optimizer = optim.AdamW(model, decay_bias_norm=False)
    >>> [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups]  # weights, then biases
    [(2, 0.01), (2, 0.0)]
    """

    _hyper: ClassVar[tuple[str, ...]] = ("lr",)
    _of_all: ClassVar[tuple[str, ...]] = ()  # settings that all groups share

    def __init__(self, params: Any, lr: float, *, decay_bias_norm: bool = True, **settings: Any) -> None:
        name = type(self).__name__
        groups = self._collect(params)
        self.lr = number(name, "lr", lr)
        self.steps = 0
        self.params = [param for members, _ in groups for param in members]
        if not self.params:
            raise ValueError(f"{name}: no parameters to train")
        self._refuse_twins()
        for setting, value in settings.items():
            setattr(self, setting, value)
        self._check_settings(self._settings({}))
        self._decay_bias_norm = flag(f"{name}: decay_bias_norm", decay_bias_norm)
        self._groups: list[dict[str, Any]] = []  # settings that a group has of its own
        self._group_of: list[int] = []  # the group of each parameter
        for members, own in groups:
            self._add_group(members, own)
        self._updates = [0] * len(self.params)  # updates of each parameter when they were last counted
        self._move_in()
        for state, value in self._state_values().items():
            self._add_state(state, value)

    def _collect(self, params: Any) -> list[tuple[list[Parameter], dict[str, Any]]]:
        """Return parameters group by group, each with the settings it was given."""
        name = type(self).__name__
        if isinstance(params, Module):
            params = params.parameters()
        found = list(params) if isinstance(params, Iterable) and not isinstance(params, Mapping) else [params]
        if not any(isinstance(part, Mapping) for part in found):
            found = [{"params": found if isinstance(params, Iterable) else params}]
        groups = []
        for group in found:
            if not isinstance(group, Mapping) or "params" not in group:
                got = f"keys {list(group)}" if isinstance(group, Mapping) else f"a {type(group).__name__}"
                raise TypeError(f'{name}: a parameter group must be a dictionary with "params", got {got}')
            given = group["params"]
            members = list(given.parameters()) if isinstance(given, Module) else given
            members = list(members) if isinstance(members, Iterable) else [members]
            for param in members:
                if not isinstance(param, Parameter):
                    raise TypeError(
                        f"{name}: params must be an iterable of Parameter, as model.parameters() gives it, "
                        f"got {'' if param is given else 'one that holds '}{type(param).__name__}"
                    )
            groups.append((members, {key: value for key, value in group.items() if key != "params"}))
        return groups

    def _refuse_twins(self) -> None:
        if len({id(p) for p in self.params}) != len(self.params):
            many = len(self.params)
            raise ValueError(f"{type(self).__name__}: a parameter occurs more than once among the {many} given")

    def _add_group(self, members: Sequence[Parameter], own: Mapping[str, Any]) -> None:
        """Add one group, or two where biases and normalisations are to have no weight decay."""
        overrides = self._overrides(own, {})
        if self._decay_bias_norm or "weight_decay" not in self._hyper:
            self._groups.append(overrides)
            self._group_of += [len(self._groups) - 1] * len(members)
            return
        places: dict[bool, int] = {}
        for param in members:
            decayed = param.data.ndim >= 2
            if decayed not in places:
                places[decayed] = len(self._groups)
                self._groups.append(overrides if decayed else {**overrides, "weight_decay": 0.0})
            self._group_of.append(places[decayed])

    def _overrides(self, given: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
        """Return settings for a group that has some already, checked; a rate with the optimiser's at this moment."""
        name = type(self).__name__
        known = [setting for setting in self._hyper if setting not in self._of_all]
        for setting in given:
            if setting not in known:
                import difflib  # for this message alone

                near = difflib.get_close_matches(str(setting), known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; groups have {', '.join(known)}"
                raise ValueError(f"{name}: a parameter group has no setting {short(setting)}{hint}")
        self._check_settings({**self._settings(own), **given})
        found = dict(given)
        if "lr" in found:
            if not self.lr > 0:
                raise ValueError(f"{name}: a group with a rate of its own needs an lr above 0 beside it, got {self.lr}")
            found["lr"] = (number(name, "lr", found["lr"]), self.lr)
        return found

    def _settings(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return all settings of a group that has some of its own."""
        found = {name: own.get(name, getattr(self, name)) for name in self._hyper}
        if "lr" in own:
            value, beside = own["lr"]
            found["lr"] = value * (self.lr / beside)
        return found

    def _check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise if one of all settings of a group is out of its range, or some do not go together."""
        self._check("lr", settings["lr"], 0.0, math.inf)

    def _state_values(self) -> dict[str, float]:
        """Return what state each parameter has, and what it begins with."""
        return {}

    def _any(self, name: str) -> bool:
        """Return whether any group has a setting that is not 0."""
        return any(self._settings(own)[name] for own in self._groups)

    @property
    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup(self, index) for index in range(len(self._groups))]

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters that join later, ``{"params": ..., "lr": ..., ...}``: their first step is their own.

        Parameters
        ----------
        group : mapping
            ``"params"``, and settings that are not to be the optimiser's own.

        Raises
        ------
        TypeError, ValueError
            As the constructor; nothing is changed then.

        Examples
        --------
        >>> from fastconv import nn, optim
        >>> body, head = nn.Linear(4, 4), nn.Linear(4, 2)
        >>> optimizer = optim.SGD(head, lr=0.1)
        >>> optimizer.add_param_group({"params": body, "lr": 0.01})  # when the head has learned something
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.1, 0.01]
        """
        if not isinstance(group, Mapping):
            raise TypeError(f"{type(self).__name__}: a parameter group must be a dictionary, got {short(group)}")
        before = (self.params, list(self._groups), list(self._group_of))
        ((members, own),) = self._collect([group])
        try:
            self.params = [*self.params, *members]
            self._refuse_twins()
            self._add_group(members, own)
        except (TypeError, ValueError):
            self.params, self._groups, self._group_of = before
            raise
        self._count()
        kept, self._updates = self._states, self._updates + [0] * len(members)
        self._move_in()
        for name, value in self._state_values().items():
            self._add_state(name, value)
            for array, old in zip(self._states[name], kept.get(name, ()), strict=False):
                array[...] = old

    def rebuilt(self, params: Sequence[Parameter | None], lr: float) -> "Optimizer":
        """Return a new optimiser with the same settings for other parameters, each in the place of one of this one's.

        Parameters
        ----------
        params : sequence of Parameter or None
            As many as this one's; None leaves one out.
        lr : float
            Rates that groups have of their own keep their ratio to it.

        Examples
        --------
        >>> from fastconv import nn, optim
        >>> model, copy = nn.Linear(2, 1), nn.Linear(2, 1)
        >>> optimizer = optim.SGD(model, lr=0.1, momentum=0.9)
        >>> optimizer.rebuilt(list(copy.parameters()), lr=0.5)
        SGD(lr=0.5, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=False)
        """
        groups = []
        for index, own in enumerate(self._groups):
            members = [p for p, k in zip(params, self._group_of, strict=True) if k == index and p is not None]
            if members:
                groups.append((members, own))
        made = type(self)([p for members, _ in groups for p in members], **{**self._settings({}), "lr": lr})
        places = [k for k, (members, _) in enumerate(groups) for _ in members]
        made._groups, made._group_of = [dict(own) for _, own in groups], places
        for own in made._groups:
            if "lr" in own and lr > 0:
                own["lr"] = (own["lr"][0] / own["lr"][1] * lr, lr)
        made._move_in()
        for name, value in made._state_values().items():
            made._add_state(name, value)
        return made

    def _move_in(self) -> None:
        """Put the parameters side by side, those of one group together, with no state yet."""
        kinds: dict[Any, list[Parameter]] = {param.data.dtype: [] for param in self.params}
        for k in sorted(range(len(self.params)), key=self._group_of.__getitem__):
            kinds[self.params[k].data.dtype].append(self.params[k])
        self._blocks = [Block.of(params) for params in kinds.values()]
        self._states: dict[str, list[Array]] = {}  # name to an array for each parameter
        self._flat: dict[str, list[Array]] = {}  # name to the memory of these, one for each block
        self._known: list[Any] = []
        self._change: object = None  # the latest one when the parameters were looked at
        self._runs: list[_Run] = []
        self._loose: list[Parameter] = []

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles carry the parameters, which must be copied along with their model, and the state."""
        self._count()
        return {name: value for name, value in vars(self).items() if name not in _PLACES}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        vars(self).update(kept)
        self.params, self._updates = list(self.params), list(self._updates)
        self._groups, self._group_of = [dict(own) for own in self._groups], list(self._group_of)
        self._move_in()
        self._lead()
        for name, arrays in kept["_states"].items():
            self._add_state(name)
            for array, value in zip(self._states[name], arrays, strict=True):
                array[...] = value

    def _check(self, name: str, value: Any, low: float, high: float) -> None:
        """Refuse a hyperparameter that is no number, or outside ``low <= value < high`` (NaN among them)."""
        if not low <= number(type(self).__name__, name, value) < high:
            raise ValueError(f"{type(self).__name__}: {name} must be in [{low:g}, {high:g}), got {short(value)}")

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
        """Update every trained parameter in place from its gradient.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import nn, optim
        >>> model, loss = nn.Linear(1, 1, bias=False), nn.MSELoss()
        >>> model.weight.data[...] = 1.0
        >>> optimizer, x = optim.SGD(model, lr=0.25), np.ones((1, 1), np.float32)
        >>> for _ in range(3):
        ...     optimizer.zero_grad()
        ...     print(float(loss(model(x), 0 * x)))
        ...     _ = model.backward(loss.backward())
        ...     optimizer.step()
        1.0
        0.25
        0.0625
        """
        self.steps += 1
        self._look()
        for run in self._runs:
            run.step += 1
            run.done += 1
            self._update(run)

    def _update(self, run: _Run) -> None:
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Set the gradients of all parameters to zero.

        Examples
        --------
        >>> import numpy as np
        >>> from fastconv import nn, optim
        >>> model, x = nn.Linear(1, 1, bias=False), np.ones((1, 1), np.float32)
        >>> optimizer = optim.SGD(model)
        >>> for _ in range(2):  # gradients add up
        ...     _ = model.backward(np.ones_like(model(x)))
        ...     print(model.weight.grad.item())
        1.0
        2.0
        >>> optimizer.zero_grad()
        >>> model.weight.grad.item()
        0.0
        """
        self._look()
        for block in self._blocks:
            zero(block.grad)
        for param in self._loose:
            param.grad.fill(0)

    def _look(self) -> None:
        """Plan the runs anew if a parameter was given another array, or was frozen or thawed."""
        change = latest.change
        if self._known and change is self._change:
            return
        self._change = change
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
            labels = [self._label(k) if take else None for k, take in zip(members, trained, strict=True)]
            for span, inside in block.runs(labels):
                state = {name: flat[place][span] for name, flat in self._flat.items()}
                self._add_run(block.data[span], block.grad[span], state, [members[k] for k in inside])
            self._loose += [param for param, home in zip(block.params, at_home, strict=True) if not home]
        for param in self._loose:
            if param.requires_grad:
                index = places[id(param)]
                state = {name: arrays[index] for name, arrays in self._states.items()}
                self._add_run(param.data, param.grad, state, [index])

    def _add_run(self, param: Array, grad: Array, state: dict[str, Array], members: list[int]) -> None:
        own = self._groups[self._group_of[members[0]]]
        self._runs.append(_Run(param, grad, state, own, self._updates[members[0]], members))

    def _count(self) -> None:
        """Note how many updates each parameter has had."""
        for run in self._runs:
            for index in run.members:
                self._updates[index] += run.done
            run.done = 0

    def _label(self, index: int) -> tuple[int, int]:
        """Return what the next update of a parameter depends on: neighbours with equal ones run as one."""
        group = self._group_of[index]
        return group, self._phase(self._updates[index], self._groups[group])

    def _phase(self, updates: int, own: Mapping[str, Any]) -> int:
        """Return what the next update of a parameter in a group depends on, of how many it has had."""
        return updates

    def state_dict(self) -> dict[str, Array]:
        """Return copies of everything a resumed run needs, as a flat dictionary of arrays.

        Examples
        --------
        >>> from fastconv import nn, optim
        >>> sorted(optim.SGD(nn.Linear(2, 1), momentum=0.9).state_dict())
        ['lr', 'momentum_buffer.0', 'momentum_buffer.1', 'step', 'updates']
        """
        state = {"step": np.array(self.steps, np.int64), "lr": np.array(self.lr, np.float64)}
        for name, arrays in self._states.items():
            state |= {f"{name}.{index}": array.copy() for index, array in enumerate(arrays)}
        self._count()
        if any("lr" in own for own in self._groups):
            state["group_lr"] = np.array([own.get("lr", (math.nan, math.nan)) for own in self._groups])
        return {**state, "updates": np.array(self._updates, np.int64)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state that `state_dict` returned.

        Without ``updates``, as older versions wrote it, every parameter counts as updated in every step.

        Parameters
        ----------
        state : dict of str to ndarray

        Raises
        ------
        ValueError
            If names, shapes or kinds of dtype are not those of this optimiser's own state, or counts or the learning
            rate are out of range; nothing is changed then.

        Examples
        --------
        >>> from fastconv import nn, optim
        >>> model = nn.Linear(2, 1)
        >>> first, second = optim.Adam(model, lr=0.1), optim.Adam(nn.Linear(2, 1), lr=0.5)
        >>> first.step()
        >>> second.load_state_dict(first.state_dict())
        >>> second.lr, int(second.state_dict()["step"])
        (0.1, 1)
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
        rates = found.get("group_lr", np.empty((0, 2))).tolist()
        if any(not math.isnan(rate) and not (0 <= rate < math.inf and 0 < beside < math.inf) for rate, beside in rates):
            raise ValueError(f"{where}: group_lr must hold rates, each with a positive one beside it, got {rates}")
        for group, (rate, beside) in zip(self._groups, rates, strict=False):
            group.pop("lr", None)
            if not math.isnan(rate):
                group["lr"] = (rate, beside)
        self.steps, self.lr, self._updates = steps, lr, updates
        self._known, self._runs = [], []  # to be planned anew, with these counts
        for name, arrays in self._states.items():
            for index, array in enumerate(arrays):
                array[...] = found[f"{name}.{index}"]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self._hyper)
        groups = f", {len(self._groups)} groups" if len(self._groups) > 1 else ""
        return f"{type(self).__name__}({shown}{groups})"
