"""The port of those who go along with commits: the runtime says when one is about to be written and what came of it.

Invariant: commits don't overlap. After `begun` comes `done` or `failed` with the same changes, before the next `begun`.
"""

from __future__ import annotations

from typing import Protocol

from statewright.engine.recorder import Changes


class Commits(Protocol):
    """All of it on the event loop, and at once."""

    def begun(self, changes: Changes) -> None:
        """They are about to be written, and may be added to."""

    def done(self, changes: Changes) -> None:
        """They are durable."""

    def failed(self, changes: Changes, *, is_certain: bool) -> None:
        """Nothing of them is written if that `is_certain`; else they may be there all the same."""


class Nobody(Commits):
    """Whom it doesn't concern."""

    def begun(self, changes: Changes) -> None:
        return

    def done(self, changes: Changes) -> None:
        return

    def failed(self, changes: Changes, *, is_certain: bool) -> None:
        return
