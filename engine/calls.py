"""What a handler is given and what it may say: the call, its heartbeat, and the errors that mean something."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from statewright.statecharts.errors import StatewrightError
from statewright.statecharts.facts import Json, Policy


class PermanentError(StatewrightError):
    """Raise it in a handler when trying again can't help: the effect ends as failed at once."""


class RetryLater(StatewrightError):
    """Raise it in a handler to say when the next attempt makes sense: in `seconds`, whatever the policy's wait.

    counted: whether this attempt is one of those that the policy allows; not if nothing was tried, as while a circuit
    is open. Raises `TypeError` and `ValueError` if `seconds` is no finite number, which fail the attempt as any other
    error."""

    def __init__(self, seconds: float, message: str = "", *, counted: bool = True) -> None:
        if not isinstance(seconds, int | float):
            raise TypeError(f"expected RetryLater with seconds, a number, got {type(seconds).__name__}")
        if not math.isfinite(seconds):
            raise ValueError(f"expected RetryLater with seconds, a finite number, got {seconds}")
        super().__init__(message or f"again in {seconds:g} s")
        self.seconds = seconds
        self.counted = counted


class EffectCancelled(StatewrightError):
    """Nobody waits for this attempt any more: the state was left, the instance cancelled, the time is up, or the engine
    closes. `EffectCall.heartbeat` raises it; a plain function that gets it should undo or stop, and let it pass."""


class Pulse(Protocol):
    """What an attempt offers to the handler's call, from any thread."""

    @property
    def cancelled(self) -> bool: ...

    def beat(self, details: Json) -> None: ...

    async def in_thread(self, function: Callable[[], Any]) -> Any: ...


class _Still:
    """The pulse of a call that nobody watches (one made in a test of a handler)."""

    cancelled = False

    def beat(self, details: Json) -> None: ...

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(function)


@dataclass(frozen=True)
class EffectCall:
    """What a handler is given. `attempt` counts from 1; `effect_id` is the same in every attempt. `details` is what the
    last heartbeat of an earlier attempt said. `deadline` (ns UTC, 0 if unknown) is when this attempt is given up."""

    effect_id: str
    instance_id: str
    name: str
    kind: str
    data: Json
    attempt: int
    details: Json = None
    deadline: int = field(default=0, compare=False)
    policy: Policy = field(default=Policy(), compare=False)
    """What the chart, or else whoever registered the handler, says about how it is performed."""
    pulse: Pulse = field(default=_Still(), compare=False, repr=False)

    def heartbeat(self, details: Json = None) -> None:
        """Say that the attempt is alive, from the event loop or a thread, without waiting. `details` (JSON; None keeps
        the last) are durable soon after and are what the next attempt gets. Raises `EffectCancelled` when nobody waits
        for the attempt any more, `InvalidError` and `TooLargeError` for details that can't be stored."""
        self.pulse.beat(details)

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for this attempt any more. A coroutine is cancelled besides; a plain function has to
        ask."""
        return self.pulse.cancelled

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        """Run a plain function in a thread, as a handler that is one: if nobody waits for the attempt any more, it is
        not broken off, and what it returns is still taken."""
        return await self.pulse.in_thread(function)


Handler = Callable[[EffectCall], Awaitable[Json]] | Callable[[EffectCall], Json]
"""Performs one effect and returns its result (JSON). An `async def`, or a plain function, which is run in a thread."""
