"""Where a run can go wrong: every boundary has a number, and a rate that is drawn for the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum, unique
from random import Random


class Crashed(BaseException):
    """The process has died: whoever meets this does nothing more."""


@unique
class Fault(IntEnum):
    """A boundary, and what happens there."""

    # The process dies.
    BEFORE_DECIDE = 1
    BEFORE_COMMIT = 2
    AFTER_COMMIT = 3
    "Committed; nobody was answered."
    BEFORE_ACK = 4
    "The engine has answered; the answer never leaves."
    EFFECT_NOT_RECORDED = 5
    "Performed; the result is lost."
    EFFECT_CLAIMED = 6
    "Claimed, not performed."
    TIMER_NOT_FIRED = 7
    "Read as due, not fired."
    MESSAGE_NOT_ENDED = 8
    "What an instance asks of another: before its commit."
    SNAPSHOT_CRASH = 9
    DEFINITION_CRASH = 10
    PROJECTION_BEFORE = 11
    PROJECTION_AFTER = 12
    "The view is written; the follower does not learn of it."
    SCHEDULE_NOT_MOVED = 13
    "Its instance is started, the row still says that it is due."
    HEARTBEAT_CRASH = 14
    SHARE_NOT_TAKEN_OVER = 15
    "Leases are taken; what their last holder had begun is not begun anew."
    PARKED_CRASH = 16
    "Parked; who parks it does not learn of it."
    RETRIED_NOT_UNPARKED = 17
    "Delivered once more, or about to take its turn again; it still is parked."
    # The store fails.
    COMMIT_FAILS = 20
    COMMIT_UNKNOWN = 21
    "It is committed, but the answer is lost."
    COMMIT_CONFLICT = 22
    "Refused as if another writer had been first."
    CLAIM_UNKNOWN = 23
    RETRY_FAILS = 24
    SNAPSHOT_FAILS = 25
    DEFINITION_FAILS = 26
    RELEASE_FAILS = 27
    READ_FAILS = 28
    PROJECTION_FAILS = 29
    PROJECTION_UNKNOWN = 30
    SCHEDULE_FAILS = 31
    HEARTBEAT_FAILS = 32
    LEASES_FAIL = 33
    LEASES_UNKNOWN = 34
    PARKING_FAILS = 35
    PARKING_UNKNOWN = 36
    # The bus fails.
    REQUEST_LOST = 40
    REPLY_LOST = 41
    REQUEST_DOUBLED = 42
    REQUEST_LATE = 43
    # The process is stopped while another goes on, then wakes; or it is closed in good order.
    PAUSED = 50
    CLOSED = 51
    CLOCK_LEAPS = 52
    OLD_CODE = 53
    "It runs without a function that instances need."


RATES = (0.0, 0.0, 0.002, 0.01, 0.05)
"""What the rate of a fault is drawn from: a run has a few kinds of faults, some of them often."""


class Faults:
    """Draws whether a fault happens. `say` is told of each that does; `given` are rates that are not drawn."""

    def __init__(self, rng: Random, say: Callable[[str], None], given: Mapping[Fault, float]) -> None:
        self._rng = rng
        self._say = say
        self._rates = {fault: rng.choice(RATES) for fault in Fault} | given
        self.healed = False
        """No more faults."""

    def strike(self, fault: Fault, often: float = 1.0) -> bool:
        """Whether `fault` happens here; `often` is how many times as often as its rate says."""
        if self.healed or (rate := self._rates[fault]) == 0 or self._rng.random() >= rate * often:
            return False
        self._say(f"fault {fault.value} {fault.name.lower()}")
        return True
