"""Slow twins: every operation in plain NumPy, float64, readable in a minute. The oracles of the tests.

One section a family, in the order of fastconv.functional.
"""

import itertools
import math

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


# Winograd F(4x4, 3x3) in single precision, every rounding in the documented order (docs/numerics.md)


def fma32(a, b, c):
    """Return a * b + c of float32 arrays, rounded once.

    The product is exact in double precision. The sum is rounded there to odd: of the two neighbours of an inexact one
    that whose last bit is 1, which keeps the second rounding from being wrong (Boldo and Melquiond 2008).
    """
    product, c = a.astype(np.float64) * b, np.asarray(c, np.float64)
    total = np.asarray(product + c)
    part = total - product
    error = (product - (total - part)) + (c - part)
    even = total.view(np.int64) % 2 == 0
    total = np.where((error != 0) & even, np.nextafter(total, np.copysign(np.inf, error)), total)
    return total.astype(np.float32)


_C0, _CA, _CB = 256 / 225, -2048 / 2975, 128 / 1071


def _known(*numbers):
    return [np.float32(number) for number in numbers]


def _evens_and_odds(even, odd, a, b):
    """Return the values at a, -a, b, -b, given even and odd parts for each."""
    a, b = _known(a, b)
    return [fma32(a, odd[0], even[0]), fma32(-a, odd[0], even[0]), fma32(b, odd[1], even[1]),
            fma32(-b, odd[1], even[1])]  # fmt: skip


def winograd_pixels(x):
    """Return B' x."""
    p, q, a2, b2 = _known(-169 / 64, 225 / 256, 25 / 64, 9 / 4)
    even = [fma32(-s, x[2], x[4]) for s in (b2, a2)]
    odd = [fma32(-s, x[1], x[3]) for s in (b2, a2)]
    first, last = (fma32(q, x[i], fma32(p, x[i + 2], x[i + 4])) for i in (0, 1))
    return np.stack([first, *_evens_and_odds(even, odd, 5 / 8, 3 / 2), last])


def winograd_filter(w):
    """Return G w for 3 or 5 taps, in double precision."""
    w = w.astype(np.float64)
    if len(w) == 3:
        (ea, eb), (oa, ob) = ([w[0] + s * w[2] for s in (25 / 64, 9 / 4)], [p * w[1] for p in (5 / 8, 3 / 2)])
    else:
        ea, eb = (w[0] + s * (w[2] + s * w[4]) for s in (25 / 64, 9 / 4))
        oa, ob = (p * (w[1] + p * p * w[3]) for p in (5 / 8, 3 / 2))
    return np.stack([_C0 * w[0], _CA * (ea + oa), _CA * (ea - oa), _CB * (eb + ob), _CB * (eb - ob), w[-1]])


def winograd_results(m):
    """Return the four results A' m of 3 taps."""
    a, a2, a3, b, b2, b3 = _known(5 / 8, 25 / 64, 125 / 512, 3 / 2, 9 / 4, 27 / 8)
    (sa, da), (sb, db) = ((m[i] + m[i + 1], m[i] - m[i + 1]) for i in (1, 3))
    last = fma32(a3, da, fma32(b3, db, m[5]))
    return np.stack([(m[0] + sa) + sb, fma32(a, da, b * db), fma32(a2, sa, b2 * sb), last])


def winograd_two_results(m):
    """Return the two results A' m of 5 taps."""
    a, b = _known(5 / 8, 3 / 2)
    return np.stack([(m[0] + (m[1] + m[2])) + (m[3] + m[4]), fma32(a, m[1] - m[2], fma32(b, m[3] - m[4], m[5]))])


def winograd_gradient(g):
    """Return A g, for gradients of four results or of two."""
    if len(g) == 2:
        return np.stack([g[0], *_evens_and_odds([g[0]] * 2, [g[1]] * 2, 5 / 8, 3 / 2), g[1]])
    squares = _known(25 / 64, 9 / 4)
    even, odd = ([fma32(s, g[i + 2], g[i]) for s in squares] for i in (0, 1))
    return np.stack([g[0], *_evens_and_odds(even, odd, 5 / 8, 3 / 2), g[3]])


def winograd_filter_gradient(m, taps=3):
    """Return G' m, in double precision."""
    m = m.astype(np.float64)
    sa, da, sb, db = _CA * (m[1] + m[2]), _CA * (m[1] - m[2]), _CB * (m[3] + m[4]), _CB * (m[3] - m[4])
    w = [_C0 * m[0] + (sa + sb), 5 / 8 * da + 3 / 2 * db, 25 / 64 * sa + 9 / 4 * sb]
    if taps == 5:
        w += [125 / 512 * da + 27 / 8 * db, 625 / 4096 * sa + 81 / 16 * sb]
    w[-1] = w[-1] + m[5]
    return np.stack(w)


def _twice(step, a):
    """Apply a transform along axis 0, column by column, then along axis 1."""
    return step(step(a).swapaxes(0, 1)).swapaxes(0, 1)


def _patches(x, top, left, rows, cols, reach, side):
    """Return (reach, reach, tiles, C): the pixels of each tile, zeros outside; tiles begin ``side`` apart."""
    n, c, h, w = x.shape
    patches = np.zeros((reach, reach, n, rows, cols, c), np.float32)
    for i, j, row, col in np.ndindex(reach, reach, rows, cols):
        u, v = side * row - top + i, side * col - left + j
        if 0 <= u < h and 0 <= v < w:
            patches[i, j, :, row, col] = x[:, :, u, v]
    return patches.reshape(reach, reach, -1, c)


def _products(a, b, block):
    """Return sums over axis 2 of a (6, 6, D, M) times b (6, 6, D, N): chains over blocks of it, added in order."""
    total = None
    for first in range(0, a.shape[2], block):
        chain = np.zeros((6, 6, a.shape[3], b.shape[3]), np.float32)
        for d in range(first, min(first + block, a.shape[2])):
            chain = fma32(a[:, :, d, :, None], b[:, :, d, None, :], chain)
        total = chain if total is None else total + chain
    return total


def winograd_conv2d(x, w, top, left, P, Q):
    """Return the first P x Q results of the correlation of float32 x, its border so wide, with w of 3x3 or 5x5."""
    side = 7 - w.shape[2]
    n, k, rows, cols = len(x), len(w), -(-P // side), -(-Q // side)
    pixels = _twice(winograd_pixels, _patches(x, top, left, rows, cols, 6, side))
    filters = _twice(winograd_filter, w.transpose(2, 3, 1, 0)).astype(np.float32)
    results = winograd_results if side == 4 else winograd_two_results
    y = _twice(results, _products(pixels.swapaxes(2, 3), filters, 8 if x.shape[1] <= 32 else 16))
    y = y.reshape(side, side, n, rows, cols, k).transpose(2, 5, 3, 0, 4, 1).reshape(n, k, side * rows, side * cols)
    return y[:, :, :P, :Q]


def winograd_shares(m):
    """Return B m."""
    p, q, a, b, ab2, ba2, a2, b2 = _known(-169 / 64, 225 / 256, 5 / 8, 3 / 2, -45 / 32, -75 / 128, -25 / 64, -9 / 4)
    (sa, da), (sb, db) = ((m[i] + m[i + 1], m[i] - m[i + 1]) for i in (1, 3))
    even = [q * m[0], fma32(p, m[0], fma32(b2, sa, a2 * sb)), m[0] + (sa + sb)]
    odd = [fma32(q, m[5], fma32(ab2, da, ba2 * db)), fma32(p, m[5], fma32(a, da, b * db)), m[5]]
    return np.stack([x for pair in zip(even, odd, strict=True) for x in pair])


def _shared(g, w):
    """Return what tiles of g give to all pixels that they read: the first one's first."""
    taps, (n, k, P, Q), run = w.shape[2], g.shape, 4
    side, c = 7 - taps, w.shape[1]
    rows, cols = -(-P // side), -(-Q // side)
    grads = _twice(winograd_gradient, _patches(g, 0, 0, rows, cols, side, side))
    filters = _twice(winograd_filter, w.transpose(2, 3, 0, 1)).astype(np.float32)
    sums = _products(grads.swapaxes(2, 3), filters, 8 if k <= 32 else 16).reshape(6, 6, n, rows, cols, c)
    across = winograd_shares(sums.swapaxes(0, 1))  # (column, row of values, ...)
    x = np.zeros((n, c, side * rows + taps - 1, side * cols + taps - 1), np.float32)
    for i in range(rows):
        for first in range(0, cols, run):
            tiles = min(run, cols - first)
            half = np.zeros((side * tiles + taps - 1, 6, n, c), np.float32)
            for j in range(tiles):
                half[side * j : side * j + 6] += across[:, :, :, i, first + j]
            there = x[:, :, side * i : side * i + 6, side * first : side * first + len(half)]
            there += winograd_shares(half.swapaxes(0, 1)).transpose(2, 3, 0, 1)
    return x


def _over_results(results, pixels, dilation, taps):
    """Return whether tiles of the results are fewer by a fifth than those of the pixels."""
    side = 7 - taps
    tiles = [math.prod(d * math.ceil(math.ceil(size / d) / side) for size, d in zip(sizes, dilation, strict=True))
             for sizes in (results, pixels)]  # fmt: skip
    return 5 * tiles[0] <= 4 * tiles[1]


def winograd_input_gradient(g, w, top, left, H, W):
    """Return the gradient (N, C, H, W) of the input."""
    last = w.shape[2] - 1
    if _over_results(g.shape[2:], (H, W), (1, 1), last + 1):
        return _shared(g, w)[:, :, top : top + H, left : left + W]
    return winograd_conv2d(g, w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1], last - top, last - left, H, W)


def phases(x, dilation, top, left, rows, cols):
    """Return each dh-th row and dw-th column, from each of dh x dw pixels on: (N * dh * dw, C, rows, cols).

    They begin ``top`` rows and ``left`` columns before the images x (N, C, H, W), outside of which are zeros.
    """
    (n, c, h, w), (dh, dw) = x.shape, dilation
    found = np.zeros((n, dh, dw, c, rows, cols), x.dtype)
    for a, b, i, j in np.ndindex(dh, dw, rows, cols):
        u, v = a + i * dh - top, b + j * dw - left
        if 0 <= u < h and 0 <= v < w:
            found[:, a, b, :, i, j] = x[:, :, u, v]
    return found.reshape(-1, c, rows, cols)


def from_phases(y, dilation, P, Q):
    """Return the images (N, C, P, Q) whose phases these are."""
    (dh, dw), (_, c, rows, cols) = dilation, y.shape
    y = y.reshape(-1, dh, dw, c, rows, cols).transpose(0, 3, 4, 1, 5, 2)
    return y.reshape(-1, c, rows * dh, cols * dw)[:, :, :P, :Q]


def _reach(results, taps):
    """Return how many pixels the tiles of so many results in a row read."""
    side = 7 - taps
    return side * -(-results // side) + taps - 1


def winograd_dilated(x, w, g, top, left, dilation):
    """Return result, input gradient and weight gradient of a dilated convolution: those of its phases."""
    (H, W), (P, Q), taps = x.shape[2:], g.shape[2:], w.shape[2]
    last, (dh, dw) = taps - 1, dilation
    rows, cols = -(-P // dh), -(-Q // dw)
    pixels = phases(x, dilation, top, left, _reach(rows, taps), _reach(cols, taps))
    y = from_phases(winograd_conv2d(pixels, w, 0, 0, rows, cols), dilation, P, Q)
    in_rows, in_cols = -(-H // dh), -(-W // dw)
    if _over_results((P, Q), (H, W), dilation, taps):
        shared = _shared(phases(g, dilation, 0, 0, rows, cols), w)
        height, width = (d * size for d, size in zip(dilation, shared.shape[2:], strict=True))
        grad_x = from_phases(shared, dilation, height, width)[:, :, top : top + H, left : left + W]
    else:
        around = phases(g, dilation, last * dh - top, last * dw - left, _reach(in_rows, taps), _reach(in_cols, taps))
        turned = w.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1]
        grad_x = from_phases(winograd_conv2d(around, turned, 0, 0, in_rows, in_cols), dilation, H, W)
    return y, grad_x, winograd_weight_gradient(pixels, phases(g, dilation, 0, 0, rows, cols), 0, 0, taps)


def winograd_weight_gradient(x, g, top, left, taps):
    """Return the gradient of w (K, C, taps, taps)."""
    side = 7 - taps
    rows, cols = -(-g.shape[2] // side), -(-g.shape[3] // side)
    pixels = _twice(winograd_pixels, _patches(x, top, left, rows, cols, 6, side))
    grads = _twice(winograd_gradient, _patches(g, 0, 0, rows, cols, side, side))
    chains = -(-pixels.shape[2] // 16)
    shards = max(1, min(16, pixels.shape[2] // 64, 2**21 // (36 * x.shape[1] * g.shape[1])))
    cuts = [i * chains // shards * 16 for i in range(shards + 1)]
    sums = [_products(pixels[:, :, i:j], grads[:, :, i:j], 16) for i, j in itertools.pairwise(cuts)]
    while len(sums) > 1:
        sums = [sums[i] + sums[i + 1] if i + 1 < len(sums) else sums[i] for i in range(0, len(sums), 2)]
    return _twice(lambda m: winograd_filter_gradient(m, taps), sums[0]).transpose(3, 2, 0, 1).astype(np.float32)


def _scattered(x, w, stride, groups, dilation):
    """Yield, for each tap and group, channels of x, of y, and the pixels of the uncut y that x goes to."""
    (H, W), (C, Kg, R, S) = x.shape[2:], w.shape
    for r in range(R):
        for s in range(S):
            rows = slice(r * dilation[0], r * dilation[0] + (H - 1) * stride[0] + 1, stride[0])
            cols = slice(s * dilation[1], s * dilation[1] + (W - 1) * stride[1] + 1, stride[1])
            for i in range(groups):
                c = slice(i * (C // groups), (i + 1) * (C // groups))
                yield r, s, c, slice(i * Kg, (i + 1) * Kg), rows, cols


def _uncut(x, w, stride, output_padding, groups, dilation):
    return (
        x.shape[0], w.shape[1] * groups,
        *((x.shape[i] - 1) * stride[i - 2] + dilation[i - 2] * (w.shape[i] - 1) + 1 + output_padding[i - 2]
          for i in (2, 3)),
    )  # fmt: skip


def _cut(y, padding):
    return y[:, :, padding[0] : y.shape[2] - padding[0], padding[1] : y.shape[3] - padding[1]]


def conv_transpose2d(x, w, b=None, stride=(1, 1), padding=(0, 0), output_padding=(0, 0), groups=1, dilation=(1, 1)):
    """Return what every pixel of x, times the kernel, adds to the output around its place, plus b."""
    y = np.zeros(_uncut(x, w, stride, output_padding, groups, dilation))
    for r, s, c, k, rows, cols in _scattered(x, w, stride, groups, dilation):
        y[:, k, rows, cols] += np.einsum("nchw,ck->nkhw", x[:, c].astype(np.float64), w[c, :, r, s])
    return _cut(y, padding) + (0 if b is None else b[:, None, None])


def conv_transpose2d_backward(
    g, x, w, stride=(1, 1), padding=(0, 0), output_padding=(0, 0), groups=1, dilation=(1, 1)
):
    """Return the gradients of x, w and b: each product of the forward sum, turned around."""
    whole = np.zeros(_uncut(x, w, stride, output_padding, groups, dilation))
    _cut(whole, padding)[...] = g
    grad_x, grad_w = np.zeros(x.shape), np.zeros(w.shape)
    for r, s, c, k, rows, cols in _scattered(x, w, stride, groups, dilation):
        grad_x[:, c] += np.einsum("nkhw,ck->nchw", whole[:, k, rows, cols], w[c, :, r, s])
        grad_w[c, :, r, s] = np.einsum("nkhw,nchw->ck", whole[:, k, rows, cols], x[:, c])
    return grad_x, grad_w, g.astype(np.float64).sum((0, 2, 3))


# --- images in another size ---------------------------------------------------------------------------------


def nearest(inputs, outputs, factor=None):
    """Return, for each pixel of an axis, the pixel it is, as PyTorch counts it: in single precision."""
    if outputs == inputs:
        return list(range(outputs))
    if outputs == 2 * inputs:
        return [p // 2 for p in range(outputs)]
    step = np.float32(inputs) / np.float32(outputs) if factor is None else np.float32(1 / factor)
    return [min(int(np.floor(np.float32(p) * step)), inputs - 1) for p in range(outputs)]


def interpolate(x, rows, cols):
    """Return the image whose rows and columns are those of x."""
    return np.stack([np.stack([x[:, :, i, j] for j in cols], -1) for i in rows], -2)


def interpolate_backward(g, x, rows, cols):
    """Return for each pixel the sum of its copies' gradients, row by row."""
    grad = np.zeros_like(x)
    for p, i in enumerate(rows):
        for q, j in enumerate(cols):
            grad[:, :, i, j] += g[:, :, p, q]
    return grad


def between(inputs, outputs, factor, align, dtype):
    """Return, for each pixel of a line, the two it lies between and the weight of the second."""
    found, one = [], dtype(1)
    for p in range(outputs):
        if align:
            at = dtype(p) * (one * (inputs - 1) / (outputs - 1)) if outputs > 1 else dtype(0)
        else:
            step = one * inputs / outputs if factor is None else dtype(1 / factor)
            at = max((dtype(p) + one / 2) * step - one / 2, dtype(0))
        first = min(int(at), inputs - 1)
        found.append((first, min(first + 1, inputs - 1), min(max(at - first, dtype(0)), one)))
    return found


def bilinear(x, rows, columns):
    """Return images whose pixels lie between those of x; `rows` and `columns` as `between` gives them."""
    n, c, h, _ = x.shape
    one = x.dtype.type(1)
    half = np.zeros((n, c, h, len(columns)), x.dtype)
    for q, (a, b, w) in enumerate(columns):
        half[..., q] = x[..., a] * (one - w) + x[..., b] * w
    y = np.zeros((n, c, len(rows), len(columns)), x.dtype)
    for p, (a, b, w) in enumerate(rows):
        y[:, :, p] = half[:, :, a] * (one - w) + half[:, :, b] * w
    return y


def bilinear_backward(g, x, rows, columns):
    """Return the gradient of `bilinear`, added in the order of the rows, then of the columns."""
    one = x.dtype.type(1)
    half = np.zeros((*x.shape[:3], len(columns)), x.dtype)
    for p, (a, b, w) in enumerate(rows):
        half[:, :, a] += g[:, :, p] * (one - w)
        half[:, :, b] += g[:, :, p] * w
    gx = np.zeros(x.shape, x.dtype)
    for q, (a, b, w) in enumerate(columns):
        gx[..., a] += half[..., q] * (one - w)
        gx[..., b] += half[..., q] * w
    return gx



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


def pool_axis(size, kernel, stride, padding, dilation=1, ceil_mode=False):
    """Return each window along an axis: its taps inside the input, (tap, element), and how many the padding has, too.

    Padding is one number or (before, behind).
    """
    before, behind = padding if isinstance(padding, tuple) else (padding, padding)
    reach = dilation * (kernel - 1) + 1
    windows, start = [], -before
    while start + reach <= size + behind or (
        ceil_mode and start < size and (not windows or start - stride + reach < size + behind)
    ):
        taps = [(r, start + r * dilation) for r in range(kernel) if 0 <= start + r * dilation < size]
        windows.append((taps, sum(start + r * dilation < size + behind for r in range(kernel))))
        start += stride
    return windows


def adaptive_axis(size, outputs):
    """Return the windows that divide an axis evenly, as :func:`pool_axis` does."""
    windows = []
    for p in range(outputs):
        taps = [h for h in range(size) if p * size < (h + 1) * outputs and h * outputs < (p + 1) * size]
        windows.append(([(r, h) for r, h in enumerate(taps)], len(taps)))
    return windows


def max_pool2d(x, rows, cols, kernel_width):
    """Return maxima, positions within windows (taps row by row) and flat indices: the first of equals."""
    shape = (*x.shape[:2], len(rows), len(cols))
    best, position, index = np.empty(shape, x.dtype), np.empty(shape, np.int64), np.empty(shape, np.int64)
    for p, (row_taps, _) in enumerate(rows):
        for q, (col_taps, _) in enumerate(cols):
            first = True
            for r, h in row_taps:
                for s, w in col_taps:
                    value, old = x[:, :, h, w], best[:, :, p, q]
                    take = np.full(value.shape, first) | (value > old) | (np.isnan(value) & ~np.isnan(old))
                    best[:, :, p, q][take] = value[take]
                    position[:, :, p, q][take] = r * kernel_width + s
                    index[:, :, p, q][take] = h * x.shape[3] + w
                    first = False
    return best, position, index


def max_pool2d_backward(grad, position, x_shape, rows, cols, kernel_width):
    """Return the input gradient: windows in the order (p, q), in the dtype of ``grad``."""
    out = np.zeros(x_shape, grad.dtype)
    for p, (row_taps, _) in enumerate(rows):
        for q, (col_taps, _) in enumerate(cols):
            for r, h in row_taps:
                for s, w in col_taps:
                    mine = position[:, :, p, q] == r * kernel_width + s
                    out[:, :, h, w] += np.where(mine, grad[:, :, p, q], 0)
    return out


def _divisor(row, col, count_include_pad):
    return row[1] * col[1] if count_include_pad else len(row[0]) * len(col[0])


def avg_pool2d(x, rows, cols, count_include_pad=True):
    """Return means, summed in the documented order in the dtype of ``x``."""
    out = np.zeros((*x.shape[:2], len(rows), len(cols)), x.dtype)
    for p, row in enumerate(rows):
        for q, col in enumerate(cols):
            for _, h in row[0]:
                line = x[:, :, h, col[0][0][1]]
                for _, w in col[0][1:]:
                    line = line + x[:, :, h, w]
                out[:, :, p, q] += line
            out[:, :, p, q] /= x.dtype.type(_divisor(row, col, count_include_pad))
    return out


def avg_pool2d_backward(grad, x_shape, rows, cols, count_include_pad=True):
    """Return the input gradient: windows in the order (p, q), in the dtype of ``grad``."""
    out = np.zeros(x_shape, grad.dtype)
    for p, row in enumerate(rows):
        for q, col in enumerate(cols):
            share = grad[:, :, p, q] / grad.dtype.type(_divisor(row, col, count_include_pad))
            for _, h in row[0]:
                for _, w in col[0]:
                    out[:, :, h, w] += share
    return out

# --- activations and losses -------------------------------------------------------------------------------


def sigmoid(x):
    t = np.exp(-np.abs(x))
    return np.where(x < 0, t, 1) / (1 + t)


def softsign(x):
    return x / (1 + np.abs(x))


def prelu(x, weight):
    """Return x, times the weight of its channel (axis 1) where x is not above 0."""
    slopes = weight.reshape(-1, *[1] * (x.ndim - 2)) if x.ndim > 1 else weight
    return np.where(x > 0, x, x * slopes)


def hardtanh(x, low=-1.0, high=1.0):
    return np.minimum(np.maximum(x, low), high)


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def normal(x):
    """Return the normal distribution, accurate where it is small: erfc at the nearest double, then to first order."""
    exact = -np.asarray(x, np.longdouble) / np.sqrt(np.longdouble(2))
    near = exact.astype(np.float64)
    erfc = np.vectorize(math.erfc, otypes=[np.float64])(near).astype(np.longdouble)
    return (erfc - 2 / math.sqrt(math.pi) * np.exp(-(exact**2)) * (exact - near)) / 2


def erf(x):
    """Return the error function: by math.erf at the nearest double, then to first order."""
    near = np.asarray(x, np.float64)
    there = np.vectorize(math.erf, otypes=[np.float64])(near)
    wide = np.asarray(x, np.longdouble)
    with np.errstate(invalid="ignore"):  # infinity less itself
        return there + 2 / np.sqrt(np.pi) * np.exp(-(wide**2)) * np.where(wide == near, 0, wide - near)


def gelu(x):
    return np.maximum(x, -1e3) * normal(np.clip(x, -1e3, 1e3))


def gelu_tanh(x):
    """Return x / 2 * (1 + tanh(u)) as x * sigmoid(2 u), which is accurate where it is small."""
    near = np.clip(x, -1e3, 1e3)
    return np.maximum(x, -1e3) * sigmoid(near * math.sqrt(8 / math.pi) * (1 + 0.044715 * near * near))


def silu(x):
    return np.maximum(x, -1e300) * sigmoid(x)


def mish(x):
    return np.maximum(x, -1e300) * np.tanh(softplus(x, 1.0, np.inf))


def hardsigmoid(x):
    return np.minimum(np.maximum(x + 3, 0), 6) / 6


def hardswish(x):
    return np.maximum(x, -3) * hardsigmoid(x)


def softplus(x, beta=1.0, threshold=20.0):
    z = beta * x
    return np.where(z > threshold, x, (np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))) / beta)


def leaky_relu(x, slope=0.01):
    return np.where(x > 0, x, slope * x)


def log_softmax(x, axis=1):
    """Return x - log sum exp(x), shifted by the maximum."""
    shifted = x.astype(np.float64) - x.max(axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))


def softmax(x, axis=1):
    return np.exp(log_softmax(x, axis))


def cross_entropy(x, target):
    """Return minus the logarithm of the softmax at each target; classes along axis 1."""
    return -np.take_along_axis(log_softmax(x), np.expand_dims(target, 1), 1)[:, 0]


def multi_margin_loss(x, target, margin=1.0):
    """Return the hinge losses of the rows of x (N, C), class by class."""
    x = x.astype(np.float64)
    losses = np.zeros(len(x))
    for n, t in enumerate(target):
        for c in range(x.shape[1]):
            if c != t:
                losses[n] += max(0.0, margin - x[n, t] + x[n, c]) / x.shape[1]
    return losses


def weighted_cross_entropy(x, target, weight=None, ignore_index=-100, label_smoothing=0.0, sample_weight=None):
    """Return the single losses of labels or probabilities, and what their mean is divided by, as PyTorch has them."""
    x = x.astype(np.float64)
    classes, soft = x.shape[1], target.dtype.kind == "f"
    nll = -log_softmax(x)
    w = np.ones(classes) if weight is None else weight.astype(np.float64)
    w = w.reshape(1, -1, *(1,) * (x.ndim - 2))
    if soft:
        counts = np.ones((len(x), *x.shape[2:]))
        losses = (w * ((1 - label_smoothing) * target.astype(np.float64) + label_smoothing / classes) * nll).sum(1)
        share = counts
    else:
        counts = (target != ignore_index).astype(np.float64)
        labels = np.where(target == ignore_index, 0, target.astype(np.int64))
        share = counts * w.reshape(-1)[labels]
        own = np.take_along_axis(nll, np.expand_dims(labels, 1), 1)[:, 0]
        losses = (1 - label_smoothing) * share * own
        if label_smoothing:
            losses = losses + label_smoothing / classes * (w * nll).sum(1)
        losses = np.where(counts > 0, losses, 0)
    if sample_weight is not None:
        s = sample_weight.astype(np.float64)
        s = s.reshape(*s.shape, *(1,) * (losses.ndim - s.ndim))
        losses, share = losses * s, share * s
    return losses, share.sum()


def element_loss(kind, x, t, parameter=0.0, positive=1.0):
    """Return the single losses of elements: l1, smooth_l1, huber, mse, or bce of scores."""
    x, t = x.astype(np.float64), t.astype(np.float64)
    d = abs(x - t)
    if kind == "mse":
        return d**2
    if kind == "smooth_l1" and parameter:
        return np.where(d < parameter, d**2 / 2 / parameter, d - parameter / 2)
    if kind in ("l1", "smooth_l1"):
        return d
    if kind == "huber":
        return np.where(d <= parameter, d**2 / 2, parameter * (d - parameter / 2))
    return (1 - t) * x + (1 + (positive - 1) * t) * softplus(-x, threshold=np.inf)


def dice_loss(x, target, normalize="softmax", smooth=1.0, ignore_index=-100):
    """Return the losses (N, C) of samples and classes; the target is labels, or masks of x's shape."""
    x = x.astype(np.float64)
    p = {"softmax": softmax, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "none": lambda x: x}[normalize](x)
    p, classes = p.reshape(*p.shape[:2], int(np.prod(p.shape[2:]))), x.shape[1]
    if target.ndim == x.ndim:
        t, counts = target.reshape(p.shape).astype(np.float64), 1.0
    else:
        labels = target.reshape(len(x), p.shape[2])
        counts = (labels != ignore_index)[:, None].astype(np.float64)
        t = labels[:, None] == (np.arange(classes)[None, :, None] if classes > 1 else 1)
    p, t = p * counts, t * counts
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (2 * (p * t).sum(2) + smooth) / (p.sum(2) + t.sum(2) + smooth)


# --- normalisation, dropout, optimiser steps --------------------------------------------------------------


def _along_channels(values, x):
    return np.reshape(values, (1, -1) + (1,) * (x.ndim - 2))


def _sum_channels(a):
    return a.sum(axis=(0, *range(2, a.ndim)))


def batch_norm(x, mean, var, weight=1.0, bias=0.0, eps=1e-5):
    """Return (x - mean) / sqrt(var + eps) * weight + bias; mean and variance are the batch's where None."""
    x = x.astype(np.float64)
    m = x.size // x.shape[1]
    mean = _sum_channels(x) / m if mean is None else mean
    var = _sum_channels((x - _along_channels(mean, x)) ** 2) / m if var is None else var
    xhat = (x - _along_channels(mean, x)) / np.sqrt(_along_channels(np.asarray(var, np.float64) + eps, x))
    return xhat * _along_channels(weight, x) + _along_channels(bias, x)


def batch_norm_backward(g, x, weight=1.0, eps=1e-5):
    """Return the gradients of x, weight and bias in training."""
    xhat = batch_norm(x, None, None, eps=eps)
    std = np.sqrt(np.var(x.astype(np.float64), axis=(0, *range(2, x.ndim))) + eps)
    m = x.size // x.shape[1]
    dweight, dbias = _sum_channels(g * xhat), _sum_channels(g.astype(np.float64))
    dx = g - _along_channels(dbias / m, x) - xhat * _along_channels(dweight / m, x)
    return dx * _along_channels(weight / std, x), dweight, dbias


def dropout_mask(shape, p, generator):
    """Return whether each element stays: its 32 bits of the generator, in C order, are at least p * 2**32."""
    size = int(np.prod(shape))
    words = [int(w) for w in generator.bit_generator.random_raw((size + 1) // 2)]
    halves = [half for w in words for half in (w & 0xFFFFFFFF, w >> 32)]
    return np.array([half >= round(p * 2**32) for half in halves[:size]]).reshape(shape)


def sgd(p, g, buffer, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, first_step=False):
    """Return the new parameter and buffer, as torch.optim.SGD."""
    g = g + weight_decay * p
    if buffer is None:
        return p - lr * g, None
    buffer = g if first_step else momentum * buffer + (1 - dampening) * g
    return p - lr * (g + momentum * buffer if nesterov else buffer), buffer


def adam(p, g, m, v, lr, beta1, beta2, eps, weight_decay, step, decoupled):
    """Return the new parameter and the two averages, as torch.optim.Adam and AdamW."""
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    mhat, vhat = m / (1 - beta1**step), v / (1 - beta2**step)
    return p - lr * mhat / (np.sqrt(vhat) + eps), m, v


def rmsprop(p, g, square, buffer, average, lr, alpha, eps, weight_decay, momentum):
    """Return the new parameter, square, momentum buffer and gradient average, as torch.optim.RMSprop."""
    g = g + weight_decay * p
    square = alpha * square + (1 - alpha) * g**2
    spread = square
    if average is not None:
        average = alpha * average + (1 - alpha) * g
        spread = np.maximum(square - average**2, 0)
    step = g / (np.sqrt(spread) + eps)
    if buffer is not None:
        step = buffer = momentum * buffer + step
    return p - lr * step, square, buffer, average


def adagrad(p, g, total, lr, lr_decay, eps, weight_decay, step):
    """Return the new parameter and sum of squares, as torch.optim.Adagrad."""
    g = g + weight_decay * p
    total = total + g**2
    return p - lr / (1 + (step - 1) * lr_decay) * g / (np.sqrt(total) + eps), total


# --- residual cores ---------------------------------------------------------------------------------------


def residual_core(weights, h, g, alpha, activation, rate, weight_decay=0.0, bias_decay=0.0):
    """One step of SGD: (h after all layers, new weights, gradient of h before them), float64 or as given.

    weights (L, D * D + D), h and g (N, D): state before the layers, gradient after them.
    """
    act = {"softsign": lambda z: z / (1 + abs(z)), "tanh": np.tanh, "relu": lambda z: np.maximum(z, 0)}[activation]
    slope = {
        "softsign": lambda z: 1 / (1 + abs(z)) ** 2,
        "tanh": lambda z: 1 - np.tanh(z) ** 2,
        "relu": lambda z: (z > 0).astype(z.dtype),
    }[activation]
    d = h.shape[1]
    states, sums = [], []
    for row in weights:
        z = h @ row[: d * d].reshape(d, d) + row[d * d :]
        states.append(h)
        sums.append(z)
        h = h + alpha * act(z)
    new = weights.copy()
    for i in reversed(range(len(weights))):
        dz = g * alpha * slope(sums[i])
        new[i, : d * d] -= rate * ((states[i].T @ dz).ravel() + weight_decay * weights[i, : d * d])
        new[i, d * d :] -= rate * (dz.sum(axis=0) + bias_decay * weights[i, d * d :])
        g = g + dz @ weights[i, : d * d].reshape(d, d).T
    return h, new, g


# --- normalisation of samples by their own statistics ---------------------------------------------------------


def _normalised(x, axes, eps):
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(var + eps), np.sqrt(var + eps)


def _normalised_backward(g, xhat, deviation, axes):
    return (g - g.mean(axes, keepdims=True) - xhat * (g * xhat).mean(axes, keepdims=True)) / deviation


def group_norm(x, groups, weight=None, bias=None, eps=1e-5, grad=None):
    """Return the normalised groups of channels, or with a gradient those of x, weight and bias."""
    shape = (x.shape[0], groups, -1) if x.size else (0, groups, x[0:1].size)
    xhat, deviation = _normalised(x.reshape(shape), 2, eps)
    per_channel = (1, -1) + (1,) * (x.ndim - 2)
    factor = 1.0 if weight is None else weight.reshape(per_channel)
    if grad is None:
        return xhat.reshape(x.shape) * factor + (0.0 if bias is None else bias.reshape(per_channel))
    others = (0, *range(2, x.ndim))
    gx = _normalised_backward((grad * factor).reshape(shape), xhat, deviation, 2).reshape(x.shape)
    return gx, (grad * xhat.reshape(x.shape)).sum(others), grad.sum(others)


def layer_norm(x, shape, weight=None, bias=None, eps=1e-5, grad=None):
    """Return x normalised over its last axes, or with a gradient those of x, weight and bias."""
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    xhat, deviation = _normalised(x, axes, eps)
    factor = 1.0 if weight is None else weight
    if grad is None:
        return xhat * factor + (0.0 if bias is None else bias)
    others = tuple(range(x.ndim - len(shape)))
    gx = _normalised_backward(grad * factor, xhat, deviation, axes)
    return gx, (grad * xhat).sum(others), grad.sum(others)


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0, grad=None):
    """Return x over a power of its neighbours' mean square, or the gradient; channel by channel."""
    windows = [range(max(0, c - size // 2), min(x.shape[1], c + (size - 1) // 2 + 1)) for c in range(x.shape[1])]
    s = np.stack([k + alpha / size * (x[:, list(w)] ** 2).sum(1) for w in windows], 1)
    if grad is None:
        return x * s**-beta
    gx = grad * s**-beta
    for c, window in enumerate(windows):
        for other in window:
            gx[:, other] -= 2 * alpha * beta / size * x[:, other] * (grad * x * s ** (-beta - 1))[:, c]
    return gx
