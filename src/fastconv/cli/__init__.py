"""The command ``fastconv``. Commands import what they need when they run, so that ``--help`` is quick."""

import click

from fastconv._version import __version__
from fastconv.cli.board import board
from fastconv.cli.check import check
from fastconv.cli.common import Commands
from fastconv.cli.deep import deep
from fastconv.cli.mlp import mlp
from fastconv.cli.plot import plot
from fastconv.cli.report import report
from fastconv.cli.runs import runs
from fastconv.cli.search import search
from fastconv.cli.show import info, models
from fastconv.cli.train import train
from fastconv.cli.use import evaluate, export, predict

__all__ = ["main"]


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(cls=Commands, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="fastconv")
def main() -> None:
    """Train convolutional nets on CPUs; one seed, one result, on any threads and instruction set."""


for command in (check, train, search, evaluate, predict, export, runs, plot, report, board, deep, mlp, models, info):
    main.add_command(command)
