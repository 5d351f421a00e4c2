"""The trials of one stage in the storage: laid out once, each taken by one worker, each finished once.

All trials of a stage are laid out as waiting before the first one runs, and a worker takes one by a change of
state that the storage makes atomic. So there are exactly as many trials as were asked for, however many workers
on however many machines take part. A trial whose worker is gone is put back. Where the worker died while its searcher,
the process that had started it, lived on to see it, the trial counts as failed the second time.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from fastconv.search.plan import Plan, differences
from fastconv.search.samplers import pruner, sampler, suggest
from fastconv.search.shapes import SEARCH, TRIAL
from fastconv.search.space import Space

BEAT = 10.0  # seconds between signs of life of a worker
_LOST = 60.0  # seconds without one, after which it counts as dead
_UNNAMED = 5.0  # seconds in which whoever takes a trial has put its name there
_LAYING_OUT = 30.0  # seconds that another process is given to lay out the trials
_TRIES = 2


class Ledger:
    """One stage of a search.

    Parameters
    ----------
    storage : BaseStorage
    name : str
        Of the search.
    plan : Plan
    space : Space
        Of this stage.
    stage : int
        From 0.
    searcher : int, optional
        The process that started this one as a worker; by default it works by itself.
    """

    def __init__(
        self, storage: BaseStorage, name: str, plan: Plan, space: Space, stage: int, searcher: int | None = None
    ) -> None:
        self.storage, self.name, self.plan, self.space, self.stage = storage, name, plan, space, stage
        self._searcher = os.getpid() if searcher is None else searcher
        self.total = plan.trials[stage]
        self._study_name = stage_name(name, stage)
        self._id: int | None = None
        self._beats: dict[int, tuple[Any, float]] = {}

    @property
    def id(self) -> int:
        """The study's number in the storage."""
        if self._id is None:
            self._id = self.storage.get_study_id_from_name(self._study_name)
        return self._id

    def open(self, command: dict[str, Any]) -> None:
        """Lay the trials out, or join those who did.

        Raises
        ------
        ValueError
            If the storage holds another search of this name.
        """
        goal = StudyDirection.MAXIMIZE if self.plan.direction == "maximize" else StudyDirection.MINIMIZE
        made = False
        with contextlib.suppress(DuplicatedStudyError):
            self._id = self.storage.create_new_study([goal], self._study_name)
            made = True
        mine = {"plan": self.plan.to_dict(), "command": command}
        if made:
            self.storage.set_study_user_attr(self.id, "search", mine)
        there = self._awaited(lambda: self._attributes().get("search"), made)
        if there is None:
            self.storage.set_study_user_attr(self.id, "search", mine)
        else:
            SEARCH.check(there, f"search {self.name!r} in the storage")
            if unlike := differences(there["plan"], mine["plan"]):
                raise ValueError(f"the storage holds another search named {self.name!r}: {'; '.join(unlike)}")
        self._awaited(lambda: len(self._trials()) >= self.total, made)
        waiting = optuna.trial.create_trial(state=TrialState.WAITING)
        for _ in range(self.total - len(self._trials())):
            self.storage.create_new_trial(self.id, template_trial=waiting)

    def _awaited(self, what: Callable[[], Any], at_once: bool) -> Any:
        """Return what another process is about to write; what there is, if it takes too long."""
        deadline = time.monotonic() + _LAYING_OUT
        while not (found := what()) and not at_once and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def _attributes(self) -> dict[str, Any]:
        return self.storage.get_study_user_attrs(self.id)

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in some states, or all, by number."""
        # a set: asked for a tuple of WAITING, Optuna's memory forgets trials that were put back
        trials = self.storage.get_all_trials(self.id, deepcopy=False, states=frozenset(states) or None)
        for trial in trials:
            TRIAL.check(trial.user_attrs, f"trial {trial.number} in the storage")
        return sorted((t for t in trials if t.number < self.total), key=lambda t: t.number)

    def take(self) -> Trial | None:
        """Take the first trial that waits, with its hyperparameters chosen; None where none waits."""
        for waiting in self._trials(TrialState.WAITING):
            try:
                if not self.storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
                    continue
            except UpdateFinishedTrialError:
                continue
            owner = {"host": platform.node(), "pid": os.getpid(), "searcher": self._searcher}
            self.storage.set_trial_user_attr(waiting._trial_id, "worker", owner)
            study = optuna.load_study(
                study_name=self._study_name, storage=self.storage, pruner=pruner(self.plan.pruner),
                sampler=sampler(self.plan, self.space, self.stage, waiting.number),
            )  # fmt: skip
            trial = Trial(study, waiting._trial_id)
            suggest(trial, self.space)
            return trial
        return None

    def finish(self, trial: Trial, status: str, value: float | None, facts: dict[str, Any]) -> None:
        """Write what came of a trial; of no effect if another worker has finished it."""
        state = {"finished": TrialState.COMPLETE, "failed": TrialState.FAIL}.get(status, TrialState.PRUNED)
        # A trial that was put back although its worker lived is run twice, with the same result.
        with contextlib.suppress(UpdateFinishedTrialError, ValueError):
            self.storage.set_trial_user_attr(
                trial._trial_id, "facts", json.loads(json.dumps({"status": status, **facts}))
            )
            trial.study.tell(trial, value if state == TrialState.COMPLETE else None, state)

    def put_back(self, trial_id: int, why: str | None = None, worker: dict[str, Any] | None = None) -> None:
        """Let a trial wait again; with a reason, for the last time; with a worker, only if it is still that one's."""
        with contextlib.suppress(UpdateFinishedTrialError):
            now = self.storage.get_trial(trial_id)
            if worker is not None and (now.state != TrialState.RUNNING or now.user_attrs.get("worker", {}) != worker):
                return  # somebody else has put it back
            # nobody's: the next to take it is running it a moment before its name stands there
            self.storage.set_trial_user_attr(trial_id, "worker", {})
            if why is not None:
                tries = now.user_attrs.get("tries", 0) + 1
                self.storage.set_trial_user_attr(trial_id, "tries", tries)
                if tries >= _TRIES:
                    facts = {"status": "failed", "reason": f"{why}, {tries} times"}
                    self.storage.set_trial_user_attr(trial_id, "facts", facts)
                    self.storage.set_trial_state_values(trial_id, TrialState.FAIL)
                    return
            self.storage.set_trial_state_values(trial_id, TrialState.WAITING)

    def put_back_of(self, pid: int, why: str | None = None) -> bool:
        """Put back what a process of this machine was at; return whether it was at anything."""
        found = False
        for trial in self._trials(TrialState.RUNNING):
            worker = trial.user_attrs.get("worker", {})
            if (worker.get("host"), worker.get("pid")) == (platform.node(), pid):
                self.put_back(trial._trial_id, why, worker)
                found = True
        return found

    def put_back_lost(self) -> None:
        """Put back the trials of workers that are gone with their searcher, or long without a sign of life.

        A searcher that lives puts back itself what its workers were at (`put_back_of`), and knows how they ended.
        """
        for trial in self._trials(TrialState.RUNNING):
            worker = trial.user_attrs.get("worker", {})
            sign = (worker.get("host"), worker.get("pid"), trial.user_attrs.get("beat"))
            seen, since = self._beats.get(trial.number, (None, 0.0))
            now = time.monotonic()
            if sign != seen:
                self._beats[trial.number] = sign, now
                since = now
            here = [worker[k] for k in ("pid", "searcher") if k in worker and worker.get("host") == platform.node()]
            if (here and not any(map(_alive, here))) or now - since > (_LOST if worker else _UNNAMED):
                del self._beats[trial.number]
                self.put_back(trial._trial_id, worker=worker)

    def beat(self, trial_id: int, count: int) -> None:
        """Give a sign of life."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(trial_id, "beat", count)

    def waiting(self) -> int:
        """Return how many trials wait."""
        return len(self._trials(TrialState.WAITING))

    def done(self) -> bool:
        """Whether all trials are over."""
        return all(t.state.is_finished() for t in self._trials())

    def rows(self) -> list[dict[str, Any]]:
        """Return the trials that are over, each as a dictionary, by number."""
        return [self._row(trial) for trial in self._trials() if trial.state.is_finished()]

    def _row(self, trial: FrozenTrial) -> dict[str, Any]:
        facts = dict(trial.user_attrs.get("facts", {"status": "failed", "reason": "lost"}))
        facts.setdefault("reason", None)
        values = trial.values if trial.state == TrialState.COMPLETE else None
        params = {name: trial.params[name] for name in self.space if name in trial.params}
        if (facts["status"] == "finished") != (values is not None and len(values) == 1 and math.isfinite(values[0])):
            raise ValueError(f"trial {trial.number} in the storage is {facts['status']} with the values {values}")
        if facts["status"] == "finished" and len(params) < len(self.space):
            lacking = ", ".join(name for name in self.space if name not in params)
            raise ValueError(f"trial {trial.number} in the storage is finished without {lacking}")
        for name, value in params.items():
            if not self.space[name].holds(value):
                raise ValueError(f"trial {trial.number} in the storage has {name} {value!r}, not of {self.space[name]}")
        return {
            "number": self.plan.before(self.stage) + trial.number + 1,
            "stage": self.stage + 1,
            "status": facts.pop("status"),
            "value": None if values is None else values[0],
            "params": params,
            **facts,
        }


def stage_name(name: str, stage: int) -> str:
    """Return the name of a stage (from 0) as a study in the storage."""
    return f"{name} stage {stage + 1}"


def stored_command(storage: BaseStorage, name: str) -> dict[str, Any] | None:
    """Return what the search of a name was started with, None where there is no such search."""
    try:
        study = storage.get_study_id_from_name(stage_name(name, 0))
    except KeyError:
        return None
    if (found := storage.get_study_user_attrs(study).get("search")) is None:
        return None
    SEARCH.check(found, f"search {name!r} in the storage")
    command: dict[str, Any] = found["command"]
    return command


def _alive(pid: int) -> bool:
    if os.name == "nt":  # signal 0 would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
