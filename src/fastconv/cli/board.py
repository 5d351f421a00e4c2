"""``fastconv board``."""

from __future__ import annotations

import socket
from pathlib import Path

import click

from fastconv.cli.common import Number, Place, json_option, print_json, usage_errors
from fastconv.paths import printable

_HOST = "127.0.0.1"


@click.command()
@click.argument("runs_dir", type=Place())
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="Of this machine; 0 takes a free one."
)
@click.option(
    "--every", type=Number(min=0.2, max=86_400), default=2.0, show_default=True, metavar="SECONDS",
    help="Between two looks.",
)  # fmt: skip
@click.option("--title", help="Of the page; the folder's name by default.")
@click.option("--open", "show", is_flag=True, help="Open the page in the browser, too.")
@json_option
def board(runs_dir: Path, port: int, every: float, title: str | None, show: bool, as_json: bool) -> None:
    """Serve the page of all runs of RUNS_DIR live, on this machine alone.

    It prints the page's address, which nobody else can guess; new points and new runs appear without reloading,
    until Ctrl-C. Nothing is written. RUNS_DIR is as for 'fastconv report', and may be empty yet.
    """
    with usage_errors():
        try:
            from waitress import create_server
        except ImportError as error:
            raise ImportError("fastconv board needs waitress: pip install 'fastconv[board]'") from error
        from fastconv.viz.report.board import Board

        app = Board(runs_dir, title=title, every=every)
    with usage_errors(f"port {port}: "):
        listening = socket.create_server((_HOST, port))
    with listening:
        server = create_server(app, sockets=[listening], threads=4, ident=None)
        app.hosts = frozenset(f"{host}:{server.effective_port}" for host in (_HOST, "localhost"))
        address = f"http://{_HOST}:{server.effective_port}/{app.token}/"
        click.echo(f"{printable(runs_dir)}: {address}\nCtrl-C ends it", err=as_json)
        if as_json:  # at once: who reads it wants to ask there
            print_json({"address": address, "port": server.effective_port})
        try:
            if show:
                click.launch(address)
            server.run()  # until Ctrl-C, after which it lets the answers end that have begun
        finally:
            server.close()
    click.echo("ended", err=as_json)
