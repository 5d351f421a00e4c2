"""Residual nets of any depth: pixels -> linear + tanh -> L residual layers of width D -> linear -> classes.

Weights live in memory or in a mapped file that may be larger than memory; training is exact SGD, the same bits
either way. A net on disk is a file of layers, a file of the head and a record beside them (`files`).
"""

from fastconv.deep.evaluation import evaluate, inspect
from fastconv.deep.files import Paths, Record, TornError
from fastconv.deep.head import Head
from fastconv.deep.net import DeepNet
from fastconv.deep.run import DeepRun
from fastconv.deep.training import Training, create
from fastconv.steps import Report

__all__ = [
    "DeepNet", "DeepRun", "Head", "Paths", "Record", "Report", "TornError", "Training", "create", "evaluate", "inspect",
]  # fmt: skip
