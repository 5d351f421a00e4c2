"""Workers of one machine: this process alone, or several spawned ones that share the cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from fastconv.search.ledger import Ledger
from fastconv.search.worker import Job, Objective, Pulse, run_next, work

_STILLBORN = 3  # workers that may die before their first trial


class Crew(Protocol):
    """Those who run the trials of a stage."""

    def turn(self) -> bool:
        """Do or look after some work; return whether to come back at once."""

    def leave(self) -> None:
        """End, also in the middle of a trial; what was being run waits again."""


class Alone:
    """This process."""

    def __init__(self, ledger: Ledger, objective: Objective, out: Path | None, shared: bool) -> None:
        self._ledger, self._objective, self._out = ledger, objective, out
        self._pulse = Pulse(ledger) if shared else None

    def turn(self) -> bool:
        return run_next(self._ledger, self._objective, self._out, self._pulse)

    def leave(self) -> None:
        if self._pulse is not None:
            self._pulse.stop()


class Spawned:
    """Processes of their own, started afresh (not forked: threads do not survive that)."""

    def __init__(self, ledger: Ledger, jobs: list[Job]) -> None:
        self._ledger, self._jobs = ledger, jobs
        self._places: list[BaseProcess | None] = [None] * len(jobs)
        self._stillborn = 0

    def turn(self) -> bool:
        waiting = self._ledger.waiting()
        for i, job in enumerate(self._jobs):
            process = self._places[i]
            if process is not None and process.exitcode is not None:
                self._places[i] = None
                self._bury(process)
            if self._places[i] is None and waiting > 0:
                self._places[i] = _spawn(work, job)
                waiting -= 1
        return False

    def _bury(self, process: BaseProcess) -> None:
        process.join()
        if process.exitcode == 0 or process.pid is None:
            return
        if (error := self._ledger.error(process.pid)) is not None:
            raise RuntimeError(error)
        if not self._ledger.put_back_of(process.pid, f"its worker died (exit code {process.exitcode})"):
            self._stillborn += 1
            if self._stillborn >= _STILLBORN:
                raise RuntimeError(
                    f"workers die before their first trial (exit code {process.exitcode}); a script that searches with "
                    "several workers must do so under: if __name__ == '__main__':"
                )

    def leave(self) -> None:
        living = [process for process in self._places if process is not None]
        for process in living:
            process.terminate()
        for process in living:
            process.join(5)
            if process.exitcode is None:
                process.kill()
                process.join()
            if process.pid is not None:
                self._ledger.put_back_of(process.pid)


def _spawn(target: Callable[..., Any], job: Job) -> BaseProcess:
    process = multiprocessing.get_context("spawn").Process(target=target, args=(job,))
    process.start()
    return process


def share_threads(threads: int, workers: int) -> list[int]:
    """Return the threads of each worker: together as many as there are, and at least one each."""
    return [max(1, threads // workers + (i < threads % workers)) for i in range(workers)]
