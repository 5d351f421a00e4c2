"""Groups of an optimiser's parameters, each with settings of its own, as PyTorch's ``param_groups`` has them."""

from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastconv.optim.optimizer import Optimizer


class ParamGroup(MutableMapping[str, Any]):
    """One group of an optimiser's parameters, as a mapping: ``params``, and its settings, which may be set.

    A setting that a group was not given is the optimiser's own. The rate of a group that has one keeps its ratio to
    the optimiser's, whatever a schedule makes of that.

    Parameters
    ----------
    optimizer : Optimizer
    index : int
        From 0, in the order in which groups were added.

    Examples
    --------
    >>> from fastconv import nn, optim
    >>> body, head = nn.Linear(4, 4), nn.Linear(4, 2)
    >>> optimizer = optim.SGD([{"params": body, "lr": 0.01}, {"params": head}], lr=0.1)
    >>> optimizer.param_groups[0]
    ParamGroup(2 parameters, lr=0.01, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False)
    >>> optimizer.lr = 1.0  # as a schedule does
    >>> [round(group["lr"], 6) for group in optimizer.param_groups]
    [0.1, 1.0]
    """

    def __init__(self, optimizer: "Optimizer", index: int) -> None:
        self._optimizer, self._index = optimizer, index

    def __getitem__(self, name: str) -> Any:
        if name == "params":
            return [p for p, k in zip(self._optimizer.params, self._optimizer._group_of, strict=True)
                    if k == self._index]  # fmt: skip
        if name not in self._optimizer._hyper:
            raise KeyError(name)
        return self._optimizer._settings(self._optimizer._groups[self._index])[name]

    def __setitem__(self, name: str, value: Any) -> None:
        optimizer = self._optimizer
        if len(optimizer._groups) == 1 and name in optimizer._hyper:
            optimizer._check_settings({**optimizer._settings({}), name: value})
            optimizer._groups[0].pop(name, None)
            setattr(optimizer, name, value)
        else:
            optimizer._groups[self._index] |= optimizer._overrides({name: value}, optimizer._groups[self._index])

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"{type(self._optimizer).__name__}: a setting of a group cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(("params", *self._optimizer._hyper))

    def __len__(self) -> int:
        return 1 + len(self._optimizer._hyper)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={self[name]!r}" for name in self._optimizer._hyper)
        return f"ParamGroup({len(self['params'])} parameters, {settings})"
