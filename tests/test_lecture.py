"""The worked examples of a lecture on convolutional nets, to the printed digits."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import fastconv.functional as F


def test_two_channels_to_two_filters():
    image = np.array(
        [
            [[1, -2, 2, 2], [2, 1, 3, -2], [-2, 3, -3, 1], [-1, 2, -4, 2]],
            [[3, 0, 0, 0], [-2, -2, 1, -1], [2, -1, 3, 1], [5, -2, 0, 1]],
        ],
        np.float32,
    )
    weight = np.array([[1, -2, -2, 1, 1, 0, 0, 1], [3, 1, 2, 2, 0, 0, 0, 4]], np.float32).reshape(2, 2, 2, 2)
    bias = np.array([0.1, 0.2], np.float32)
    expected = np.array(
        [
            [[3.1, -3.9, -10.9], [4.1, -12.9, 16.1], [-3.9, 0.1, 9.1]],
            [[-0.8, 8.2, 6.2], [5.2, 18.2, 7.2], [-8.8, 2.2, -7.8]],
        ]
    )
    assert_array_equal(np.round(F.conv2d(image[None], weight, bias)[0], 1), np.float32(expected))


def banded(w, n):
    """Return the matrix whose row q holds w from column q on: correlation with w as a product."""
    matrix = np.zeros((n - len(w) + 1, n))
    for q in range(len(matrix)):
        matrix[q, q : q + len(w)] = w
    return matrix


@pytest.mark.gradients
def test_one_dimensional_convolution_and_its_banded_jacobians():
    rng = np.random.default_rng(0)
    i, w, g = rng.standard_normal(7), rng.standard_normal(3), rng.standard_normal(5)
    signal, kernel, grad = i[None, None], w[None, None], g[None, None]
    output = F.conv1d(signal, kernel)[0, 0]
    assert_allclose(output, np.correlate(i, w, "valid"), rtol=0, atol=1e-14)
    assert_allclose(output, banded(w, 7) @ i, rtol=0, atol=1e-14)  # dO/dI is banded with w
    windows = np.lib.stride_tricks.sliding_window_view(i, 3)  # dO/dW is banded with I
    assert_allclose(output, windows @ w, rtol=0, atol=1e-14)
    grad_i, grad_w, _ = F.conv1d_backward(grad, signal, kernel)
    assert_allclose(grad_w[0, 0], np.correlate(i, g, "valid"), rtol=0, atol=1e-14)
    assert_allclose(grad_w[0, 0], windows.T @ g, rtol=0, atol=1e-14)
    assert_allclose(grad_i[0, 0], np.correlate(np.pad(g, 2), w[::-1], "valid"), rtol=0, atol=1e-14)
    assert_allclose(grad_i[0, 0], banded(w, 7).T @ g, rtol=0, atol=1e-14)


def test_weight_gradient_of_the_printed_signal():
    # Four inputs, a filter of three, two outputs: the gradient g that solves the first two equations of
    # dW = correlation(I, g) must give the printed third.
    i = np.array([0.3347, 0.5901, 0.7132, 0.3187])
    printed = np.array([0.6464, 0.8428, 0.5257])
    g = np.linalg.solve([[i[0], i[1]], [i[1], i[2]]], printed[:2])
    grad_w = F.conv1d_backward(g[None, None], i[None, None], np.ones((1, 1, 3)))[1][0, 0]
    assert_array_equal(np.round(grad_w, 4), printed)


def test_max_pooling_and_where_its_gradient_lands():
    x = np.array(
        [
            [0.2692, 0.4190, 0.2095, 0.9163],
            [0.2778, 0.9199, 0.5555, 0.1638],
            [0.6936, 0.2328, 0.0553, 0.1798],
            [0.3611, 0.3225, 0.9032, 0.5106],
        ],
        np.float32,
    )[None, None]
    expected = np.array([[0.9199, 0.9163], [0.6936, 0.9032]], np.float32)
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    assert_array_equal(y[0, 0], expected)
    assert_array_equal(indices[0, 0], [[5, 3], [8, 14]])
    argmax = F.max_pool2d_argmax_like(x, 2)
    F.max_pool2d(x, 2, argmax=argmax)
    grad = F.max_pool2d_backward(np.ones_like(y), argmax, x.shape, 2)
    assert_array_equal(grad[0, 0], np.isin(x[0, 0], expected).astype(np.float32))


def test_relu():
    x = np.array([-0.0044, -0.1521, 0.4794, -0.1014, 0.4201], np.float32)
    assert_array_equal(F.relu(x), np.array([0, 0, 0.4794, 0, 0.4201], np.float32))
