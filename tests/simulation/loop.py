"""An event loop whose time is virtual and whose order is drawn, and the simulated processes that run on it.

Invariants: nothing happens but what the loop runs, one callback after another; time moves only when nothing is ready. A
callback belongs to the process in whose context it was scheduled: a dead process's are never run, a paused
one's wait. So a crash runs no `finally`, as a SIGKILL runs none.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any

SECOND_NS = 1_000_000_000
TURNS_MAX = 20_000
"""How many callbacks may run before time moves: more than any real work needs."""


class Process:
    """Something that can die, or be held up, as a whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.held: list[asyncio.Handle] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.context = copy_context()
        self.context.run(_PROCESS.set, self)

    @staticmethod
    def current() -> Process | None:
        """The process whose code is running; None for the world outside."""
        return _PROCESS.get()

    @staticmethod
    def leave(context: Context) -> None:
        """Make `context` one of the world outside."""
        context.run(_PROCESS.set, None)


_PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class Livelock(AssertionError):
    """Callbacks run for ever and time stands still, or nothing will ever happen again."""


class SimulatedLoop(asyncio.AbstractEventLoop):
    """`disorder` (0 to 1) is how often the next callback is drawn rather than the one that has waited longest."""

    def __init__(self, rng: Random, disorder: float) -> None:
        self._rng = rng
        self._disorder = disorder
        self._ready: list[tuple[Process | None, asyncio.Handle]] = []
        self._scheduled: list[tuple[int, int, Process | None, asyncio.TimerHandle]] = []
        self._order = itertools.count()
        self._turns = 0
        self.now_ns = 0
        self.world_tasks: list[asyncio.Task[Any]] = []
        self.troubles: list[str] = []
        """What nobody caught."""

    # Running
    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run `main` to its end, then end all that was begun."""
        asyncio._set_running_loop(self)
        try:
            self._until_done(self.create_task(main))
        finally:
            asyncio._set_running_loop(None)

    async def bury(self, process: Process) -> None:
        """End the tasks of a process, once all is over and judged: Python wants every task ended."""
        process.alive = True
        self.wake(process)
        while pending := [task for task in process.tasks if not task.done()]:
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=1.0)
        for task in process.tasks:
            if not task.cancelled():
                task.exception()

    def _until_done(self, task: asyncio.Task[None]) -> None:
        while not task.done():
            self._turn()
        task.result()

    def _turn(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        if not ready:
            self._turns = 0
            if not scheduled:
                raise Livelock("everybody waits, and nothing is scheduled")
            self.now_ns = max(self.now_ns, scheduled[0][0])
        while scheduled and scheduled[0][0] <= self.now_ns:
            _, _, process, timer = heapq.heappop(scheduled)
            if not timer.cancelled():
                ready.append((process, timer))
        if not ready:
            return
        self._turns += 1
        if self._turns > TURNS_MAX:
            raise Livelock(f"{TURNS_MAX:,} callbacks ran and time stands still at {self.now_ns}")
        drawn = len(ready) > 1 and self._rng.random() < self._disorder
        process, handle = ready.pop(self._rng.randrange(len(ready)) if drawn else 0)
        if handle.cancelled():
            return
        if process is not None and (process.paused or not process.alive):
            process.held.append(handle)
        else:
            handle._run()

    def wake(self, process: Process) -> None:
        """A paused process goes on as if nothing had been."""
        process.paused = False
        self._ready += [(process, handle) for handle in process.held]
        process.held.clear()

    # What asyncio asks of a loop
    def time(self) -> float:
        return self.now_ns / SECOND_NS

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        context = context if context is not None else copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append((context.get(_PROCESS), handle))
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        context = context if context is not None else copy_context()
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        when_ns = max(round(when * SECOND_NS), self.now_ns + 1)
        heapq.heappush(self._scheduled, (when_ns, next(self._order), context.get(_PROCESS), handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        context = kwargs.get("context")
        process = context.get(_PROCESS) if context is not None else _PROCESS.get()
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, **kwargs)
        (self.world_tasks if process is None else process.tasks).append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.troubles.append(f"{context.get('message')}: {context.get('exception')!r}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time comes."""


class SimulatedClock:
    """The loop's time as a wall clock, which may leap."""

    def __init__(self, loop: SimulatedLoop, start: int = 1_700_000_000 * SECOND_NS) -> None:
        self._loop = loop
        self._offset = start
        self.set_back_ns = 0
        """By how much it has been set back in all."""

    def now(self) -> int:
        return self._loop.now_ns + self._offset

    def leap(self, by_ns: int) -> None:
        self._offset += by_ns
        self.set_back_ns += max(-by_ns, 0)

    async def sleep_until(self, due_at: int) -> None:
        # As the system's clock: a wall clock that was set forward or back is noticed within a minute.
        delay_s = (due_at - self.now()) / SECOND_NS
        await asyncio.sleep(min(max(delay_s, 0.0), 60.0))


class SimulatedWorker:
    """Does a worker's jobs on the loop, in order, each after a delay, and says so after another.

    Invariant: answers come in the order of the calls, as a thread's do.
    """

    def __init__(self, loop: SimulatedLoop, delay_s: Callable[[], float]) -> None:
        self._loop = loop
        self._delay_s = delay_s
        self._jobs: list[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self._answered_at = 0.0
        self._busy = False

    def call(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        self._jobs.append((future, function, args))
        if not self._busy:
            self._busy = True
            self._loop.call_later(self._delay_s(), self._next)
        return future

    def close(self) -> None:
        while self._jobs:
            self._do()

    def _next(self) -> None:
        if self._jobs:
            self._do()
        self._busy = bool(self._jobs)
        if self._busy:
            self._loop.call_later(self._delay_s(), self._next)

    def _do(self) -> None:
        future, function, args = self._jobs.pop(0)
        result: Any = None
        error: BaseException | None = None
        try:
            result = function(*args)
        except BaseException as raised:
            error = raised
        # A nanosecond apart at least: the loop may draw the order of what comes at the same time.
        self._answered_at = max(self._answered_at + 2e-9, self._loop.time() + self._delay_s())
        self._loop.call_at(self._answered_at, _settle, future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
