"""How a module runs: its forward is written down once for each shape and mode, and walked as a program from then on.

    forward(arrays) -> key (shapes, dtypes, modes, what is frozen, hooks) -> schedule -> program on an arena

A `Tree` belongs to the module that somebody calls. It keeps the schedules of the latest few keys, and the arenas
(`Session`) on which they run: one is enough until several threads predict at once, or a layer with a backward of
its own calls a layer twice. Assigning an attribute of any module of the tree writes its forward down anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from fastconv import config
from fastconv.functional._check import check_array, empty_aligned
from fastconv.graph.operation import Array, Spec
from fastconv.nn._settings import Held, Settings, held, latest
from fastconv.nn._turns import turn

if TYPE_CHECKING:
    from fastconv.graph.program import Program
    from fastconv.graph.schedule import Schedule
    from fastconv.nn.base import Module

KEPT = 8
"""Schedules that a tree keeps: training and evaluation, each on whole batches and on the last one, twice over."""

Forward = Callable[..., Any]

modes: ContextVar[dict[int, bool]] = ContextVar("modes", default={})  # noqa: B039  (never changed)
"""Modes that hold in this context alone, by identity of the module: they come before the modules' own."""

_active: ContextVar[frozenset[int]] = ContextVar("active", default=frozenset())
"""Modules, by identity, of the programs that run in this context and may call code of the user's."""

frame: ContextVar[set[int] | None] = ContextVar("frame", default=None)
"""Layers that have run inside the outermost layer with a backward of its own, while its forward runs."""

_version, _training = attrgetter("_version"), attrgetter("_training")
_trained, _hooks = attrgetter("requires_grad"), attrgetter("_hooks")
_barrier = attrgetter("need_input_grad")


class Session:
    """An arena, and the programs that are bound to it."""

    def __init__(self) -> None:
        self.arena = empty_aligned(0, np.uint8)
        self.programs: OrderedDict[int, Program] = OrderedDict()
        self.kept: dict[int, Any] = {}  # packed weights

    def program(self, plan: Schedule) -> Program:
        """Return the program of a schedule on this arena, which grows where it must."""
        if self.arena.nbytes < plan.nbytes:
            self.arena = empty_aligned(plan.nbytes, np.uint8)
            self.programs.clear()
        program = self.programs.get(id(plan))
        if program is None or program.schedule is not plan:
            from fastconv.graph.program import Program

            program = self.programs[id(plan)] = Program(plan, self.arena, self.kept)
        self.programs.move_to_end(id(plan))
        while len(self.programs) > KEPT:
            self.programs.popitem(last=False)
        return program


class Run:
    """A forward that somebody may still run backward, or whose outputs they hold."""

    def __init__(self, session: Session, program: Program, forward: Forward) -> None:
        self.session, self.program, self.forward = session, program, forward
        self.thread = threading.get_ident()
        self.done = False


class Tree:
    """What a module that is called keeps between calls."""

    def __init__(self, root: Module) -> None:
        self.root = root
        self.lock = threading.RLock()
        self.noting = threading.RLock()  # for what follows: threads that ask for a turn look at it, too
        self.sessions: list[Session] = []
        self.runs: list[Run] = []
        self.eager = False  # whether a backward has followed an evaluation: then those keep what it needs
        self.specs: tuple[Spec, ...] | None = None  # of the latest forward that was written down
        self.schedules: OrderedDict[Any, Schedule] = OrderedDict()
        self.asked: tuple[object, Any, Schedule] | None = None  # latest change, what was asked for then, the answer
        self.modules: list[Module] = []
        self.watched: list[Module] = []
        self.everything: list[Module] = []
        self.opaque: list[Module] = []
        self.parameters: list[Any] = []
        self.versions: list[int] = []
        self.held: list[Held] = []  # lists, dicts and the like that a forward may read
        self.settings: list[Settings] = []  # of the opaque ones

    def refresh(self) -> None:
        """Forget all schedules if a module of the tree has changed since they were made."""
        with self.noting:
            self._refresh()

    def _refresh(self) -> None:
        if (
            list(map(_version, self.watched)) != self.versions
            or not self.modules
            or self._moved()
            or (self.settings and self._reshaped())
        ):
            self._forget()
            self.modules = list(_described(self.root))
            self.watched = [module for module in self.modules if module is self.root or not module.is_opaque()]
            self.everything = list(self.root.modules())
            self.opaque = [module for module in self.modules if module.is_opaque()]
            self.parameters = list(self.root.parameters())
            self.settings = [Settings(layer) for layer in self.opaque if layer is not self.root]
            self._note()

    def _forget(self) -> None:
        self.schedules.clear()
        self.asked = None

    def _moved(self) -> bool:
        """Return whether a list, dict or the like has been changed in its own place, which nobody tells."""
        return any(entry.moved() for entry in self.held)

    def _note(self) -> None:
        """Keep what the modules are like now, for `refresh` to compare."""
        self.versions = list(map(_version, self.watched))
        self.held = [entry for module in self.watched for entry in held(module)]

    def _reshaped(self) -> bool:
        """Return whether a layer with a backward of its own gives other shapes than it is known to."""
        from fastconv.nn._tracing import is_call_of

        for settings in self.settings:
            if not settings.moved():
                continue
            nodes = [node for plan in self.schedules.values() for node in plan.graph.nodes]
            for inputs, outputs in {node.specs() for node in nodes if is_call_of(node.op, settings.layer)}:
                try:
                    if settings.layer.output_specs(*inputs) != outputs:
                        return True
                except Exception:  # it refuses such inputs by now, and will say so
                    return True
            settings.settle()
        return False

    def schedule(self, forward: Forward, specs: tuple[Spec, ...], gradients: bool | None) -> Schedule:
        """Return what a forward on such inputs does; ``gradients`` None decides by the mode."""
        with self.noting:
            return self._schedule(forward, specs, gradients)

    def _schedule(self, forward: Forward, specs: tuple[Spec, ...], gradients: bool | None) -> Schedule:
        change, forced = latest.change, modes.get()
        question = (forward, specs, gradients, self.eager, config.algorithm())
        asked = self.asked
        if asked is not None and asked[0] is change and not forced and asked[1] == question and not self._moved():
            return asked[2]
        found = self._looked_up(forward, specs, gradients)
        if not (forced or self.settings):
            self.asked = (change, question, found)
        return found

    def _looked_up(self, forward: Forward, specs: tuple[Spec, ...], gradients: bool | None) -> Schedule:
        """Return a schedule that has been made, or make it."""
        self._refresh()
        trains = tuple(m.training for m in self.modules) if modes.get() else tuple(map(_training, self.modules))
        if gradients is None:
            gradients = self.eager or any(trains)
        marks = (tuple(map(_trained, self.parameters)), tuple(map(_barrier, self.modules))) if gradients else ()
        hooked = tuple(map(bool, map(_hooks, self.modules)))
        key = (forward, specs, trains, gradients, marks, hooked, config.algorithm())
        found = self.schedules.get(key)
        if found is not None:
            self.schedules.move_to_end(key)
            return found
        from fastconv.nn import _tracing  # the compiler, once there is something to compile

        graph = _tracing.trace(self.root, forward, specs)
        self.specs = specs
        found = self.schedules[key] = _tracing.scheduled(self.root, graph, gradients)
        self._note()  # a forward may keep values as attributes
        while len(self.schedules) > KEPT:
            self.schedules.popitem(last=False)
        return found

    def drop(self) -> None:
        """Let the memory of former forwards be used again: no backward will follow them."""
        self.sessions += [run.session for run in self.runs]
        self.runs.clear()

    # ---- forward and backward by hand

    def forward(self, forward: Forward, inputs: Sequence[Array]) -> Any:
        if not self.lock.acquire(blocking=False):
            raise RuntimeError(
                f"{type(self.root).__name__}: forward runs in another thread; predict may be called from any number "
                "of threads, training one model in two at once cannot work"
            )
        try:
            used = frame.get()
            if used is None or id(self.root) not in used:
                self.drop()
            if used is not None:
                used.add(id(self.root))
            session = self.sessions.pop() if self.sessions else Session()
            try:
                run = Run(session, self._program(session, forward, inputs, None), forward)
            except BaseException:  # inputs that are refused, most often: the memory is there for the next
                self.sessions.append(session)
                raise
            self.runs.append(run)
            return self._walk(run.program, inputs)
        finally:
            self.lock.release()

    def _program(
        self, session: Session, forward: Forward, inputs: Sequence[Array], gradients: bool | None
    ) -> Program:  # fmt: skip
        """Return the program for such inputs, made anew where a parameter has another shape or dtype by now."""
        specs = tuple([Spec(a.shape, a.dtype if a.dtype.isnative else a.dtype.newbyteorder("=")) for a in inputs])
        change = latest.change
        program = session.program(self.schedule(forward, specs, gradients))
        if not program.fits(change):
            with self.noting:
                self._forget()
            program = session.program(self.schedule(forward, specs, gradients))
        return program

    def _walk(self, program: Program, inputs: Sequence[Array]) -> Any:
        """Run a program forward; what its hooks and layers call must not come back to these modules."""
        plan = program.schedule
        if not plan.calls_out:
            return _unpacked(plan, program.forward(inputs))
        active = _active.get()
        if not active.isdisjoint(map(id, self.modules)):
            raise RuntimeError(
                f"{type(self.root).__name__}: cannot begin another run inside one of its own, as in a forward hook; "
                "use a copy (copy.deepcopy)"
            )
        token = _active.set(active.union(map(id, self.modules)))
        try:
            return _unpacked(plan, program.forward(inputs))
        finally:
            _active.reset(token)

    def backward(self, grads: Sequence[Array]) -> Any:
        name = type(self.root).__name__
        run = next((run for run in reversed(self.runs) if not run.done), None)
        if run is None:
            if self.runs:
                raise RuntimeError(
                    f"{name}.backward: it has run already for the latest forward, whose memory it used; run forward "
                    "again"
                )
            raise RuntimeError(f"{name}.backward: called before forward")
        outputs = run.program.schedule.graph.outputs
        if len(grads) != len(outputs):
            raise ValueError(f"{name}.backward: {len(grads)} gradients for {len(outputs)} outputs")
        for grad, value in zip(grads, outputs, strict=True):
            check_array(f"{name}.backward", "grad_output", grad)
            if grad.shape != value.shape:
                raise ValueError(
                    f"{name}.backward: grad_output has shape {grad.shape}, the latest output {value.shape}"
                )
            if grad.dtype.newbyteorder("=") != value.dtype:
                raise TypeError(f"{name}.backward: grad_output is {grad.dtype}, the latest output {value.dtype}")
        if not run.program.pending:
            if run.program.schedule.gradients:
                raise RuntimeError(f"{name}.backward: the latest forward did not end")
            self.eager = True
            inputs = run.program.inputs
            with self._quiet():
                run.program = self._program(run.session, run.forward, inputs, True)
                run.program.forward(inputs)
        run.done = True
        found = run.program.backward(grads, latest.change)
        return found[0] if len(found) == 1 else tuple(found)

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Call no hooks inside: the same forward once more is none that anybody asked for."""
        hooked = [(module, module._hooks) for module in self.modules if module._hooks]
        for module, _ in hooked:
            module._hooks = ()
        try:
            yield
        finally:
            for module, hooks in hooked:
                module._hooks = hooks

    # ---- predictions

    def predict(self, inputs: Sequence[Array], size: int) -> Any:
        """Run in evaluation mode, ``size`` samples at once, while no other thread runs or trains these modules."""
        self.refresh()
        with turn(self.everything):
            former = modes.set({**modes.get(), **dict.fromkeys(map(id, self.everything), False)})
            session: Session | None = None
            try:
                if self.root.is_opaque():
                    return self._in_parts(self.root, inputs, size)
                session = self._free_session()
                forward = type(self.root).forward.raw  # type: ignore[attr-defined]

                def run(*part: Array) -> Any:
                    return self._walk(self._program(session, forward, part, False), part)

                return self._in_parts(run, inputs, size)
            finally:
                modes.reset(former)
                if session is not None:
                    self.sessions.append(session)
                for module in self.opaque:
                    module._saved = None

    @staticmethod
    def _in_parts(run: Forward, inputs: Sequence[Array], size: int) -> Any:
        """Return copies of what a function gives for parts of its inputs, put together."""
        count = len(inputs[0])
        found = run(*(inputs if size >= count else [a[:size] for a in inputs]))
        outputs = found if isinstance(found, tuple) else (found,)
        results = [np.empty_like(a, shape=(count, *a.shape[1:])) for a in outputs]
        for result, output in zip(results, outputs, strict=True):
            result[:size] = output
        for start in range(size, count, size):
            part = run(*(a[start : start + size] for a in inputs))
            for result, output in zip(results, part if isinstance(part, tuple) else (part,), strict=True):
                result[start : start + size] = output
        return tuple(results) if isinstance(found, tuple) else results[0]

    def _free_session(self) -> Session:
        """Return an arena that nobody needs: a spare one, that of a finished run of this thread, or a new one."""
        mine = [run for run in self.runs if run.thread == threading.get_ident() and not run.program.pending]
        if not self.sessions and frame.get() is None and len(mine) == len(self.runs):
            self.drop()
        return self.sessions.pop() if self.sessions else Session()


def _unpacked(plan: Schedule, outputs: list[Array]) -> Any:
    return outputs[0] if plan.graph.single else tuple(outputs)


def _described(module: Module) -> Iterator[Module]:
    """Yield a module and those below it whose forward is written down with it."""
    yield module
    if not module.is_opaque():
        for _, child in module.named_children():
            yield from _described(child)
