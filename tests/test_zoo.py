"""The zoo's large nets: torchvision's names and shapes, its outputs with its weights, saved and loaded."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from vision import torchvision

import fastconv
from fastconv import models, serialize

NETS = ["resnet18", "resnet50", "squeezenet1_1", "mobilenet_v2", "densenet121"]


@pytest.mark.parametrize("name", NETS)
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


@pytest.mark.parametrize("name", NETS)
def test_saved_and_loaded_without_its_class(name, tmp_path):
    fastconv.manual_seed(3)
    model = getattr(models, name)(num_classes=3)
    x = np.random.default_rng(4).standard_normal((1, 3, 64, 64)).astype(np.float32)
    want = model.eval()(x).copy()
    serialize.save(model, tmp_path / "model.safetensors")
    assert_array_equal(serialize.load(tmp_path / "model.safetensors").predict(x), want)
