"""The house: imports point downward only, ops.inc and its Cython mirror agree, importing stays light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastconv

PACKAGE = Path(fastconv.__file__).parent

# Lowest first. Rooms of one level do not import each other, except as ALLOWED says.
LEVELS = [
    {"_version", "locks", "paths", "random", "schema", "signals", "terminal"},
    {"_ext"},
    {"config"},
    {"graph"},
    {"functional"},
    {"nn"},
    {"init", "optim", "schedule", "data", "models", "serialize", "testing"},
    {"deep", "train"},
    {"diagnose"},
    {"search", "viz"},
    {"cli"},
]
LEVEL = {room: i for i, level in enumerate(LEVELS) for room in level}
# Within a package of several files, what all others of it may import.
SHARED = {
    "nn": {"base", "_parameter", "_running", "_turns", "_workspace"},
    "functional": {"_check", "_epilogue", "_fused", "_geometry", "_ops", "_scratch", "_values", "_views"},
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
            assert room in ("config", "functional", "deep"), f"{room} reaches past the boundary: {name}"


def test_the_cython_mirror_lists_the_kernels_of_ops_inc():
    kernels = PACKAGE / "_kernels" / "ops.inc"
    if not kernels.exists():
        pytest.skip("the C sources are not installed")
    listed = re.findall(r"^FC_OP\((\w+),\s*\((.*?)\),\s*\(", kernels.read_text(), re.M | re.S)
    mirrored = re.findall(r"void \(\*(\w+)\)\((.*?)\) noexcept", (PACKAGE / "_ext" / "runtime.pxd").read_text(), re.S)

    def plain(text):
        return re.sub(r"\s+", " ", text.replace("ptrdiff_t", "Py_ssize_t")).strip()

    assert {n: plain(p) for n, p in listed} == {n: plain(p) for n, p in mirrored}


def test_the_cython_mirror_has_the_structs_of_args_h():
    """Every struct, and of each every field in its order and with its type; C's flags are Cython's bint or int."""
    args = PACKAGE / "_kernels" / "args.h"
    if not args.exists():
        pytest.skip("the C sources are not installed")
    header = re.sub(r"/\*.*?\*/", "", args.read_text(), flags=re.S)
    mirror = re.sub(r"#.*", "", (PACKAGE / "_ext" / "runtime.pxd").read_text())

    def fields(body, end):
        found = []
        for line in filter(None, (line.strip() for line in re.split(end, body))):
            kind, names = re.match(r"(.*?[\s*])(\w+(?:\s*,\s*\**\w+)*)$", " ".join(line.split())).groups()
            kind = kind.replace("ptrdiff_t", "Py_ssize_t").replace("bint", "int")
            stars = "*" * kind.count("*")
            found += [(kind.replace("*", "").strip() + stars, name.strip(" *")) for name in names.split(",")]
        return found

    structs = re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", header, re.S)
    mirrored = re.findall(r"ctypedef struct (\w+):\n((?:        .*\n|\n)+)", mirror)
    there = {name: fields(body, "\n") for name, body in mirrored if name != "fc_ops"}
    assert {name: fields(body, ";") for name, body in structs} == there


def test_import_brings_in_nothing_heavy():
    code = "import fastconv, sys; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    heavy = {"sklearn", "scipy", "matplotlib", "click", "tqdm", "safetensors", "pooch", "PIL", "torch", "pandas"}
    assert loaded & heavy == set()
    code = "import fastconv, sys; assert 'numpy.random' not in sys.modules; fastconv.manual_seed(1)"
    subprocess.run([sys.executable, "-c", code], check=True)
