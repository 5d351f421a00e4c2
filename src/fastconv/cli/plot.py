"""``fastconv plot``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastconv.cli.common import Place, json_option, print_json, set_threads, threads_option, usage_errors
from fastconv.cli.names import Names
from fastconv.paths import inside, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FOLDER = Place(exists=True, file_okay=False)


@click.command()
@click.argument("folders", type=_FOLDER, nargs=-1, required=True, metavar="RUN...")
@click.option("--out", type=Place(), metavar="DIR", help="Where to write; RUN/plots by default.")
@click.option(
    "--only", multiple=True, type=Names("picture", "viz:RUN_PICTURES"), metavar="NAME",
    help="A picture to draw (repeatable); all by default.",
)  # fmt: skip
@click.option("--format", "kind", type=click.Choice(["png", "svg", "pdf"]), default="png", help="png by default.")
@click.option("--samples", type=click.IntRange(min=1), default=2000, help="Test images to look at; 2000 by default.")
@threads_option
@json_option
def plot(
    folders: tuple[Path, ...],
    out: Path | None,
    only: tuple[str, ...],
    kind: str,
    samples: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Draw pictures of runs: how they learned, what they learned, what they get wrong.

    \b
    curves       loss and accuracy; of several runs also together
    updates      size of updates in relation to the weights, where the run was watched
    gradients    norms of the gradients, likewise
    dead         share of dead units, likewise
    filters      of the first convolution
    maps         what the layers make of one image
    units        hidden units over samples, their correlation, dead ones
    activations  histograms of what the layers put out
    sparsity     magnitudes of the first fully connected layer
    templates    weights of a net of one layer
    mean         mean and deviation of the training images
    confusion    confusion matrix with the most frequent mistakes
    predictions  predicted against true numbers, and their errors
    mistakes     the images it is most wrong about
    saliency     saliency maps and guided back-propagation

    What a run has nothing to show for is left out with a word of reason.
    """
    set_threads(threads)
    people = sys.stderr if as_json else sys.stdout
    with usage_errors():
        from fastconv import viz
        from fastconv.train.run import PLOTS

        runs = [viz.RunPictures(folder, samples) for folder in folders]
        places = [out or inside(run.folder, PLOTS) for run in runs]
    written: list[str] = []
    skipped: dict[str, str] = {}

    def keep(path: Path, figure: Figure) -> None:
        with usage_errors():
            viz.save(figure, path)
        written.append(str(path))
        click.echo(printable(path), file=people)

    several = len(runs) > 1
    if several and (not only or "curves" in only):
        keep(places[0] / f"runs.{kind}", viz.curves([run.record for run in runs]))
    for name, run, place in zip(viz.run_names([run.record for run in runs]), runs, places, strict=True):
        into = place / name if several and out is not None else place
        for picture in only or viz.RUN_PICTURES:
            try:
                figure = run.draw(picture)
            except viz.Missing as reason:
                skipped[f"{name}: {picture}"] = str(reason)
                click.echo(printable(f"no {picture} of {name}: {reason}"), err=True)
                continue
            keep(into / f"{picture}.{kind}", figure)
    if as_json:
        print_json({"pictures": written, "skipped": skipped})
