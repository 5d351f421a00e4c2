"""The commands of the documentation run as they stand, page by page, in a folder with data drawn for them.

A command that is not run is one of NOT_RUN, with the reason; what it is given is then checked against its options.
Those on MNIST, which is a download, or of millions of layers take what INSTEAD names.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest

from fastconv.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [page for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))] if "```sh" in page.read_text("utf-8")]
NOT_RUN = {
    r"pip install ": "installs: .ci/run does what README says, in a fresh environment",
    r"pytest$": "this very run",
    r"python bench/": "minutes, and a peer to compare with",
    r"tensorboard ": "a server of another package",
    r"fastconv board ": "serves until Ctrl-C: test_board.py",
    r"fastconv report .*--watch": "goes on until Ctrl-C: test_report.py",
    r"fastconv search ": "minutes: test_search.py runs smaller ones",
    r"fastconv train --resume runs/a": "goes on after an interruption: test_resume.py",
    r"fastconv train .*efficientnet_lite0|fastconv predict (efficientnet_lite0|run 'new)": "test_docs.py runs these",
}
EXPLODES = "for lr in 0.001 "  # its last rate is far too large, and the page shows what comes of it
INSTEAD = {
    "--dataset mnist --model lenet5 ": "--dataset digits ",
    "--layers 10000000 ": "--layers 1000 --dataset digits ",
    "--layers 10000 --width 4 --steps 500 ": "--layers 10000 --width 4 --steps 500 --dataset digits ",
    "deep eval$": "deep eval --dataset digits",
}


def commands(page):
    """Yield the commands of a page, without comments and in order, and the exit code each is said to have."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            code = re.search(r"# .*on purpose: exit code (\d+)", line)
            for command in re.sub(r"\s+#.*", "", line).split(" && "):
                yield " ".join(command.split()), int(code[1]) if code else 3 * command.startswith(EXPLODES)


def reason(command):
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, command)), None)


ALL = [(page, command) for page in PAGES for command, _ in commands(page)]


def draw(folder):
    """Write what the pages speak of: images by class, images with masks, photos and tables."""
    from PIL import Image

    rng = np.random.default_rng(0)

    def image(name, size):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(path)

    for i in range(6):
        image(f"flowers/rose/{i}.jpg", (60 + i, 80, 3))
        image(f"flowers/tulip/{i}.jpg", (80, 60 + i, 3))
    for i in range(12):
        image(f"streets/images/{i}.jpg", (64, 64, 3))
        Image.fromarray(rng.integers(0, 2, (64, 64), dtype=np.uint8)).save(folder / "mask.png")
        (folder / "streets/masks").mkdir(exist_ok=True)
        (folder / "mask.png").rename(folder / f"streets/masks/{i}.png")
    for name in ("photo.jpg", "new/a.jpg", "new/b.jpg"):
        image(name, (70, 90, 3))
    rows = rng.integers(1, 100, (80, 3))
    lines = [f"{a},{b},{c}" for a, b, c in rows]
    prices = [f"{line},{3 * a + 2 * c}.5" for line, (a, _, c) in zip(lines, rows, strict=True)]
    (folder / "houses.csv").write_text("\n".join(["rooms,age,area,price", *prices]) + "\n")
    (folder / "new.csv").write_text("\n".join(["rooms,age,area", *lines[:5]]) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_run_in_their_order(page, tmp_path):
    for package in ("sklearn", "PIL", "matplotlib", "tensorboardX"):
        pytest.importorskip(package)
    draw(tmp_path)
    shell = f'fastconv() {{ {shlex.quote(sys.executable)} -m fastconv "$@"; }}; '
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FASTCONV_")}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)}
    for command, code in commands(page):
        if reason(command) is None:
            for words, others in INSTEAD.items():
                command = re.sub(words, others, command)
            done = subprocess.run(
                ["bash", "-c", shell + command], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_what_is_not_run_is_still_there(pattern):
    assert [command for _, command in ALL if re.match(pattern, command)]


@pytest.mark.parametrize("words", INSTEAD)
def test_what_is_replaced_is_still_there(words):
    assert [command for _, command in ALL if re.search(words, command) and reason(command) is None]


@pytest.mark.parametrize("command", sorted({c for _, c in ALL if c.startswith("fastconv ") and reason(c)}))
def test_options_of_commands_that_are_not_run(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("efficientnet_lite0.onnx", "photo.jpg"):  # an option may ask that its file be there
        (tmp_path / path).touch()
    for path in ("run", "runs", "tries"):
        (tmp_path / path).mkdir()
    context, words = main.make_context("fastconv", [], resilient_parsing=True), shlex.split(command)[1:]
    name, chosen, words = main.resolve_command(context, words)
    while isinstance(chosen, click.Group):
        context = chosen.make_context(name, [], parent=context, resilient_parsing=True)
        name, chosen, words = chosen.resolve_command(context, words)
    with chosen.make_context(name, words, parent=context) as context:
        assert context.params


@pytest.mark.parametrize("command", sorted({c for _, c in ALL if c.startswith("python bench/")}))
def test_options_of_benches(command):
    _, script, *words = shlex.split(command)
    assert (ROOT / script).is_file()
    options = [word for word in words if word.startswith("-")]
    if options:
        done = subprocess.run([sys.executable, script, "--help"], cwd=ROOT, capture_output=True, text=True)
        assert [option for option in options if option not in done.stdout] == []
