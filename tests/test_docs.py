"""The snippets of the documentation run as they stand, one after the other."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
PAGES = [page for page in FILES if "```python" in page.read_text("utf-8")]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_snippets_of_a_page_run_in_their_order(page, tmp_path, monkeypatch):
    for package in ("sklearn", "matplotlib", "optuna"):
        pytest.importorskip(package)
    text = page.read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    names = {}
    for found in re.finditer(r"^```python\n(.*?)^```", text, re.M | re.S):
        line = text.count("\n", 0, found.start()) + 1
        exec(compile("\n" * line + found[1], str(page), "exec"), names)
    assert names


@pytest.mark.slow
def test_the_commands_for_a_pretrained_net_run_word_for_word(tmp_path, monkeypatch):
    """With the file they speak of where FASTCONV_DATA has it, else with one of the same net and drawn weights."""
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("onnx")
    photos = pytest.importorskip("sklearn.datasets").load_sample_images().images
    from click.testing import CliRunner

    from fastconv import models, onnx
    from fastconv.cli import main

    monkeypatch.chdir(tmp_path)
    for name, photo in zip(("monument", "flower"), photos, strict=True):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        for place in range(8):
            patch = photo[40 * place :][:120, 70 * place :][:, :160]
            image.fromarray(patch).save(tmp_path / "flowers" / name / f"{place}.jpg")
    (tmp_path / "new").mkdir()
    for path in ("new/a.jpg", "new/b.jpg", "photo.jpg"):
        image.fromarray(photos[1][:200, 100:300]).save(tmp_path / path)
    real = Path(os.environ.get("FASTCONV_DATA", "")) / "models" / "efficientnet_lite0.onnx"
    if real.is_file():
        shutil.copy(real, tmp_path / real.name)
    else:
        onnx.save(models.efficientnet_lite0().eval(), tmp_path / real.name, (1, 3, 224, 224))
    part = (ROOT / "README.md").read_text("utf-8").split("\n## Real nets\n")[1].split("\n## ")[0]
    [block] = re.findall(r"^```sh\n(.*?)^```", part, re.M | re.S)
    commands = [shlex.split(line) for line in block.replace("\\\n", " ").splitlines()]
    assert [words[:2] for words in commands] == [["fastconv", "train"], *[["fastconv", "predict"]] * 2]
    said = []
    for words in commands:
        done = CliRunner().invoke(main, words[1:])
        assert done.exit_code == 0, done.output
        said.append(done.output)
    assert "test accuracy" in said[0]
    assert said[1].count("flower") >= 2
    assert len(said[2].splitlines()) == 1 + 5
    if real.is_file():
        assert "test accuracy  100.00 %" in said[0]
