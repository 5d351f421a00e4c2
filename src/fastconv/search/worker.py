"""What one worker does: take a trial, run it, write down what came of it, take the next."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from optuna.trial import Trial

from fastconv import config
from fastconv.search.attempt import Attempt, Cut
from fastconv.search.ledger import BEAT, Ledger
from fastconv.search.plan import Plan
from fastconv.search.space import Space
from fastconv.search.storage import database_errors, open_storage, quiet
from fastconv.train import Diverged
from fastconv.train.run import is_run, is_running

Objective = Callable[[Attempt], float]


@dataclass(frozen=True)
class Job:
    """All a worker process is told; goes through pickle. `searcher` is the process that starts it."""

    storage: str
    name: str
    plan: Plan
    space: Space
    stage: int
    objective: Objective
    out: Path | None
    threads: int
    searcher: int


class WorkerError(RuntimeError):
    """An error of the objective, or of its surroundings, in a worker process.

    Examples
    --------
    >>> from operator import itemgetter
    >>> from fastconv.search import WorkerError, search
    >>> try:  # attempt["lr"], where there is only x, in a process of its own
    ...     search(itemgetter("lr"), {"x": "0:1:linear"}, trials=1, workers=2, progress=False)
    ... except WorkerError as error:
    ...     print(str(error).splitlines()[-1].partition(" (")[0])
    trial 1: KeyError: 'lr'
    """


def trial_folder(out: Path, number: int) -> Path:
    """Return where trial ``number`` keeps its run."""
    return out / f"trial-{number:04d}"


def run_next(
    ledger: Ledger, objective: Objective, out: Path | None, pulse: Pulse | None = None,
    ending: Callable[[], bool] = lambda: False,
) -> bool:  # fmt: skip
    """Run the next trial that waits; return False where none does.

    Whatever interrupts the objective puts the trial back: an interruption or a mistake in it is not the trial's. Such
    an error has the trial's number in its notes.
    """
    trial = ledger.take()
    if trial is None:
        return False
    number = ledger.plan.before(ledger.stage) + trial.number + 1
    folder = None if out is None else trial_folder(out, number)
    if folder is not None and is_run(folder) and is_running(folder):
        folder = None  # somebody who was given up for lost is at this trial still: to the same end, with its run
    elif folder is not None and folder.exists():  # of a try that was not finished
        shutil.rmtree(folder)
    attempt = Attempt(
        number, ledger.stage + 1, dict(trial.params), ledger.plan.budgets[ledger.stage], folder, _reporter(trial),
        ending,
    )  # fmt: skip
    started = time.perf_counter()
    value: float | None = None
    status, reason = "finished", None
    if pulse is not None:
        pulse.trial = trial._trial_id
    try:
        value = float(objective(attempt))
        if not math.isfinite(value):
            value, status, reason = None, "diverged", f"its value is {value}"
    except Cut as cut:
        status, reason = "cut", str(cut)
    except (Diverged, FloatingPointError, OverflowError) as error:
        status, reason = "diverged", str(error)
    except MemoryError as error:
        status, reason = "failed", f"out of memory: {error}"
    except BaseException as error:
        error.add_note(f"trial {number}")
        ledger.put_back(trial._trial_id)
        raise
    finally:
        if pulse is not None:
            pulse.trial = None
    facts = {**attempt.facts, "reason": reason, "seconds": time.perf_counter() - started}
    ledger.finish(trial, status, value, facts)
    return True


def _describe(error: Exception) -> str:
    notes, error.__notes__ = getattr(error, "__notes__", []), []
    if isinstance(error, OSError) and error.filename and error.strerror:
        return ": ".join([*notes, str(error.filename), error.strerror])
    where = traceback.extract_tb(error.__traceback__)[-1]
    what = traceback.format_exception_only(error)[-1].strip()
    return ": ".join([*notes, f"{what} ({Path(where.filename).name}, line {where.lineno})"])


def _reporter(trial: Trial) -> Callable[[float, int], bool]:
    known = set(trial.storage.get_trial(trial._trial_id).intermediate_values)  # of a former try: the same figures

    def report(value: float, step: int) -> bool:
        if step not in known:
            trial.report(value, step)
        return trial.should_prune()

    return report


class Pulse:
    """Gives signs of life of the running trial in a thread of its own, and ends this process with its parent."""

    def __init__(self, ledger: Ledger) -> None:
        self.trial: int | None = None
        self._ledger = ledger
        self._over = threading.Event()
        threading.Thread(target=self._run, name="pulse", daemon=True).start()

    def _run(self) -> None:
        parent = multiprocessing.parent_process()
        count = 0
        while not self._over.is_set():
            if parent is None:
                self._over.wait(BEAT)
            elif wait([parent.sentinel], BEAT):
                os._exit(1)
            count += 1
            if (trial := self.trial) is not None and not self._over.is_set():
                with contextlib.suppress(Exception):  # a storage out of reach for a moment
                    self._ledger.beat(trial, count)

    def stop(self) -> None:
        """End the thread after its present turn."""
        self._over.set()


def work(pickled: bytes, says: Connection) -> None:
    """Run trials until none waits: the main function of a worker process.

    Parameters
    ----------
    pickled : bytes
        A `Job`.
    says : Connection
        Where the text of an error is sent to that ends this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # interrupts from the keyboard are the searcher's affair
    hold_interrupts(False)
    try:
        job: Job = pickle.loads(pickled)
        config.threads(job.threads)
        with quiet(), database_errors():
            ledger = Ledger(open_storage(job.storage), job.name, job.plan, job.space, job.stage, job.searcher)
            pulse = Pulse(ledger)
            while run_next(ledger, job.objective, job.out, pulse):
                pass
    except Exception as error:
        says.send(_describe(error))
        sys.exit(1)


def hold_interrupts(hold: bool) -> None:
    """Have this thread, and processes it starts meanwhile, hear of Ctrl-C later, or now."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK if hold else signal.SIG_UNBLOCK, {signal.SIGINT})
