"""Shuffles and borders that mirror."""

import operator

import numpy as np

from .drawing import Call, draws, f64


def pixels(x, r):
    (n, c, h, w), r = x.shape, operator.index(r)
    return x.reshape(n, c // (r * r), r, r, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // (r * r), h * r, w * r)


def dealt(x, groups):
    (n, c, *sizes), groups = x.shape, operator.index(groups)
    return x.reshape(n, groups, c // groups, *sizes).swapaxes(1, 2).reshape(x.shape)


def mirrored(x, padding):
    sides = tuple(map(int, padding)) if isinstance(padding, tuple | list) else (int(padding),) * 4
    left, right, top, bottom = sides
    return np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), mode="reflect")


def moved(move, setting):
    """The twins of a function that moves elements, and of its gradient, which adds them where they came from."""

    def forward(a):
        y = move(f64(a["input"]), a[setting])
        return y, {"out": y}

    def backward(a):
        x = a["input"]
        sources = move(np.arange(x.size).reshape(x.shape), a[setting]).reshape(-1)
        grad = np.zeros(x.size)
        np.add.at(grad, sources, f64(a["grad_output"]).reshape(-1))
        return grad.reshape(x.shape), {}

    return forward, backward


def register(name, move, setting, draw):
    forward, backward = moved(move, setting)

    @draws(name)
    def _(d):
        x, value = draw(d)
        y = move(np.zeros(x), value).shape
        args = {"input": d.whole(*x), setting: value, "out": d.maybe(d.whole(*y))}
        return Call(args, forward, ("out",))

    @draws(f"{name}_backward")
    def _(d):
        x, value = draw(d)
        y = move(np.zeros(x), value).shape
        args = {"grad_output": d.whole(*y), "input": d.whole(*x), setting: value}
        return Call(args, backward, repeats=name)


def shuffled(d):
    r = d.size(3)
    return (1 + d.batch(), d.size(3) * r * r, d.size(4), d.size(4)), r


def grouped(d):
    groups = d.size(4)
    return (1 + d.batch(), groups * d.size(4), d.size(4), d.size(4)), groups


def bordered(d):
    h, w = d.size(), d.size()
    sides = tuple(int(d.rng.integers(0, n)) for n in (w, w, h, h))
    return (d.batch(), d.channels(), h, w), d.one_of(sides, sides, 0)


register("pixel_shuffle", pixels, "upscale_factor", shuffled)
register("channel_shuffle", dealt, "groups", grouped)
register("reflection_pad2d", mirrored, "padding", bordered)
