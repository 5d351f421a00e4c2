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


def weights_of(a):
    """The settings of a cross-entropy, as its twin takes them."""
    smoothing = float(a["label_smoothing"])
    return {"weight": a["weight"], "ignore_index": int(a["ignore_index"]), "label_smoothing": smoothing,
            "sample_weight": a["sample_weight"]}  # fmt: skip


def target_of(a):
    return f64(a["target"]) if a["target"].dtype.kind == "f" else a["target"].astype(np.int64)


def weighted_draw(d):
    shape, rows, args = loss_draw(d)
    if d.chance(0.3):
        args["target"] = np.abs(d.whole(*shape)) / d.dtype(4)
    elif args["target"].size and d.chance(0.3):
        args["target"].flat[0] = 5
    weight, sample = d.maybe(d.positive(shape[1]), 0.3), d.maybe(d.positive(*d.one_of(rows, rows[:1])), 0.3)
    args |= dict(weight=weight, ignore_index=d.one_of(-100, 5), label_smoothing=d.one_of(0.0, 0.0, 0.25),
                 sample_weight=sample)  # fmt: skip
    if args["target"].dtype.kind != "f" and (args["target"] >= shape[1]).any():
        args["ignore_index"] = 5
    return shape, rows, args


@draws("cross_entropy")
def _(d):
    shape, rows, args = weighted_draw(d)
    out = d.maybe(d.whole(*rows)) if args["reduction"] == "none" else None
    args |= dict(probabilities=d.maybe(d.whole(*shape)), out=out)

    def twin(a):
        x, target = f64(a["input"]), target_of(a)
        losses, share = ref.weighted_cross_entropy(x, target, **weights_of(a))
        result, contents = reduced(losses, a)
        if a["reduction"] == "mean":
            result = losses.sum() / share if share else np.nan
        p = ref.softmax(x)
        if target.ndim < x.ndim and not plain(a):
            p = np.where(np.expand_dims(target != int(a["ignore_index"]), 1), p, 0)
        return result, {**contents, "probabilities": p}

    return Call(args, twin, ("out", "probabilities"), 512.0)


def plain(a):
    """Whether nothing is left out or weighed, so that even rows of the label left out would be computed."""
    return not (target_of(a) == int(a["ignore_index"])).any() and a["weight"] is None


@draws("cross_entropy_backward")
def _(d):
    shape, rows, args = weighted_draw(d)
    args = dict(grad_output=d.whole(*rows) if args["reduction"] == "none" else d.one_of(1.0, 2.5), **args,
                probabilities=d.maybe(d.whole(*shape)), grad_input=d.maybe(d.whole(*shape)))  # fmt: skip

    def twin(a):
        x, target, how = f64(a["input"]), target_of(a), weights_of(a)
        p = ref.softmax(x) if a["probabilities"] is None else f64(a["probabilities"])
        if x.shape[1] > 4096:
            raise Unchecked
        smoothing, axes = how["label_smoothing"], (1, -1) + (1,) * (x.ndim - 2)
        w = (np.ones(x.shape[1]) if how["weight"] is None else f64(how["weight"])).reshape(axes)
        count = ref.weighted_cross_entropy(x, target, **how)[1]
        if target.ndim == x.ndim:
            q, counts = target, np.ones((len(x), *x.shape[2:]))
        else:
            counts = target != how["ignore_index"]
            q = np.moveaxis(np.eye(x.shape[1])[np.where(counts, target, 0)], -1, 1)
            w = w if smoothing else (w * q).sum(1, keepdims=True)
        share = (1 - smoothing) * q * w + (smoothing / x.shape[1] * w if smoothing else 0)
        if target.ndim < x.ndim and smoothing:  # the label's own term has the label's weight
            share = (1 - smoothing) * q * (w * q).sum(1, keepdims=True) + smoothing / x.shape[1] * w
        g = row_scale({**a, "reduction": "sum"} if a["reduction"] == "mean" else a, 1)
        if a["reduction"] == "mean":
            g = g / count if count else np.nan
        gx = (p * share.sum(1, keepdims=True) - share) * g
        if (s := how["sample_weight"]) is not None:
            gx = gx * (f64(s).reshape(-1, *(1,) * (x.ndim - 1)) if s.ndim == 1 else np.expand_dims(f64(s), 1))
        gx = np.where(np.expand_dims(counts > 0, 1), gx, 0)
        return gx, {"grad_input": gx}

    return Call(args, twin, ("grad_input",), 512.0)


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


def weights_of_elements(a, losses):
    """The losses of elements times their weights, and what the mean is divided by."""
    count = float(losses.size)
    if a.get("weight") is not None:
        losses = losses * f64(a["weight"])
    if (s := a["sample_weight"]) is not None:
        s = f64(s)
        s = np.broadcast_to(s.reshape(*s.shape, *(1,) * (losses.ndim - s.ndim)), losses.shape)
        losses, count = losses * s, s.sum()
    return losses, count


def limit_of(a, name):
    value = float(a[name]) if name else 0.0
    if not value < 1e6:
        raise Unchecked
    return value


def elements(name, kind, setting=None):
    def make(d, *own):
        shape, how = d.shape(), d.one_of("mean", "sum", "none")
        args = dict(input=d.whole(*shape), target=d.whole(*shape), reduction=how,
                    sample_weight=d.maybe(d.positive(*d.one_of(shape, shape[:1])), 0.3))  # fmt: skip
        args |= {setting: d.one_of(0.5, 1.0, 2.0)} if setting else {}
        if kind == "bce":
            args |= dict(weight=d.maybe(d.positive(*shape[1:]), 0.3), pos_weight=d.maybe(d.positive(*shape[1:]), 0.3))
        return shape, args

    def pos(a):
        return 1.0 if a.get("pos_weight") is None else f64(a["pos_weight"])

    @draws(name)
    def _(d):
        shape, args = make(d)
        args["out"] = d.maybe(d.whole(*shape)) if args["reduction"] == "none" else None

        def twin(a):
            losses = ref.element_loss(kind, f64(a["input"]), f64(a["target"]), limit_of(a, setting), pos(a))
            losses, count = weights_of_elements(a, losses)
            result, contents = reduced(losses, a)
            if a["reduction"] == "mean":
                result = losses.sum() / count if count else np.nan
            return result, contents

        return Call(args, twin, ("out",), 2000.0)

    @draws(f"{name}_backward")
    def _(d):
        shape, args = make(d)
        g = d.whole(*shape) if args["reduction"] == "none" else d.one_of(1.0, 2.5)
        args = {"grad_output": g, **args, "grad_input": d.maybe(d.whole(*shape))}

        def twin(a):
            x, t, c = f64(a["input"]), f64(a["target"]), limit_of(a, setting)
            difference = x - t
            if kind == "mse":
                slope = 2 * difference
            elif kind == "bce":
                slope = (1 + (pos(a) - 1) * t) / (1 + np.exp(-x)) - pos(a) * t
            else:
                inside = abs(difference) <= c if kind == "huber" else abs(difference) < c
                near = difference if kind == "huber" else difference / (c or 1)
                slope = np.where(inside, near, (c if kind == "huber" else 1) * np.sign(difference))
            slope, count = weights_of_elements(a, slope)
            if a["reduction"] == "none":
                dx = slope * f64(a["grad_output"])
            else:
                g = row_scale({**a, "reduction": "sum"}, 1)
                dx = slope * (g / count if count else np.nan) if a["reduction"] == "mean" else slope * g
            return dx, {"grad_input": dx}

        return Call(args, twin, ("grad_input",), 2000.0)


elements("mse_loss", "mse")
elements("l1_loss", "l1")
elements("smooth_l1_loss", "smooth_l1", "beta")
elements("huber_loss", "huber", "delta")
elements("binary_cross_entropy_with_logits", "bce")


def dice_draw(d):
    shape, _, args = loss_draw(d)
    normalize = "sigmoid" if shape[1] == 1 else d.one_of("softmax", "sigmoid", "none")
    if d.chance(0.3):
        args["target"] = np.abs(d.whole(*shape)) / d.dtype(4)
    if normalize == "none":
        args["input"] = np.abs(args["input"]) / d.dtype(4)
    args |= dict(normalize=normalize, smooth=d.one_of(1.0, 0.5), ignore_index=-100,
                 sample_weight=d.maybe(d.positive(shape[0]), 0.3))  # fmt: skip
    return shape, args


def dice_weights(a, losses):
    if a["sample_weight"] is None:
        return losses, losses.size
    s = f64(a["sample_weight"])[:, None]
    return losses * s, s.sum() * losses.shape[1]


def dice_settings(a):
    smooth = float(a["smooth"])
    if not 0 < smooth < 1e6:
        raise Unchecked
    return {"normalize": a["normalize"], "smooth": smooth, "ignore_index": int(a["ignore_index"])}


@draws("dice_loss")
def _(d):
    shape, args = dice_draw(d)
    args["out"] = d.maybe(d.whole(*shape[:2])) if args["reduction"] == "none" else None

    def twin(a):
        losses, count = dice_weights(a, ref.dice_loss(f64(a["input"]), target_of(a), **dice_settings(a)))
        result, contents = reduced(losses, a)
        if a["reduction"] == "mean":
            result = losses.sum() / count if count else np.nan
        return result, contents

    return Call(args, twin, ("out",), 2000.0)


@draws("dice_loss_backward")
def _(d):
    shape, args = dice_draw(d)
    g = d.whole(*shape[:2]) if args["reduction"] == "none" else d.one_of(1.0, 2.5)
    args = {"grad_output": g, **args, "grad_input": d.maybe(d.whole(*shape))}

    def twin(a):
        x, target, how = f64(a["input"]), target_of(a), dice_settings(a)
        if not (np.isfinite(x).all() and np.isfinite(f64(a["grad_output"])).all()):
            raise Unchecked
        losses, count = dice_weights(a, np.ones(x.shape[:2]))
        g = f64(a["grad_output"]) if a["reduction"] == "none" else row_scale({**a, "reduction": "sum"}, 1)
        g = losses * g / (count or np.nan if a["reduction"] == "mean" else 1)
        p = {"softmax": ref.softmax, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "none": lambda x: x}
        p = p[how["normalize"]](x).reshape(*x.shape[:2], int(np.prod(x.shape[2:])))
        if target.ndim == x.ndim:
            t, counts = target.reshape(p.shape), np.ones((len(x), 1, p.shape[2]))
        else:
            labels = target.reshape(len(x), 1, p.shape[2])
            counts = (labels != how["ignore_index"]).astype(np.float64)
            t = counts * (labels == (np.arange(x.shape[1])[None, :, None] if x.shape[1] > 1 else 1))
        whole = ((p * counts).sum(2) + t.sum(2) + how["smooth"])[:, :, None]
        over = (2 * (p * t).sum(2) + how["smooth"])[:, :, None]
        own = 2 * t / whole
        if target.ndim != x.ndim:  # a class that no label names has no such term, even where nothing is to divide by
            own = np.where(t == 0, 0.0, own)
        dp = counts * g[:, :, None] * (over / whole**2 - own)
        if how["normalize"] == "softmax":
            dp = p * (dp - (dp * p).sum(1, keepdims=True))
        elif how["normalize"] == "sigmoid":
            dp = dp * p * (1 - p)
        gx = dp.reshape(x.shape)
        return gx, {"grad_input": gx}

    return Call(args, twin, ("grad_input",), 4000.0)
