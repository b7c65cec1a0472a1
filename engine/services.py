"""The port through which services in other processes are found and asked; a bus (NATS) implements it.

Conventions, which services in any language follow: a service called `parser` answers requests for its method `parse` on
`statewright.calls.parser.parse`, in a queue group that all its instances share. An instance that can be asked by itself
listens on the same subject with a word of its own at the end, too, and announces that word in its metadata
(`INSTANCE_KEY`). The other keys say what it is: all values are text, as `nats.micro` has it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import msgspec

from statewright.engine.calls import EffectCall
from statewright.engine.errors import UnavailableError
from statewright.statecharts.facts import Json

CALLS = "statewright.calls."
"""Before `<service>.<method>`, the subject of a call."""
INSTANCE_KEY = "statewright-instance"
"""In an instance's metadata: the last word of the subjects that it alone listens on."""
INTERFACES_KEY = "statewright-interfaces"
"""What it can stand in for: names with commas between."""
PRIORITY_KEY = "statewright-priority"
"""Of the service among those with the same interface, a whole number; the highest is preferred."""
TIER_KEY = "statewright-tier"
"""Its performance tier: low, standard or high."""
WEIGHT_KEY = "statewright-weight"
"""Of the instance among those of its service, a whole number from 1."""


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """What one instance of a service says of itself. `id` is unique among all instances; `subject_word` is what it
    announced under `INSTANCE_KEY` ("" if it can't be asked by itself); `load` is 0..1, None if it doesn't say."""

    service: str
    id: str
    version: str = ""
    description: str = ""
    methods: tuple[str, ...] = ()
    own_methods: tuple[str, ...] = ()
    """Those that it can be asked for by itself."""
    metadata: dict[str, str] = {}
    subject_word: str = ""
    load: float | None = None
    is_healthy: bool = True


class NobodyListens(UnavailableError):
    """Nobody took the request: so it can be given to somebody else at once. `subject` is where it was sent."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"no service answers on '{subject}'")
        self.subject = subject


class ServiceBus(Protocol):
    """Finds and asks the services in other processes."""

    async def discover(self, expected: Collection[str] = ()) -> Sequence[Announcement]:
        """Who is there now. `expected` are the ids of those that were there last: they are waited for a bounded time.
        Raises `UnavailableError` if the bus is out of reach, which says nothing about the services."""
        ...

    async def call(self, effect: EffectCall, instance: str = "") -> Json:
        """Ask the service `<service>.<method>` (the effect's name), or that instance of it (its subject word). Raises
        `NobodyListens`, `UnavailableError`, `PermanentError`, `RetryLater`."""
        ...
