"""Steps of optimisers."""

import numpy as np
import reference as ref

from .drawing import DRAWS, Call, Unchecked, c_order, draws, f64


def sane(a, *names):
    """Settings as floats, if they are of a size for which float32 and float64 agree."""
    values = {name: float(a[name]) for name in names}
    if not all(0 <= v < 100 for v in values.values()) or ("eps" in values and values["eps"] < 1e-8):
        raise Unchecked
    return values


def stepping(name, states, settings, twin, optional=()):
    def make(d):
        shape = d.shape()
        args = {"param": c_order(d.whole(*shape)), "grad": c_order(d.whole(*shape))}
        args |= {state: c_order(d.positive(*shape)) for state in states}
        for state in optional:
            args[state] = d.maybe(args[state])
        args |= {key: draw(d) for key, draw in settings.items()}
        return Call(args, twin, ("param", *states), 2000.0)

    DRAWS[name] = make


def number(*values):
    return lambda d: d.one_of(*values)


def results(names, values):
    return None, {name: value for name, value in zip(names, values, strict=True) if value is not None}


def sgd_twin(a):
    s = sane(a, "lr", "momentum", "dampening", "weight_decay")
    values = ref.sgd(f64(a["param"]), f64(a["grad"]), f64(a["momentum_buffer"]), nesterov=bool(a["nesterov"]),
                     first_step=bool(a["first_step"]), **s)  # fmt: skip
    return results(("param", "momentum_buffer"), values)


def adam_twin(a):
    s = sane(a, "lr", "beta1", "beta2", "eps", "weight_decay")
    values = ref.adam(f64(a["param"]), f64(a["grad"]), f64(a["m"]), f64(a["v"]), step=int(a["step"]),
                      decoupled=bool(a["decoupled"]), **s)  # fmt: skip
    return results(("param", "m", "v"), values)


def rmsprop_twin(a):
    s = sane(a, "lr", "alpha", "eps", "weight_decay", "momentum")
    states = ("square_avg", "momentum_buffer", "grad_avg")
    values = ref.rmsprop(f64(a["param"]), f64(a["grad"]), *(f64(a[k]) for k in states), **s)
    if a["grad_avg"] is not None:
        raise Unchecked  # the spread cancels, and its root has no digits left
    return results(("param", *states), values)


def adagrad_twin(a):
    s = sane(a, "lr", "lr_decay", "eps", "weight_decay")
    values = ref.adagrad(f64(a["param"]), f64(a["grad"]), f64(a["state_sum"]), step=int(a["step"]), **s)
    return results(("param", "state_sum"), values)


STEP = {"step": number(1, 2, 10)}
stepping("sgd_step", ("momentum_buffer",), {
    "lr": number(0.5, 0.1), "momentum": number(0.0, 0.5), "dampening": number(0.0, 0.5),
    "weight_decay": number(0.0, 0.5), "nesterov": number(False, False, True),
    "first_step": number(False, True)}, sgd_twin, ("momentum_buffer",))
stepping("adam_step", ("m", "v"), {
    "lr": number(0.5, 0.1), "beta1": number(0.5, 0.9), "beta2": number(0.5, 0.75), "eps": number(0.5, 1e-8),
    "weight_decay": number(0.0, 0.5), **STEP, "decoupled": number(False, True)}, adam_twin)
stepping("rmsprop_step", ("square_avg", "momentum_buffer", "grad_avg"), {
    "lr": number(0.5, 0.1), "alpha": number(0.5, 0.75), "eps": number(0.5, 1e-8), "weight_decay": number(0.0, 0.5),
    "momentum": number(0.0, 0.5)}, rmsprop_twin, ("momentum_buffer", "grad_avg"))
stepping("adagrad_step", ("state_sum",), {
    "lr": number(0.5, 0.1), "lr_decay": number(0.0, 0.5), "eps": number(0.5, 1e-8), "weight_decay": number(0.0, 0.5),
    **STEP}, adagrad_twin)  # fmt: skip


@draws("ema_step")
def _(d):
    shape = d.shape()
    args = {"average": c_order(d.whole(*shape)), "param": d.whole(*shape), "decay": d.one_of(0.0, 0.25, 0.75, 1.0)}

    def twin(a):
        decay = float(a["decay"])
        return None, {"average": decay * f64(a["average"]) + (1 - decay) * f64(a["param"])}

    return Call(args, twin, ("average",), 64.0)


@draws("vector_norm")
def _(d):
    args = {"x": d.whole(*d.shape()), "ord": d.one_of(1, 2, np.inf)}

    def twin(a):
        x = abs(f64(a["x"]).reshape(-1))
        if x.size and np.nanmax(np.where(np.isfinite(x), x, 0)) > 1e15:
            raise Unchecked  # squares beyond float32
        if not x.size:
            return 0.0, {}
        return {1: x.sum(), 2: np.sqrt((x**2).sum())}.get(float(a["ord"]), x.max()), {}

    return Call(args, twin, (), 64.0)
