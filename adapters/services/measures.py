"""What is measured of services: calls, failures, latency, how long they were there. Times are given (integer ns).

Invariant: figures are those of this process since it knows the service; nothing is estimated where nothing was measured
(None, not 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from statewright.adapters.services.circuit import CircuitState

Outcome = Literal["succeeded", "refused", "failed", "unheard"]
"""How a call ended. refused: the service's answer is no, or not now. unheard: it says nothing about the service
(nobody took it, nobody waits for it any more, its parameters were wrong)."""
LATENCY_SHARE = 0.2
"""What the newest call counts in the moving average of latencies."""


class InstanceMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One instance. `load` 0..1, None if unknown; `calls` counts those that have ended."""

    id: str
    calls: int
    failures: int
    in_flight: int
    latency_ms: float | None
    load: float | None
    is_alive: bool
    is_overloaded: bool


class ServiceMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """One service. `latency_ms` is a moving average over successful calls, None before the first; `uptime` is the share
    of the time, 0..1, in which an instance was alive; `refusals` counts answers that were no, or not now (they
    are not failures); `rejected` counts calls that an open circuit refused (they are not calls)."""

    service: str
    calls: int
    failures: int
    refusals: int
    rejected: int
    in_flight: int
    latency_ms: float | None
    uptime: float
    circuit: CircuitState
    circuit_openings: int
    overloads: int
    instances: tuple[InstanceMetrics, ...] = ()


@dataclass
class CallMeasure:
    """Counts calls and averages their latency."""

    calls: int = 0
    failures: int = 0
    refusals: int = 0
    in_flight: int = 0
    latency_ns: float | None = None

    def begin(self) -> None:
        self.in_flight += 1

    def end(self, outcome: Outcome, took_ns: int) -> None:
        """The call that was begun has ended so, after so long."""
        self.in_flight -= 1
        if outcome == "unheard":
            return
        self.calls += 1
        if outcome == "failed":
            self.failures += 1
        elif outcome == "refused":
            self.refusals += 1
        elif self.latency_ns is None:
            self.latency_ns = took_ns
        else:
            self.latency_ns += LATENCY_SHARE * (took_ns - self.latency_ns)

    @property
    def latency_ms(self) -> float | None:
        return None if self.latency_ns is None else self.latency_ns / 1e6


@dataclass
class Uptime:
    """How long something was up, since `since`."""

    since: int
    is_up: bool = False
    changed_at: int = 0
    up_ns: int = 0

    def turn(self, is_up: bool, now: int) -> None:
        if is_up == self.is_up:
            return
        if self.is_up:
            self.up_ns += max(now - self.changed_at, 0)
        self.is_up, self.changed_at = is_up, now

    def share(self, now: int) -> float:
        """0..1; before any time has passed, what it is now."""
        total = now - self.since
        if total <= 0:
            return float(self.is_up)
        up = self.up_ns + (max(now - self.changed_at, 0) if self.is_up else 0)
        return min(up / total, 1.0)
