"""The zoo's large nets: others' names and shapes, their outputs with their weights, saved and loaded."""

from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from vision import torchvision

import fastconv
from fastconv import models, nn, serialize

NETS = ["resnet18", "resnet50", "squeezenet1_1", "mobilenet_v2", "densenet121"]


@pytest.mark.parametrize("name", [*NETS, "vgg16_bn"])
def test_torchvision_gives_the_same_with_the_same_weights(name):
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    theirs = getattr(torchvision().models, name)(weights=None, num_classes=11)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
            module.momentum = 1.0
    with torch.no_grad():
        theirs(torch.randn(4, 3, 64, 96))  # statistics of what goes through
    ours = getattr(models, name)(num_classes=11)
    state = {key: value.numpy() for key, value in theirs.state_dict().items()}
    assert {key: a.shape for key, a in ours.state_dict().items()} == {key: a.shape for key, a in state.items()}
    ours.load_state_dict(state)
    x = np.random.default_rng(2).standard_normal((2, 3, 64, 96)).astype(np.float32)
    theirs.eval()
    with torch.no_grad():
        single = theirs(torch.tensor(x)).numpy()
        double = theirs.double()(torch.tensor(x, dtype=torch.float64)).numpy()
    # rounding in another order: within a few times of what PyTorch's own costs
    bound = 8 * (np.abs(single - double).max() + np.finfo(np.float32).eps * np.abs(double).max())
    assert np.abs(ours.predict(x) - double).max() <= bound
    assert np.ptp(double, axis=0).max() > 100 * bound  # the outputs tell the images apart


@pytest.mark.parametrize("name", [*NETS, "efficientnet_lite0", "unet"])
def test_saved_and_loaded_without_its_class(name, tmp_path):
    fastconv.manual_seed(3)
    model = getattr(models, name)(num_classes=3)
    x = np.random.default_rng(4).standard_normal((1, 3, 64, 64)).astype(np.float32)
    want = model.eval()(x).copy()
    serialize.save(model, tmp_path / "model.safetensors")
    assert_array_equal(serialize.load(tmp_path / "model.safetensors").predict(x), want)


def test_efficientnet_takes_the_weights_of_an_onnx_file(data_root):
    onnx = pytest.importorskip("fastconv.onnx")
    folder = Path(data_root) / "models"
    recipe = models.ZOO["efficientnet_lite0"]
    state = onnx.load(folder / "efficientnet_lite0.onnx").state_dict()
    model = models.efficientnet_lite0()
    assert model.load_state_dict({recipe.renamed(name): array for name, array in state.items()}) == ([], [])
    expected = np.load(folder / "efficientnet_lite0_expected.npz")
    mean, deviation = (np.array(a, np.float32)[:, None, None] for a in recipe.expects)
    logits = model.predict((expected["images"].transpose(0, 3, 1, 2) - mean) / deviation)
    assert np.abs(logits - expected["logits"]).max() < 1e-4
    assert logits.argmax(axis=1).tolist() == [285, 967, 657, 450]


@pytest.mark.parametrize("size", [32, 33, 47, 64])
def test_efficientnet_halves_and_rounds_up(size):
    """As timm's "same" padding does it, whatever the size."""
    model = models.efficientnet_lite0(2).eval()
    stem = model.conv_stem
    x = np.random.default_rng(size).standard_normal((1, 3, size, size)).astype(np.float32)
    y = stem(x)
    assert y.shape == (1, 32, -(-size // 2), -(-size // 2))
    missing = 2 * (y.shape[2] - 1) + 3 - size
    padded = np.pad(x, ((0, 0), (0, 0), (missing // 2, missing - missing // 2), (missing // 2, missing - missing // 2)))
    window = padded[0, :, -3:, -3:]
    assert np.isclose(y[0, 5, -1, -1], (window * stem.weight.data[5]).sum(), atol=1e-5)


@pytest.mark.parametrize("depth", range(6))
def test_unet_scores_every_pixel_at_any_depth(depth):
    fastconv.manual_seed(depth)
    model, loss = models.unet(3, channels=2, width=3, depth=depth), nn.CrossEntropyLoss()
    height, width = 2**depth + 5, 2 ** (depth + 1) - 1 + (depth == 0)
    x = np.random.default_rng(5).standard_normal((2, 2, height, width)).astype(np.float32)
    scores = model(x)
    assert scores.shape == (2, 3, height, width)
    loss(scores, np.random.default_rng(6).integers(0, 3, (2, height, width)))
    model.backward(loss.backward())
    for name, parameter in model.named_parameters():
        assert parameter.grad.any(), name


def test_unet_refuses_sizes_that_are_none():
    for wrong in ({"num_classes": 0}, {"channels": 0}, {"width": 0}, {"depth": -1}):
        with pytest.raises(ValueError, match=f"unet: {next(iter(wrong))} must be at least"):
            models.unet(**wrong)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_lite0", "squeezenet1_1"])
def test_built_by_name_with_a_gradient_in_every_parameter(name):
    fastconv.manual_seed(1)
    model, loss = models.build(name, (3, 48, 40), 4), nn.CrossEntropyLoss()
    x = np.random.default_rng(0).normal(size=(6, 3, 48, 40)).astype(np.float32)
    loss(model(x), np.array([0, 1, 2, 3, 0, 1]))
    model.backward(loss.backward())
    for key, p in model.named_parameters():
        assert np.isfinite(p.grad).all(), key
        assert p.grad.any(), key


def test_a_net_for_pixels_is_not_trained_on_classes_of_images():
    from fastconv.train.setup import fill, prepare

    with pytest.raises(ValueError, match="unet gives scores for each pixel; digits has one class an image"):
        prepare(fill("digits", model="unet"), progress=False)
