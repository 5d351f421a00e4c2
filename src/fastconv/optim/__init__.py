"""Optimisers: the formulas, defaults and names of PyTorch, one kernel call a step, in place.

An optimiser moves its parameters into one block of memory a dtype (see ``nn/_flat.py``) and keeps its state in
arrays of the same layout, so that a step is one pass. Parameters are views of the block; one that is given
another array later is updated there, on its own, and frozen ones are left out: the pass falls into runs, with
the same bits. ``state_dict`` is a flat dictionary of arrays: ``step``, ``lr``, ``<state>.<index>`` and ``updates``.

As in PyTorch each parameter has a first step of its own: one that is thawed later gets the updates of a new one, one
that is frozen for a while goes on from where it was.
"""

from fastconv.optim.methods import SGD, Adagrad, Adam, AdamW, RMSprop
from fastconv.optim.optimizer import Optimizer

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop"]
