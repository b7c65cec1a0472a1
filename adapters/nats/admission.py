"""Admission: who may ask how often, and who is believed to be asking. Asked by all doors before the engine is.

Settings: STATEWRIGHT_RATE_ACTOR, _SOURCE, _INSTANCE (see `rates`), and STATEWRIGHT_ACTORS:
- "claimed" (the default): the actor is what the message says. Whoever may publish may claim to be anybody.
- "subject": the actor is taken from the subject alone, `statewright.as.<actor>.send.<instance>` (`start` and `control`
  likewise), which NATS permissions can hold each user to. A message elsewhere that claims an actor is refused; without
  one it is recorded as nobody's. (NATS itself tells a subscriber nothing else about who has published: the header
  `Nats-Request-Info` of service imports could be written by any client of the same account.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec.structs import replace

from statewright.engine.clock import Clock
from statewright.engine.errors import InvalidError
from statewright.engine.rates import Rates
from statewright.engine.requests import ControlRequest, ExternalEvent, StartRequest

AS = "statewright.as."
ACTORS = "STATEWRIGHT_ACTORS"

_WORD = re.compile(r"[^\s.*>]+")
R = TypeVar("R", bound=ExternalEvent | StartRequest | ControlRequest)


class Admission:
    """Made from the settings in `environment`. Raises `InvalidError` for those that can't be understood."""

    def __init__(self, clock: Clock, environment: Mapping[str, str]) -> None:
        self._rates = Rates.from_environment(clock, environment)
        chosen = environment.get(ACTORS) or "claimed"
        if chosen not in ("claimed", "subject"):
            raise InvalidError(f"expected {ACTORS} to be claimed or subject, got {chosen[:20]!r}")
        self.by_subject = chosen == "subject"

    def admit(self, request: R, actor: str | None = None) -> R:
        """The request as it is to be recorded; `actor` is the one in the subject, if it has one. Raises
        `InvalidError` for an actor that is claimed elsewhere, `BusyError` over a rate."""
        if self.by_subject:
            if request.actor and request.actor != actor:
                raise InvalidError(
                    f"expected the actor in the subject, {AS}<actor>.…, got one that the message claims"
                    if actor is None
                    else f"expected no other actor than the subject's, '{actor}', got {request.actor[:60]!r}"
                )
            request = replace(request, actor=actor or "")
        source: Any = getattr(request, "source", "")
        self._rates.admit(actor=request.actor, source=source, instance=request.instance_id)
        return request


def prefix_for(actor: str, environment: Mapping[str, str]) -> str:
    """What a client's subjects begin with. Raises `InvalidError` for an actor that can't be part of one."""
    if environment.get(ACTORS) != "subject" or not actor:
        return "statewright."
    if not _WORD.fullmatch(actor):
        raise InvalidError(f"expected an actor that can be one word of a subject, got {actor[:60]!r}")
    return f"{AS}{actor}."


def split_actor(rest: str) -> tuple[str, str]:
    """The actor and what follows, of what stands behind the door's prefix. Raises `InvalidError`."""
    actor, separator, subject = rest.partition(".")
    if not separator or not subject:
        raise InvalidError(f"expected a subject {AS}<actor>.<door>.<id>, got '{AS}{rest[:100]}'")
    return actor, subject
