"""The record of a run: one flat dictionary an epoch, sliced by row or by column."""

from collections.abc import Iterable, Iterator
from typing import Any, overload

from fastconv import _html
from fastconv.functional._check import flag

Record = dict[str, Any]

_ROWS = 12  # epochs in a table
_TIMES = ("steps", "seconds", "step_ms", "images_per_second")


class History:
    """Records of the epochs of a run, oldest first.

    ``history[-1]`` is the last record; ``history["validation_loss"]`` a column, with None where an epoch has
    no such figure. The trainer's records hold ``epoch`` (from 1), ``steps`` (updates so far), ``lr`` (of the
    last update), ``loss``, ``accuracy``, ``penalty``, ``validation_loss``, ``validation_accuracy``, ``seconds``
    (training steps and batches, without validation), ``step_ms`` (median of one update) and ``images_per_second``;
    ``validation_NAME`` of every metric; where gradients are clipped by norm also ``gradient_norm`` (mean before
    clipping) and ``clipped`` (share of the updates).

    Parameters
    ----------
    records : iterable of dict

    Examples
    --------
    >>> history = History([{"epoch": 1, "loss": 0.9}, {"epoch": 2, "loss": 0.4}])
    >>> history["loss"], history[-1]["epoch"]
    ([0.9, 0.4], 2)
    >>> history.best("loss")
    {'epoch': 2, 'loss': 0.4}
    """

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self.records = [dict(record) for record in records]

    def append(self, record: Record) -> None:
        """Add the record of one more epoch.

        Parameters
        ----------
        record : dict

        Examples
        --------
        >>> from fastconv.train import History
        >>> history = History()
        >>> history.append({"epoch": 1, "loss": 0.9})
        >>> history.append({"epoch": 2, "loss": 0.4, "validation_loss": 0.5})
        >>> history["loss"], history["validation_loss"]
        ([0.9, 0.4], [None, 0.5])
        """
        self.records.append(record)

    def best(self, key: str, highest: bool = False) -> Record:
        """Return the first record whose ``key`` is lowest (or highest).

        Parameters
        ----------
        key : str
        highest : bool

        Raises
        ------
        ValueError
            If no record has that figure.

        Examples
        --------
        >>> from fastconv.train import History
        >>> history = History({"epoch": i, "accuracy": value} for i, value in enumerate((0.7, 0.9, 0.8), 1))
        >>> history.best("accuracy", highest=True)
        {'epoch': 2, 'accuracy': 0.9}
        """
        highest = flag("History.best: highest", highest)
        having = [record for record in self.records if record.get(key) is not None]
        if not having:
            raise ValueError(f"History: no record of {key!r} in {len(self)} epochs")
        return (max if highest else min)(having, key=lambda record: record[key])

    @overload
    def __getitem__(self, item: int) -> Record: ...
    @overload
    def __getitem__(self, item: str) -> list[Any]: ...
    @overload
    def __getitem__(self, item: slice) -> "History": ...
    def __getitem__(self, item: int | str | slice) -> "Record | list[Any] | History":
        if isinstance(item, str):
            return [record.get(item) for record in self.records]
        if isinstance(item, slice):
            return History(self.records[item])
        return self.records[item]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def __repr__(self) -> str:
        return f"History({len(self)} epochs)"

    def _repr_html_(self) -> str:
        """Pictures of all epochs and a table of the last ones."""
        names = list(dict.fromkeys(name for record in self.records for name in record))
        shown = [name for name in names if any(record.get(name) is not None for record in self.records)]
        figures = [name for name in shown if name not in ("epoch", *_TIMES)]
        pictures = ""
        for figure in dict.fromkeys(name.removeprefix("validation_") for name in figures):
            columns = {"training": self[figure], "validation": self[f"validation_{figure}"]}
            columns = {name: column for name, column in columns.items() if any(v is not None for v in column)}
            if figure in ("loss", "accuracy") or "validation" in columns:
                pictures += _html.picture(figure, columns)
        rows = [[*(name.replace("validation_", "val ") for name in shown)]]
        rows += [[_shown(record.get(name)) for name in shown] for record in self.records[-_ROWS:]]
        more = f", the last {_ROWS}" if len(self) > _ROWS else ""
        return f"<div>{pictures}</div>" + _html.table(f"History of {len(self)} epochs{more}", rows, texts=0)


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
