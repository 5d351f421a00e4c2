"""What a docstring leaves to that of another function, filled in: ``help`` and the reference show whole ones.

``mul`` says "parameters, result and errors are those of :func:`sub`"; the sections that it so refers to become its
own, of the parameters those that it has. A ``*_backward`` has what it takes from its forward function. What is left are
words that mean the same everywhere.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

_SECTION = re.compile(r"\n([A-Z][\w ]*)\n--+\n")
_ENTRY = re.compile(r"^([*\w][*\w, ]*?)((?: :.*)?\n(?:(?: .*)?\n)*)", re.M)
_MENTIONED = re.compile(r":func:`(\w+)`")
_WORDS = {
    "input": " : ndarray of float32 or float64\n",
    "output": " : ndarray\n    What the forward function returned.\n",
    "grad_output": " : ndarray\n    Gradient of the loss with respect to the result, of its shape and dtype.\n",
    "grad_input": " : ndarray, optional\n    Written over with the result.\n",
    "out": " : ndarray, optional\n    Written over with the result.\n",
}

Functions = Mapping[str, Callable[..., Any]]


class Parts(NamedTuple):
    """A docstring taken apart."""

    head: str  # what stands before the first section
    sections: dict[str, str]  # their texts by their names
    parameters: dict[str, str]  # what is said of each: its type and the lines below


def complete(functions: Functions) -> None:
    """Fill in the docstrings of functions, given by name, that refer to others or have no parameters of their own.

    The others are whole and not taken apart, which would cost every import milliseconds.
    """
    parts: dict[str, Parts] = {}
    for name, function in functions.items():
        doc = function.__doc__
        if doc and ("those of" in doc or "    Parameters\n" not in doc):
            _complete(name, functions, parts)


def _complete(name: str, functions: Functions, parts: dict[str, Parts]) -> None:
    """Fill in one docstring, after those that it refers to; its parts are kept for others that refer to it."""
    function = functions.get(name)
    if name in parts or function is None or not function.__doc__:
        return
    head, sections, own = parts[name] = _parts(_dedented(function.__doc__))
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    parameters = () if code is None else code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if own.keys() >= set(parameters) and "those of" not in head:
        return
    sources = [*dict.fromkeys(_MENTIONED.findall(head + sections.get("Raises", "")))]
    sources += [name.removesuffix("_backward")] * name.endswith("_backward")
    for source in sources:
        _complete(source, functions, parts)
    others = [parts[source] for source in sources if source in parts and source != name]
    known = dict(_WORDS)
    for other in reversed(others):
        known |= other.parameters
    own = {p: own.get(p) or known[p] for p in parameters if p in own or p in known} | own
    parts[name] = Parts(head, sections, own)
    sections["Parameters"] = "".join(f"{p}{said}" for p, said in own.items())
    before, _, after = head.partition("those of")
    clause = before[max(map(before.rfind, ".;:")) + 1 :]
    named = _MENTIONED.search(after)
    of = parts.get(named[1]) if named else None
    for word, section in (("result", "Returns"), ("errors", "Raises")):
        if word in clause and of and section in of.sections:
            sections.setdefault(section, of.sections[section])
    function.__doc__ = _whole(head, sections)


def _dedented(doc: str) -> str:
    """Return the docstring of a function of a module without its indentation, ending in one newline."""
    return doc.strip().replace("\n    ", "\n") + "\n"


def _parts(doc: str) -> Parts:
    """Take a docstring apart."""
    heads = [*_SECTION.finditer(doc)]
    starts = [head.start() for head in heads] + [len(doc)]
    sections = {head[1]: doc[head.end() : end].rstrip() + "\n" for head, end in zip(heads, starts[1:], strict=True)}
    entries = _ENTRY.findall(sections.get("Parameters", ""))
    parameters = {name.strip(" *"): said for names, said in entries for name in names.split(",")}
    return Parts(doc[: starts[0]], sections, parameters)


def _whole(head: str, sections: dict[str, str]) -> str:
    order = ("Parameters", "Returns", "Yields", "Raises")
    names = [name for name in order if name in sections] + [name for name in sections if name not in order]
    return head.rstrip() + "\n" + "".join(f"\n{name}\n{'-' * len(name)}\n{sections[name]}" for name in names)
