"""What becomes known of services: one frozen record an event, and those who listen."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import msgspec

ServiceEventKind = Literal[
    "service_registered",
    "service_unregistered",
    "service_available",
    "service_unavailable",
    "instance_added",
    "instance_lost",
    "instance_returned",
    "instance_overloaded",
    "instance_relieved",
    "circuit_opened",
    "circuit_half_opened",
    "circuit_closed",
]

_LOG = logging.getLogger("statewright.services")
_TROUBLE = ("service_unavailable", "instance_lost", "instance_overloaded", "circuit_opened")


class ServiceEvent(msgspec.Struct, frozen=True):
    """`time` is ns UTC; `instance` is "" where the whole service is meant; `detail` is for people."""

    kind: ServiceEventKind
    service: str
    time: int
    instance: str = ""
    detail: str = ""


Listener = Callable[[ServiceEvent], None]


class Listeners:
    """Those who want to know. A listener that raises is logged and keeps nobody else from hearing."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> Callable[[], None]:
        """`listener` hears every event from now on; the function returned ends that."""
        self._listeners.append(listener)

        def remove() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return remove

    def tell(self, event: ServiceEvent) -> None:
        level = logging.WARNING if event.kind in _TROUBLE else logging.INFO
        what = f"{event.service}/{event.instance}" if event.instance else event.service
        _LOG.log(level, "%s: %s%s", event.kind, what, f" ({event.detail})" if event.detail else "")
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception:
                _LOG.exception("a listener failed on %s", event)
