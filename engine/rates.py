"""Rate limits: a token bucket for each actor, source or instance.

`Rates.admit` is asked for each request that comes in through a door, before it is queued; what is over the limit is
answered `busy`, and nothing is kept of it. A bucket holds one second's worth, so that a burst of as many passes.
Invariant: at most `BUCKETS_MAX` buckets of a kind; the one longest unused goes first (it is full again by then, or
close to it). Requests without an actor or a source share one bucket.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Self

from statewright.engine.clock import SECOND_NS, Clock
from statewright.engine.errors import BusyError, InvalidError

BUCKETS_MAX = 10_000
KINDS = ("actor", "source", "instance")


class Rates:
    """Limits by kind ("actor", "source", "instance"), in requests a second; a kind that is missing is not limited."""

    def __init__(self, clock: Clock, limits: Mapping[str, float]) -> None:
        self._clock = clock
        self._buckets = [_Buckets(kind, limits[kind]) for kind in KINDS if kind in limits]

    @classmethod
    def from_environment(cls, clock: Clock, environment: Mapping[str, str]) -> Self:
        """By STATEWRIGHT_RATE_ACTOR, _SOURCE and _INSTANCE. Raises `InvalidError` for what is no number over 0."""
        limits = {}
        for kind in KINDS:
            name = f"STATEWRIGHT_RATE_{kind.upper()}"
            if text := environment.get(name, ""):
                try:
                    limits[kind] = float(text)
                except ValueError:
                    limits[kind] = 0.0
                if not 0 < limits[kind] < 1e9:
                    raise InvalidError(f"expected {name} to be a number of requests a second, got {text[:20]!r}")
        return cls(clock, limits)

    def admit(self, *, actor: str, source: str, instance: str) -> None:
        """Take one token of each. Raises `BusyError` if one has none left; then none is taken."""
        if not self._buckets:
            return
        now = self._clock.now()
        named = {"actor": actor, "source": source, "instance": instance}
        for buckets in self._buckets:
            buckets.check(named[buckets.kind], now)
        for buckets in self._buckets:
            buckets.take(named[buckets.kind], now)


class _Buckets:
    def __init__(self, kind: str, rate: float) -> None:
        self.kind = kind
        self._rate = rate
        self._size = max(rate, 1.0)
        self._filled: OrderedDict[str, tuple[float, int]] = OrderedDict()
        """Tokens as of a time, by name, longest unused first."""

    def check(self, name: str, now: int) -> None:
        if self._tokens(name, now) < 1.0:
            who = f"{self.kind} '{name}'" if name else f"all that name no {self.kind}"
            raise BusyError(f"expected at most {self._rate:g} requests a second for {who}, got more; try again later")

    def take(self, name: str, now: int) -> None:
        self._filled[name] = (self._tokens(name, now) - 1.0, now)
        self._filled.move_to_end(name)
        if len(self._filled) > BUCKETS_MAX:
            self._filled.popitem(last=False)

    def _tokens(self, name: str, now: int) -> float:
        tokens, at = self._filled.get(name, (self._size, now))
        return min(self._size, tokens + max(0, now - at) * self._rate / SECOND_NS)
