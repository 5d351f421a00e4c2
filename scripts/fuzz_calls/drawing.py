"""What the draws of every family share: sizes and arrays of one call, and what twins do to results and gradients."""

from dataclasses import dataclass

import numpy as np

DRAWS = {}


class Unchecked(Exception):
    """The twin has nothing to say."""


@dataclass
class Call:
    """A call to be made.

    Attributes
    ----------
    args : dict
        Everything that may be bent, by name; the twin takes it.
    twin : callable or None
    written : tuple of str
    ulps : float
        How far results may be off, in units of the largest number's last place.
    given : callable
        Makes of `args` what the function takes, (positional, by name), where that is not `args` itself.
    repeats : str
        The function whose arguments a backward call repeats, if errors may name that.
    """

    args: dict
    twin: object
    written: tuple = ()
    ulps: float = 0.0
    given: object = lambda args: ((), args)
    repeats: str = ""


class Draw:
    """Sizes and arrays of one call, all of one dtype."""

    def __init__(self, rng):
        self.rng = rng
        self.dtype = np.float32 if rng.random() < 0.7 else np.float64

    def size(self, most=6):
        return int(self.rng.integers(1, most + 1))

    def batch(self):
        return int(self.rng.integers(0, 4))

    def channels(self):
        return int(self.rng.choice([1, 2, 3, 4, 8, 17, 33]))

    def chance(self, p=0.5):
        return bool(self.rng.random() < p)

    def one_of(self, *values):
        return values[self.rng.integers(len(values))]

    def whole(self, *shape, most=4):
        """Whole numbers, 4-d ones over NHWC memory."""
        a = self.rng.integers(-most, most + 1, shape).astype(self.dtype)
        return nhwc(a) if len(shape) == 4 else a

    def placed(self, *shape):
        """Whole numbers as results lie: channels last where there are three or four axes."""
        return self.whole(shape[0], shape[1], 1, shape[2])[:, :, 0] if len(shape) == 3 else self.whole(*shape)

    def real(self, *shape):
        """Any numbers, some of them special."""
        a = self.rng.normal(size=shape).astype(self.dtype) * self.one_of(1, 1, 30, 1000)
        if self.chance(0.2) and a.size:
            a.flat[self.rng.integers(a.size)] = self.one_of(np.nan, np.inf, -np.inf, 0.0, -0.0)
        return nhwc(a) if len(shape) == 4 else a

    def positive(self, *shape):
        return np.abs(self.whole(*shape)) + self.dtype(1)

    def maybe(self, array, p=0.5):
        return array if self.chance(p) else None

    def shape(self):
        """Any number of dimensions, none but the first empty."""
        rank = int(self.rng.integers(1, 6))
        return (self.batch(), *(self.size(5) for _ in range(rank - 1)))


def nhwc(a):
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def draws(name):
    def register(function):
        DRAWS[name] = function
        return function

    return register


def f64(a):
    return None if a is None else np.asarray(a, np.float64)


def channels(values, like):
    return np.reshape(values, (1, -1) + (1,) * (like.ndim - 2))


def two(value):
    return tuple(map(int, value)) if isinstance(value, tuple | list) else (int(value), int(value))


def added(a, name, gradient):
    return gradient if a.get(name) is None else f64(a[name]) + gradient


def gradients_of(a, before, gx, gw, gb):
    """Results and contents of a backward call, `before` being the gradient before the activation."""
    gx = gx if a.get("need_input_grad", True) else None
    gw = added(a, "grad_weight", gw)
    gb = added(a, "grad_bias", gb) if a.get("bias", True) else None
    contents = {"grad_input": gx, "grad_weight": gw, "grad_bias": gb, "grad_add": before}
    return (gx, gw, gb), {name: value for name, value in contents.items() if value is not None}


def c_order(a):
    return np.array(a, order="C")


def rows_or_image(d):
    c = d.channels()
    return (d.batch(), c) if d.chance() else (d.batch(), c, d.size(), d.size())
