"""The metrics as a read model that follows the log: a port to where they are kept, the projection, and the reading.

Invariant: figures, runs and the position in the log up to which they hold are written in one transaction, so a
crash at any moment leaves them equal to a fold from zero. What is read is never stale: stored figures and the
rest of the log, folded in memory, without writing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from statewright.engine.followers import PAGE
from statewright.engine.log import LoggedFact
from statewright.projections.metrics import Figures, Key, Metrics, Run

REST_S = 0.2
BATCH_MAX = 1_000
"""Facts folded between two transactions when catching up."""

Following = Callable[[int, int], Sequence[LoggedFact]]
"""(position, limit) -> up to `limit` facts after `position`, in log order."""

OnThread = Callable[..., Awaitable[Any]]
"""(function, *args) -> what the function returns, run on a thread."""


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


class Batch(NamedTuple):
    """What a batch of facts has changed, ready to be saved."""

    after: int
    position: int
    figures: dict[Key, Figures]
    runs: dict[str, Run]
    whole: dict[Key, Figures]
    """All figures after this batch, changed or not."""


class MetricsFolder:
    """Folds the log into a view, batch by batch, one after the other."""

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

    def fold(self, facts: Sequence[LoggedFact]) -> Batch | None:
        """Fold `facts`; those that were folded before are passed over. What comes of it is to be saved next; if that
        fails, the next fold begins with what is stored."""
        if self._figures is None:
            self.load()
        figures, self._figures = self._figures, None
        fresh = [entry for entry in facts if entry.position > self._position]
        if not fresh:
            self._figures = figures
            return None
        with self._view.snapshot() as stored:
            metrics = Metrics(figures, stored.runs({entry.fact.instance_id for entry in fresh}))
        touched = metrics.apply_all(entry.fact for entry in fresh)
        return Batch(
            after=self._position,
            position=fresh[-1].position,
            figures={key: metrics.figures[key] for key in touched.figures},
            runs={instance_id: metrics.runs[instance_id] for instance_id in touched.runs},
            whole=metrics.figures,
        )

    def save(self, batch: Batch) -> None:
        """Make the batch durable, on the writing thread. Raises what `MetricsView.save` raises."""
        self._view.save(after=batch.after, position=batch.position, figures=batch.figures, runs=batch.runs)
        self._position = batch.position
        self._figures = batch.whole


class MetricsProjection:
    """Follows the log for the engine (`Engine.attach`), which also lends its threads: `on_reader` and `on_writer` run a
    function on a thread that reads, and on the one that writes."""

    name = "metrics"

    def __init__(self, view: MetricsView, on_reader: OnThread, on_writer: OnThread) -> None:
        self._folder = MetricsFolder(view)
        self._on_reader = on_reader
        self._on_writer = on_writer

    async def position(self) -> int:
        """Where to follow from."""
        position: int = await self._on_reader(self._folder.load)
        return position

    async def process(self, facts: Sequence[LoggedFact]) -> None:
        """Fold `facts` and return when they are durable; then rest a while, if the end of the log is near: one
        transaction in `REST_S` is enough, since readers fold the rest."""
        batch = await self._on_reader(self._folder.fold, facts)
        if batch is not None:
            await self._on_writer(self._folder.save, batch)
        if len(facts) < PAGE:
            await asyncio.sleep(REST_S)


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
        if batch := folder.fold(facts):
            folder.save(batch)
        position = facts[-1].position
    with view.snapshot() as stored:
        return stored.figures()
