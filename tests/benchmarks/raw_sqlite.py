"""The limits that SQLite sets on this disk, to hold the engine's figures against.

`single_table`: nothing but rows of the size of our events into one table. `our_statements`: the very statements that
the recorder issues (event, inbox, instance row, timers, effects), their rows made beforehand. Both in WAL with
`synchronous = FULL`, one commit a batch; latencies are of commits.
By hand: `python -m tests.benchmarks.raw_sqlite [seconds]` from the root.
"""

from __future__ import annotations

import gc
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from eventsourcing.persistence import StoredEvent

from statewright.adapters.sqlite.factory import Factory
from statewright.engine.recorder import Changes, EffectRow, InboxRow, InstanceRow, TimerRow
from tests.benchmarks.workload import Run

BATCHES = (1, 10, 100, 1_000)
STATE_BYTES = 600
"""Of one fact as JSON; the example's are 400 to 800."""
CONTEXT_BYTES = 250
INSTANCES = 1_000
TIMERS = ("after-1", "after-2")


def single_table(path: Path, batch: int, seconds: float, state_bytes: int = STATE_BYTES) -> Run:
    """`executemany` of `batch` rows a commit into a table with no index but its integer key."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(
            "CREATE TABLE rows (id INTEGER PRIMARY KEY, originator_id TEXT, originator_version INTEGER, topic TEXT,"
            " state TEXT)"
        )
        insert = "INSERT INTO rows (originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?)"
        rows = [(_id(number), 1, "transition_taken", _state(state_bytes)) for number in range(batch)]

        def commit() -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(insert, rows)
            connection.execute("COMMIT")

        return _timed(commit, batch, seconds)
    finally:
        connection.close()


def our_statements(
    path: Path, batch: int, seconds: float, state_bytes: int = STATE_BYTES, instances: int = INSTANCES
) -> Run:
    """The recorder's statements for `batch` events a commit, of `instances` instances in turn."""
    factory = Factory({"SQLITE_DBNAME": str(path)})
    try:
        recorder = factory.application_recorder()
        made = _batches(batch, instances, state_bytes)
        ready = [next(made) for _ in range(_needed(batch, seconds))]
        ready.reverse()
        gc.freeze()  # They are many, and going through them is not what is measured.

        def commit() -> None:
            events, changes = ready.pop() if ready else next(made)
            recorder.insert_events(events, changes=changes)

        return _timed(commit, batch, seconds)
    finally:
        gc.unfreeze()
        factory.close()


def _timed(commit: Callable[[], None], batch: int, seconds: float) -> Run:
    for _ in range(3):
        commit()
    latencies: list[float] = []
    began = now = time.perf_counter()
    while now - began < seconds:
        commit()
        before, now = now, time.perf_counter()
        latencies.append(now - before)
    return Run(len(latencies) * batch, now - began, latencies)


def _needed(batch: int, seconds: float) -> int:
    """More batches than a fast disk commits in the time, so that making them is not timed."""
    return int(seconds * min(6_000, 60_000 / batch)) + 10


def _batches(size: int, instances: int, state_bytes: int) -> Iterator[tuple[list[StoredEvent], Changes]]:
    """What the engine records in the document approval: with every event two timers, and an effect with every other,
    which ends with the one after."""
    sequences = [0] * instances
    state, context = _state(state_bytes).encode(), _state(CONTEXT_BYTES)
    number = 0
    while True:
        events, changes = [], Changes()
        rows: dict[str, InstanceRow] = {}
        for _ in range(size):
            which = number % instances
            number += 1
            sequence = sequences[which] = sequences[which] + 1
            one = _id(which)
            events.append(StoredEvent(one, sequence, "transition_taken", state))
            changes.inbox.append(InboxRow(one, "client/1", f"event-{number:012d}", sequence, number.to_bytes(16)))
            if sequence > 1:
                changes.statuses_kept.add(one)
            rows[one] = _instance(one, sequence, number, context)
            if sequence % 2:
                changes.timers_set += [
                    TimerRow(one, timer, 10**18 + number, "remind", number % 64) for timer in ("after-1", "after-2")
                ]
                if sequence > 1:
                    changes.effects_ended.append(("done", "", f"{one}-{sequence - 1}-0"))
            else:
                changes.timers_cleared += [(one, timer) for timer in TIMERS]
                changes.effects_requested.append(_effect(one, sequence, number))
        changes.instances = list(rows.values())
        yield events, changes


def _instance(instance_id: str, sequence: int, now: int, context: str) -> InstanceRow:
    configuration = '["under_review","review","review.first"]'
    return InstanceRow(
        instance_id, "approval", "1", "active", configuration, context, sequence, 1, now, None, "0" * 64, ""
    )


def _effect(instance_id: str, sequence: int, now: int) -> EffectRow:
    effect_id = f"{instance_id}-{sequence}-0"
    return EffectRow(effect_id, instance_id, 7, "notify", "perform", "pending", 0, now, 0, '{"to":"ann"}', "")


def _id(number: int) -> str:
    return f"01890a5d-ac96-7abc-8def-{number:012d}"


def _state(size: int) -> str:
    empty = json.dumps({"type": "transition_taken", "context": ""})
    return json.dumps({"type": "transition_taken", "context": "x" * (size - len(empty))})


def main(seconds: float) -> None:
    for title, measure in (("one table, executemany", single_table), ("the recorder's statements", our_statements)):
        for batch in BATCHES:
            with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
                run = measure(Path(folder) / "raw.db", batch, seconds)
            print(
                f"{title:26} batch {batch:5,}: {run.rate:9,.0f} rows/s, {1e6 / run.rate:7.1f} us a row,"
                f" commit p50 {run.percentile_ms(50):7.2f} ms, p99 {run.percentile_ms(99):7.2f} ms"
            )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 2.0)
