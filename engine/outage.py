"""What keeps a loop of the engine from its work, told so that a person can use it.

A store may be away for an hour, and a loop that looks again each second would fill the log with what the first line
has said. So: the first failure is told, another one when it is another, the same again once a minute, and the end.
A fault of the store's is told in a line; only one that may be ours brings its traceback.
"""

from __future__ import annotations

import logging

from eventsourcing.persistence import IntegrityError, PersistenceError

from statewright.engine.clock import SECOND_NS, Clock
from statewright.statecharts.errors import StatewrightError

AGAIN_NS = 60 * SECOND_NS
PAUSE_NS = SECOND_NS
_LOG = logging.getLogger("statewright.engine")


class Outage:
    """Of one loop. `what` is said of it, such as "timers can't be read"; `level`: that of the lines that do."""

    def __init__(self, what: str, clock: Clock, level: int = logging.ERROR) -> None:
        self._what = what
        self._clock = clock
        self._level = level
        self._failures = 0
        self._since = 0
        self._said_at = 0
        self._said = ""

    def failed(self, error: Exception) -> None:
        """It was tried and failed: tell it, unless that has just been told."""
        now = self._clock.now()
        if not self._failures:
            self._since = now
        self._failures += 1
        said = type(error).__name__  # Messages of one cause differ: ports, addresses, positions.
        if said == self._said and self._said_at <= now < self._said_at + AGAIN_NS:
            return
        self._said, self._said_at = said, now
        is_passing = isinstance(error, PersistenceError | StatewrightError)
        lasting = f" (for {(now - self._since) // SECOND_NS} s now)" if self._failures > 1 else ""
        reason = str(error) if is_passing else f"{said}: {error}"
        message = "%s%s; trying again: %s"
        # Another worker has written what was to be written here, as after a pause of this one: nothing is wrong.
        level = logging.WARNING if isinstance(error, IntegrityError) else self._level
        _LOG.log(level, message, self._what, lasting, reason, exc_info=None if is_passing else error)

    async def pause(self) -> None:
        """Return when it may be tried again."""
        await self._clock.sleep_until(self._clock.now() + PAUSE_NS)

    def over(self) -> None:
        """It was tried and worked."""
        self._end("over")

    def left(self) -> None:
        """It is not tried here any more: that is another worker's now, or nobody's as long as leases can't be had."""
        self._end("left to whichever worker can go on,")

    def _end(self, how: str) -> None:
        if not self._failures:
            return
        lasted = max(0, self._clock.now() - self._since) // SECOND_NS
        _LOG.warning("%s: %s after %d s (%d failures)", self._what, how, lasted, self._failures)
        self._failures, self._said = 0, ""
