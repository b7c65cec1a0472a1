"""How many effects may be performed at once: coroutines cost little, plain functions a thread each.

Invariant: room that was promised to a commit, or asked for by a claim, is kept until it is known what came of it; so
nothing is claimed that would have to wait here while its time runs.
"""

from __future__ import annotations

from statewright.engine.threads import THREADS_MAX

CONCURRENCY_MAX = 500
"""How many effects are performed at once on the event loop. Twice as many were a tenth faster, where steps do nothing,
and took twice the memory."""


class Room:
    """The room for the effects of one sort."""

    __slots__ = ("asked_for", "is_behind", "most", "promised", "under_way")

    def __init__(self, most: int) -> None:
        self.most = most
        self.under_way: set[str] = set()
        """Effect ids."""
        self.promised = self.asked_for = 0
        """For how many there is room kept: those of a commit, and of a claim, that is under way."""
        self.is_behind = True
        """Whether something that is due may wait for a claim: what comes later must not overtake it."""

    @property
    def left(self) -> int:
        return self.most - len(self.under_way) - self.promised - self.asked_for


class Rooms:
    """Those of both sorts."""

    def __init__(self) -> None:
        self.on_loop = Room(CONCURRENCY_MAX)
        self.in_threads = Room(THREADS_MAX)
        self.all = (self.on_loop, self.in_threads)

    def begins(self, effect_id: str, *, in_thread: bool) -> None:
        (self.in_threads if in_thread else self.on_loop).under_way.add(effect_id)

    def ends(self, effect_id: str) -> bool:
        """Whether others may have waited for its end."""
        room = self.on_loop if effect_id in self.on_loop.under_way else self.in_threads
        room.under_way.discard(effect_id)
        return room.is_behind

    def settle(self) -> None:
        """It is known what became of a commit."""
        for room in self.all:
            room.promised = 0

    def fall_behind(self) -> None:
        """Something may be due that nobody here has seen."""
        for room in self.all:
            room.is_behind = True

    def with_room(self) -> list[Room]:
        """Those where something can begin; the others are behind from now on."""
        for room in self.all:
            if room.left <= 0:
                room.is_behind = True
        return [room for room in self.all if room.left > 0]
