"""A model of users' own classes as data: the same bits, names and modes after loading, and no damage that gets in."""

import copy
import json
import pickle

import numpy as np
import pytest
from click.testing import CliRunner
from graphs import arrays_of, as_tuple, build, everything, recipes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

import fastconv
from fastconv import data, nn, optim, serialize
from fastconv import functional as F
from fastconv.cli import main
from fastconv.serialize import ModelFileError
from fastconv.train import Callback, Checkpoint, RunWriter, Trainer, setup, state_sha256
from fastconv.train.checkpoint import load_latest

SHAPES = ((4, 2, 5, 5), (4, 2, 3, 3))


class Inner(nn.Module):
    """A block with a skip connection, called twice by its owner."""

    def __init__(self):
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x):
        return F.relu(x + self.bn(self.conv(x)))


class Own(nn.Module):
    """All that a class of a user's may hold."""

    buffer_names = ("shift", "early")
    extra_names = ("seen",)

    def __init__(self):
        self.early = np.full((1,), 0.25, np.float32)
        self.first = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Identity())
        self.scale = nn.Parameter(np.linspace(0.5, 1, 3, dtype=np.float32).reshape(3, 1, 1))
        self.shift = np.full((3, 1, 1), 0.5, np.float32)
        self.fixed = nn.Parameter(np.full((3, 1, 1), 2, np.float32), requires_grad=False)
        self.items = nn.ModuleList([nn.LeakyReLU(0.1), nn.Conv2d(3, 3, 3, padding=1)])
        self.inner = Inner()
        self.drop = nn.Dropout(0.3)
        self.seen = 3
        self.head = nn.Linear(6, 4)

    def forward(self, x, z):
        a = self.items[0](self.first(x))
        b = self.inner(self.inner(self.items[1](self.items[1](a))))
        c = F.cat([a * self.scale / self.fixed, b + self.shift], 1)
        y = self.head(self.drop(c[:, :, 1:, ::2].mean((2, 3))))
        return F.softmax(y, 1), F.pad(z, (1, 1)) * self.early - 1.5


class Alone(nn.Module):
    """One in, one out."""

    def __init__(self):
        self.fc = nn.Linear(3, 3)
        self.gain = nn.Parameter(np.ones(3, np.float32))

    def forward(self, x):
        return x + F.tanh(self.fc(x)) * self.gain


def own(seed=0):
    fastconv.manual_seed(seed)
    model = Own()
    model(*arrays_of(SHAPES))
    return model


def steps(model, shapes=SHAPES, count=3):
    """Return the bytes of steps in both modes."""
    found = []
    for step in range(count):
        model.train(step != 1)
        outputs = [a.copy() for a in as_tuple(model(*arrays_of(shapes, step)))]
        found += [*outputs, *(a.copy() for a in as_tuple(model.backward(*arrays_of([a.shape for a in outputs], 50))))]
    found += [p.grad for p in model.parameters()] + list(model.state_dict().values())
    return [a.tobytes() for a in found], model.extra_state()


def loaded(model, path):
    serialize.save(model, path)
    return serialize.load(path)


def test_a_loaded_model_computes_the_same_bits_under_the_same_names(tmp_path):
    model = own()
    twin = loaded(model, tmp_path / "m.safetensors")
    assert type(twin) is nn.GraphModule
    assert [name for name, _ in twin.named_state()] == [name for name, _ in model.named_state()]
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in model.parameters()]
    assert twin.extra_state() == model.extra_state()
    copies = [copy.deepcopy(twin), pickle.loads(pickle.dumps(twin)), loaded(twin, tmp_path / "again.safetensors")]
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()
    wanted = steps(model)
    for other in (twin, *copies):
        assert steps(other) == wanted
    model.zero_grad(), twin.zero_grad()
    after = loaded(twin, tmp_path / "after.safetensors")  # once it has run, too
    assert steps(after) == steps(model)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(recipe=recipes())
def test_drawn_nets_come_back(recipe, tmp_path):
    net = build(recipe)
    net(*arrays_of(recipe.shapes))
    twin = loaded(net, tmp_path / "m.safetensors")
    twin.recipe = recipe
    assert [name for name, _ in twin.named_state()] == [name for name, _ in net.named_state()]
    assert everything(twin) == everything(net)


def test_nested_in_containers(tmp_path):
    model = nn.Sequential(nn.Linear(5, 3), Alone(), nn.ReLU(), Alone())
    model(*arrays_of([(4, 5)]))
    twin = loaded(model, tmp_path / "m.safetensors")
    assert list(twin.state_dict()) == list(model.state_dict())
    assert steps(twin, [(4, 5)]) == steps(model, [(4, 5)])
    inside = Alone()
    inside(*arrays_of([(4, 3)]))
    outer = nn.Sequential(loaded(inside, tmp_path / "i.safetensors"), nn.Linear(3, 2))
    again = loaded(outer, tmp_path / "o.safetensors")
    assert type(again) is nn.Sequential
    assert steps(again, [(4, 3)]) == steps(outer, [(4, 3)])


def test_saving_leaves_a_step_that_has_begun_alone(tmp_path):
    model, other = own(), own()
    inputs = arrays_of(SHAPES, 3)
    outputs = model(*inputs)
    grads = arrays_of([a.shape for a in outputs], 4)
    serialize.save(model, tmp_path / "m.safetensors")
    other(*inputs)
    for a, b in zip(model.backward(*grads), other.backward(*grads), strict=True):
        assert a.tobytes() == b.tobytes()


def test_layers_without_a_gradient_of_their_input_stay_so(tmp_path):
    model = Alone()
    model.fc.need_input_grad = False
    model(*arrays_of([(4, 3)]))
    assert steps(loaded(model, tmp_path / "m.safetensors"), [(4, 3)]) == steps(model, [(4, 3)])


def test_graph_shares_parameters_with_its_model():
    model = own()
    graph = nn.GraphModule.of(model, lambda module: type(module) not in (Own, Inner))
    assert all(a is b for a, b in zip(graph.parameters(), model.parameters(), strict=True))
    assert all(a is b for (_, a), (_, b) in zip(graph.named_buffers(), model.named_buffers(), strict=True))


def test_double_precision(tmp_path):
    model = own()
    model.replace_state({k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in model.state_dict().items()})
    inputs = [a.astype(np.float64) for a in arrays_of(SHAPES)]
    model.eval()(*inputs)
    twin = loaded(model, tmp_path / "m.safetensors")
    for a, b in zip(twin(*inputs), model(*inputs), strict=True):
        assert a.dtype == np.float64
        assert a.tobytes() == b.tobytes()


# ---- training, and the commands on what it left


class Digits(nn.Module):
    """A small net with a skip connection, and a loss of scores for the ten digits."""

    def __init__(self):
        self.conv1, self.bn = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.drop = nn.Conv2d(4, 4, 3, padding=1), nn.Dropout(0.2)
        self.scale = nn.Parameter(np.ones((4, 1, 1), np.float32))
        self.head = nn.Linear(4 * 4 * 4, 10)

    def forward(self, x):
        x = F.relu(self.bn(self.conv1(x)))
        x = F.max_pool2d(x + self.scale * self.conv2(x), 2)
        return self.head(self.drop(x.flatten(1)))


def test_a_run_of_ones_own_class_resumes_and_is_used_without_it(tmp_path):
    about = setup.prepare(setup.fill("digits", epochs=3), progress=False)

    def trainer(*callbacks):
        fastconv.manual_seed(0)
        model = Digits()
        optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        return Trainer(model, nn.CrossEntropyLoss(), optimizer, callbacks=callbacks, progress=False)

    def batches():
        train = about.dataset.train
        return data.Batches(about.standardizer(train.images[:200]), train.labels[:200], 50)

    def digest(run):
        run.model.eval()
        return state_sha256(run.model), run.model.extra_state()

    whole = trainer()
    whole.fit(batches(), epochs=3)
    folder = tmp_path / "run"

    class Killed(Callback):
        def on_safe_point(self, trainer):
            if trainer.step == 7:
                raise ZeroDivisionError

    first = trainer()
    with pytest.raises(ZeroDivisionError), RunWriter.start(folder, about.describe(), first.model) as writer:  # noqa: PT012
        first.callbacks += [writer, Checkpoint(writer.checkpoints, steps=5, signals=False), Killed()]
        first.fit(batches(), epochs=3)
    later = trainer()
    state, _ = load_latest(folder / "checkpoints")
    later.callbacks += [Checkpoint(folder / "checkpoints", steps=5, signals=False), Killed()]
    assert state["step"] == 5
    writer = RunWriter.resume(folder, state["step"], state["history"], later.model)
    later.callbacks.insert(0, writer)
    later.load_state_dict(state)
    with writer:
        del later.callbacks[-1]
        later.resume(batches())
        writer.finish({"status": "finished"}, later.model)
    assert digest(later) == digest(whole)
    assert type(serialize.load(folder / "model.safetensors")) is nn.GraphModule

    done = CliRunner().invoke(main, ["eval", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    test = about.dataset.test
    found = later.model.predict(about.standardizer(test.images)).argmax(axis=1)
    answer = json.loads(done.output)
    assert answer["test_accuracy"] == np.mean(found == test.labels)
    assert answer["state_sha256"] == state_sha256(later.model)
    np.save(tmp_path / "image.npy", test.images[0])
    done = CliRunner().invoke(main, ["predict", str(folder), str(tmp_path / "image.npy"), "--no-invert", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["predictions"][0]["class"] == about.dataset.classes[found[0]]


def test_a_run_refuses_what_no_file_can_hold(tmp_path):
    with pytest.raises(TypeError, match="Opaque is not registered"):
        RunWriter.start(tmp_path / "run", {}, Around(Opaque()))
    assert not list(tmp_path.iterdir())


# ---- what no file can hold


class Opaque(nn.Module):
    def forward(self, x):
        return x * 2

    def backward(self, g):
        return g * 2


class Around(nn.Module):
    def __init__(self, layer):
        self.layer = layer

    def forward(self, x):
        return self.layer(x) + 1


class Hidden(nn.Module):
    def __init__(self):
        self.table = np.ones(3, np.float32)

    def forward(self, x):
        return x * self.table


class Moody(nn.Module):
    def forward(self, x):
        return x * 2 if self.training else x


class Chooses(nn.Module):
    """Writes the same operations in both modes and returns another one's result."""

    def forward(self, x):
        a, b = x * 2, x * 3
        return a if self.training else b


REFUSED = {
    "opaque": (lambda: Around(Opaque()), "Opaque is not registered"),
    "hidden": (Hidden, "neither a parameter nor a buffer"),
    "moody": (Moody, "depends on the mode"),
    "chooses": (Chooses, "depends on the mode"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_file_can_hold_is_refused(name, tmp_path):
    make, message = REFUSED[name]
    model = make()
    model(*arrays_of([(2, 3)]))
    for refuse in (lambda: serialize.save(model, tmp_path / "m"), lambda: serialize.check(model)):
        with pytest.raises(TypeError, match=message):
            refuse()
    assert not list(tmp_path.iterdir())


def test_a_model_that_has_not_run(tmp_path):
    serialize.check(Alone())
    with pytest.raises(TypeError, match=r"run the model once before it is saved"):
        serialize.save(Alone(), tmp_path / "m")
    with pytest.raises(TypeError, match="has not run yet"):
        nn.GraphModule.of(Alone(), lambda module: False)
    with pytest.raises(TypeError, match="Opaque is not registered"):
        serialize.check(Around(Opaque()))


# ---- damage

HOSTILE = (
    -1, 0, 1, 7, 2**62, -(2**62), 10**30, 0.5, -1e300, 1e300, "x", "", "relu", True, None, [], [1, 2], [[1]],
    {"dict": {}}, {"type": "ReLU", "config": {}}, {"type": "Nothing", "config": {}},
)  # fmt: skip


def described(model, path):
    """Return arrays and description of a saved model."""
    serialize.save(model, path)
    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["fastconv"])  # noqa: SIM118


def write(arrays, description, path):
    save_file(arrays, path, {"fastconv": json.dumps(description)})
    return path


def places(value, path=()):
    """Yield the paths of everything inside a JSON value."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


def put(value, path, new):
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    return described(own(), tmp_path_factory.mktemp("saved") / "m.safetensors")


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_description_with_one_thing_changed_is_refused_or_runs(saved, tmp_path, data):
    arrays, description = saved
    description = copy.deepcopy(description)
    config = description["model"]["config"]
    part = data.draw(st.sampled_from(("entries", "tree", "outputs", "single")))
    at = data.draw(st.sampled_from([(part,), *places(config[part], (part,))]))
    put(config, at, data.draw(st.sampled_from(HOSTILE)))
    path = write(arrays, description, tmp_path / "m.safetensors")
    try:
        model = serialize.load(path)
    except ModelFileError:
        return
    with np.errstate(all="ignore"):
        as_tuple(model(*arrays_of(SHAPES)))


def entry(description, kind):
    """Return the first entry of an operation."""
    entries = description["model"]["config"]["entries"]
    return next(e["dict"] for e in entries if e["dict"].get("op") == kind)


DAMAGE = {
    "unknown op": lambda d: entry(d, "Cat").update(op="Dog"),
    "op of no file": lambda d: entry(d, "Cat").update(op="Opaque", settings={"dict": {"layer": None, "specs": []}}),
    "op is a list": lambda d: entry(d, "Cat").update(op=["Cat"]),
    "missing layer": lambda d: d["model"]["config"]["entries"][0]["dict"].update(layer="second"),
    "itself": lambda d: d["model"]["config"]["entries"][0]["dict"].update(layer=""),
    "a part": lambda d: d["model"]["config"]["entries"][0]["dict"].update(layer="inner"),
    "two outputs": lambda d: d["model"]["config"]["entries"][0]["dict"].update(outputs=2),
    "no outputs": lambda d: d["model"]["config"]["entries"][0]["dict"].update(outputs=0),
    "later value": lambda d: d["model"]["config"]["entries"][0]["dict"].update(inputs=[5]),
    "negative value": lambda d: d["model"]["config"]["entries"][0]["dict"].update(inputs=[-1]),
    "foreign state": lambda d: entry(d, "Arithmetic")["inputs"].__setitem__(1, {"dict": {"state": "nobody"}}),
    "state of a class": lambda d: entry(d, "Arithmetic")["inputs"].__setitem__(1, {"dict": {"state": "__class__"}}),
    "output": lambda d: d["model"]["config"].update(outputs=[10**6, 0]),
    "setting too many": lambda d: entry(d, "Cat")["settings"]["dict"].update(more=1),
    "axis of another type": lambda d: entry(d, "Cat")["settings"]["dict"].update(axis="1"),
    "axis is true": lambda d: entry(d, "Cat")["settings"]["dict"].update(axis=True),
    "axis out of range": lambda d: entry(d, "Cat")["settings"]["dict"].update(axis=4),
    "huge pad": lambda d: entry(d, "Pad")["settings"]["dict"].update(widths=[[0, 0]] * 3 + [[0, 2**61]]),
    "pad takes all": lambda d: entry(d, "Pad")["settings"]["dict"].update(widths=[[0, 0]] * 3 + [[-9, 0]]),
    "index of words": lambda d: entry(d, "Slice")["settings"]["dict"].update(index=["x"]),
    "index of a slice": lambda d: entry(d, "Slice")["settings"]["dict"].update(index=[["slice", "a", None, None]]),
    "infinite value": lambda d: entry(d, "Pad")["settings"]["dict"].update(value=10**400),
    "activation": lambda d: entry(d, "Activate")["settings"]["dict"].update(kind="explode"),
    "arithmetic": lambda d: entry(d, "Arithmetic")["settings"]["dict"].update(kind="power"),
    "huge input": lambda d: d["model"]["config"].update(inputs=[[[4, 2, 2**40, 5], "float32"]] * 2),
    "input of objects": lambda d: d["model"]["config"]["inputs"][0].__setitem__(1, "object"),
    "input is a number": lambda d: d["model"]["config"].update(inputs=2),
    "name of a method": lambda d: d["model"]["config"]["tree"]["dict"].update(forward=["extra", 1]),
    "name of the package's": lambda d: d["model"]["config"]["tree"]["dict"].update(_hooks=["extra", 1]),
    "huge buffer": lambda d: d["model"]["config"]["tree"]["dict"].update(shift=["buffer", [2**70], "float32"]),
    "buffer of objects": lambda d: d["model"]["config"]["tree"]["dict"].update(shift=["buffer", [3, 1, 1], "O"]),
    "negative shape": lambda d: d["model"]["config"]["tree"]["dict"].update(scale=["parameter", [-3], True]),
    "trained perhaps": lambda d: d["model"]["config"]["tree"]["dict"].update(scale=["parameter", [3, 1, 1], "no"]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_one_error(name, saved, tmp_path):
    arrays, description = saved
    description = copy.deepcopy(description)
    DAMAGE[name](description)
    with pytest.raises(ModelFileError):
        serialize.load(write(arrays, description, tmp_path / "m.safetensors"))


class Every(nn.Module):
    """Each operation that has settings, called as a function."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.w = nn.Parameter(rng.standard_normal((2, 2, 3, 3)).astype(np.float32))
        self.scale, self.bias = nn.Parameter(np.ones(2, np.float32)), nn.Parameter(np.zeros(2, np.float32))
        self.slope = nn.Parameter(np.full(1, 0.1, np.float32))

    def forward(self, x):
        x = F.conv2d(x, self.w, self.bias, padding=1)
        x = F.batch_norm(x, None, None, self.scale, self.bias, True, 0.1, 1e-5)
        x = F.conv_transpose2d(F.max_pool2d(F.prelu(x, self.slope), 2), self.w, stride=2, padding=1, output_padding=1)
        x = F.interpolate(F.avg_pool2d(F.leaky_relu(x, 0.2), 2), scale_factor=2)
        x = F.cat([x, F.pad(x, (1, -1)), x[:, :, ::-1]], 1)
        x = F.adaptive_avg_pool2d(x, 2).permute(0, 2, 3, 1).flatten(1)
        return F.log_softmax(F.softmax(x.reshape(x.shape[0], 4, -1), 1), 2).sum(1)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_hostile_settings_of_every_operation(tmp_path, data):
    model, shapes = Every(), [(3, 2, 8, 8)]
    model(*arrays_of(shapes))
    arrays, description = described(model, tmp_path / "m.safetensors")
    entries = description["model"]["config"]["entries"]
    at = data.draw(st.sampled_from([p for p in places(entries) if len(p) > 4 and p[2] == "settings"]))
    put(entries, at, data.draw(st.sampled_from(HOSTILE)))
    try:
        model = serialize.load(write(arrays, description, tmp_path / "m.safetensors"))
    except ModelFileError:
        return
    with np.errstate(all="ignore"):
        y = model(*arrays_of(shapes))
        model.backward(np.ones_like(y))


def test_every_operation_comes_back(tmp_path):
    model, shapes = Every(), [(3, 2, 8, 8)]
    model(*arrays_of(shapes))
    assert steps(loaded(model, tmp_path / "m.safetensors"), shapes) == steps(model, shapes)
