"""Waiting for executions to end.

Invariants: the row in the store is the truth, and is looked at before and after every wait; a commit of this engine
that ends an execution wakes its waiters at once with the row that it has written, so that nobody polls. What other
processes commit is seen by looking: five times a second on a store that others write.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from statewright.engine.alarm import Alarm
from statewright.engine.clock import SECOND_NS
from statewright.engine.engine import Engine
from statewright.engine.errors import InvalidError
from statewright.engine.recorder import Changes, InstanceRow
from statewright.engine.workflows.errors import ExecutionTimeout
from statewright.engine.workflows.executions import is_over

LOOK_NS = 5 * SECOND_NS
"""How long an end may stay unseen if, against expectation, it rang no alarm."""
LOOK_SHARED_NS = SECOND_NS // 5


def timeout_ns(timeout_s: float | None) -> int | None:
    """So many seconds in ns, None for no timeout. Raises `InvalidError` if it is neither."""
    try:
        return None if timeout_s is None else round(timeout_s * SECOND_NS)
    except (TypeError, ValueError, OverflowError):
        raise InvalidError(f"expected a timeout in seconds, a number or None, got {timeout_s!r}") from None


class Waiting:
    """Who waits for which execution, on one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._look_ns = LOOK_SHARED_NS if engine.store.is_shared or engine.store.read_only else LOOK_NS
        self._waiters: dict[str, list[Alarm]] = {}
        self._ended: dict[Alarm, InstanceRow] = {}
        """What they wait for, as it was committed here."""
        self._end = engine.watch(self._committed)

    def close(self) -> None:
        """Have all waiters look once more; they find the engine closed."""
        self._end()
        for alarms in self._waiters.values():
            for alarm in alarms:
                alarm.ring()

    async def until_over(
        self, execution_id: str, read: Callable[[str], Awaitable[InstanceRow]], timeout_s: float | None
    ) -> InstanceRow:
        """The row, read by `read`, once the execution is over. Raises `ExecutionTimeout`, and what `read` raises."""
        clock = self._engine.clock
        within_ns = timeout_ns(timeout_s)
        deadline = None if within_ns is None else clock.now() + within_ns
        alarm = Alarm(clock)
        self._waiters.setdefault(execution_id, []).append(alarm)
        try:
            while True:
                row = self._ended.get(alarm) or await read(execution_id)
                if is_over(row):
                    return row
                now = clock.now()
                if deadline is not None and now >= deadline:
                    raise ExecutionTimeout(
                        f"expected execution '{execution_id}' of '{row.definition}' to end within {timeout_s:g} s, "
                        f"it is {row.status} and goes on"
                    )
                look_at = now + self._look_ns
                await alarm.wait(look_at if deadline is None else min(look_at, deadline))
        finally:
            self._ended.pop(alarm, None)
            self._waiters[execution_id].remove(alarm)
            if not self._waiters[execution_id]:
                del self._waiters[execution_id]

    def _committed(self, changes: Changes) -> None:
        if self._waiters:
            for row in changes.instances:
                if row.id in self._waiters and is_over(row):
                    for alarm in self._waiters[row.id]:
                        self._ended[alarm] = row
                        alarm.ring()
