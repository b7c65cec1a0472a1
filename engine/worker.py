"""One thread that does what an event loop must not wait for, in order.

Like an executor of one, at half the cost of a hop: no second future, no condition variables. With one sender the hop is
a good part of what an acknowledgement takes.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

_Job = tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...]]


class Working(Protocol):
    """Who does it: a thread, or a simulation of one (`tests/simulation`), which does it on the loop."""

    def call(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """Do `function(*args)` after all that was called before; the future has its result or exception."""
        ...

    def close(self) -> None:
        """Return once all that was called has been done."""
        ...


Workers = Callable[[str], Working]
"""Makes one by name, on the loop that will call it."""


class Worker:
    """A thread of its own. `call` from the loop that made it; `close` runs what was called before, then ends."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        """`function(*args)` on the thread; the future has its result or exception."""
        future = self._loop.create_future()
        self._jobs.put((future, function, args))
        return future

    def close(self) -> None:
        """Wait until all that was called has been done."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, args = job
            try:
                result, error = function(*args), None
            except BaseException as raised:  # Whatever it is, it belongs to the caller.
                result, error = None, raised
            self._loop.call_soon_threadsafe(_settle, future, result, error)
            del job, future, function, args, result, error  # Nothing is kept alive while waiting for the next job.


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():  # The caller was cancelled; the work is done all the same.
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
