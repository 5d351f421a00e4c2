"""Losses."""

import numpy as np
import reference as ref

from .drawing import Call, Unchecked, draws, f64


def classes(d):
    shape = (d.batch(), d.size(9), *(d.size(4) for _ in range(d.rng.integers(0, 3))))
    rows = (shape[0], *shape[2:])
    target = d.rng.integers(0, shape[1], rows).astype(d.one_of(np.int64, np.int32, np.uint8, np.int8, np.uint64))
    return shape, rows, target


def reduced(losses, a, out="out"):
    how = a.get("reduction", "mean")
    if how == "none":
        return losses, {out: losses}
    if how == "sum":
        return losses.sum(), {}
    return losses.mean() if losses.size else np.nan, {}


def row_scale(a, count):
    """What the gradients of the rows are multiplied by."""
    how, g = a.get("reduction", "mean"), a["grad_output"]
    if how == "none":
        return np.expand_dims(f64(g), 1)
    if not abs(float(g)) < 2**24:  # what cancels before it would be magnified
        raise Unchecked
    return float(g) / (max(count, 1) if how == "mean" else 1)


def loss_draw(d):
    shape, rows, target = classes(d)
    return shape, rows, dict(input=d.whole(*shape), target=target, reduction=d.one_of("mean", "sum", "none"))


@draws("cross_entropy")
def _(d):
    shape, rows, args = loss_draw(d)
    out = d.maybe(d.whole(*rows)) if args["reduction"] == "none" else None
    args |= dict(probabilities=d.maybe(d.whole(*shape)), out=out)

    def twin(a):
        x, target = f64(a["input"]), a["target"].astype(np.int64)
        result, contents = reduced(ref.cross_entropy(x, target), a)
        return result, {**contents, "probabilities": ref.softmax(x)}

    return Call(args, twin, ("out", "probabilities"), 256.0)


@draws("cross_entropy_backward")
def _(d):
    shape, rows, args = loss_draw(d)
    args = dict(grad_output=d.whole(*rows) if args["reduction"] == "none" else d.one_of(1.0, 2.5), **args,
                probabilities=d.maybe(d.whole(*shape)), grad_input=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        x, target = f64(a["input"]), a["target"].astype(np.int64)
        p = ref.softmax(x) if a["probabilities"] is None else f64(a["probabilities"])
        if x.shape[1] > 4096:
            raise Unchecked
        hot = np.moveaxis(np.eye(x.shape[1])[target], -1, 1)
        gx = (p - hot) * row_scale(a, target.size)
        return gx, {"grad_input": gx}

    return Call(args, twin, ("grad_input",), 64.0)


def margin_of(a):
    margin = float(a.get("margin", 1.0))
    if not abs(margin) < 1e20:
        raise Unchecked
    return margin


def by_rows(a):
    return np.moveaxis(a, 1, -1).reshape(-1, a.shape[1])


@draws("multi_margin_loss")
def _(d):
    _, rows, args = loss_draw(d)
    args |= dict(margin=d.one_of(1.0, 0.5), out=d.maybe(d.whole(*rows)) if args["reduction"] == "none" else None)

    def twin(a):
        target = a["target"].astype(np.int64)
        losses = ref.multi_margin_loss(by_rows(f64(a["input"])), target.reshape(-1), margin_of(a))
        return reduced(losses.reshape(target.shape), a)

    return Call(args, twin, ("out",), 256.0)


@draws("multi_margin_loss_backward")
def _(d):
    shape, rows, args = loss_draw(d)
    args = dict(grad_output=d.whole(*rows) if args["reduction"] == "none" else d.one_of(1.0, 2.5), **args,
                margin=d.one_of(1.0, 0.5), grad_input=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        target, x, margin = a["target"].astype(np.int64), f64(a["input"]), margin_of(a)
        flat, labels = by_rows(x), target.reshape(-1)
        every = np.arange(len(flat))
        over = (margin - flat[every, labels][:, None] + flat > 0).astype(np.float64)
        over[every, labels] = 0
        over[every, labels] = -over.sum(1)
        gx = over / x.shape[1]
        gx = np.moveaxis(gx.reshape(x.shape[0], *x.shape[2:], x.shape[1]), -1, 1) * row_scale(a, target.size)
        return gx, {"grad_input": gx}

    return Call(args, twin, ("grad_input",), 64.0)


@draws("mse_loss")
def _(d):
    shape, how = d.shape(), d.one_of("mean", "sum", "none")
    args = dict(input=d.whole(*shape), target=d.whole(*shape), reduction=how,
                out=d.maybe(d.whole(*shape)) if how == "none" else None)  # fmt: skip
    return Call(args, lambda a: reduced((f64(a["input"]) - f64(a["target"])) ** 2, a), ("out",), 64.0)


@draws("mse_loss_backward")
def _(d):
    shape, how = d.shape(), d.one_of("mean", "sum", "none")
    args = dict(grad_output=d.whole(*shape) if how == "none" else d.one_of(1.0, 2.5), input=d.whole(*shape),
                target=d.whole(*shape), reduction=how, grad_input=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        difference = 2 * (f64(a["input"]) - f64(a["target"]))
        g = f64(a["grad_output"]) if a["reduction"] == "none" else row_scale(a, difference.size)
        return difference * g, {"grad_input": difference * g}

    return Call(args, twin, ("grad_input",), 16.0)
