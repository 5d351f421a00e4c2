"""What figures out of band mean, one line a symptom. The bands were set so that healthy nets stay within.

Healthy nets of the zoo (digits, MNIST, CIFAR-10; SGD with momentum and Adam) move their weights by 2e-5 to 7e-2
of their size an update while the rate is high, with 8 to 50 times between slowest and fastest weight.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Advice"]

_FAST, _SLOW = 1e-1, 1e-5  # median of update / weight; about 1e-3 is wanted
_UNEVEN = 1e-3  # slowest weight in relation to the fastest
_STEEP = 1e3  # norm of the whole gradient
_DEAD, _SATURATED = 0.5, 0.5
_FAINT, _LOUD = 1e-5, 1e4  # deviation of a layer's output
_ENOUGH = 32  # samples in a batch to call a unit dead

Found = Iterator[tuple[str, str]]


class Advice:
    """Turns step records into lines of advice.

    A symptom is named when two looks in succession show it, and once in a run.
    """

    def __init__(self) -> None:
        self._last: set[str] = set()
        self._said: set[str] = set()
        self._first_loss: float | None = None

    def __call__(
        self, record: Mapping[str, Any], types: Mapping[str, str], samples: int, base_lr: float
    ) -> list[str]:
        """Return new lines for one more record.

        Parameters
        ----------
        record : dict
            As `Watch` writes them.
        types : dict of str to str
            Type of each layer in ``record["activations"]``.
        samples : int
            In the batch looked at.
        base_lr : float
            Learning rate before the schedule.
        """
        if self._first_loss is None:
            self._first_loss = record["loss"]
        found = dict(self._symptoms(record, types, samples, base_lr))
        new = [name for name in found if name in self._last and name not in self._said]
        self._last = set(found)
        self._said.update(new)
        return [f"step {record['step']}: {found[name]}" for name in new]

    def state_dict(self) -> dict[str, Any]:
        """Return what was seen and said so far, as JSON has it."""
        return {"last": sorted(self._last), "said": sorted(self._said), "first_loss": self._first_loss}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._last, self._said = set(state["last"]), set(state["said"])
        self._first_loss = state["first_loss"]

    def _symptoms(
        self, record: Mapping[str, Any], types: Mapping[str, str], samples: int, base_lr: float
    ) -> Found:
        first = self._first_loss or 0.0
        learning = first - record["loss"] >= 0.5 * abs(first)  # of a negative loss it is the size that counts
        waiting = record["lr"] < 0.5 * base_lr  # the schedule wants small steps
        rule = "he" if "ReLU" in types.values() else "xavier"
        if ratios := record.get("update_ratio"):
            yield from _updates(ratios, record["lr"], quiet=learning or waiting, rule=rule)
        if norms := record.get("grad_norm"):
            yield from _gradients(norms)
        if layers := record.get("activations"):
            yield from _activations(layers, types, samples, rule)


def _updates(ratios: Mapping[str, float], lr: float, quiet: bool, rule: str) -> Found:
    ordered = sorted(ratios, key=lambda name: ratios[name])
    slowest, fastest, middle = ordered[0], ordered[-1], ratios[ordered[len(ordered) // 2]]
    if middle > _FAST:
        yield "fast", (
            f"an update changes the weights by {middle:.2g} of their size ({fastest}: {ratios[fastest]:.2g}; "
            f"want about 0.001): lower the learning rate, now {lr:.3g}"
        )
    if middle < _SLOW and not quiet:
        yield "slow", (
            f"an update changes the weights by only {middle:.2g} of their size ({slowest}: {ratios[slowest]:.2g}; "
            f"want about 0.001): raise the learning rate, now {lr:.3g}"
        )
    if ratios[slowest] < _UNEVEN * ratios[fastest]:
        yield "uneven", (
            f"an update changes {slowest} by {ratios[slowest]:.2g} of its size but {fastest} by "
            f"{ratios[fastest]:.2g}: the gradient is lost between them; start from init {rule} or add batch "
            f"normalisation"
        )


def _gradients(norms: Mapping[str, float]) -> Found:
    largest = max(norms, key=lambda name: norms[name])
    whole = math.hypot(*norms.values())
    if whole > _STEEP:
        yield "steep", (
            f"the gradient has the norm {whole:.2g} ({largest}: {norms[largest]:.2g}): standardise the inputs, "
            f"start from smaller weights or lower the learning rate"
        )
    nothing = [name for name, norm in norms.items() if norm == 0]
    if nothing:
        others = f" and {len(nothing) - 1} more" if len(nothing) > 1 else ""
        yield "nothing", (
            f"no gradient at all reaches {nothing[0]}{others}: every unit behind is dead or saturated, or no path "
            f"leads to the loss"
        )


def _activations(
    layers: Mapping[str, Mapping[str, float]], types: Mapping[str, str], samples: int, rule: str
) -> Found:
    def worst(figure: str) -> tuple[str, float]:
        name = max(layers, key=lambda name: layers[name][figure])
        return f"layer {name} ({types[name]})" if name else types[name], layers[name][figure]

    where, share = worst("dead")
    if share > _DEAD and samples >= _ENOUGH:
        yield "dead", (
            f"{where}: {100 * share:.0f} % of the units are dead (no slope on any of {samples} samples): lower "
            f"the learning rate, start from init {rule}, or use LeakyReLU or batch normalisation"
        )
    where, share = worst("saturated")
    if share > _SATURATED:
        yield "saturated", (
            f"{where}: {100 * share:.0f} % of the outputs are saturated: start from smaller weights (init xavier), "
            f"standardise the inputs or lower the learning rate"
        )
    where, spread = worst("std")
    if spread > _LOUD:
        yield "loud", (
            f"{where}: outputs deviate by {spread:.2g}, the signal explodes: start from init {rule} or "
            f"standardise the inputs"
        )
    name = min(layers, key=lambda name: layers[name]["std"])
    if layers[name]["std"] < _FAINT:
        yield "faint", (
            f"layer {name} ({types[name]}): outputs deviate by {layers[name]['std']:.2g}, the signal dies out: "
            f"start from init {rule} or add batch normalisation"
        )
