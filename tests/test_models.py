"""The zoo: shapes, published sizes, gradients in every parameter, clear refusals."""

import numpy as np
import pytest

import fastconv
from fastconv import models, nn

SMALL = [name for name, recipe in models.ZOO.items() if recipe.channels is None and not recipe.pixels]
SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]
TOO_SMALL = {("lenet5", (1, 8, 8))}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SMALL)
def test_scores_have_one_column_a_class(name, shape):
    if (name, shape) in TOO_SMALL:
        with pytest.raises(ValueError, match="lenet5 needs images of at least 28×28 pixels, got 8×8"):
            models.build(name, shape, 10)
        return
    model = models.build(name, shape, 7)
    assert model.predict(np.zeros((2, *shape), np.float32)).shape == (2, 7)
    assert model.predict(np.zeros((0, *shape), np.float32)).shape == (0, 7)


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("lenet5", (1, 28, 28), 61_706),
        ("lenet5", (1, 32, 32), 61_706),
        ("mnist-small", (1, 28, 28), (25 + 1) * 8 + (200 + 1) * 16 + (256 + 1) * 128 + 129 * 10),
        ("cifar-small", (3, 32, 32), (75 + 1) * 32 + (800 + 1) * 32 + (800 + 1) * 64 + 65 * 10),
        ("all-conv", (3, 32, 32), 1_369_738),
        ("resnet20", (3, 32, 32), 272_474),
    ],
)
def test_sizes_are_the_published_ones(name, shape, parameters):
    model = models.build(name, shape, 10)
    assert sum(p.data.size for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name):
    shape = (1, 28, 28) if name == "lenet5" else (1, 8, 8)
    fastconv.manual_seed(1)
    model, loss = models.build(name, shape, 4), nn.CrossEntropyLoss()
    x = np.random.default_rng(0).normal(size=(6, *shape)).astype(np.float32)
    loss(model(x), np.array([0, 1, 2, 3, 0, 1]))
    model.backward(loss.backward())
    for key, p in model.named_parameters():
        assert np.isfinite(p.grad).all(), key
        assert p.grad.any(), key


def test_oblong_images():
    model = models.build("mnist-small", (2, 20, 31), 3)
    assert model.predict(np.zeros((1, 2, 20, 31), np.float32)).shape == (1, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenet", (1, 28, 28), 10), "no model 'lenet'; there are linear, mlp"),
        (("mlp", (28, 28), 10), r"input_shape must be \(channels, height, width\), got \(28, 28\)"),
        (("mlp", (0, 28, 28), 10), "input_shape must be"),
        (("mlp", (1, 28, 28), 0), "classes must be at least 1, got 0"),
        (("vgg-small", (3, 7, 32), 10), "vgg-small needs images of at least 8×8 pixels, got 7×32"),
        (("mnist-small", (1, 3, 3), 10), "at least 4×4 pixels"),
        (("resnet18", (1, 64, 64), 10), "resnet18 takes images of 3 channels, got 1"),
        (("resnet18", (3, 64, 31), 10), "resnet18 needs images of at least 32×32 pixels, got 64×31"),
        (("unet", (1, 15, 64), 2), "unet needs images of at least 16×16 pixels, got 15×64"),
    ],
)
def test_what_cannot_be_built_says_why(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.build(*arguments)


@pytest.mark.parametrize("name", SMALL)
def test_the_smallest_images_work(name):
    side = models.ZOO[name].smallest
    model = models.build(name, (1, side, side), 3)
    assert model.predict(np.ones((2, 1, side, side), np.float32)).shape == (2, 3)
