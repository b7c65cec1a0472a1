"""Stopping `serve`: the first signal asks it to come to rest, a second one ends it, and time ends it in any case.

Whichever way it ends, nothing that was acknowledged is lost: that is in the store. Coming to rest spares clients a
wait, effects a second attempt and the next run some work.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE_S = 10.0
"""For closing connections, our nats-server, threads of handlers and the store, after what `shutdown_timeout` bounds."""
LEAVE_S = 0.5
"""How long the interpreter may take to end when all is closed. A thread in which a handler still runs would hold it up
for as long as that takes."""
NOT_IN_TIME = 1

_LOG = logging.getLogger("statewright.serve")


class Stopping:
    """Listens for the signals, on the loop of the one who makes it."""

    def __init__(self, timeout_s: float) -> None:
        self._asked = asyncio.Event()
        self._timeout_s = timeout_s
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)

    async def asked(self) -> None:
        """Return once a signal has come."""
        await self._asked.wait()

    def closed(self) -> None:
        """All is closed: what may still run in a thread is not waited for."""
        _LOG.info("stopped")
        sys.stdout.flush()
        _end_after(LEAVE_S, 0, "")

    def _on_signal(self, number: signal.Signals) -> None:
        if self._asked.is_set():
            _LOG.warning("%s again: ending at once", number.name)
            os._exit(128 + number)
        _LOG.info("%s: coming to rest, within %g s", number.name, self._timeout_s)
        self._asked.set()
        bound_s = self._timeout_s + GRACE_S
        _end_after(bound_s, NOT_IN_TIME, f"not at rest after {bound_s:g} s: ending; the next run does the rest")


def _end_after(seconds: float, code: int, message: str) -> None:
    """End the process then, unless it has ended by itself."""

    def end() -> None:
        if message:
            _LOG.error(message)
        os._exit(code)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
