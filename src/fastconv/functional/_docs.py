"""What a docstring leaves to that of another function, filled in: ``help`` and the reference show whole ones.

``mul`` says "parameters, result and errors are those of :func:`sub`"; the sections that it so refers to become its
own, of the parameters those that it has. A ``*_backward`` has what it takes from its forward function. What is left are
words that mean the same everywhere.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

_SECTION = re.compile(r"^(\w[\w ]*)\n-+\n", re.M)
_MENTIONED = re.compile(r":func:`(\w+)`")
_WORDS = {
    "input": " : ndarray of float32 or float64\n",
    "output": " : ndarray\n    What the forward function returned.\n",
    "grad_output": " : ndarray\n    Gradient of the loss with respect to the result, of its shape and dtype.\n",
    "grad_input": " : ndarray, optional\n    Written over with the result.\n",
    "out": " : ndarray, optional\n    Written over with the result.\n",
}

Functions = Mapping[str, Callable[..., Any]]
Parts = tuple[str, dict[str, str]]


def complete(functions: Functions) -> None:
    """Fill in the docstrings of functions, given by name."""
    parts: dict[str, Parts] = {}
    for name in functions:
        _complete(name, functions, parts)


def _complete(name: str, functions: Functions, parts: dict[str, Parts]) -> None:
    """Fill in one docstring, after those that it refers to; its parts are kept for others that refer to it."""
    function = functions.get(name)
    if name in parts or function is None or not function.__doc__:
        return
    head, sections = parts[name] = _parts(_dedented(function.__doc__))
    code = getattr(getattr(function, "__wrapped__", function), "__code__", None)
    parameters = () if code is None else code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    own = dict(_entries(sections.get("Parameters", "")))
    if all(parameter in own for parameter in parameters) and "those of" not in head:
        return
    sources = [*dict.fromkeys(_MENTIONED.findall(head + sections.get("Raises", "")))]
    sources += [name.removesuffix("_backward")] * name.endswith("_backward")
    for source in sources:
        _complete(source, functions, parts)
    others = [parts[source][1] for source in sources if source in parts and source != name]
    known: dict[str, str] = {}
    for other in others:
        known = dict(_entries(other.get("Parameters", ""))) | known
    told = {p: own.get(p) or known.get(p) or _WORDS.get(p) for p in parameters} | own
    sections["Parameters"] = "".join(f"{p}{said}" for p, said in told.items() if said)
    clause = re.split("[.;:]", head.partition("those of")[0])[-1] if "those of" in head else ""
    for word, section in (("result", "Returns"), ("errors", "Raises")):
        if word in clause and others and section in others[0]:
            sections.setdefault(section, others[0][section])
    function.__doc__ = _whole(head, sections)


def _dedented(doc: str) -> str:
    """Return the docstring of a function of a module without its indentation, ending in one newline."""
    return doc.strip().replace("\n    ", "\n") + "\n"


def _parts(doc: str) -> Parts:
    """Return what stands before the first section, and the sections' texts by their names."""
    heads = [*_SECTION.finditer(doc)]
    starts = [head.start() for head in heads] + [len(doc)]
    sections = {head[1]: doc[head.end() : end].rstrip() + "\n" for head, end in zip(heads, starts[1:], strict=True)}
    return doc[: starts[0]], sections


def _entries(section: str) -> Iterator[tuple[str, str]]:
    """Yield each parameter of a section with what is said of it: its type and the lines below."""
    names, said = "", ""
    for line in [*section.splitlines(), "_"]:
        if line and line[0] != " ":
            yield from ((name.strip(" *"), said) for name in names.split(",") if names)
            names, colon, kind = line.partition(" : ")
            said = f"{colon}{kind}\n"
        else:
            said += f"{line}\n"


def _whole(head: str, sections: dict[str, str]) -> str:
    order = ("Parameters", "Returns", "Yields", "Raises")
    names = [name for name in order if name in sections] + [name for name in sections if name not in order]
    return head.rstrip() + "\n" + "".join(f"\n{name}\n{'-' * len(name)}\n{sections[name]}" for name in names)
