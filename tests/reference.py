"""Slow twins: every operation in plain NumPy, float64, readable in a minute. The oracles of the tests.

One section a family, in the order of fastconv.functional.
"""

import numpy as np

# --- convolution and linear -------------------------------------------------------------------------------


def borders(padding, kernel, dilation):
    """Return any form of conv2d's padding as ((top, bottom), (left, right))."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    if isinstance(padding, int):
        padding = (padding, padding)
    return tuple(p if isinstance(p, tuple) else (p, p) for p in padding)


def _taps(weight_shape, stride, dilation, out_shape):
    """Yield each kernel position (r, s) with the pixels of the padded image it meets."""
    _, _, R, S = weight_shape
    P, Q = out_shape
    for r in range(R):
        for s in range(S):
            rows = slice(r * dilation[0], r * dilation[0] + (P - 1) * stride[0] + 1, stride[0])
            cols = slice(s * dilation[1], s * dilation[1] + (Q - 1) * stride[1] + 1, stride[1])
            yield r, s, rows, cols


def _prepare(x, w, stride, padding, dilation):
    stride = (stride, stride) if isinstance(stride, int) else stride
    dilation = (dilation, dilation) if isinstance(dilation, int) else dilation
    pad = borders(padding, w.shape[2:], dilation)
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *pad))
    out = [
        (padded.shape[2 + i] - (w.shape[2 + i] - 1) * dilation[i] - 1) // stride[i] + 1 for i in range(2)
    ]
    return stride, dilation, pad, padded, out


def conv2d(x, w, b=None, stride=1, padding=0, dilation=1, groups=1):
    """Return y[n, k] = sum over (r, s) of w[k, :, r, s] . padded x[n, channels of k's group], plus b[k]."""
    stride, dilation, _, padded, (P, Q) = _prepare(x, w, stride, padding, dilation)
    K, Cg = w.shape[:2]
    y = np.zeros((x.shape[0], K, P, Q))
    for k in range(K):
        c0 = k // (K // groups) * Cg
        for r, s, rows, cols in _taps(w.shape, stride, dilation, (P, Q)):
            y[:, k] += np.einsum("c,ncpq->npq", w[k, :, r, s], padded[:, c0 : c0 + Cg, rows, cols])
        if b is not None:
            y[:, k] += b[k]
    return y


def conv2d_backward(g, x, w, stride=1, padding=0, dilation=1, groups=1):
    """Return the gradients of x, w and b: each product of the forward sum, turned around."""
    stride, dilation, pad, padded, (P, Q) = _prepare(x, w, stride, padding, dilation)
    g = g.astype(np.float64)
    K, Cg = w.shape[:2]
    grad_padded, grad_w = np.zeros_like(padded), np.zeros(w.shape)
    for k in range(K):
        c0 = k // (K // groups) * Cg
        for r, s, rows, cols in _taps(w.shape, stride, dilation, (P, Q)):
            grad_w[k, :, r, s] = np.einsum("npq,ncpq->c", g[:, k], padded[:, c0 : c0 + Cg, rows, cols])
            grad_padded[:, c0 : c0 + Cg, rows, cols] += w[k, :, r, s][:, None, None] * g[:, k, None]
    (top, _), (left, _) = pad
    grad_x = grad_padded[:, :, top : top + x.shape[2], left : left + x.shape[3]]
    return grad_x, grad_w, g.sum((0, 2, 3))


def numerical_gradient(f, x, eps=1e-6):
    """Return the central differences of the scalar function f at x, float64, one element at a time."""
    x = x.copy()
    grad = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        kept = x[i]
        x[i] = kept + eps
        above = f(x)
        x[i] = kept - eps
        grad[i] = (above - f(x)) / (2 * eps)
        x[i] = kept
    return grad



# --- pooling ----------------------------------------------------------------------------------------------

# --- activations and losses -------------------------------------------------------------------------------

# --- normalisation, dropout, optimiser steps --------------------------------------------------------------
