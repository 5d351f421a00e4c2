"""The search itself: stage after stage, each laid out, run by a crew, and narrowed into the next."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

from fastconv import config, locks
from fastconv.functional._check import flag
from fastconv.paths import expand, inside
from fastconv.search.crew import Alone, Crew, Spawned, share_threads
from fastconv.search.ledger import Ledger, stored_command
from fastconv.search.plan import Plan, share_out, spread
from fastconv.search.progress import Show, figure_of
from fastconv.search.result import SearchResult, summary
from fastconv.search.space import Space, make_space, narrow
from fastconv.search.storage import database_errors, open_storage, quiet
from fastconv.search.training import Training
from fastconv.search.worker import Job, Objective
from fastconv.signals import EndRequest
from fastconv.train.setup import Options

JOURNAL = "search.journal"
_POLL = 0.1


def search(
    objective: Objective | Training | Options,
    space: Mapping[str, Any],
    *,
    trials: int | Sequence[int] = 50,
    stages: int = 1,
    budgets: int | Sequence[int] | None = None,
    sampler: str = "random",
    pruner: str = "none",
    direction: str = "maximize",
    seed: int = 0,
    workers: int = 1,
    threads: int | None = None,
    storage: str | None = None,
    name: str = "search",
    out: str | Path | None = None,
    resume: bool = False,
    file: TextIO | None = None,
    progress: bool = True,
    command: dict[str, Any] | None = None,
) -> SearchResult:
    """Search for good hyperparameters.

    Parameters
    ----------
    objective : Options, Training or callable
        Options of a training run (`fastconv.train.setup.fill`) are trained with a budget in epochs; `Training` says
        more; anything else is called with an `Attempt` and returns a number, which may report on its way
        (``attempt.report``) and raise `Cut`. With several workers it must be a function of a module.
    space : dict
        From names to texts ("1e-7:1e-3", "16,32,64"), numbers, lists, `Range` or `Choice`.
    trials : int or sequence of int
        In all, shared out evenly among the stages, or by stage.
    stages : int
        After each but the last the space is narrowed around the best tenth of its trials.
    budgets : int or sequence of int, optional
        What a trial may spend, by stage; a single number is the last stage's, of which the one before has a
        quarter, and so on. The default, where training options are searched, is their epochs.
    sampler : {"random", "grid", "tpe"}
        Random and grid points depend on ``seed`` and the trial's number alone. A grid has as many points as
        fit into ``trials``.
    pruner : {"none", "median", "halving"}
        Which of Optuna's pruners looks at reported values.
    direction : {"maximize", "minimize"}
    seed : int
    workers : int
        Above 1: processes, which share the threads. A script that asks for them needs
        ``if __name__ == "__main__":``.
    threads : int, optional
        In all; by default `fastconv.config.threads`.
    storage : str, optional
        "journal:PATH" or a database URL. Everybody who searches with the same storage, name and arguments takes part
        in the same search, also from other machines. By default a journal in ``out``.
    name : str
        Of the search in the storage.
    out : path-like, optional
        New folder in which every trial keeps its run (trial-0007) where the objective keeps any.
    resume : bool
        Go on with a search in ``storage`` or ``out``, which must be there.
    file : text stream, optional
        Where the table goes, standard output by default.
    progress : bool
        Whether there is a table.
    command : dict, optional
        Kept with the search for whoever resumes it (`fastconv.search.stored`).

    Returns
    -------
    SearchResult
        Also after Ctrl-C or SIGTERM: what was done until then. A running trial ends at its next
        `Attempt.safe_point` (a training trial after its step) and waits again; a second signal ends it at once.

    Raises
    ------
    ValueError, TypeError
        If an argument is wrong, or the storage holds another search of this name.
    OSError
        If the storage or ``out`` cannot be used, is there already, or is missing on ``resume``.
    WorkerError
        If the objective raises an error in a worker process; without workers the error itself comes out. The trial
        waits again, so ``resume`` repeats it.

    Examples
    --------
    >>> found = search(lambda t: -abs(t["x"] - 0.01), {"x": "1e-4:1"}, trials=40, stages=2, progress=False)
    >>> 0.005 < found.best["params"]["x"] < 0.02
    True
    """
    resume, progress = flag("search: resume", resume), flag("search: progress", progress)
    if isinstance(objective, Options):
        objective = Training(objective)
    plan = _plan(objective, make_space(space), trials, stages, budgets, sampler, pruner, direction, seed)
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if workers > 1:
        _check_pickle(objective)
    out = None if out is None else expand(out)
    with ExitStack() as stack, quiet(), database_errors():
        if threads is not None:
            stack.enter_context(config.threads(threads))
        if storage is None and out is not None:
            _check_folder(out, resume)
            busy = f"another process searches here; who wants to take part names the storage journal:{out / JOURNAL}"
            stack.enter_context(locks.Held(out, f"{out}: {busy}"))
            if not resume:
                _check_folder(out, resume)  # as it is now that nobody else is there
                (out / JOURNAL).unlink(missing_ok=True)
            storage = f"journal:{out / JOURNAL}"
        elif storage is None and resume:
            raise ValueError("resume: name the storage or the folder of the search to go on with")
        elif storage is None and workers > 1:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fastconv-search-"))
            storage = f"journal:{folder}/{JOURNAL}"
        kept = open_storage(storage)
        if resume and stored_command(kept, name) is None:
            raise FileNotFoundError(f"resume: there is no search named {name!r} in {storage}")
        show = Show(plan, figure_of(plan.objective), (file or sys.stdout) if progress else None)
        request = stack.enter_context(
            EndRequest(lambda signal: f"{signal}: stopping, the running trial waits again (again: at once)")
        )
        run = _Search(plan, objective, kept, storage, name, out, workers, config.threads(), show, request)
        return run.all_stages(command or {})


def stored(storage: str | None, out: str | Path | None = None, name: str = "search") -> dict[str, Any]:
    """Return the ``command`` a search was started with.

    Parameters
    ----------
    storage : str or None
        As of `search`.
    out : path-like, optional
        As of `search`.
    name : str
        Of the search in its storage.

    Raises
    ------
    FileNotFoundError
        If there is no such search.

    Examples
    --------
    >>> import tempfile
    >>> from fastconv.search import search, stored
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     where = {"storage": f"journal:{folder}/search.log", "command": {"metric": "x"}}
    ...     _ = search(lambda attempt: attempt["x"], {"x": [1, 2]}, trials=2, progress=False, **where)
    ...     stored(where["storage"])
    {'metric': 'x'}
    """
    if storage is None:
        if out is None:
            raise ValueError("resume: name the storage or the folder of the search to go on with")
        _check_folder(expand(out), resume=True)
        storage = f"journal:{expand(out) / JOURNAL}"
    elif storage.startswith("journal:") and not expand(storage.partition(":")[2]).is_file():
        raise FileNotFoundError(f"resume: there is no {storage.partition(':')[2]}")
    command = stored_command(open_storage(storage), name)
    if command is None:
        raise FileNotFoundError(f"resume: there is no search named {name!r} in {storage}")
    return command


def _plan(
    objective: Objective | Training, space: Space, trials: Any, stages: int, budgets: Any,
    sampler: str, pruner: str, direction: str, seed: int,
) -> Plan:  # fmt: skip
    if isinstance(objective, Training):
        objective.check(space)
        budgets = objective.options.epochs if budgets is None else budgets
        about = objective.describe()
    else:
        about = {"objective": getattr(objective, "__qualname__", type(objective).__qualname__)}
    counts = share_out(trials, stages)
    by_stage = (None,) * stages if budgets is None else spread(budgets, stages)
    return Plan(about, space, counts, by_stage, sampler, pruner, direction, seed).sized()


def _check_pickle(objective: Any) -> None:
    try:
        pickle.dumps(objective)
    except Exception as error:
        raise ValueError(f"several workers need an objective that is a function of a module: {error}") from error


def _check_folder(out: Path, resume: bool) -> None:
    if resume:
        if not (out / JOURNAL).is_file():
            raise FileNotFoundError(f"resume: {out} holds no search: it has no {JOURNAL}")
        for path in (out / JOURNAL, out / f"{JOURNAL}.lock", *out.glob("trial-*")):
            inside(out, path.name)
        return
    if out.exists() and not (out.is_dir() and _vacant(out)):
        hint = "; to go on with its search resume it" if (out / JOURNAL).is_file() else ""
        raise FileExistsError(f"{out} is there already and not an empty folder{hint}")
    out.mkdir(parents=True, exist_ok=True)


def _vacant(out: Path) -> bool:
    """Whether a folder has nothing in it, or what a search leaves that was killed before it had anything to go on with.

    Its own first look may come in between: a journal that is read again under the folder's lock.
    """
    names = {path.name for path in out.iterdir()}
    if JOURNAL not in names or not names <= {JOURNAL, f"{JOURNAL}.lock"}:
        return not names
    studies = open_storage(f"journal:{out / JOURNAL}").get_all_studies()
    return not any("search" in study.user_attrs for study in studies)


class _Search:
    """One machine's part in a search."""

    def __init__(
        self, plan: Plan, objective: Objective, storage: Any, where: str | None, name: str, out: Path | None,
        workers: int, threads: int, show: Show, request: EndRequest,
    ) -> None:  # fmt: skip
        self._plan, self._objective, self._storage, self._where, self._name = plan, objective, storage, where, name
        self._out, self._workers, self._threads, self._show, self._request = out, workers, threads, show, request

    def all_stages(self, command: dict[str, Any]) -> SearchResult:
        space = self._plan.space
        stages: list[tuple[Space, list[dict[str, Any]]]] = []
        interrupted = False
        for stage in range(len(self._plan.trials)):
            ledger = Ledger(self._storage, self._name, self._plan, space, stage)
            ledger.open(command)
            try:
                self._stage(ledger)
            except KeyboardInterrupt:
                interrupted = True
            finally:
                self._tell(self._show.end)
            rows = ledger.rows()
            stages.append((space, rows))
            chosen = self._plan.chosen(rows)
            if interrupted or not chosen:
                break
            space = narrow(space, [row["params"] for row in chosen])
        return summary(self._plan, stages, interrupted, self._request.number)

    def _tell(self, what: Callable[..., None], *args: Any) -> None:
        """Show something; an interruption inside tqdm would break its lock."""
        with self._request.held():
            what(*args)

    def _stage(self, ledger: Ledger) -> None:
        rows = ledger.rows()
        self._tell(self._show.stage, ledger.stage, ledger.space, len(rows))
        self._tell(self._show.trials, rows)
        crew = self._crew(ledger)
        try:
            while not ledger.done():
                if self._request.number is not None:
                    raise KeyboardInterrupt
                started = time.monotonic()
                busy = crew.turn()
                ledger.put_back_lost()
                self._tell(self._show.trials, ledger.rows())
                if not busy:  # a slow storage is asked less often: workers need it too
                    time.sleep(max(_POLL, 4 * (time.monotonic() - started)))
        finally:
            crew.leave()
        self._tell(self._show.trials, ledger.rows())

    def _crew(self, ledger: Ledger) -> Crew:
        if self._workers == 1:
            shared = self._where is not None
            return Alone(ledger, self._objective, self._out, shared, lambda: self._request.number is not None)
        assert self._where is not None
        jobs = [
            Job(self._where, self._name, self._plan, ledger.space, ledger.stage, self._objective, self._out, threads,
                os.getpid())
            for threads in share_threads(self._threads, self._workers)
        ]  # fmt: skip
        return Spawned(ledger, jobs)
