"""ONNX: whole nets beside ONNX Runtime, files of others, what goes out comes back to the bit, hostile files."""

import copy
import glob
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from graphs import arrays_of, as_tuple, build, recipes
from hypothesis import given, settings
from hypothesis import strategies as st

import fastconv
from fastconv import models, nn, optim, serialize

onnx = pytest.importorskip("onnx", reason="ONNX files need the package onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import fastconv.onnx  # noqa: E402

DATA = Path(onnx.__file__).parent / "backend/test/data"


def runtime(path):
    """Return a session of ONNX Runtime that says nothing."""
    ort = pytest.importorskip("onnxruntime", reason="compared with ONNX Runtime where it is installed")
    ort.set_default_logger_severity(4)
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run_elsewhere(path, inputs):
    session = runtime(path)
    names = [entry.name for entry in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def model_of(nodes, inputs, outputs, weights=(), opset=17):
    """Return a file's content; inputs and outputs are (name, shape)."""
    infos = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in part] for part in (inputs, outputs)]
    graph = helper.make_graph(nodes, "test", *infos, [numpy_helper.from_array(a, n) for n, a in weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def load(proto, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return fastconv.onnx.load(path)


# ---- whole nets


def test_a_pretrained_net_gives_the_logits_that_pytorch_gave(data_root):
    folder = Path(data_root) / "models"
    expected = np.load(folder / "efficientnet_lite0_expected.npz")
    model = fastconv.onnx.load(folder / "efficientnet_lite0.onnx")
    images = np.ascontiguousarray(((expected["images"].astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2))
    logits = model.predict(images)
    assert np.abs(logits - expected["logits"]).max() < 1e-4
    assert logits.argmax(axis=1).tolist() == [285, 967, 657, 450]
    assert "_blocks.0._bn1.running_mean" in model.state_dict()
    assert (model.predict(images, batch_size=3) == logits).all()


def drawn(path, rng):
    """Return a light net with drawn weights in the place of its constants: He's, so that numbers stay."""
    proto = onnx.load(path)
    graph = proto.graph
    proto.ir_version = 4  # from then on weights need not be inputs too
    shapes = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    users = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            users.setdefault(name, (node.op_type, place))
    kept = []
    for node in graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = tuple(shapes[node.input[0]])
        if users.get(node.output[0]) in (("BatchNormalization", 1), ("BatchNormalization", 4)):
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = rng.standard_normal(shape, np.float32)
            array *= np.float32((2 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.1)
        graph.initializer.append(numpy_helper.from_array(array.astype(np.float32, copy=False), node.output[0]))
    assert len(kept) < len(graph.node)
    del graph.node[:]
    graph.node.extend(kept)
    return proto


LIGHT = sorted(p.name for p in DATA.glob("light/*.onnx"))

@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_light_nets_with_drawn_weights_give_what_onnx_runtime_gives(name, tmp_path):
    rng = np.random.default_rng(len(name))
    proto = drawn(DATA / "light" / name, rng)
    weights = {entry.name for entry in proto.graph.initializer}
    [entry] = [entry for entry in proto.graph.input if entry.name not in weights]
    shape = [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
    images = rng.standard_normal(shape).astype(np.float32)
    path = tmp_path / "light.onnx"
    onnx.save(proto, path)
    session = runtime(path)
    [wanted] = session.run(None, {entry.name: images})
    found = fastconv.onnx.load(path).predict(images)
    assert found.shape == wanted.shape
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT)
def test_light_nets_have_the_structure_whose_output_comes_with_them(name):
    [wanted] = [
        numpy_helper.to_array(TensorProto.FromString(p.read_bytes()))
        for p in (DATA / "light").glob(name.replace(".onnx", "_output_0.pb"))
    ]
    model = fastconv.onnx.load(DATA / "light" / name)
    [(shape, _)] = model._net.inputs.values()
    size = int(np.prod(shape))
    images = (np.arange(size, dtype=np.float32) / size).reshape(shape)
    np.testing.assert_allclose(model.predict(images), wanted, rtol=1e-3, atol=1e-5)


LEFT_OUT = {
    r"Embedding|non_float": "indices or integers that are inputs",
    r"(Conv|AvgPool|MaxPool|BatchNorm)3d": "three dimensions of space",
    r"_pow": "a power that is computed",
    r"ReplicationPad": "edge padding",
}  # fmt: skip
"""What the tests of PyTorch's files need that is not supported, by their names."""


def converted():
    for folder in ("pytorch-converted", "pytorch-operator"):
        for path in sorted((DATA / folder).glob("*")):
            yield pytest.param(path, id=path.name)


@pytest.mark.parametrize("folder", list(converted()))
def test_files_that_pytorch_wrote(folder):
    def arrays(kind):
        paths = sorted(folder.glob(f"test_data_set_0/{kind}_*.pb"), key=lambda p: int(p.stem.split("_")[-1]))
        return [numpy_helper.to_array(TensorProto.FromString(p.read_bytes())) for p in paths]

    if any(re.search(pattern, folder.name) for pattern in LEFT_OUT):
        with pytest.raises(ValueError, match=r"not supported|only floats|must not depend"):
            fastconv.onnx.load(folder / "model.onnx")
        return
    found = as_tuple(fastconv.onnx.load(folder / "model.onnx")(*arrays("input")))
    for ours, theirs in zip(found, arrays("output"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


# ---- out and back


def there_and_back(net, inputs, path):
    """Write a net, run it elsewhere, read it again."""
    wanted = [a.copy() for a in as_tuple(net.eval()(*inputs))]
    shapes = [a.shape for a in inputs]
    try:
        fastconv.onnx.save(net, path, shapes)
    except ValueError as error:
        if "size of the batch" not in str(error):
            raise
        fastconv.onnx.save(net, path, shapes, dynamic_batch=False)
    else:
        inputs = [np.concatenate([a, a]) for a in inputs]  # another batch
        wanted = [a.copy() for a in as_tuple(net(*inputs))]
    elsewhere = run_elsewhere(path, inputs)
    again = [a.copy() for a in as_tuple(fastconv.onnx.load(path)(*inputs))]
    assert len(elsewhere) == len(again) == len(wanted)
    for theirs, back, ours in zip(elsewhere, again, wanted, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-5)
        assert back.shape == ours.shape
        assert np.array_equal(back, ours, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(recipe=recipes())
def test_drawn_nets_run_elsewhere_and_come_back_to_the_bit(recipe, tmp_path_factory):
    path, net = tmp_path_factory.mktemp("drawn") / "net.onnx", build(recipe)
    for module in net.modules():
        if isinstance(module, nn.GroupNorm | nn.InstanceNorm1d | nn.InstanceNorm2d | nn.LayerNorm):
            module.eps = 0.1  # of equal numbers, 1e-5 makes rounding alone 300 times as large
    try:
        there_and_back(net, arrays_of(recipe.shapes), path)
    except TypeError as error:
        if not re.search(r"return_indices|its windows differ|max_unpool|an even number|operator that", str(error)):
            raise
        assert not path.exists()  # what has no operator in ONNX is named, and nothing written


@pytest.mark.parametrize("name", sorted(set(models.ZOO) - {"vgg16_bn"}))  # half a gigabyte
def test_the_zoo_runs_elsewhere_and_comes_back_to_the_bit(name, tmp_path):
    fastconv.manual_seed(len(name))
    shape = (3, 32, 32)
    there_and_back(models.build(name, shape, 10), arrays_of([(2, *shape)]), tmp_path / "net.onnx")


def test_weights_keep_their_names(tmp_path):
    model = models.build("resnet20", (3, 32, 32), 10).eval()
    fastconv.onnx.save(model, tmp_path / "net.onnx", (1, 3, 32, 32))
    back = fastconv.onnx.load(tmp_path / "net.onnx").state_dict()
    state = model.state_dict()
    assert back.keys() == state.keys()
    assert all((back[name] == state[name]).all() for name in state)


def test_what_has_no_operator_is_named_and_nothing_is_written(tmp_path):
    class Own(nn.Module):
        def forward(self, input):
            return self._save(input * 2)

        def backward(self, grad_output):
            [grad] = self._recall(grad_output)
            return grad * 2

    with pytest.raises(TypeError, match="Own"):
        fastconv.onnx.save(nn.Sequential(nn.Linear(3, 3), Own()), tmp_path / "net.onnx", (1, 3))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="input_shape"):
        fastconv.onnx.save(nn.Linear(3, 3), tmp_path / "net.onnx", (0, 3))
    for shape in (3, (2, "a"), (2, 3.5), "23", None):
        with pytest.raises(TypeError, match="input_shape must be"):
            fastconv.onnx.save(nn.Linear(3, 3), tmp_path / "net.onnx", shape)
    with pytest.raises(TypeError, match="expected a Module, got ndarray"):
        fastconv.onnx.save(np.ones(3), tmp_path / "net.onnx", (2, 3))
    assert not list(tmp_path.iterdir())


# ---- a model like any other


def small(rng, shared=False):
    """Return a file of a small net: convolution, normalisation, activation, pooling, linear."""
    w, b = rng.standard_normal((4, 3, 3, 3)).astype("f") / 5, rng.standard_normal(4).astype("f")
    norm = [rng.uniform(0.5, 1.5, 4).astype("f") for _ in range(4)]
    nodes = [
        helper.make_node("Conv", ["x", "body.0.weight", "body.0.bias"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", *(f"body.1.{n}" for n in NORM)], ["b"]),
        helper.make_node("Sigmoid", ["b"], ["c"]),
        helper.make_node("Mul", ["b", "c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "head.weight", "head.bias"], ["y"], transB=1),
    ]
    weights = [
        ("body.0.weight", w), ("body.0.bias", b), *((f"body.1.{n}", a) for n, a in zip(NORM, norm, strict=True)),
        ("head.weight", rng.standard_normal((5, 4)).astype("f")), ("head.bias", rng.standard_normal(5).astype("f")),
    ]  # fmt: skip
    return model_of(nodes, [("x", ("n", 3, 6, 6))], [("y", ("n", 5))], weights)


NORM = ("weight", "bias", "running_mean", "running_var")


def test_it_trains_freezes_copies_and_saves(tmp_path):
    rng = np.random.default_rng(0)
    model = load(small(rng), tmp_path)
    assert list(model.state_dict())[:3] == ["body.0.weight", "body.0.bias", "body.1.weight"]
    assert not model.training
    x, labels = rng.standard_normal((8, 3, 6, 6)).astype("f"), np.arange(8) % 5
    before = model.predict(x)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (twin.predict(x) == before).all()
    serialize.save(model, tmp_path / "net.safetensors")
    assert (serialize.load(tmp_path / "net.safetensors").predict(x) == before).all()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("head")
    body = model.state_dict()["body.0.weight"].copy()
    method, criterion = optim.SGD(model.parameters(), lr=0.5), nn.CrossEntropyLoss()
    losses = []
    model.train()
    for _ in range(30):
        losses.append(float(criterion(model(x), labels)))
        method.zero_grad()
        model.backward(criterion.backward())
        method.step()
    assert losses[-1] < 0.7 * losses[0]
    assert (model.state_dict()["body.0.weight"] == body).all()


@pytest.mark.parametrize("shape", [(3,), (3, 5), (3, 4, 5)])
def test_a_normalisation_behind_what_the_file_tells_no_rank_of(shape, tmp_path, monkeypatch):
    monkeypatch.setattr("fastconv.onnx.reading._ranks", lambda onnx, proto: {})
    rng = np.random.default_rng(8)
    arrays = [rng.uniform(0.5, 1.5, 3).astype("f") for _ in range(4)]
    nodes = [helper.make_node("BatchNormalization", ["x", *NORM], ["y"])]
    info = ("n", *shape)
    model = load(model_of(nodes, [("x", info)], [("y", info)], list(zip(NORM, arrays, strict=True))), tmp_path)
    x = rng.standard_normal((4, *shape)).astype("f")
    [wanted] = run_elsewhere(tmp_path / "net.onnx", [x])
    np.testing.assert_allclose(model.predict(x), wanted, rtol=1e-5, atol=1e-5)
    before = model.state_dict()
    model.train()(x)
    assert any((array != before[name]).any() for name, array in model.state_dict().items())


def test_weights_that_are_used_twice_are_one_parameter(tmp_path):
    rng = np.random.default_rng(1)
    w = rng.standard_normal((3, 3, 1, 1)).astype("f")
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Conv", ["a", "w"], ["y"])]
    model = load(model_of(nodes, [("x", ("n", 3, 4, 4))], [("y", ("n", 3, 4, 4))], [("w", w)]), tmp_path)
    assert len(list(model.parameters())) == 1
    x = rng.standard_normal((2, 3, 4, 4)).astype("f")
    [wanted] = run_elsewhere(tmp_path / "net.onnx", [x])
    np.testing.assert_allclose(model.predict(x), wanted, rtol=1e-5, atol=1e-5)


# ---- what a file may do


def test_all_operators_that_are_not_supported_are_named_at_once(tmp_path):
    nodes = [
        helper.make_node("Sign", ["x"], ["a"], "first"), helper.make_node("Sin", ["a"], ["b"], "second"),
        helper.make_node("Sign", ["b"], ["y"], "third"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"Sign \(first, third\); Sin \(second\)"):
        load(model_of(nodes, [("x", (1, 3))], [("y", (1, 3))]), tmp_path)


def test_a_constant_of_a_size_beyond_reason_is_refused_without_memory(tmp_path):
    shape = np.array([2**20, 2**20], np.int64)
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])]
    with pytest.raises(ValueError, match="1,099,511,627,776 elements"):
        load(model_of(nodes, [("x", (1, 3))], [("y", (1, 3))], [("s", shape)]), tmp_path)


def test_weights_that_say_more_than_their_bytes_hold(tmp_path):
    proto = small(np.random.default_rng(2))
    proto.graph.initializer[0].dims[0] = 2**40
    with pytest.raises(ValueError, match=r"body\.0\.weight|valid ONNX"):
        load(proto, tmp_path)


def test_a_cycle_and_a_missing_input_are_refused(tmp_path):
    for nodes in (
        [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])],
        [helper.make_node("Add", ["x", "nowhere"], ["b"])],
    ):
        with pytest.raises(ValueError, match=r"net\.onnx"):
            load(model_of(nodes, [("x", (1, 3))], [("b", (1, 3))]), tmp_path)


@pytest.mark.parametrize("where", ["../secret.bin", "/etc/passwd", "a/../../secret.bin", "link.bin"])
def test_external_data_is_read_from_the_files_own_folder_only(where, tmp_path):
    (tmp_path / "secret.bin").write_bytes(np.ones(1000, np.float32).tobytes())
    folder = tmp_path / "folder"
    folder.mkdir()
    os.symlink(tmp_path / "secret.bin", folder / "link.bin")
    proto = small(np.random.default_rng(3))
    tensor = proto.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, where)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    with pytest.raises(ValueError, match=r"net\.onnx"):
        load(proto, folder)


def test_external_data_beside_the_file_is_read(tmp_path):
    proto = small(np.random.default_rng(4))
    wanted = numpy_helper.to_array(proto.graph.initializer[0])
    onnx.save(proto, tmp_path / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (fastconv.onnx.load(tmp_path / "net.onnx").state_dict()["body.0.weight"] == wanted).all()


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_file_is_one_clear_error_or_a_model(seed, tmp_path):
    rng = np.random.default_rng(seed)
    data = bytearray(small(np.random.default_rng(5)).SerializeToString())
    for _ in range(rng.integers(1, 5)):
        data[rng.integers(len(data))] = rng.integers(256)
    path = tmp_path / "net.onnx"
    path.write_bytes(bytes(data[: rng.integers(1, len(data))] if seed % 4 == 0 else data))
    try:
        fastconv.onnx.load(path)
    except ValueError as error:
        if "net.onnx" not in str(error):
            raise


def hostile(draw, proto):
    """Change a few fields of a file, of the types they have: names to other names, numbers to far ones."""
    names = [*(name for node in proto.graph.node for name in (*node.input, *node.output)), ""]
    numbers = st.sampled_from([-(2**63), -(2**31), -1, 0, 1, 2, 3, 2**31 - 1, 2**40, 2**62])
    for _ in range(draw(st.integers(1, 3))):
        node = proto.graph.node[draw(st.integers(0, len(proto.graph.node) - 1))]
        kind = draw(st.sampled_from(["input", "output", "operator", "attribute", "dtype", "shape", "lost"]))
        if kind in ("input", "output") and getattr(node, kind):
            entries = getattr(node, kind)
            entries[draw(st.integers(0, len(entries) - 1))] = draw(st.sampled_from(names))
        elif kind == "operator":
            node.op_type = draw(st.sampled_from([other.op_type for other in proto.graph.node]))
        elif kind == "attribute" and node.attribute:
            attribute = node.attribute[draw(st.integers(0, len(node.attribute) - 1))]
            if attribute.ints:
                attribute.ints[draw(st.integers(0, len(attribute.ints) - 1))] = draw(numbers)
            elif attribute.HasField("i"):
                attribute.i = draw(numbers)
            else:
                attribute.f = draw(st.sampled_from([0.0, -1.0, 3e38, float("inf"), float("nan")]))
        elif kind == "dtype":
            proto.graph.input[0].type.tensor_type.elem_type = draw(st.sampled_from([-(2**31), -1, 0, 7, 11, 16, 99]))
        elif kind == "shape":
            dims = proto.graph.input[0].type.tensor_type.shape.dim
            dims[draw(st.integers(0, len(dims) - 1))].dim_value = draw(numbers)
        elif kind == "lost" and len(proto.graph.initializer):
            weight = proto.graph.initializer[draw(st.integers(0, len(proto.graph.initializer) - 1))]
            weight.CopyFrom(numpy_helper.from_array(np.ones((2,) * draw(st.integers(0, 5)), "f"), weight.name))


@given(st.data())
@settings(max_examples=150)
def test_a_file_whose_parts_do_not_fit_is_one_clear_error_or_a_model(tmp_path_factory, data):
    proto = small(np.random.default_rng(8))
    del proto.graph.node[-3:]
    more = [
        helper.make_node("MaxPool", ["d"], ["e"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("ConvTranspose", ["e", "up"], ["f"], strides=[2, 2], group=1),
        helper.make_node("PRelu", ["f", "slope"], ["g"]),
        helper.make_node("DepthToSpace", ["g"], ["h"], blocksize=2),
        helper.make_node("Resize", ["h", "", "factors"], ["i"], mode="nearest"),
        helper.make_node("Softmax", ["i"], ["j"], axis=1),
        helper.make_node("Flatten", ["j"], ["k"], axis=1),
        helper.make_node("MatMul", ["k", "last"], ["l"]),
        helper.make_node("Gemm", ["l", "head.weight", "head.bias"], ["y"], transB=1, alpha=0.5),
    ]
    proto.graph.node.extend(more)
    rng = np.random.default_rng(9)
    weights = {
        "up": rng.standard_normal((4, 4, 2, 2)), "slope": rng.standard_normal((4, 1, 1)),
        "factors": np.array([1, 1, 2, 2]), "last": rng.standard_normal((576, 4)),
    }  # fmt: skip
    proto.graph.initializer.extend(numpy_helper.from_array(a.astype("f"), n) for n, a in weights.items())
    path = tmp_path_factory.mktemp("hostile") / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    assert fastconv.onnx.load(path).predict(np.ones((2, 3, 6, 6), "f")).shape == (2, 5)
    hostile(data.draw, proto)
    path.write_bytes(proto.SerializeToString())
    try:
        fastconv.onnx.load(path)
    except ValueError as error:
        if "net.onnx" not in str(error):
            raise


def test_half_precision_becomes_single_and_says_so(tmp_path):
    proto = small(np.random.default_rng(6))
    tensor = proto.graph.initializer[-1]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    with pytest.warns(UserWarning, match="half precision.*head.bias"):
        model = fastconv.onnx.load(tmp_path / "net.onnx")
    assert model.state_dict()["head.bias"].dtype == np.float32


def test_other_sizes_than_the_file_says_are_refused(tmp_path):
    model = load(small(np.random.default_rng(7)), tmp_path)
    with pytest.raises(ValueError, match=r"\(1, 3, 7, 7\), the file says \(any, 3, 6, 6\)"):
        model(np.zeros((1, 3, 7, 7), np.float32))


def test_no_file_and_no_onnx(tmp_path):
    with pytest.raises(OSError, match="nothing"):
        fastconv.onnx.load(tmp_path / "nothing.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ValueError, match="not an ONNX file"):
        fastconv.onnx.load(tmp_path / "text.onnx")
    assert glob.glob(str(tmp_path / "*.onnx")) == [str(tmp_path / "text.onnx")]
