"""The scripts of examples/ run, each in seconds, and say what their headers promise."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fastconv import data, models, onnx

FOLDER = Path(__file__).parents[1] / "examples"


def example(name):
    """Return a script of the folder as a module."""
    spec = importlib.util.spec_from_file_location(f"examples_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def mnist(data_root):
    """Skip unless MNIST is there; nothing is downloaded for a test."""
    try:
        data.load("mnist", download=False)
    except FileNotFoundError:
        pytest.skip(f"no MNIST below FASTCONV_DATA={data_root}")


@pytest.fixture
def cifar10(tmp_path, monkeypatch):
    """Make files that have CIFAR-10's format and counts, with noise for images: enough to run a script."""
    records = np.random.default_rng(0).integers(0, 256, (10_000, 3073), np.uint8)
    records[:, 0] = np.arange(10_000) % 10
    first = tmp_path / "test_batch.bin"
    records.tofile(first)
    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}.bin").hardlink_to(first)
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path))


def test_every_script_is_in_the_table():
    table = (FOLDER / "README.md").read_text()
    missing = [path.name for path in FOLDER.glob("*.py") if f"[{path.name}]({path.name})" not in table]
    assert missing == []


@pytest.mark.parametrize("options", [[], ["--jitter"]])
def test_cifar_small(cifar10, capsys, options):
    example("cifar_small").main(["--quick", *options])
    assert "test accuracy" in capsys.readouterr().out


def test_cifar10_best(cifar10, capsys):
    example("cifar10_best").main(["--quick"])
    assert "mirror" in capsys.readouterr().out


def test_mnist_augmented(mnist, capsys):
    assert example("mnist_augmented").main(["--quick"]) > 0.8
    assert "after one epoch" in capsys.readouterr().out


def test_initialisation_study_gives_the_lecture_s_deviations():
    tiny, huge, xavier, relu_xavier, he = example("initialisation_study").main([]).values()
    np.testing.assert_allclose(tiny[:4], (0.213, 0.0476, 0.0106, 0.0024), rtol=0.05)
    assert tiny[-1] < 1e-6
    np.testing.assert_allclose(huge, 0.982, atol=0.001)
    np.testing.assert_allclose(
        xavier, (0.628, 0.486, 0.408, 0.357, 0.321, 0.292, 0.273, 0.255, 0.239, 0.228), rtol=0.03
    )
    # a rectified net keeps the luck of its layers: five of a hundred in each deviation, more with depth
    np.testing.assert_allclose(relu_xavier[:6], (0.582, 0.404, 0.277, 0.199, 0.140, 0.103), rtol=0.2)
    assert all(0.75 < value < 1.0 for value in he)


def test_batch_normalisation_rescues_bad_weights():
    found = example("batchnorm_rescues").main(["--epochs", "4"])
    normalised = [accuracy for (_, has_norm), accuracy in found.items() if has_norm]
    assert min(normalised) > 0.8
    assert found["He / 100", False] < 0.2
    assert found["He × 30", False] is None or found["He × 30", False] < 0.5


def test_linear_cifar10(cifar10, capsys):
    found = example("linear_cifar10").main(["--quick"])
    assert len(found.trials) == 6
    printed = capsys.readouterr().out
    assert "fine    best" in printed
    assert "1e+06" in printed
    assert "Try 6/6  " in printed


def test_random_vs_grid(capsys):
    grid, drawn = example("random_vs_grid").main(["--quick"])
    assert grid.shape == drawn.shape == (2, 2)
    assert "random ahead" in capsys.readouterr().out


def test_unet(capsys):
    losses = example("unet").main(["--quick"])
    assert len(losses) == 2
    assert losses[1] < losses[0] < np.log(11)
    assert "of the ink" in capsys.readouterr().out


def test_finetune_efficientnet(cifar10, tmp_path, capsys):
    """From weights that nobody trained: it runs to its end, and draws what it was wrong about."""
    pytest.importorskip("onnx", reason="weights come from an ONNX file")
    weights, picture = tmp_path / "net.onnx", tmp_path / "mistakes.png"
    onnx.save(models.efficientnet_lite0(10), weights, (1, 3, 32, 32))
    options = ["--weights", str(weights), "--quick", "--picture", str(picture)]
    accuracy = example("finetune_efficientnet").main(options)
    assert f"accuracy {accuracy:.4f} on 40 images" in capsys.readouterr().out
    assert picture.read_bytes()[:4] == b"\x89PNG"
