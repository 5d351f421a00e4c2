"""The build: what the source distribution holds, which flags the compiler gets, and that nothing is compiled twice.

A script stands for the compiler. It writes down how it was called and leaves an empty file, so that a build takes
seconds; what is compiled for real is what all other tests run on.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import fastconv

pytest.importorskip("Cython")
pytest.importorskip("setuptools")

ROOT = Path(__file__).parents[1]
KEPT = ("runtime", "probe")  # modules enough for what builds do; all of them take Cython ten seconds
FAKE = """#!/bin/sh
echo "$@" >> "{log}"
while [ $# -gt 1 ]; do
    if [ "$1" = -o ]; then : > "$2"; fi
    shift
done
"""

pytestmark = [
    pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="away from the source"),
    pytest.mark.skipif(os.name == "nt", reason="a shell script stands for the compiler"),
]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The source distribution, made from a copy of the tree and unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    left_out = shutil.ignore_patterns(".*", "build", "*.so", "*.pyd", "*.egg-info", "__pycache__", "public")
    shutil.copytree(ROOT, folder / "tree", ignore=left_out)
    hook(folder / "tree", "build_sdist")
    [archive] = (folder / "build_sdist").glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder / "unpacked", filter="data")
    [root] = (folder / "unpacked").iterdir()
    return root


@pytest.fixture
def tree(unpacked, tmp_path):
    """What was unpacked, with a few of its modules; a place where the compiler's calls are written down."""
    tree = tmp_path / "clone"
    shutil.copytree(unpacked, tree, ignore=shutil.ignore_patterns("tests", "docs", "bench", "*.egg-info"))
    for module in tree.rglob("*.pyx"):
        if module.stem not in KEPT:
            module.unlink()
    compiler = tmp_path / "cc"
    compiler.write_text(FAKE.format(log=tmp_path / "calls"))
    compiler.chmod(0o755)
    return tree


def hook(tree, name):
    """Call what pip calls of the build backend, into a folder of its name; return the compiler's calls."""
    out = tree.parent / name
    out.mkdir(exist_ok=True)
    return command(tree, "-c", f"import setuptools.build_meta as backend; backend.{name}({str(out)!r})")


def command(tree, *arguments):
    """Run Python in a tree; return the lines with which the compiler was called."""
    calls = tree.parent / "calls"
    calls.write_text("")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"CC": str(tree.parent / "cc")}
    for name in ("CFLAGS", "LDSHARED", "LDFLAGS", *[n for n in environment if n.startswith("FASTCONV_")]):
        environment.pop(name, None)
    done = subprocess.run([sys.executable, *arguments], cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return calls.read_text().splitlines()


def compiled(calls):
    """The sources among the compiler's arguments."""
    return sorted(Path(word).name for call in calls for word in call.split() if word.endswith(".c"))


TABLES = [f"isa_{isa}_{kind}.c" for isa in ("avx512", "avx2", "scalar", "neon") for kind in ("f32", "f64")]
TABLES.append("dispatch.c")
EVERYTHING = sorted([*TABLES, "_shared.c", *(f"{name}.c" for name in KEPT)])


def test_source_distribution_holds_what_the_build_reads(unpacked):
    for folder in ("src", "tests", "scripts", "bench", "docs", "examples", "packaging"):
        there = {p.relative_to(ROOT) for p in (ROOT / folder).rglob("*") if p.is_file()}
        wanted = {p for p in there if not re.search(r"\.(so|pyd|pyc|o)$|egg-info|__pycache__|/public/|/\.", str(p))}
        assert {p for p in wanted if not (unpacked / p).is_file()} == set()
    for name in ("setup.py", "pyproject.toml", "LICENSE", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        assert (unpacked / name).is_file()


@pytest.mark.parametrize("first", ["wheel", "editable", "inplace"])
def test_no_command_compiles_what_another_has(tree, first):
    ways = {
        "wheel": lambda: hook(tree, "build_wheel"),
        "editable": lambda: hook(tree, "build_editable"),
        "inplace": lambda: command(tree, "setup.py", "build_ext", "--inplace"),
    }
    assert compiled(ways[first]()) == EVERYTHING
    for way in ways.values():
        assert way() == []
    assert list(tree.glob("src/fastconv/_ext/runtime.*.so"))
    (tree / "src/fastconv/_ext/probe.pyx").touch()
    assert compiled(ways[first]()) == ["probe.c"]
    (tree / "src/fastconv/_kernels/dispatch.c").touch()
    assert compiled(ways[first]()) == ["dispatch.c", "runtime.c"]  # linked again, not only compiled
    (tree / "src/fastconv/_kernels/math.inc.h").touch()
    assert compiled(ways[first]()) == EVERYTHING  # all of it includes the headers


def test_kernels_are_compiled_for_all_versions_of_python_at_once(tree):
    hook(tree, "build_wheel")
    other = "build/temp.of-another-version"
    calls = command(tree, "setup.py", "build", "--build-temp", other, "--build-lib", "build/lib.other")
    assert compiled(calls) == sorted([name for name in EVERYTHING if name not in TABLES])


def test_flags_are_those_of_no_machine(tree):
    calls = hook(tree, "build_wheel")
    for call in calls:
        assert not re.search(r"-march|-mtune|-mcpu|native|-ffast-math|-Ofast|-flto", call), call
        of_a_table = re.search(r"isa_([^\W_]+)_f\d\d\.c", call)
        if not of_a_table or of_a_table[1] in ("scalar", "neon"):
            assert not re.search(r" -m(avx|fma|sse)", call), call
        if " -c " in call:
            assert " -ffp-contract=off" in call
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    assert any("-mavx512f" in call for call in calls) == x86


def test_other_processors_get_no_flags_of_x86(tree, monkeypatch):
    monkeypatch.setenv("_PYTHON_HOST_PLATFORM", "linux-aarch64")  # as in a cross-build
    calls = hook(tree, "build_wheel")
    assert compiled(calls) == EVERYTHING
    assert not [call for call in calls if re.search(r" -m(avx|fma|sse)", call)]


def test_wheel_holds_no_source(tree):
    hook(tree, "build_wheel")
    [wheel] = (tree.parent / "build_wheel").glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    assert "fastconv/py.typed" in names
    assert any(re.fullmatch(r"fastconv/_ext/runtime\..*\.(so|pyd)", name) for name in names)
    assert [name for name in names if name.endswith((".c", ".pyx", ".pxd", ".h", ".inc"))] == []


def test_the_conda_recipe_says_what_the_project_does():
    """Read by its lines: a package that reads YAML would be a dependency of this test alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    recipe = (ROOT / "packaging" / "conda" / "recipe.yaml").read_text()
    assert re.search(r'^  version: "(.+)"$', recipe, re.M)[1] == fastconv.__version__
    assert re.search(r"^  license: (.+)$", recipe, re.M)[1] == project["project"]["license"]
    assert re.findall(r"^    - (\S*LICENSE)$", recipe, re.M) == project["project"]["license-files"]
    parts = dict(re.findall(r"^  (\w+):\n((?:    .*\n)+)", recipe, re.M))
    asked = {name: set(re.findall(r"(?:- |then: )([a-z-]+ [<>=]\S+)", text)) for name, text in parts.items()}

    def spelled(requirements):
        return {re.sub(r"^([\w-]+)", r"\1 ", one.split(";")[0]) for one in requirements}

    python = "python" + project["project"]["requires-python"]
    assert asked["run"] == spelled([*project["project"]["dependencies"], python])
    assert asked["host"] == spelled(project["build-system"]["requires"])
    [script] = re.findall(r"^      - fastconv = (\S+)$", recipe, re.M)
    assert script == project["project"]["scripts"]["fastconv"]
