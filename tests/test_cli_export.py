"""``fastconv export``: what it writes is the net and its standardisation, for other programs and for ours."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

onnx = pytest.importorskip("onnx", reason="ONNX files need the package onnx")

import fastconv.onnx  # noqa: E402
from fastconv import data  # noqa: E402
from fastconv.cli import main  # noqa: E402
from fastconv.train.run import load_run  # noqa: E402


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("export") / "run"
    assert run("train", "--epochs", 1, "--out", folder).exit_code == 0
    return folder


@pytest.mark.parametrize("batch", [None, 5])
def test_scores_are_the_net_s_on_standardised_images(folder, tmp_path, batch):
    path = tmp_path / "net.onnx"
    found = run("export", folder, "-o", path, *(("--batch", batch) if batch else ()))
    assert found.exit_code == 0, found.output
    assert f"images ({batch or 'N'}, 1, 8, 8), values 0..16, to scores of 10 classes" in found.output
    kept = load_run(folder)
    images = data.load("digits").test.images[:5].astype(np.float32)
    wanted = kept.model.predict(data.Standardizer.from_dict(kept.config["standardizer"])(images))
    assert (fastconv.onnx.load(path).predict(images) == wanted).all()
    assert json.loads({p.key: p.value for p in onnx.load(path).metadata_props}["classes"]) == kept.config["classes"]
    ort = pytest.importorskip("onnxruntime")
    ort.set_default_logger_severity(4)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input": images})[0], wanted, rtol=1e-4, atol=1e-4)


def test_the_standardisation_comes_back_as_no_weight(folder, tmp_path):
    assert run("export", folder, "-o", tmp_path / "net.onnx").exit_code == 0
    model = fastconv.onnx.load(tmp_path / "net.onnx")
    learned = {name for name, _ in model.named_parameters()}
    assert {"mean", "factor"} <= model.state_dict().keys() - learned
    assert learned == {f"net.{name}" for name, _ in load_run(folder).model.named_parameters()}


def test_json_and_errors(folder, tmp_path):
    path = tmp_path / "net.onnx"
    found = json.loads(run("export", folder, "-o", path, "--json").stdout)
    assert found["input_shape"] == [None, 1, 8, 8]
    assert found["bytes"] == path.stat().st_size
    found = run("export", folder, "-o", tmp_path / "none" / "net.onnx")
    assert found.exit_code == 2
    assert "none" in found.output
    found = run("export", tmp_path, "-o", path)
    assert found.exit_code == 2
    assert "Traceback" not in found.output
