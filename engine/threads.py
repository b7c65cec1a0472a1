"""Threads for handlers that are plain functions.

Nobody can stop a thread, so: there are at most `THREADS_MAX`, those that were given up count until they end, and
closing waits for them a bounded time. They are daemons, because the threads of `concurrent.futures` are joined when the
interpreter exits: one hanging handler would keep the process for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import Callable
from typing import Any

THREADS_MAX = 100
CLOSING_S = 5.0
"""How long closing waits for functions that are still running."""

_LOG = logging.getLogger("statewright.engine")


class Threads:
    """Runs functions, each in a thread of its own, a bounded number at once."""

    def __init__(self, threads_max: int = THREADS_MAX, closing_s: float = CLOSING_S) -> None:
        self._free = asyncio.Semaphore(threads_max)
        self._closing_s = closing_s
        self._running: dict[asyncio.Future[Any], str] = {}

    async def run(self, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)` in a thread called `name`. When this is cancelled the thread goes on, unheard."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        run = contextvars.copy_context().run

        def work() -> None:
            result, error = None, None
            try:
                result = run(function, *args)
            except BaseException as raised:  # Whatever it is, it belongs to the caller.
                error = raised
            with contextlib.suppress(RuntimeError):  # The loop was closed: nobody is there any more.
                loop.call_soon_threadsafe(self._ended, future, result, error)

        thread = threading.Thread(target=work, name=name, daemon=True)
        try:
            thread.start()
        except BaseException:
            self._free.release()
            raise
        self._running[future] = name
        return await asyncio.shield(future)

    def _ended(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._free.release()
        del self._running[future]
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, StopIteration):
            future.set_exception(RuntimeError(f"StopIteration: {error}"))  # No future takes it.
        else:
            future.set_exception(error)
            future.exception()  # Seen, should nobody be waiting any more.

    async def close(self) -> None:
        """Wait for what is running, but not for ever; what is left behind is said in the log."""
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=self._closing_s)
        if self._running:
            left = (len(self._running), self._closing_s, ", ".join(sorted(self._running.values())))
            _LOG.warning("closing without %d handlers that have not ended within %g s: %s", *left)
