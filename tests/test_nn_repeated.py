"""Any layer, called again on the same array object with new contents, sees them: every layer, rank and layout."""

import copy

import numpy as np
import pytest
from layers import KINDS, LAYOUTS, REQUIRED, build, ranks
from numpy.testing import assert_array_equal

import fastconv
from fastconv import nn

HOSTS = {
    "alone": lambda layer: layer,
    "in a Sequential": nn.Sequential,
    "behind and before others": lambda layer: nn.Sequential(nn.LeakyReLU(), layer, nn.ReLU()),
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_new_contents_in_the_same_arrays_are_seen(kind, host):
    for rank in ranks(kind):
        for number, layout in enumerate(LAYOUTS):
            for training in (True, False):
                rng = np.random.default_rng([rank, number, training])
                fastconv.manual_seed(int(rng.integers(1000)))
                channels = int(rng.integers(1, 9))
                dtype = np.float32 if kind is nn.DeepResidual else rng.choice([np.float32, np.float64])
                layer = HOSTS[host](build(kind, rng, channels)).astype(dtype).train(training)
                shape = (int(rng.integers(2, 5)), channels, *map(int, rng.integers(4, 8, rank - 2)))
                if kind is nn.LayerNorm:  # which says what the last axis is
                    shape = (*shape[:-1], REQUIRED["normalized_shape"](rng, channels))
                check(layer, rng, shape, dtype, LAYOUTS[layout], f"{layer!r}, {shape}, {layout}, training={training}")


def check(layer, rng, shape, dtype, layout, what):
    """Compare calls on the same two arrays with those of a copy on arrays of their own, bit by bit."""
    x, g = layout(np.zeros(shape, dtype)), None
    for _ in range(4):
        x[...] = rng.standard_normal(shape)
        twin = copy.deepcopy(layer)
        y, want = layer(x), twin(np.array(x, dtype, order="C"))
        assert_array_equal(y, want, err_msg=what)
        g = layout(np.zeros(y.shape, dtype)) if g is None else g
        g[...] = rng.standard_normal(y.shape)
        assert_array_equal(layer.backward(g), twin.backward(np.array(g, dtype, order="C")), err_msg=what)
        for (name, a), (_, b) in zip(layer.named_parameters(), twin.named_parameters(), strict=True):
            assert_array_equal(a.grad, b.grad, err_msg=f"{name} of {what}")
        for (name, a), (_, b) in zip(layer.named_state(), twin.named_state(), strict=True):
            assert_array_equal(a, b, err_msg=f"{name} of {what}")
