"""What may stand in the journal of a search: Optuna's lines, and what of ours is in them.

Optuna's reader trusts its journal. So every line is looked at before Optuna gets to see it, and what it then makes of
them is looked at where it is used.
"""

from __future__ import annotations

import os

from fastconv.schema import Choose, Integer, Items, Names, Null, Number, Record, Shape, Text, content, parse

_ID, _MANY = Integer(), 2**53
_FIGURE = Number(nan=True)
_ATTRIBUTES, _TIME = Names(Shape()), Null(Text())
_VALUES = Null(Items(_FIGURE))

_OPERATIONS: dict[int, dict[str, Shape]] = {
    0: {"study_name": Text(), "directions": Items(Integer(0, 2), 1)},
    1: {"study_id": _ID},
    2: {"study_id": _ID, "user_attr": _ATTRIBUTES},
    3: {"study_id": _ID, "system_attr": _ATTRIBUTES},
    4: {"study_id": _ID, "datetime_start": _TIME},
    5: {"trial_id": _ID, "param_name": Text(), "param_value_internal": _FIGURE, "distribution": Text()},
    6: {"trial_id": _ID, "state": Integer(0, 4), "values": _VALUES},
    7: {"trial_id": _ID, "step": Integer(0, _MANY), "intermediate_value": Null(_FIGURE)},
    8: {"trial_id": _ID, "user_attr": _ATTRIBUTES},
    9: {"trial_id": _ID, "system_attr": _ATTRIBUTES},
    10: {},
}  # fmt: skip
_MORE: dict[str, Shape] = {
    "state": Integer(0, 4), "value": Null(_FIGURE), "values": _VALUES, "params": Names(_FIGURE),
    "distributions": Names(Text()), "user_attrs": _ATTRIBUTES, "system_attrs": _ATTRIBUTES,
    "intermediate_values": Names(Null(_FIGURE)), "datetime_start": _TIME, "datetime_complete": _TIME,
}  # fmt: skip


_BASE = Record({"op_code": Integer(0, max(_OPERATIONS)), "worker_id": Text()})
_LINES = {code: Record({**_BASE.must, **must}, _MORE) for code, must in _OPERATIONS.items()}
LINE = Choose(lambda value: _LINES[value["op_code"]] if _BASE.fits(value) else _BASE)
"""One operation, with what its number asks for."""

SEARCH = Record({"plan": Record(), "command": Record()})
"""The attribute of a study that says which search it is."""

FACTS = Record(
    {"status": Text(("finished", "cut", "diverged", "failed"))},
    {"reason": Null(Text()), "seconds": Null(Number()), "validation_loss": Null(_FIGURE)},
)
TRIAL = Record({}, {
    "worker": Record({}, {"host": Text(), **dict.fromkeys(("pid", "searcher"), Integer(1, 2**31 - 1))}),
    "tries": Integer(0, _MANY), "beat": Integer(0, _MANY), "facts": FACTS,
})  # fmt: skip
"""The attributes of a trial."""


def check_journal(path: str | os.PathLike[str]) -> None:
    """Raise ValueError, with the line, unless a journal is made of Optuna's operations; the last may be cut short."""
    *lines, _torn = content(path).split(b"\n")
    for number, line in enumerate(lines, start=1):
        parse(line, LINE, f"line {number}", nan=True)
