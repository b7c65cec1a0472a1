"""Read models in memory, beside a store in memory: each is one value that a save replaces as a whole."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import msgspec
from eventsourcing.persistence import IntegrityError

from statewright.projections.metrics import Figures, Key, Run

_encode = msgspec.json.Encoder().encode
_decode_figures = msgspec.json.Decoder(Figures).decode
_decode_run = msgspec.json.Decoder(Run).decode


class MemoryMetricsSnapshot(NamedTuple):
    """`MetricsSnapshot`; figures and runs are kept as JSON, so that nobody changes what is stored."""

    position: int = 0
    stored_figures: Mapping[Key, bytes] = {}
    stored_runs: Mapping[str, bytes] = {}

    def figures(self) -> dict[Key, Figures]:
        return {key: _decode_figures(figures) for key, figures in self.stored_figures.items()}

    def runs(self, instance_ids: Collection[str]) -> dict[str, Run]:
        return {
            instance_id: _decode_run(self.stored_runs[instance_id])
            for instance_id in sorted(instance_ids)
            if instance_id in self.stored_runs
        }


class MemoryMetricsView:
    """`MetricsView` in memory."""

    def __init__(self) -> None:
        self._stored = MemoryMetricsSnapshot()

    @property
    def position(self) -> int:
        """The position in the log up to which it holds."""
        return self._stored.position

    @contextmanager
    def snapshot(self) -> Iterator[MemoryMetricsSnapshot]:
        yield self._stored

    def save(self, *, after: int, position: int, figures: Mapping[Key, Figures], runs: Mapping[str, Run]) -> None:
        stored = self._stored
        if stored.position != after:
            raise IntegrityError(
                f"expected the metrics at position {after} of the log, but they are at {stored.position}"
            )
        self._stored = MemoryMetricsSnapshot(
            position,
            {**stored.stored_figures, **{key: _encode(one) for key, one in figures.items()}},
            {**stored.stored_runs, **{instance_id: _encode(run) for instance_id, run in runs.items()}},
        )

    def clear(self) -> None:
        self._stored = MemoryMetricsSnapshot()
