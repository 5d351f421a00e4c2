"""What exporters write in parts comes back as one operation: GELU, layer normalisation, weights in another shape."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx", reason="ONNX files need the package onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import fastconv.functional as F  # noqa: E402
import fastconv.onnx  # noqa: E402
from fastconv import nn  # noqa: E402


class Draft:
    """A file in the making: nodes by operator and operands, numbers as constants, weights by name."""

    def __init__(self, rng=None):
        self.nodes, self.weights, self.rng = [], {}, rng

    def __call__(self, kind, *operands, **settings):
        names = [self._name(operand) for operand in operands]
        if self.rng is not None and kind in ("Add", "Mul") and self.rng.random() < 0.5:
            names.reverse()
        self.nodes.append(helper.make_node(kind, names, [f"v{len(self.nodes)}"], **settings))
        return f"v{len(self.nodes) - 1}"

    def _name(self, operand):
        if isinstance(operand, str):
            return operand
        name = f"c{len(self.nodes)}"
        array = np.asarray(operand, np.float32 if isinstance(operand, float) else None)
        self.nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name)))
        return name

    def load(self, path, y, shape, opset=13, ndim=None):
        graph = helper.make_graph(
            self.nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, [f"n{i}" for i in range(ndim or len(shape))])],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.save(model, path)
        return fastconv.onnx.load(path)


def kinds(model):
    return [step.kind for step in model._net.steps]


def theirs(path, x):
    runtime = pytest.importorskip("onnxruntime", reason="compared with ONNX Runtime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def gate(d, x, approximate):
    """1 + erf(x / sqrt(2)), or 1 + tanh(sqrt(2 / pi) (x + 0.044715 x**3)), written in one of several ways."""
    if approximate == "none":
        one = d.rng.random() < 0.5
        return d("Add", d("Erf", d("Div", x, math.sqrt(2)) if one else d("Mul", x, math.sqrt(0.5))), 1.0)
    cube = [
        lambda: d("Pow", x, 3.0), lambda: d("Mul", d("Mul", x, x), x), lambda: d("Mul", d("Pow", x, 2.0), x),
    ][d.rng.integers(3)]()  # fmt: skip
    u = d("Mul", d("Add", x, d("Mul", cube, 0.044715)), math.sqrt(2 / math.pi))
    return d("Add", d("Tanh", u), 1.0)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    approximate=st.sampled_from(["none", "tanh"]), order=st.integers(0, 3), inside=st.sampled_from(["", "Mul", "Add"]),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_gelu_in_parts_is_one(tmp_path, approximate, order, inside, seed):
    """Whatever the order of its factors, and though its input is a product itself."""
    d = Draft(np.random.default_rng(seed))
    x = d(inside, "x", 0.7) if inside else "x"
    g = gate(d, x, approximate)
    y = [
        lambda: d("Mul", d("Mul", x, g), 0.5), lambda: d("Mul", d("Mul", x, 0.5), g),
        lambda: d("Mul", x, d("Mul", g, 0.5)), lambda: d("Div", d("Mul", x, g), 2.0),
    ][order]()  # fmt: skip
    model = d.load(tmp_path / "g.onnx", y, (3, 40))
    assert kinds(model) == [*([inside] if inside else []), "Gelu"]
    a = 3 * draw(d.rng, 3, 40)
    before = F.mul(a, np.float32(0.7)) if inside == "Mul" else F.add(a, np.float32(0.7)) if inside else a
    np.testing.assert_array_equal(model(a), F.gelu(before, approximate))
    np.testing.assert_allclose(model(a), theirs(tmp_path / "g.onnx", a), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    ("half", "one", "root"), [(0.4, 1.0, 1.4142135), (0.5, 1.1, 1.4142135), (0.5, 1.0, 1.414), (0.5, 1.0, -1.4142135)]
)
def test_what_is_no_gelu_stays_as_it_is(tmp_path, half, one, root):
    d = Draft()
    y = d("Mul", d("Mul", "x", d("Add", d("Erf", d("Div", "x", root)), one)), half)
    model = d.load(tmp_path / "g.onnx", y, (3, 40))
    assert kinds(model) == ["Div", "Erf", "Add", "Mul", "Mul"]
    x = draw(np.random.default_rng(0), 3, 40)
    np.testing.assert_allclose(model(x), theirs(tmp_path / "g.onnx", x), rtol=1e-5, atol=1e-6)


def test_a_gelu_whose_parts_are_read_elsewhere(tmp_path):
    d = Draft(np.random.default_rng(0))
    curve = d("Erf", d("Div", "x", math.sqrt(2)))
    y = d("Add", d("Mul", d("Mul", "x", d("Add", curve, 1.0)), 0.5), curve)
    model = d.load(tmp_path / "g.onnx", y, (3, 40))
    assert "Gelu" in kinds(model)
    x = draw(d.rng, 3, 40)
    np.testing.assert_allclose(model(x), theirs(tmp_path / "g.onnx", x), rtol=1e-5, atol=1e-6)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    last=st.integers(1, 2), square=st.sampled_from(["Pow", "Mul"]), affine=st.sampled_from(["", "scale", "both"]),
    opset=st.sampled_from([11, 13, 18]), seed=st.integers(0, 999),
)  # fmt: skip
def test_layer_normalisation_in_parts_is_one(tmp_path, last, square, affine, opset, seed):
    d = Draft(np.random.default_rng(seed))
    shape = (2, 3, 4, 5)
    axes = tuple(range(-last, 0))
    axes = axes if d.rng.random() < 0.5 else axes[::-1]

    def mean(v):
        return d("ReduceMean", v, np.array(axes)) if opset >= 18 else d("ReduceMean", v, axes=axes)

    centred = d("Sub", "x", mean("x"))
    squared = d("Pow", centred, 2.0) if square == "Pow" else d("Mul", centred, centred)
    y = d("Div", centred, d("Sqrt", d("Add", mean(squared), 1e-5)))
    weight, bias = (draw(d.rng, *shape[-last:]) for _ in range(2))
    if affine:
        d.weights["norm.weight"] = weight
        y = d("Mul", y, "norm.weight")
    if affine == "both":
        d.weights["norm.bias"] = bias
        y = d("Add", y, "norm.bias")
    model = d.load(tmp_path / "n.onnx", y, shape, opset)
    assert kinds(model) == ["LayerNormalization"]
    assert list(dict(model.named_parameters())) == list(d.weights)
    x = draw(d.rng, *shape)
    given_ = weight if affine else None, bias if affine == "both" else None
    np.testing.assert_array_equal(model(x), F.layer_norm(x, shape[-last:], *given_, eps=1e-5))
    np.testing.assert_allclose(model(x), theirs(tmp_path / "n.onnx", x), rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rank=st.integers(2, 5), square=st.sampled_from(["Pow", "Mul"]), affine=st.sampled_from(["", "scale", "both"]),
    lead=st.booleans(), twice=st.booleans(), opset=st.sampled_from([11, 13, 18]), seed=st.integers(0, 999),
)  # fmt: skip
def test_normalisation_over_channels_in_parts_is_one(tmp_path, rank, square, affine, lead, twice, opset, seed):
    """As channels-first nets write it, the difference once or twice."""
    d = Draft(np.random.default_rng(seed))
    shape, ones = (2, 6, 3, 5, 2)[:rank], (1,) * (rank - 2)
    lead = lead or rank == 2  # (6,) would be scales of a row's elements

    def mean(v):
        return d("ReduceMean", v, np.array([1])) if opset >= 18 else d("ReduceMean", v, axes=(1,))

    middle = mean("x")
    centred = d("Sub", "x", middle)
    again = d("Sub", "x", middle) if twice else centred
    squared = d("Pow", again, 2.0) if square == "Pow" else d("Mul", again, again)
    y = d("Div", centred, d("Sqrt", d("Add", mean(squared), 1e-6)))
    weight, bias = (draw(d.rng, *((1,) if lead else ()), 6, *ones) for _ in range(2))
    if affine:
        d.weights["norm.weight"] = weight
        y = d("Mul", y, "norm.weight")
    if affine == "both":
        d.weights["norm.bias"] = bias
        y = d("Add", y, "norm.bias")
    model = d.load(tmp_path / "n.onnx", y, shape, opset)
    assert kinds(model) == ["LayerNormalization"]
    assert list(dict(model.named_parameters())) == list(d.weights)
    x, g = draw(d.rng, *shape), draw(d.rng, *shape)
    np.testing.assert_allclose(model(x), theirs(tmp_path / "n.onnx", x), rtol=1e-4, atol=1e-5)
    given_ = [a.reshape(-1) if it else None for a, it in ((weight, affine), (bias, affine == "both"))]
    rows = [np.ascontiguousarray(np.moveaxis(a, 1, -1).reshape(-1, 6)) for a in (x, g)]
    model.need_input_grad = True
    y = model(x)
    np.testing.assert_array_equal(np.moveaxis(y, 1, -1).reshape(-1, 6), F.layer_norm(rows[0], 6, *given_, eps=1e-6))
    found = [np.moveaxis(model.backward(g), 1, -1).reshape(-1, 6), *(p.grad.reshape(-1) for p in model.parameters())]
    want = F.layer_norm_backward(*rows[::-1], 6, *given_, eps=1e-6)
    for a, b in zip(found, [w for w in want if w is not None], strict=True):
        np.testing.assert_array_equal(a, b)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rank=st.integers(2, 5), affine=st.sampled_from(["scale", "both"]), axis=st.booleans(), seed=st.integers(0, 999))
def test_channels_moved_to_the_end_normalised_and_moved_back_are_one_step(tmp_path, rank, affine, axis, seed):
    d = Draft(np.random.default_rng(seed))
    shape = (2, 6, 3, 5, 2)[:rank]
    names = ["norm.weight", "norm.bias"][: 1 + (affine == "both")]
    d.weights = {name: draw(d.rng, 6) for name in names}
    rows = d("Transpose", "x", perm=(0, *range(2, rank), 1))
    rows = d("LayerNormalization", rows, *names, axis=rank - 1 if axis else -1, epsilon=1e-6)
    model = d.load(tmp_path / "n.onnx", d("Transpose", rows, perm=(0, rank - 1, *range(1, rank - 1))), shape, 17)
    assert kinds(model) == ["LayerNormalization"]
    x = draw(d.rng, *shape)
    np.testing.assert_allclose(model(x), theirs(tmp_path / "n.onnx", x), rtol=1e-4, atol=1e-5)
    fastconv.onnx.save(model, tmp_path / "back.onnx", x.shape)
    back = fastconv.onnx.load(tmp_path / "back.onnx")
    np.testing.assert_array_equal(back(x), model(x))
    assert {name: p.data.shape for name, p in back.named_parameters()} == dict.fromkeys(names, (6,))


@pytest.mark.parametrize(
    ("there", "back", "axis"),
    [((0, 3, 2, 1), (0, 3, 1, 2), -1), ((0, 2, 3, 1), (0, 2, 1, 3), -1), ((0, 2, 3, 1), (0, 3, 1, 2), 2)],
)
def test_other_orders_of_axes_around_a_normalisation_stay_as_they_are(tmp_path, there, back, axis):
    d, rng, shape = Draft(), np.random.default_rng(0), (2, 5, 4, 3)
    d.weights = {"w": draw(rng, *[shape[a] for a in there][axis:])}
    y = d("Transpose", d("LayerNormalization", d("Transpose", "x", perm=there), "w", axis=axis), perm=back)
    model = d.load(tmp_path / "n.onnx", y, shape, 17)
    assert kinds(model) == ["Transpose", "LayerNormalization", "Transpose"]
    x = draw(rng, *shape)
    np.testing.assert_allclose(model(x), theirs(tmp_path / "n.onnx", x), rtol=1e-4, atol=1e-5)


def test_what_is_broadcast_otherwise_over_normalised_channels_is_multiplied_as_it_is(tmp_path):
    """(3, 1, 1) beside (N, 3, L) is a number for each sample, though it looks like one for each channel."""
    d, rng = Draft(), np.random.default_rng(0)
    d.weights = {"w": draw(rng, 3, 1, 1), "b": draw(rng, 3, 1, 1)}
    centred = d("Sub", "x", d("ReduceMean", "x", axes=(1,)))
    y = d("Div", centred, d("Sqrt", d("Add", d("ReduceMean", d("Mul", centred, centred), axes=(1,)), 1e-6)))
    model = d.load(tmp_path / "n.onnx", d("Add", d("Mul", y, "w"), "b"), (3, 3, 5))
    x = draw(rng, 3, 3, 5)
    np.testing.assert_allclose(model(x), theirs(tmp_path / "n.onnx", x), rtol=1e-4, atol=1e-5)


def test_a_scale_of_other_channels_is_refused(tmp_path):
    d = Draft()
    d.weights = {"w": draw(np.random.default_rng(0), 4)}
    rows = d("LayerNormalization", d("Transpose", "x", perm=(0, 2, 3, 1)), "w", axis=-1)
    model = d.load(tmp_path / "n.onnx", d("Transpose", rows, perm=(0, 3, 1, 2)), (2, "c", 4, 5), 17)
    with pytest.raises(ValueError, match=r"LayerNorm2d: input needs 4 channels, got \(2, 3, 4, 5\)"):
        model(draw(np.random.default_rng(0), 2, 3, 4, 5))


def test_a_normalisation_over_other_axes_stays_as_it_is(tmp_path):
    d = Draft()
    d.weights["weight"] = draw(np.random.default_rng(1), 3, 4, 1)
    centred = d("Sub", "x", d("ReduceMean", "x", axes=(1, 2)))
    spread = d("ReduceMean", d("Pow", centred, 2.0), axes=(1, 2))
    y = d("Mul", d("Div", centred, d("Sqrt", d("Add", spread, 1e-6))), "weight")
    model = d.load(tmp_path / "n.onnx", y, (2, 3, 4, 5))
    assert "LayerNormalization" not in kinds(model)
    x = draw(np.random.default_rng(0), 2, 3, 4, 5)
    np.testing.assert_allclose(model(x), theirs(tmp_path / "n.onnx", x), rtol=1e-5, atol=1e-5)
    assert list(dict(model.named_parameters())) == ["weight"]


def test_a_weight_used_in_another_shape_alone_keeps_its_name_and_learns(tmp_path):
    rng = np.random.default_rng(0)
    d = Draft()
    d.weights = {"fc.weight": draw(rng, 4, 5), "gamma": draw(rng, 3), "twice": draw(rng, 3)}
    y = d("MatMul", "x", d("Transpose", "fc.weight", perm=(1, 0)))
    y = d("Mul", y, d("Unsqueeze", "gamma", np.array([1])))
    y = d("Add", d("Add", y, d("Reshape", "twice", np.array([3, 1]))), d("Reshape", "twice", np.array([1, 3, 1])))
    model = d.load(tmp_path / "w.onnx", y, (2, 3, 5))
    learning = {name: p.data.shape for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"fc.weight": (4, 5), "gamma": (3, 1)}
    x = draw(rng, 2, 3, 5)
    np.testing.assert_allclose(model(x), theirs(tmp_path / "w.onnx", x), rtol=1e-5, atol=1e-6)
    fastconv.onnx.save(model, tmp_path / "back.onnx", x.shape)
    np.testing.assert_array_equal(fastconv.onnx.load(tmp_path / "back.onnx")(x), model(x))


def test_groups_normalised_as_instances_are_a_group_normalisation(tmp_path):
    rng = np.random.default_rng(0)
    d = Draft()
    rows = d("Reshape", "x", np.array([0, 3, -1]))
    d.weights = {"gn.weight": draw(rng, 6), "gn.bias": draw(rng, 6)}
    ones, zeros = (d._name(np.full(3, fill, np.float32)) for fill in (1, 0))
    normed = d("Reshape", d("InstanceNormalization", rows, ones, zeros, epsilon=1e-5), d("Shape", "x"))
    y = d("Mul", normed, d("Unsqueeze", "gn.weight", np.array([1, 2])))
    y = d("Add", y, d("Unsqueeze", "gn.bias", np.array([1, 2])))
    model = d.load(tmp_path / "g.onnx", y, (2, 6, 4, 5))
    assert kinds(model) == ["GroupNormalization", "Mul", "Add"]
    assert list(dict(model.named_parameters())) == ["gn.weight", "gn.bias"]
    x = draw(rng, 2, 6, 4, 5)
    np.testing.assert_allclose(model(x), theirs(tmp_path / "g.onnx", x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("learned", [True, False])
def test_instances_scaled_by_ones_have_a_state_only_where_those_are_weights(tmp_path, learned):
    d = Draft()
    ones, zeros = np.ones(6, np.float32), np.zeros(6, np.float32)
    if learned:
        d.weights = {"norm.weight": ones, "norm.bias": zeros}
    y = d("InstanceNormalization", "x", *(d.weights or (d._name(ones), d._name(zeros))))
    model = d.load(tmp_path / "i.onnx", y, (2, 6, 4, 5))
    assert list(model.state_dict()) == list(d.weights)
    x = draw(np.random.default_rng(0), 2, 6, 4, 5)
    np.testing.assert_allclose(model(x), theirs(tmp_path / "i.onnx", x), rtol=1e-4, atol=1e-5)


def test_weights_that_an_exporter_renamed_are_called_by_what_reads_them(tmp_path):
    """As torch.onnx.export leaves them: folded into convolutions, transposed, and one array for two that are equal."""
    rng = np.random.default_rng(0)
    array = {"onnx::Conv_9": (4, 3, 3, 3), "onnx::Conv_10": (4,), "onnx::Mul_7": (4, 1, 1), "onnx::MatMul_8": (5, 2),
             "head.bias": (2,), "onnx::Mul_3": ()}  # fmt: skip
    nodes = [
        ("Conv", "/body/body.0/conv1/Conv", ["x", "onnx::Conv_9", "onnx::Conv_10"]),
        ("Mul", "/body/body.0/scale/Mul", ["onnx::Mul_7", "v0"]),
        ("MatMul", "/head/MatMul", ["v1", "onnx::MatMul_8"]), ("Identity", "Identity_3", ["head.bias"]),
        ("Add", "/head/Add", ["v2", "head.bias"]), ("Add", "/more/Add", ["v3", "v4"]),
        ("Mul", "Mul_9", ["onnx::Mul_3", "v5"]),
    ]  # fmt: skip
    d = Draft()
    d.nodes = [helper.make_node(kind, inputs, [f"v{i}"], name) for i, (kind, name, inputs) in enumerate(nodes)]
    d.weights = {name: draw(rng, *shape) for name, shape in array.items()}
    model = d.load(tmp_path / "n.onnx", "v6", (2, 3, 7, 7))
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert sorted(names) == [
        "body.0.conv1.bias", "body.0.conv1.weight", "body.0.scale.weight", "head.bias", "head.weight", "v3",
    ]  # fmt: skip
    x = draw(rng, 2, 3, 7, 7)
    np.testing.assert_allclose(model(x), theirs(tmp_path / "n.onnx", x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "layer", [nn.InstanceNorm2d(4), nn.GroupNorm(2, 4, affine=False), nn.LayerNorm((5, 6), elementwise_affine=False)],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_normalisations_without_weights_come_back_without(tmp_path, layer):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), layer).eval()
    x = draw(np.random.default_rng(0), 2, 3, 5, 6)
    fastconv.onnx.save(model, tmp_path / "n.onnx", x.shape)
    back = fastconv.onnx.load(tmp_path / "n.onnx")
    assert sorted(back.state_dict()) == ["0.bias", "0.weight"]
    np.testing.assert_array_equal(back(x), model(x))
    np.testing.assert_allclose(model(x), theirs(tmp_path / "n.onnx", x), rtol=1e-4, atol=1e-5)
