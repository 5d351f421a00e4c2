"""Operators of ONNX that are made of several functions: values beside ONNX Runtime's, gradients beside differences."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx", reason="ONNX files need the package onnx")
import reference  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import fastconv.onnx  # noqa: E402
from fastconv.onnx.operators.resizing import _places  # noqa: E402
from fastconv.testing import gradcheck  # noqa: E402


def written(path, kind, shapes, fixed=(), wide=False, inputs=None, ndim=None, **settings):
    """Write a file of one operator: inputs of some shapes, then known arrays; its result has so many dimensions."""
    ndim = len(shapes[0]) if ndim is None else ndim
    number = TensorProto.DOUBLE if wide else TensorProto.FLOAT
    names = [f"x{i}" for i in range(len(shapes))]
    known = [f"k{i}" for i in range(len(fixed))]
    node = helper.make_node(kind, inputs or [*names, *known], ["y"], **settings)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info(n, number, s) for n, s in zip(names, shapes, strict=True)],
        [helper.make_tensor_value_info("y", number, [f"n{i}" for i in range(ndim)])],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in zip(known, fixed, strict=True)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    onnx.save(model, path)
    return fastconv.onnx.load(path)


def theirs(path, *inputs):
    runtime = pytest.importorskip("onnxruntime", reason="compared with ONNX Runtime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {entry.name: x for entry, x in zip(session.get_inputs(), inputs, strict=True)})[0]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(2, 9), st.integers(2, 9)), size=st.tuples(st.integers(2, 14), st.integers(2, 14)),
    mode=st.sampled_from(["nearest", "linear", "cubic"]),
    coordinates=st.sampled_from(["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]),
    rounding=st.sampled_from(["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]),
    outside=st.booleans(), antialias=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_resize_is_that_of_onnx_runtime(tmp_path, shape, size, mode, coordinates, rounding, outside, antialias, seed):
    antialias = antialias and mode != "nearest" and coordinates == "half_pixel"
    more = {"exclude_outside": int(outside)} if mode == "cubic" else {}
    more |= {"nearest_mode": rounding} if mode == "nearest" else {}
    model = written(
        tmp_path / "r.onnx", "Resize", [(2, 3, *shape)], [np.array([2, 3, *size])], inputs=["x0", "", "", "k0"],
        mode=mode, coordinate_transformation_mode=coordinates, antialias=int(antialias), **more,
    )  # fmt: skip
    x = np.random.default_rng(seed).standard_normal((2, 3, *shape)).astype(np.float32)
    found, wanted = model(x), theirs(tmp_path / "r.onnx", x)
    assert found.shape == wanted.shape
    if mode == "nearest":  # of two that are equally near, or where a place is a whole pixel, float32 may take the other
        edge = 0.5 if rounding.startswith("round") else 0.0
        sure = []
        for n, m in zip(shape, size, strict=True):
            places, _ = _places(coordinates, n, m, m / n, (0.0, 1.0))
            sure.append(np.abs((places - edge + 0.5) % 1 - 0.5) > 1e-5)
        plain = np.ix_(range(2), range(3), *sure)
        np.testing.assert_array_equal(found[plain], wanted[plain])
        assert np.isin(found, x).all()
    else:
        np.testing.assert_allclose(found, wanted, atol=2e-5)


RESIZES = [
    {"mode": "cubic"}, {"mode": "cubic", "antialias": 1}, {"mode": "linear", "antialias": 1},
    {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1}, {"mode": "nearest", "nearest_mode": "ceil"},
    {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"},
]  # fmt: skip


@pytest.mark.gradients
@pytest.mark.parametrize("more", RESIZES)
def test_gradients_of_resize(tmp_path, more):
    model = written(tmp_path / "r.onnx", "Resize", [(2, 2, 5, 6)], [np.array([1, 1, 0.6, 1.7], np.float32)],
                    wide=True, inputs=["x0", "", "k0"], **more)  # fmt: skip
    gradcheck(model, (2, 2, 5, 6))


ALONE = {
    "Abs": (np.abs, ()), "Reciprocal": (np.reciprocal, ()),
    "Tile": (lambda x: np.tile(x, (1, 3, 2)), [np.array([1, 3, 2])]),
    **{f"Pow {p}": (lambda x, p=p: x.astype(np.float64) ** p, [np.float32(p)]) for p in (1, 2, 3, 7, -1, -2)},
    "Exp": (np.exp, ()), "Erf": (reference.erf, ()),
    "ReduceL1": (lambda x: np.abs(x).sum((1, 2), keepdims=True), [np.array([1, 2])]),
    "ReduceL2": (lambda x: np.sqrt((x * x).sum((1, 2), keepdims=True)), [np.array([1, 2])]),
    "ReduceSumSquare": (lambda x: (x * x).sum((1, 2), keepdims=True), [np.array([1, 2])]),
    "Max": (lambda x: np.maximum(x, 0.3), [np.float32(0.3)]), "Min": (lambda x: np.minimum(x, 0.3), [np.float32(0.3)]),
}  # fmt: skip


@pytest.mark.gradients
@pytest.mark.parametrize("name", ALONE)
def test_values_and_gradients_of_one_operand(tmp_path, name):
    right, fixed = ALONE[name]
    kind = name.split()[0]
    model = written(tmp_path / "a.onnx", kind, [(2, 4, 5)], fixed)
    x = np.random.default_rng(0).uniform(-3, 3, (2, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(model(x), right(x), rtol=8 * np.finfo(np.float32).eps)
    fixed = [a.astype(np.float64) if a.dtype == np.float32 else a for a in map(np.asarray, fixed)]
    gradcheck(written(tmp_path / "b.onnx", kind, [(2, 4, 5)], fixed, wide=True), (2, 4, 5))


OF_POSITIVE = {
    "Log": (np.log, ()), "Sqrt": (np.sqrt, ()),
    **{f"Pow {p}": (lambda x, p=p: x**p, [np.float32(p)]) for p in (0.5, -0.5, 1.5, -3.5, 2.2, -0.3)},
}  # fmt: skip


@pytest.mark.gradients
@pytest.mark.parametrize("name", OF_POSITIVE)
def test_values_and_gradients_of_one_positive_operand(tmp_path, name):
    """Other powers than halves are exp(p log(x)): p log(x) is rounded to half an ulp thrice, of which exp makes as much
    relative error."""
    right, fixed = OF_POSITIVE[name]
    kind = name.split()[0]
    model = written(tmp_path / "a.onnx", kind, [(2, 4, 5)], fixed)
    x = np.random.default_rng(0).uniform(0.2, 30, (2, 4, 5)).astype(np.float32)
    steep = 2 * np.abs(fixed[0] * np.log(x)).max() if fixed and 2 * fixed[0] % 1 else 0
    np.testing.assert_allclose(model(x), right(x.astype(np.float64)), rtol=(8 + steep) * np.finfo(np.float32).eps)
    fixed = [np.float64(a) for a in fixed]
    gradcheck(written(tmp_path / "b.onnx", kind, [(2, 4, 5)], fixed, wide=True), x.shape, input=x.astype(np.float64))


@pytest.mark.parametrize("power", [0.0, 16.5, -17.0, np.inf, np.nan])
def test_powers_that_are_not_supported(tmp_path, power):
    with pytest.raises(ValueError, match=f"a power other than one number from -16 to 16 that is not 0: {power:g}"):
        written(tmp_path / "p.onnx", "Pow", [(2, 3)], [np.float32(power)])


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    a=st.lists(st.integers(1, 3), max_size=2), b=st.lists(st.integers(1, 3), max_size=2), m=st.integers(0, 4),
    k=st.integers(1, 4), n=st.integers(0, 4), seed=st.integers(0, 99),
)  # fmt: skip
def test_products_of_stacks_are_numpys(tmp_path, a, b, m, k, n, seed):
    """m or n of 0: a vector."""
    one = (k,) if not m else (*a, m, k)
    two = (k,) if not n else (*b, k, n)
    try:
        np.broadcast_shapes(one[:-2], two[:-2])
    except ValueError:
        return
    rng = np.random.default_rng(seed)
    x, y = (rng.integers(-4, 5, shape).astype(np.float32) for shape in (one, two))
    if (x @ y).ndim == 0:
        return
    model = written(tmp_path / "m.onnx", "MatMul", [one, two], ndim=(x @ y).ndim)
    np.testing.assert_array_equal(model(x, y), x @ y)


def test_extremes_of_several(tmp_path):
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 1, 4), (2, 1), (3, 2, 4)))
    for kind, right in (("Max", np.maximum), ("Min", np.minimum)):
        model = written(tmp_path / "m.onnx", kind, [a.shape, b.shape, c.shape])
        np.testing.assert_array_equal(model(a, b, c), right(right(a, b), c))
