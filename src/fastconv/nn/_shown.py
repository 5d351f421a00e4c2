"""A model as a notebook shows it."""

from typing import Any

from fastconv import _html


def shown(model: Any) -> str:
    """Return a table of the layers: path, hyperparameters, how many numbers are learned and what is frozen."""
    rows: list[tuple[str, ...]] = [("layer", "", "parameters", "")]
    total = 0
    seen: set[int] = set()
    for path, module in model.named_modules():
        own = [p for p in vars(module).values() if hasattr(p, "requires_grad") and id(p) not in seen]
        seen |= {id(p) for p in own}
        count = sum(p.data.size for p in own)
        total += count
        if not own and next(module.named_children(), None) is not None:
            continue
        frozen = "frozen" if own and not any(p.requires_grad for p in own) else ""
        name = f"{type(module).__name__}({module.extra_repr()})"
        rows.append((path, name, f"{count:,}" if own else "–", frozen))
    return _html.table(f"{type(model).__name__}: {total:,} parameters", rows, 2)
