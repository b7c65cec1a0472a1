"""Who is there on the bus: announcements become instances of services, silence makes them go.

Invariants: an instance is dead after `misses_max` looks in a row without an answer (or answers that it isn't well), and
back with its first good one. Instances that are dead for long are forgotten: each restart of a service is a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

import msgspec

from statewright.adapters.services.members import Member, RemoteTarget
from statewright.adapters.services.selection import Tier
from statewright.adapters.services.service import Profile, Service
from statewright.engine.services import (
    INTERFACES_KEY,
    PRIORITY_KEY,
    TIER_KEY,
    WEIGHT_KEY,
    Announcement,
    ServiceBus,
)
from statewright.statecharts.facts import Json

FORGET_AFTER = 100
"""How many looks a dead instance is remembered, so that it is known when it comes back."""
WEIGHT_MAX = 10_000

T = TypeVar("T")


class Discovery:
    """Looks for services on `bus`. `service_named` gives the service with a profile's name, making it if need be."""

    def __init__(self, bus: ServiceBus, service_named: Callable[[Profile], Service], misses_max: int) -> None:
        self._bus = bus
        self._service_named = service_named
        self._misses_max = misses_max

    async def look(self, services: Mapping[str, Service]) -> None:
        """Once. Raises `UnavailableError`, and nothing has changed then."""
        expected = {
            member.id
            for service in services.values()
            for member in service.members.values()
            if member.is_remote and member.is_alive
        }
        found: dict[str, set[str]] = {}
        for announcement in await self._bus.discover(expected):
            service = self._service_named(_profile(announcement))
            if service.group is None:
                continue  # A service in this process has that name: it is the one that is meant.
            found.setdefault(announcement.service, set()).add(announcement.id)
            self._take(service, announcement)
        for name, service in tuple(services.items()):
            self._miss(service, found.get(name, set()))

    def _take(self, service: Service, announcement: Announcement) -> None:
        announced = _profile(announcement)
        if not service.is_registered:
            service.profile = announced
        else:
            service.profile = _completed(service.profile, announced)
        member = service.members.get(announcement.id)
        if member is None:
            member = Member(announcement.id, self._target(announcement), is_remote=True)
            self._describe(member, announcement)
            service.add(member)
        self._describe(member, announcement)
        if not announcement.is_healthy:
            self._missed(service, member, "it says that it is not well")
            return
        service.find(member)
        if service.group is not None:
            service.find(service.group)

    def _describe(self, member: Member, announcement: Announcement) -> None:
        member.reported_load = announcement.load
        member.is_addressable = bool(announcement.subject_word)
        member.weight = min(max(_number(announcement.metadata.get(WEIGHT_KEY), 1), 1), WEIGHT_MAX)

    def _target(self, announcement: Announcement) -> RemoteTarget:
        methods = announcement.own_methods if announcement.subject_word else announcement.methods
        return RemoteTarget(announcement.service, self._bus, announcement.subject_word, frozenset(methods))

    def _miss(self, service: Service, found: set[str]) -> None:
        remote = [member for member in service.members.values() if member.is_remote]
        for member in remote:
            if member.id not in found:
                self._missed(service, member, f"no answer {member.misses + 1} times")
        if remote and service.group is not None and not any(member.is_alive for member in remote):
            service.lose(service.group, "all are gone")

    def _missed(self, service: Service, member: Member, detail: str) -> None:
        member.misses += 1
        if member.misses >= self._misses_max:
            service.lose(member, detail)
        if member.misses >= FORGET_AFTER:
            service.remove(member, detail)


def _profile(announcement: Announcement) -> Profile:
    said = announcement.metadata
    interfaces = frozenset(name.strip() for name in said.get(INTERFACES_KEY, "").split(",") if name.strip())
    metadata: dict[str, Json] = {key: value for key, value in said.items() if not key.startswith("statewright-")}
    return Profile(
        name=announcement.service,
        version=announcement.version,
        description=announcement.description,
        interfaces=interfaces,
        metadata=metadata,
        priority=_number(said.get(PRIORITY_KEY), 0),
        tier=_tier(said.get(TIER_KEY)),
    )


def _completed(registered: Profile, announced: Profile) -> Profile:
    """What the code said, and what it left open as it is announced."""
    return replace(
        registered,
        version=registered.version or announced.version,
        description=registered.description or announced.description,
        interfaces=registered.interfaces or announced.interfaces,
        metadata={**announced.metadata, **registered.metadata},
        priority=registered.priority or announced.priority,
    )


def _number(text: str | None, default: int) -> int:
    return _converted(text, int, default)


def _tier(text: str | None) -> Tier:
    default: Tier = "standard"
    return _converted(text, Tier, default)  # type: ignore[arg-type]


def _converted(text: str | None, kind: type[T], default: T) -> T:
    """What others write is not to be relied on: anything unusual is as if it weren't there."""
    if text is None:
        return default
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        return default
