"""One parameter in several places stays one: in files, checkpoints, copies and states."""

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

import fastconv
from fastconv import nn, optim, serialize
from fastconv.train import Checkpoint, Trainer, load_latest

# Which of the six layers share their weights with which, and their biases: the first of equals gives its own.
TIES = st.tuples(*[st.lists(st.integers(0, 5), min_size=6, max_size=6)] * 2)


def net(ties):
    fastconv.manual_seed(3)
    layers = [nn.Linear(4, 4) for _ in range(6)]
    for layer, weight, bias in zip(layers, *ties, strict=True):
        layer.weight, layer.bias = layers[weight].weight, layers[bias].bias
    first, second, third, *rest = layers
    return nn.Sequential(first, nn.Tanh(), second, nn.Residual(third, nn.Sequential(rest[0])), nn.ReLU(), *rest[1:])


def places(model):
    """Return which names belong together."""
    names = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, nn.Parameter):
                names.setdefault(id(value), []).append(f"{path}.{name}")
    return sorted(names.values())


def train(model, steps=3):
    loss, optimizer = nn.MSELoss(), optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(steps):
        x, y = np.random.default_rng(step).standard_normal((2, 5, 4)).astype(np.float32)
        optimizer.zero_grad()
        loss(model(x), y)
        model.backward(loss.backward())
        optimizer.step()


@settings(deadline=None)
@given(TIES, st.sampled_from(["file", "deepcopy", "pickle", "state"]))
def test_what_was_one_comes_back_as_one_and_trains_alike(tmp_path_factory, ties, how):
    model = net(ties)
    train(model, 1)
    path = tmp_path_factory.mktemp("tied") / "model.safetensors"
    if how == "file":
        serialize.save(model, path)
        twin = serialize.load(path)
    elif how == "state":
        twin = net(ties)
        twin.load_state_dict(model.state_dict())
    else:
        twin = copy.deepcopy(model) if how == "deepcopy" else pickle.loads(pickle.dumps(model))
    assert places(twin) == places(model)
    for one in (model, twin):
        train(one)
    for (name, a), (other, b) in zip(model.named_state(), twin.named_state(), strict=True):
        assert name == other
        assert_array_equal(a, b)


@settings(deadline=None)
@given(TIES)
def test_a_checkpoint_holds_them_together(tmp_path_factory, ties):
    folder = tmp_path_factory.mktemp("tied")
    rng = np.random.default_rng(0)
    data = tuple(rng.standard_normal((2, 24, 4)).astype(np.float32))

    def trainer():
        model = net(ties)
        adam = optim.Adam(model.parameters(), lr=0.01)
        keep = Checkpoint(folder, steps=2, keep=9)
        return Trainer(model, nn.MSELoss(), adam, callbacks=[keep], keep_best=False, progress=False)

    whole = trainer()
    whole.fit(data, epochs=2, batch_size=8)
    (folder / "step-00000006.safetensors").unlink()
    resumed = trainer()
    resumed.load_state_dict(load_latest(folder)[0])
    resumed.resume(data, batch_size=8)
    assert resumed.step == whole.step == 6
    assert places(resumed.model) == places(whole.model)
    for (_, a), (_, b) in zip(whole.model.named_state(), resumed.model.named_state(), strict=True):
        assert_array_equal(a, b)


def test_a_state_that_would_part_them_is_refused():
    model = net(([0, 0, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]))
    before = model.state_dict()
    state = {name: array + 1 for name, array in before.items()}
    state["2.weight"] = state["2.weight"] + 1
    with pytest.raises(ValueError, match=r"0\.weight and 2\.weight are one parameter here and differ in the state"):
        model.load_state_dict(state)
    for name, array in model.state_dict().items():
        assert_array_equal(array, before[name])
    del state["0.weight"]
    model.load_state_dict(state, strict=False)
    assert_array_equal(model[0].weight.data, state["2.weight"])


@pytest.mark.parametrize(
    ("tied", "message"),
    [
        (["0.weight"], "tied must map names to names, got a list"),
        ({"0.weight": 1}, "which are not both parameters"),
        ({"0.weight": "9.weight"}, "'0.weight' and '9.weight', which are not both parameters"),
        ({"1.running_mean": "1.running_var"}, "which are not both parameters"),
        ({"1.weight": "0.weight"}, r"1\.weight of shape \(2,\) and 0\.weight of shape \(2, 3\)"),
        ({"1.weight": "1.bias"}, r"1\.bias and 1\.weight are one parameter and differ|1\.weight and 1\.bias are one"),
    ],
)
def test_hostile_ties_are_refused(tmp_path, tied, message):
    path = tmp_path / "model"
    serialize.save(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), path)
    arrays, strings = serialize.load_arrays(path)
    strings["fastconv"] = json.dumps({**json.loads(strings["fastconv"]), "tied": tied})
    serialize.save_arrays(path, arrays, strings)
    with pytest.raises(serialize.ModelFileError, match=message):
        serialize.load(path)


def test_a_file_of_an_older_version_has_no_ties(tmp_path):
    path = tmp_path / "model"
    serialize.save(nn.Linear(3, 2), path)
    arrays, strings = serialize.load_arrays(path)
    description = json.loads(strings["fastconv"])
    del description["tied"]
    serialize.save_arrays(path, arrays, {"fastconv": json.dumps(description)})
    assert len(list(serialize.load(path).parameters())) == 2


def test_a_layer_that_is_an_argument_of_two_is_not_saved(tmp_path):
    layer = nn.Linear(2, 2)
    for model in (nn.ModuleList([layer, layer]), nn.ModuleDict({"a": nn.Residual(layer), "b": layer})):
        with pytest.raises(ValueError, match=r"save: Linear\(in_features=2.* is an argument of two layers"):
            serialize.save(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())
