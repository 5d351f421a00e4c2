"""``fastconv runs``: look at the folders of runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastconv.cli.common import Commands, Place, json_option, print_json, table, usage_errors
from fastconv.paths import printable
from fastconv.terminal import percent

if TYPE_CHECKING:
    from fastconv.diagnose.compare import Summary
    from fastconv.train import RunRecord

_RUN = Place()
_ROWS = 20  # epochs shown of a longer run


@click.group(cls=Commands)
def runs() -> None:
    """List, show and compare runs that 'fastconv train --out' left, or that go on."""


@runs.command("list")
@click.argument("root", type=_RUN, default=".", metavar="[DIR]")
@json_option
def list_runs(root: Path, as_json: bool) -> None:
    """List all runs at and below DIR, the best first: by validation accuracy, then by loss.

    The running folder is taken by default. 'killed' are runs that ended without a word: 'fastconv train
    --resume' goes on with them, and with interrupted ones.
    """
    with usage_errors():
        from fastconv.diagnose.compare import summarise
        from fastconv.train import find_runs, read_record

        folders = find_runs(root)
    found: list[Summary] = []
    damaged = []
    for folder in folders:
        try:
            found.append(summarise(read_record(folder), _name(folder, root)))
        except (ValueError, OSError) as error:
            damaged.append(str(error))
    found.sort(key=lambda summary: (*summary.rank, summary.name))
    if not found and not as_json:
        click.echo(f"no runs in {printable(root)}")
    elif not as_json:
        click.echo(_listed(found))
    for text in damaged:
        click.echo(f"left out: {printable(text)}", err=True)
    if as_json:
        print_json({"runs": [asdict(summary) for summary in found], "damaged": damaged})


@runs.command()
@click.argument("folder", type=_RUN, metavar="DIR")
@click.option("--all", "everything", is_flag=True, help=f"Show all epochs; a choice of {_ROWS} otherwise.")
@json_option
def show(folder: Path, everything: bool, as_json: bool) -> None:
    """Show the run in DIR: what was asked, how it does, epoch by epoch."""
    with usage_errors():
        from fastconv.diagnose.compare import summarise
        from fastconv.train import read_record

        record = read_record(folder)
        summary = summarise(record)
    if as_json:
        print_json({
            "summary": asdict(summary), "config": record.config, "env": record.env, "result": record.result,
            "history": record.history.records, "events": record.events, "steps": record.steps,
        })  # fmt: skip
        return
    click.echo(_facts(record, summary))
    if len(record.history):
        click.echo("\n" + _epochs(record, summary, everything))
    if record.events:
        click.echo("")
        for event in record.events:
            click.echo(printable(f"step {event.get('step') or 0:>6}  {event.get('event')}: {event.get('text')}"))


@runs.command()
@click.argument("folders", type=_RUN, nargs=-1, required=True, metavar="DIR DIR...")
@click.option("--all", "everything", is_flag=True, help="Show also what they have in common.")
@json_option
def diff(folders: tuple[Path, ...], everything: bool, as_json: bool) -> None:
    """Compare two or more runs: options, environment, results."""
    with usage_errors():
        from fastconv.diagnose.compare import differences
        from fastconv.train import read_record

        if len(folders) < 2:
            raise ValueError(f"give at least two runs to compare, got {len(folders)}")
        records = [read_record(folder) for folder in folders]
        found = differences(records)
    if as_json:
        parts: dict[str, dict[str, Any]] = {}
        for difference in found:
            if everything or not difference.same:
                parts.setdefault(difference.part, {})[difference.name] = list(difference.values)
        print_json({"runs": [str(folder) for folder in folders], **parts})
        return
    rows: list[tuple[str, ...]] = [("", *_short(folders))]
    for part in dict.fromkeys(difference.part for difference in found):
        shown = [d for d in found if d.part == part and (everything or not d.same)]
        alike = sum(d.same for d in found if d.part == part)
        note = f"{alike} the same" if alike and not everything else ""
        rows.append(("",) * len(rows[0]))
        rows.append((f"{part}{':' if shown else ': no difference'}", note, *("",) * (len(folders) - 1)))
        rows += [(f"  {d.name}", *(_value(d.name, value) for value in d.values)) for d in shown]
    click.echo(table(rows))


def _listed(found: list[Summary]) -> str:
    head = ("run", "status", "health", "val acc", "val loss", "best", "test acc", "epochs", "seconds")
    metrics = dict.fromkeys(name for run in found for name in run.metrics)
    rows: list[tuple[str, ...]] = [(*head, "data", "model", "lr", *(f"val {name}" for name in metrics))]
    for run in found:
        done = f"{run.epochs}/{run.asked}" if run.asked is not None else str(run.epochs)
        rows.append((
            run.name, run.status, run.health, _share(run.accuracy), _number(run.loss),
            _number(run.best_epoch), _share(run.test_accuracy), done, f"{run.seconds:.1f}",
            *(_value(name, run.options.get(name)) for name in ("dataset", "model")), _rate(run.options.get("lr")),
            *(_number(run.metrics.get(name)) for name in metrics),
        ))  # fmt: skip
    return table(rows, numbers=frozenset({3, 4, 5, 6, 7, 8, *range(11, len(rows[0]))}))


def _facts(record: RunRecord, summary: Summary) -> str:
    from fastconv.train.checkpoint import checkpoints
    from fastconv.train.run import CHECKPOINTS

    result, env = record.result or {}, record.env
    reason = f": {result['reason']}" if result.get("reason") else ""
    started = (summary.started or "").replace("T", " ").replace("+00:00", " UTC")
    threads = env.get("threads") and f"{env['threads']} thread{'s' * (env['threads'] != 1)}"
    version = env.get("fastconv") and f"fastconv {env['fastconv']}"
    began = [started, env.get("host"), env.get("cpu"), env.get("isa"), threads, version]
    chosen = {name: value for name, value in summary.options.items() if value not in (None, False, [])}
    places = [int(path.stem.removeprefix("step-")) for path in checkpoints(record.path / CHECKPOINTS)]
    rows = {
        "run": str(record.path),
        "status": f"{summary.status}{reason}",
        "health": f"{summary.health}: {summary.reason}",
        "started": ", ".join(str(part) for part in began if part),
        "resumed": ", ".join(f"at step {again.get('step')}" for again in env.get("resumed", ())),
        "options": _wrapped(f"{name} {_value(name, value)}" for name, value in chosen.items()),
        "progress": f"{summary.steps:,} steps, {summary.epochs} epochs"
        f"{f' of {summary.asked}' if summary.asked is not None else ''}, {summary.seconds:.1f} s",
        "best epoch": summary.best_epoch
        and f"{summary.best_epoch}: validation accuracy {_share(summary.accuracy)}, loss {_number(summary.loss)}"
        + "".join(f", {name} {value:.4f}" for name, value in summary.metrics.items()),
        "test": _tested(summary, result),
        "state sha256": result.get("state_sha256"),
        "checkpoints": ", ".join(f"step {step:,}" for step in places),
    }
    return "\n".join(
        f"{name:<14} " + "\n".join(map(printable, str(text).split("\n"))) for name, text in rows.items() if text
    )


def _tested(summary: Summary, result: dict[str, Any]) -> str:
    """What the run's test found: the accuracy, or of numbers that it predicts how far they are off."""
    if summary.test_accuracy is not None:
        return f"accuracy {_share(summary.test_accuracy)}, loss {_number(summary.test_loss)}"
    told = {"r2": result.get("test_r2"), "mae": result.get("test_mae"), "loss": summary.test_loss}
    return ", ".join(f"{name} {_number(value)}" for name, value in told.items() if isinstance(value, float))


def _epochs(record: RunRecord, summary: Summary, everything: bool) -> str:
    """Some epochs, evenly spread, the last and the best among them."""
    from fastconv.diagnose.compare import metrics_of

    count = len(record.history)
    step = max(1, -(-count // _ROWS))
    metrics = tuple(dict.fromkeys(name for epoch in record.history for name in metrics_of(epoch)))
    head = ("epoch", "loss", "accuracy", "val loss", "val acc", *(f"val {name}" for name in metrics))
    rows: list[tuple[str, ...]] = [(*head, "lr", "ms/step", "seconds", "")]
    for i, epoch in enumerate(record.history):
        best = summary.best_epoch is not None and epoch.get("epoch") == summary.best_epoch
        if everything or best or (count - 1 - i) % step == 0:
            rows.append((
                _number(epoch.get("epoch")), _number(epoch.get("loss")), _share(epoch.get("accuracy")),
                _number(epoch.get("validation_loss")), _share(epoch.get("validation_accuracy")),
                *(_number(metrics_of(epoch).get(name)) for name in metrics),
                _rate(epoch.get("lr")), _fixed(epoch.get("step_ms")), _fixed(epoch.get("seconds")),
                "best" if best else "",
            ))  # fmt: skip
    return table(rows, numbers=frozenset(range(len(rows[0]) - 1)))


def _wrapped(parts: Iterable[str], width: int = 90) -> str:
    """Join parts by commas, over as many lines as it takes."""
    lines = [""]
    for part in parts:
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += f"{', ' if lines[-1] else ''}{part}"
    return f",\n{'':<15}".join(lines)


def _name(folder: Path, root: Path) -> str:
    """The folder below the root; the root's own name for itself."""
    below = folder.relative_to(root)
    return str(below) if below.parts else folder.resolve().name


def _short(folders: tuple[Path, ...]) -> list[str]:
    """Names of folders where those differ, else paths."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _value(name: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("accuracy") and isinstance(value, int | float):
        return percent(value)
    if name == "dataset":  # a folder's path
        value = os.path.basename(str(value)) or value
    text = f"{value:.6g}" if isinstance(value, float) else printable(str(value))
    return text if len(text) <= 20 else f"{text[:19]}…"


def _share(value: Any) -> str:
    return percent(value) if isinstance(value, int | float) else "–"


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value) if isinstance(value, int) else "–"


def _rate(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "–"


def _fixed(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else "–"
