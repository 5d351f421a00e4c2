"""``fastconv report``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastconv.cli.common import Number, Place, json_option, print_json, usage_errors
from fastconv.paths import printable

if TYPE_CHECKING:
    from fastconv.viz.report import Report


@click.command()
@click.argument("runs_dir", type=Place())
@click.option(
    "-o", "--out", type=Place(dir_okay=False), default="report.html", show_default=True,
    help="The page; replaced whole.",
)  # fmt: skip
@click.option("--title", help="Of the page; the folder's name by default.")
@click.option(
    "--watch", type=Number(min=1, max=86_400), is_flag=False, flag_value=10.0, metavar="[SECONDS]",
    help="Write it again when runs have changed, looking every 10 s or as given, until Ctrl-C.",
)  # fmt: skip
@json_option
def report(runs_dir: Path, out: Path, title: str | None, watch: float | None, as_json: bool) -> None:
    """Put all runs of RUNS_DIR on one page.

    RUNS_DIR holds run folders, at any depth, as 'fastconv train --out' and 'fastconv search' make them. The
    page is one file that needs no network: curves coloured by health, sorted by what they are judged by; each
    run in full; a table; what a search found; chosen runs over each other.
    """
    with usage_errors():
        from fastconv.viz.report import Report

        page = Report(runs_dir, title)
        runs = page.write(out, reload=watch)
    click.echo(f"{printable(out)}: {runs} run{'s' * (runs != 1)}, {out.stat().st_size / 1e6:.1f} MB", err=as_json)
    if watch is not None:
        _watch(page, out, watch, as_json)
    if as_json:
        print_json({"out": str(out), "runs": runs, "bytes": out.stat().st_size})


def _watch(page: Report, out: Path, seconds: float, as_json: bool) -> None:
    """Go on until Ctrl-C; the page that stays behind does not load itself again."""
    click.echo(f"looking again every {seconds:g} s; Ctrl-C ends it", err=as_json)
    try:
        while True:
            time.sleep(seconds)
            try:
                runs = page.write(out, reload=seconds)
            except OSError as error:  # a folder or disk may come back; runs go on anyway
                click.echo(printable(f"not written: {error}"), err=True)
                continue
            if runs is not None:
                click.echo(f"{time.strftime('%H:%M:%S')}  {runs} run{'s' * (runs != 1)}", err=as_json)
    except KeyboardInterrupt:
        with usage_errors():
            page.write(out)
        click.echo(f"{printable(out)}: last written", err=as_json)
