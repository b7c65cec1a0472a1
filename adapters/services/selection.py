"""Which service is the best for a purpose: by interface, availability and what was measured. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from statewright.adapters.services.circuit import CircuitState
from statewright.statecharts.facts import Json

Tier = Literal["low", "standard", "high"]
_RANKS: Mapping[Tier, int] = {"low": 0, "standard": 1, "high": 2}


class ServiceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A service as the registry knows it now. `tier` is the performance tier; `uptime` is 0..1; `latency_ms` is None
    until a call was measured; `methods` may be empty where nobody has said which there are."""

    name: str
    version: str = ""
    description: str = ""
    interfaces: frozenset[str] = frozenset()
    methods: frozenset[str] = frozenset()
    metadata: Mapping[str, Json] = {}
    priority: int = 0
    tier: Tier = "standard"
    is_available: bool = True
    is_overloaded: bool = False
    circuit: CircuitState = "closed"
    uptime: float = 1.0
    latency_ms: float | None = None
    instances: int = 0


class Criteria(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a service must have. `tier`: at least that; `uptime_min` 0..1; `latency_ms_max`: a service that was never
    measured passes; `metadata`: each entry must be there and equal."""

    interface: str = ""
    method: str = ""
    tier: Tier = "low"
    uptime_min: float = 0.0
    latency_ms_max: float | None = None
    metadata: Mapping[str, Json] = {}


def best(services: Iterable[ServiceInfo], criteria: Criteria) -> ServiceInfo | None:
    """The best of those that fit: first one that isn't overloaded, then by priority, tier, uptime (in hundredths),
    latency (unmeasured last), name. None if none fits."""
    return min((service for service in services if not lacks(service, criteria)), key=_order, default=None)


def lacks(service: ServiceInfo, criteria: Criteria) -> str:
    """Why `service` doesn't fit, "" if it does."""
    name = service.name
    if criteria.interface and criteria.interface not in service.interfaces and criteria.interface != name:
        return f"'{name}' has not the interface '{criteria.interface}'"
    if criteria.method and service.methods and criteria.method not in service.methods:
        return f"'{name}' has no method '{criteria.method}'"
    if not service.is_available:
        return f"'{name}' is not available"
    if service.circuit == "open":
        return f"the circuit of '{name}' is open"
    if _RANKS[service.tier] < _RANKS[criteria.tier]:
        return f"'{name}' is of tier {service.tier}, expected {criteria.tier} or better"
    if service.uptime < criteria.uptime_min:
        return f"'{name}' was up {service.uptime:.1%} of the time, expected {criteria.uptime_min:.1%} or more"
    if criteria.latency_ms_max is not None and (service.latency_ms or 0) > criteria.latency_ms_max:
        return f"'{name}' takes {service.latency_ms:.1f} ms, expected at most {criteria.latency_ms_max:.1f}"
    for key, value in criteria.metadata.items():
        if key not in service.metadata or service.metadata[key] != value:
            return f"'{name}' has {key}={service.metadata.get(key)!r} in its metadata, expected {value!r}"
    return ""


def _order(service: ServiceInfo) -> tuple[bool, int, int, float, float, str]:
    latency = float("inf") if service.latency_ms is None else service.latency_ms
    return (
        service.is_overloaded,
        -service.priority,
        -_RANKS[service.tier],
        -round(service.uptime, 2),
        latency,
        service.name,
    )
