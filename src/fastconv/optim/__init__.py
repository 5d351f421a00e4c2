"""Optimisers: the formulas, defaults and names of PyTorch, one kernel call per step, in place; clipping and averages.

An optimiser moves its parameters into one block of memory per dtype (see ``nn/_flat.py``), those of one group side by
side, and keeps its state in arrays of the same layout, so that a step is one pass per group. Parameters are views of
the block; one that is given another array later is updated there, on its own, and frozen ones are left out: the pass
falls into runs, with the same bits. ``state_dict`` is a flat dictionary of arrays: ``step``, ``lr``,
``<state>.<index>`` in the order of the parameters given, ``updates`` and, where groups have rates of their own,
``group_lr``.

As in PyTorch each parameter has a first step of its own: one that is thawed, or added, later gets the updates of a new
one, one that is frozen for a while goes on from where it was.
"""

from fastconv.optim.averaging import EMA
from fastconv.optim.clipping import clip_grad_norm_, clip_grad_value_
from fastconv.optim.groups import ParamGroup
from fastconv.optim.methods import SGD, Adagrad, Adam, AdamW, RMSprop
from fastconv.optim.optimizer import Optimizer

__all__ = [
    "EMA", "SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "ParamGroup", "RMSprop", "clip_grad_norm_",
    "clip_grad_value_",
]  # fmt: skip
