"""Workers of one machine: this process alone, or several spawned ones that share the cores."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

from fastconv.search.ledger import Ledger
from fastconv.search.worker import Job, Objective, Pulse, WorkerError, hold_interrupts, run_next, work

_STILLBORN = 3  # workers that may die before their first trial


class Crew(Protocol):
    """Those who run the trials of a stage."""

    def turn(self) -> bool:
        """Do or look after some work; return whether to come back at once."""

    def leave(self) -> None:
        """End, also in the middle of a trial; what was being run waits again."""


class Alone:
    """This process; ``ending`` says whether it was asked to end."""

    def __init__(
        self, ledger: Ledger, objective: Objective, out: Path | None, shared: bool, ending: Callable[[], bool]
    ) -> None:
        self._ledger, self._objective, self._out, self._ending = ledger, objective, out, ending
        self._pulse = Pulse(ledger) if shared else None

    def turn(self) -> bool:
        return run_next(self._ledger, self._objective, self._out, self._pulse, self._ending)

    def leave(self) -> None:
        if self._pulse is not None:
            self._pulse.stop()


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    says: Connection

    @classmethod
    def start(cls, job: bytes) -> _Worker:
        """Start a process that Ctrl-C never reaches, not even before it can say so itself."""
        context = multiprocessing.get_context("spawn")
        says, its = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(job, its))
        if hasattr(resource_tracker, "ensure_running"):
            resource_tracker.ensure_running()  # its start would end the hold
        hold_interrupts(True)
        try:
            process.start()
        finally:
            hold_interrupts(False)
        its.close()
        return cls(process, says)

    def last_words(self) -> str | None:
        """Return the error that ended it, if it could tell."""
        try:
            return str(self.says.recv()) if self.says.poll() else None
        except (EOFError, OSError):
            return None


class Spawned:
    """Processes of their own, started afresh (not forked: threads do not survive that)."""

    def __init__(self, ledger: Ledger, jobs: list[Job]) -> None:
        self._ledger, self._jobs = ledger, [pickle.dumps(job) for job in jobs]
        self._places: list[_Worker | None] = [None] * len(jobs)
        self._stillborn = 0

    def turn(self) -> bool:
        waiting = self._ledger.waiting()
        for i, job in enumerate(self._jobs):
            worker = self._places[i]
            if worker is not None and worker.process.exitcode is not None:
                self._places[i] = None
                self._bury(worker)
            if self._places[i] is None and waiting > 0:
                self._places[i] = _Worker.start(job)
                waiting -= 1
        return False

    def _bury(self, worker: _Worker) -> None:
        process = worker.process
        process.join()
        if process.exitcode == 0 or process.pid is None:
            return
        if (error := worker.last_words()) is not None:
            self._ledger.put_back_of(process.pid)
            raise WorkerError(error)
        if not self._ledger.put_back_of(process.pid, f"its worker died (exit code {process.exitcode})"):
            self._stillborn += 1
            if self._stillborn >= _STILLBORN:
                raise WorkerError(
                    f"workers die before their first trial (exit code {process.exitcode}); a script that searches with "
                    "several workers must do so under: if __name__ == '__main__':"
                )

    def leave(self) -> None:
        living = [worker.process for worker in self._places if worker is not None]
        for process in living:
            process.terminate()
        for process in living:
            process.join(5)
            if process.exitcode is None:
                process.kill()
                process.join()
            if process.pid is not None:
                self._ledger.put_back_of(process.pid)


def share_threads(threads: int, workers: int) -> list[int]:
    """Return the threads of each worker: together as many as there are, and at least one each."""
    return [max(1, threads // workers + (i < threads % workers)) for i in range(workers)]
