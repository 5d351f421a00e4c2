"""Builds any layer of `fastconv.nn` from the signature of its constructor, so that tests cannot forget one."""

import inspect

import numpy as np

from fastconv import nn

# What a required argument of a layer is given, by its name: (rng, channels) to value. A layer with an argument of
# another name fails here until it has a line.
REQUIRED = {
    "in_channels": lambda rng, c: c,
    "out_channels": lambda rng, c: int(rng.integers(1, 6)),
    "kernel_size": lambda rng, c: int(rng.integers(1, 4)),
    "in_features": lambda rng, c: c,
    "out_features": lambda rng, c: int(rng.integers(1, 6)),
    "num_features": lambda rng, c: c,
    "width": lambda rng, c: c,
    "layers": lambda rng, c: int(rng.integers(1, 4)),
    "output_size": lambda rng, c: int(rng.integers(1, 4)),
    "body": lambda rng, c: nn.Softsign(),
    "num_groups": lambda rng, c: int(rng.choice([n for n in range(1, c + 1) if c % n == 0])),
    "num_channels": lambda rng, c: c,
    "normalized_shape": lambda rng, c: 6,  # the last axis of the inputs of rank 4 here
    "upscale_factor": lambda rng, c: 1,  # inputs have any number of channels
    "groups": lambda rng, c: int(rng.choice([n for n in range(1, c + 1) if c % n == 0])),
    "padding": lambda rng, c: int(rng.integers(0, 3)),
    "input_channels": lambda rng, c: c,
    "squeeze_channels": lambda rng, c: int(rng.integers(1, 4)),
    "p": lambda rng, c: 0.5,
    "size": lambda rng, c: int(rng.integers(1, 4)),
    "scale_factor": lambda rng, c: int(rng.integers(1, 3)),
}
NEEDED = {nn.Upsample: ["scale_factor"]}  # what a constructor asks for though the argument has a default

# Other arguments that change the way through the code, drawn half the time.
OPTIONAL = {
    "axis": lambda rng, c: int(rng.integers(-2, 2)),
    "bias": lambda rng, c: False,
    "affine": lambda rng, c: False,
    "momentum": lambda rng, c: None,
}
# What does not run, is made of a model, or takes more than one array (MaxUnpool2d: indices).
NO_LAYERS = ("Module", "ModuleList", "ModuleDict", "GraphModule", "MaxUnpool2d")
KINDS = [
    kind
    for name, kind in sorted(vars(nn).items())
    if isinstance(kind, type) and issubclass(kind, nn.Module) and name not in NO_LAYERS
]


def build(kind, rng, channels):
    """Return a layer of this kind for inputs of so many channels, its arguments drawn or at their defaults."""
    if kind is nn.Sequential:
        return nn.Sequential(nn.Softsign(), nn.Tanh())
    parameters = list(inspect.signature(kind).parameters.values())
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    needed += NEEDED.get(kind, [])
    assert set(needed) <= REQUIRED.keys(), f"tests/layers.py: {kind.__name__} needs {needed}, see REQUIRED"
    drawn = [p.name for p in parameters if p.default is not p.empty and p.name in OPTIONAL and rng.random() < 0.5]
    values = {name: OPTIONAL[name](rng, channels) for name in drawn}
    return kind(**{name: REQUIRED[name](rng, channels) for name in needed}, **values)


def ranks(kind):
    """Return the ranks of inputs that a layer of this kind takes, found by trying."""
    found = []
    for rank in (2, 3, 4):
        try:
            build(kind, np.random.default_rng(0), 3)(np.ones((2, 3, 7, 6)[:rank], np.float32))
        except ValueError:
            continue
        found.append(rank)
    assert found, f"{kind.__name__} takes no input of rank 2, 3 or 4"
    return found


def _strided(a):
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


def _unaligned(a):
    raw = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    raw[...] = a
    return raw


LAYOUTS = {
    "C": lambda a: np.array(a, order="C"),
    "channels last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1),
    "Fortran": np.asfortranarray,
    "strided": _strided,
    "backwards": lambda a: a[::-1].copy()[::-1],
    "other byte order": lambda a: a.astype(a.dtype.newbyteorder()),
    "unaligned": _unaligned,
}
"""Memory of the same values: from an array to one of equal shape and contents that can be written to."""
