"""The house: imports point downward only, ops.inc and its Cython mirror agree, importing stays light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv

PACKAGE = Path(fastconv.__file__).parent

# Lowest first. Rooms of one level do not import each other, except as ALLOWED says.
LEVELS = [
    {"_html", "_version", "choices", "locks", "paths", "random", "schema", "signals", "terminal"},
    {"_ext"},
    {"config", "mapped"},
    {"graph"},
    {"functional"},
    {"nn"},
    {"init", "optim", "schedule", "data", "models", "serialize", "steps", "testing"},
    {"deep", "onnx"},
    {"train"},
    {"diagnose", "sklearn"},
    {"search", "viz"},
    {"cli"},
]
LEVEL = {room: i for i, level in enumerate(LEVELS) for room in level}
# Within a package of several files, what all others of it may import.
SHARED = {
    # of activations, convolutions and poolings layers that are small nets are made
    "nn": {
        "activation", "base", "conv", "losses", "pooling", "_children", "_origin", "_parameter", "_running", "_tracing",
        "_turns", "_workspace",
    },
    "functional": {
        "_algorithm", "_channels", "_check", "_class_loss", "_element_loss", "_epilogue", "_fused", "_geometry",
        "_loss", "_ops", "_optim", "_pooling", "_scratch", "_unpooling", "_values", "_views",
    },
    "functional/_ops": {"_run", "activation", "convolution"},  # masks of activations; rows and vectors
}


def sources():
    outside = {PACKAGE / "__init__.py", PACKAGE / "__main__.py"}
    return sorted(p for p in PACKAGE.rglob("*.py") if p not in outside)


def imports(path):
    """Yield the fastconv modules that a file imports, at the top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "fastconv")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "fastconv":
            if node.module == "fastconv":
                yield from (f"fastconv.{a.name}" for a in node.names)
            else:
                yield from (f"{node.module}.{a.name}" for a in node.names)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downward(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    room, folders, file = parts[0], parts[:-1], parts[-1]
    here = "/".join(folders)
    assert room in LEVEL, f"{room} has no level yet: give it one"
    for name in imports(path):
        target = name.split(".")[1:]
        if target[0] in ("__version__", "manual_seed"):
            continue
        if target[0] == room:
            inner = target[len(folders) :]
            if here in SHARED and file != "__init__" and target[: len(folders)] == list(folders) and inner:
                others = {p.stem for p in (PACKAGE / here).glob("*.py")} - SHARED[here] - {file}
                assert inner[0] not in others or file in SHARED[here], f"{file} imports its neighbour {name}"
            continue
        assert LEVEL[target[0]] < LEVEL[room], f"{path.name} ({room}) imports {name}, which is not below it"
        if target[0] == "_ext":
            assert room in ("config", "mapped", "functional", "deep"), f"{room} reaches past the boundary: {name}"


KERNELS, EXT = PACKAGE / "_kernels", PACKAGE / "_ext"
headers = pytest.mark.skipif(not (KERNELS / "args.h").exists(), reason="the C sources are not installed")


def declared(line):
    """Return (type, name) of each name that a line of C or Cython declares; C's flags are Cython's bint or int."""
    first, *others = line.replace("ptrdiff_t", "Py_ssize_t").replace("bint", "int").split(",")
    kind, *first = re.fullmatch(r"\s*(.*?)\s*(\**)\s*(\w+)\s*((?:\[\w+\])*)\s*", first).groups()
    names = [first, *(re.fullmatch(r"\s*(\**)\s*(\w+)\s*((?:\[\w+\])*)\s*", other).groups() for other in others)]
    return [(kind + stars + size, name) for stars, name, size in names]


def structs_of_c(text):
    """Return {name: fields} of the structs of a header; of the table, the fields before its kernels."""
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    found = re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", re.sub(r"^#.*\n", "", text, flags=re.M), re.S)
    return {n: [f for line in body.split(";") if line.strip() for f in declared(line)] for n, body in found}


def structs_of_cython(text):
    """Return {name: fields} of the structs that are declared; kernels of the table left out."""
    found = re.findall(r"ctypedef struct (\w+):\n((?:        .*\n|\n)+)", re.sub(r" *#.*", "", text))
    bodies = {name: re.sub(r"\n +void \(\*.*", "", body, flags=re.S) for name, body in found}
    return {name: [field for line in body.splitlines() if line.strip() for field in declared(line)]
            for name, body in bodies.items()}  # fmt: skip


def mirrors():
    """Give the text of every declaration from our headers."""
    for path in sorted([*EXT.rglob("*.pxd"), *EXT.rglob("*.pyx")]):
        yield from re.findall(r'^cdef extern from "\w+\.h".*\n((?: {4}.*\n|\n)+)', path.read_text(), re.M)


@headers
def test_the_cython_mirror_lists_the_kernels_of_ops_inc():
    """In their order, each with the types and names of its parameters."""
    listed = re.findall(r"^FC_OP\((\w+),\s*\((.*?)\),\s*\(", (KERNELS / "ops.inc").read_text(), re.M | re.S)
    mirrored = re.findall(r"void \(\*(\w+)\)\((.*?)\) noexcept", (EXT / "runtime.pxd").read_text(), re.S)

    def plain(text):
        return re.sub(r"\s+", " ", text.replace("ptrdiff_t", "Py_ssize_t")).strip()

    assert [(n, plain(p)) for n, p in listed] == [(n, plain(p)) for n, p in mirrored]


@headers
def test_the_cython_mirror_has_every_struct_of_the_headers():
    """Of each every field, in its order and with its type."""
    structs = structs_of_c((KERNELS / "args.h").read_text()) | structs_of_c((KERNELS / "kernels.h").read_text())
    found = [structs_of_cython(text).items() for text in mirrors()]
    assert dict(pair for pairs in found for pair in pairs) == structs
    assert sum(map(len, found)) == len(structs), "a struct is declared twice"


@headers
def test_the_cython_mirror_names_constants_that_there_are():
    text = (KERNELS / "args.h").read_text() + (KERNELS / "kernels.h").read_text()
    rows = re.findall(r"^FC_ACTIVATION\((\w+)", (KERNELS / "activations.inc").read_text(), re.M)
    there = set(re.findall(r"\bFC_\w+", re.sub(r"/\*.*?\*/", "", text, flags=re.S))) | {f"FC_ACT_{row}" for row in rows}
    named = {n for body in mirrors() for line in re.findall(r"enum:(.*)", body) for n in re.findall(r"\w+", line)}
    assert named
    assert named - there == set()


NAME = r"(\w+)((?:\[\w+\])*\s*)$"  # of a field, and the size of an array


@settings(max_examples=200)
@given(st.data())
@headers
def test_a_field_that_is_changed_is_noticed(data):
    """Renamed, given another type, left out, or in another place: the reading of both files misses none of it."""
    text = next(text for text in mirrors() if "fc_rows" in text)
    lines = text.splitlines(keepends=True)
    table = next(i for i, line in enumerate(lines) if "(*" in line)
    fields = [i for i in range(table) if lines[i].startswith(" " * 8) and lines[i].strip()[:1] != "#"]
    at = data.draw(st.sampled_from(fields))
    how = data.draw(st.sampled_from(["renamed", "retyped", "pointed", "left out", "moved"]))
    changed = lines.copy()
    if how == "renamed":
        changed[at] = re.sub(NAME, r"\1_\2", lines[at])
    elif how == "retyped":
        changed[at] = re.sub(r"\b(Py_ssize_t|int64_t|int|bint|double|void|fc_\w+)\b", "float", lines[at], count=1)
    elif how == "pointed":
        changed[at] = re.sub(NAME, r"*\1\2", lines[at])
    elif how == "left out":
        del changed[at]
    elif at - 1 in fields:
        changed[at - 1], changed[at] = lines[at], lines[at - 1]
    else:
        return
    assert structs_of_cython("".join(changed)) != structs_of_cython(text)


def test_import_brings_in_nothing_heavy():
    code = "import fastconv, sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    heavy = {"sklearn", "scipy", "matplotlib", "click", "tqdm", "safetensors", "pooch", "PIL", "torch", "pandas"}
    assert loaded & heavy == set()
    code = "import fastconv, sys; assert 'numpy.random' not in sys.modules; fastconv.manual_seed(1)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_layers_wait_for_nothing_that_they_may_never_use():
    """Whoever loads a model draws no numbers, and looks at no plan."""
    code = "import numpy, sys; before = {*sys.modules}; from fastconv import nn; print(*{*sys.modules} - before)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert loaded & {"numpy.random", "hashlib", "pathlib", "fastconv.graph.report", "fastconv.locks"} == set()
