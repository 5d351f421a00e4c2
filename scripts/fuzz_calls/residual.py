"""Residual cores and their blocks."""

import numpy as np
import reference as ref

from fastconv.functional import residual

from .drawing import Call, Unchecked, draws, f64


def core_of(d):
    layers, width = d.size(3), d.one_of(1, 2, 3, 4, 5, 8)
    core = residual.ResidualCore(width, layers, 0.5, d.one_of(*residual.ACTIVATIONS))
    weights = (d.whole(layers, core.row, most=2) / d.dtype(4)).copy()
    state = (d.whole(d.size(3), width, 16, most=2) / d.dtype(2)).copy()
    return core, weights, state


def unblocked(h):
    return h.transpose(0, 2, 1).reshape(-1, h.shape[1])


def blocked(x, shape):
    return x.reshape(shape[0], 16, shape[1]).transpose(0, 2, 1)


@draws("residual_forward")
def _(d):
    core, weights, h = core_of(d)
    chunk = d.one_of(1, 2, core.layers)
    marks = np.zeros((-(-core.layers // chunk), *h.shape), d.dtype)
    args = dict(core=core, weights=weights, h=h, chunk=chunk, marks=d.maybe(marks))

    def twin(a):
        core, x = a["core"], unblocked(f64(a["h"]))
        w = f64(a["weights"])
        after = ref.residual_core(w, x, x, core.factor, core.activation, 0.0)[0]
        y = blocked(after, a["h"].shape)
        contents = {"h": y}
        if isinstance(a["marks"], np.ndarray):
            if a["chunk"] is None:
                raise Unchecked
            chunk = min(int(a["chunk"]), max(len(w), 1))
            starts = range(0, len(w), chunk)
            states = [ref.residual_core(w[:i], x, x, core.factor, core.activation, 0.0)[0] for i in starts]
            contents["marks"] = np.array([blocked(s, a["h"].shape) for s in states]).reshape(a["marks"].shape)
        return y, contents

    return Call(args, twin, ("h", "marks"), 256.0)


@draws("residual_backward")
def _(d):
    core, weights, h = core_of(d)
    chunk = d.one_of(1, 2, core.layers)
    marks = np.zeros((-(-core.layers // chunk), *h.shape), d.dtype)
    residual.residual_forward(core, weights, h, chunk=chunk, marks=marks)
    args = dict(core=core, weights=weights, g=(d.whole(*h.shape, most=2) / d.dtype(2)).copy(), marks=marks,
                rate=d.one_of(0.0, 0.5), weight_decay=d.one_of(0.0, 0.25), bias_decay=d.one_of(0.0, 0.5), chunk=chunk,
                updated=d.maybe(np.zeros_like(weights)),
                workspace=d.maybe(residual.backward_workspace(core, h.shape[0] * 16, chunk, d.dtype)))  # fmt: skip

    def twin(a):
        core, marks, w, rate = a["core"], f64(a["marks"]), f64(a["weights"]), float(a["rate"])
        g, decay = unblocked(f64(a["g"])), (float(a["weight_decay"]), float(a["bias_decay"]))
        if not max(abs(rate), *decay) < 1e6:
            raise Unchecked
        new, chunk = w.copy(), min(int(a["chunk"]), max(len(w), 1))
        for i in reversed(range(len(marks))):
            part = slice(i * chunk, (i + 1) * chunk)
            h = unblocked(marks[i])
            _, new[part], g = ref.residual_core(w[part], h, g, core.factor, core.activation, rate, *decay)
        before = blocked(g, a["g"].shape)
        contents = {"g": before, "weights" if a["updated"] is None else "updated": new, "workspace": ...}
        return before, contents

    return Call(args, twin, ("g", "updated", "weights"), 1000.0)


@draws("to_blocks")
def _(d):
    args = dict(x=d.whole(d.batch() * d.size(9), d.size(9)), pad=d.one_of("repeat", "zero"))

    def twin(a):
        x = f64(a["x"])
        n = len(x)
        rows = np.zeros((-(-n // 16) * 16, x.shape[1]))
        rows[:n] = x
        if n and a["pad"] == "repeat":
            rows[n:] = x[-1]
        return rows.reshape(-1, 16, x.shape[1]).transpose(0, 2, 1), {}

    return Call(args, twin)


@draws("from_blocks")
def _(d):
    blocks = d.size(3)
    args = dict(h=d.whole(blocks, d.size(9), 16), samples=int(d.rng.integers(0, 16 * blocks + 1)))
    return Call(args, lambda a: (unblocked(f64(a["h"]))[: int(a["samples"])], {}))
