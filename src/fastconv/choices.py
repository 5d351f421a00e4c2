"""Names that one may choose by, each list once: for what works by them, and for the help and completion of commands.

It imports nothing, so that ``--help`` is quick. What the names stand for is where they are looked up; a test holds that
nothing is missing there.
"""

from typing import Literal, get_args

Resize = Literal["crop", "pad", "stretch"]

RESIZES: tuple[Resize, ...] = get_args(Resize)
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "adagrad")
SCHEDULES = ("constant", "step", "inverse", "cosine", "restarts", "one-cycle")
INITIALISATIONS = ("default", "small", "lecun", "xavier", "caffe", "kaiming-toolbox", "he", "orthogonal", "lsuv")
ALGORITHMS = ("auto", "direct")
METRICS = ("accuracy", "top5", "f1_macro", "iou", "r2", "mae")
TASKS = ("classification", "regression")
RESIDUAL_ACTIVATIONS = ("softsign", "tanh", "relu")
SAMPLERS = ("random", "grid", "tpe")
PRUNERS = ("none", "median", "halving")
