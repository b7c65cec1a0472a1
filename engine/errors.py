"""What the engine refuses to do, by the codes that replies on the bus carry.

A refusal by the chart (no transition, a false guard) is not an error: it is an `Outcome`.
"""

from __future__ import annotations

from typing import ClassVar

from statewright.statecharts.errors import StatewrightError


class InvalidError(StatewrightError):
    """The request cannot be understood or breaks a rule: expected, actual and place are in the message."""

    code: ClassVar[str] = "invalid"


class NotFoundError(StatewrightError):
    """No such instance or definition."""

    code: ClassVar[str] = "not_found"


class PrunedError(NotFoundError):
    """The instance was pruned: it can't be read or driven any more, and its id stays taken."""


class AlreadyExistsError(StatewrightError):
    """An instance with this id exists with other content, or a definition's version with another digest."""

    code: ClassVar[str] = "already_exists"


class IdReusedError(StatewrightError):
    """The event identity (instance, source, id) was recorded before with other content."""

    code: ClassVar[str] = "id_reused"


class BusyError(StatewrightError):
    """A bounded queue is full; try again later. Nothing was recorded."""

    code: ClassVar[str] = "busy"


class TooLargeError(StatewrightError):
    """A payload is over its limit; the message names both sizes in bytes. Nothing was recorded."""

    code: ClassVar[str] = "too_large"


class UnavailableError(StatewrightError):
    """The store or the bus can't be used now: locked by another process, read-only, full, or out of reach."""

    code: ClassVar[str] = "unavailable"


class LeaseLostError(StatewrightError):
    """What this writer held is another's now: nothing was written, and nothing is to be under that lease."""

    code: ClassVar[str] = "unavailable"


class UnusableError(UnavailableError):
    """One instance can't be driven here, whatever the store does: the definition it is pinned to can't be compiled (a
    function that it names is gone), or its facts can't be read."""


class ConflictError(StatewrightError):
    """Another writer has recorded this (instance, sequence); the facts must be read again before deciding."""

    code: ClassVar[str] = "busy"
