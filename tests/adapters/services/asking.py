"""What the tests of services share: calls as the engine makes them, services that do as told, events as heard."""

from __future__ import annotations

import asyncio
from typing import Any

from statewright.adapters.services import ServiceEvent, Services
from statewright.engine.clock import SECOND_NS, ManualClock
from statewright.engine.workflows.calls import StepCall

CLOCK_AT = 1_700_000_000 * SECOND_NS


def asking(service: str, method: str, *, deadline_s: float = 0, criteria: Any = None, **parameters: Any) -> StepCall:
    """A step's call. deadline_s: by the manual clock's start, 0 for none."""
    return StepCall(
        execution_id="x-1",
        workflow="docs",
        step="parse",
        service=service,
        method=method,
        parameters=parameters,
        effect_id="x-1-2-0",
        deadline_ns=CLOCK_AT + round(deadline_s * SECOND_NS) if deadline_s else 0,
        metadata={} if criteria is None else {"criteria": criteria},
    )


def world(**settings: Any) -> tuple[Services, ManualClock, list[ServiceEvent]]:
    """Services on a manual clock, with all events that they tell."""
    clock = ManualClock(CLOCK_AT)
    services = Services(clock=clock, **settings)
    events: list[ServiceEvent] = []
    services.subscribe(events.append)
    return services, clock, events


def kinds(events: list[ServiceEvent]) -> list[str]:
    """As `kind` or `kind:instance`."""
    return [f"{event.kind}:{event.instance}" if event.instance else event.kind for event in events]


class Instance:
    """An instance of a service: says its name, and what else a test tells it to."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.is_well = True
        self.error: BaseException | None = None
        self.let_go = asyncio.Event()
        self.waiting = asyncio.Event()

    async def who(self) -> str:
        if self.error is not None:
            raise self.error
        return self.name

    async def wait(self) -> str:
        """Until it is let go."""
        self.waiting.set()
        await self.let_go.wait()
        return self.name

    def double(self, number: int) -> int:
        """A plain function, which runs in a thread."""
        return 2 * number

    async def healthy(self) -> bool:
        return self.is_well
