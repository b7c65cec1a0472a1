"""The metrics as a read model that follows the log: a port to where they are kept, the projection, and the reading.

Invariant: figures, runs and the position in the log up to which they hold are written in one transaction, so a
crash at any moment leaves them equal to a fold from zero. What is read is never stale: stored figures and the
rest of the log, folded in memory, without writing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from statewright.engine.log import LoggedFact
from statewright.projections.metrics import Figures, Key, Metrics, Run

BATCH_MAX = 1_000
"""Facts folded between two transactions when catching up."""

Following = Callable[[int, int], Sequence[LoggedFact]]
"""(position, limit) -> up to `limit` facts after `position`, in log order."""


class MetricsSnapshot(Protocol):
    """What is stored, as of one moment."""

    @property
    def position(self) -> int:
        """The position of the last fact folded; 0 before the first."""
        ...

    def figures(self) -> dict[Key, Figures]: ...

    def runs(self, instance_ids: Collection[str]) -> dict[str, Run]:
        """The runs of those instances that are known."""
        ...


class MetricsView(Protocol):
    """Where the metrics are kept. Synchronous; `save` and `clear` are for the one writing thread."""

    def snapshot(self) -> AbstractContextManager[MetricsSnapshot]:
        """A consistent read: nothing that is saved meanwhile shows in it."""
        ...

    def save(self, *, after: int, position: int, figures: Mapping[Key, Figures], runs: Mapping[str, Run]) -> None:
        """Write these figures and runs, and move the position from `after` to `position`, in one transaction.

        Raises an `eventsourcing.persistence.PersistenceError`, with nothing written, when the stored position is
        not `after` (somebody else has folded those facts) or when the store can't be written.
        """
        ...

    def clear(self) -> None:
        """Forget all figures and runs and go back to position 0, in one transaction."""
        ...


class MetricsFolder:
    """Folds the log into a view, batch by batch. For one thread at a time, the one that may write."""

    def __init__(self, view: MetricsView) -> None:
        self._view = view
        self._figures: dict[Key, Figures] | None = None
        self._position = 0

    def load(self) -> int:
        """Take what is stored; the position up to which it holds."""
        with self._view.snapshot() as stored:
            self._position = stored.position
            self._figures = stored.figures()
        return self._position

    def fold(self, facts: Sequence[LoggedFact]) -> None:
        """Fold `facts`; durable when it returns. Facts that were folded before are passed over."""
        if self._figures is None:
            self.load()
        figures = self._figures or {}
        fresh = [entry for entry in facts if entry.position > self._position]
        if not fresh:
            return
        # Until the transaction has ended the figures in memory are ahead of the store: forget them if it fails.
        self._figures = None
        with self._view.snapshot() as stored:
            metrics = Metrics(figures, stored.runs({entry.fact.instance_id for entry in fresh}))
        touched = metrics.apply_all(entry.fact for entry in fresh)
        self._view.save(
            after=self._position,
            position=fresh[-1].position,
            figures={key: metrics.figures[key] for key in touched.figures},
            runs={instance_id: metrics.runs[instance_id] for instance_id in touched.runs},
        )
        self._position = fresh[-1].position
        self._figures = figures


class MetricsProjection:
    """Follows the log for the engine (`Engine.attach`). `on_writer` runs a function on the writing thread."""

    name = "metrics"

    def __init__(self, view: MetricsView, on_writer: Callable[..., Awaitable[Any]]) -> None:
        self._folder = MetricsFolder(view)
        self._on_writer = on_writer

    async def position(self) -> int:
        """Where to follow from."""
        position: int = await self._on_writer(self._folder.load)
        return position

    async def process(self, facts: Sequence[LoggedFact]) -> None:
        """Fold `facts` and return when they are durable."""
        await self._on_writer(self._folder.fold, facts)


def read_metrics(view: MetricsView, following: Following) -> dict[Key, Figures]:
    """The figures as of the end of the log, without writing."""
    with view.snapshot() as stored:
        position = stored.position
        metrics = Metrics(stored.figures())
        while facts := following(position, BATCH_MAX):
            unknown = {entry.fact.instance_id for entry in facts} - metrics.runs.keys()
            metrics.runs.update(stored.runs(unknown))
            metrics.apply_all(entry.fact for entry in facts)
            position = facts[-1].position
    return metrics.figures


def rebuild_metrics(view: MetricsView, following: Following) -> dict[Key, Figures]:
    """Fold the whole log again from zero into `view`. For the owner of the store, on the writing thread."""
    view.clear()
    folder = MetricsFolder(view)
    position = folder.load()
    while facts := following(position, BATCH_MAX):
        folder.fold(facts)
        position = facts[-1].position
    with view.snapshot() as stored:
        return stored.figures()
