"""Throughput among a million stored events beside throughput among a thousand.

    python -m tests.benchmarks.stored [--events 1000000] [--rounds 5] [--seconds 3] [--folder FOLDER]

One instance of the document approval lives through 25 events; its rows, in every table, are then copied under other ids
by SQL, so that the stores hold what an engine would have written. Both are verified (rows = fold). Each round then
drives 100 senders on fresh instances in the one store and in the other. Beside the rates there is the CPU time an
event, which a busy machine disturbs less. A million events take about 1.5 GB of disk and two to four minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from statewright.engine import Engine, Outcome
from statewright.engine.partitions import partition_of
from statewright.engine.verify import verify_store
from tests.benchmarks.workload import APPROVAL_TURN, approval, drive, median_ratio, start_many

SENDERS = 100
FEW = 1_000
TEMPLATE = "template-0"
TURNS = 11
FACTS = 3 + 2 * TURNS
"""Of one instance: started, submitted, assigned, then what the turns record."""
_TABLES = ("stored_events", "inbox", "instances", "timers", "effects")


async def fill(path: Path, events: int) -> None:
    """A store of `events` events (a multiple of `FACTS`, at least)."""
    async with Engine.open(f"sqlite:///{path}", charts=[approval()], run_due=False) as engine:
        await start_many(engine, 1, "template")
        for turn in range(TURNS):
            for name, data in APPROVAL_TURN:
                await engine.send(TEMPLATE, name, data, event_id=f"{turn}-{name}")
        partitions = engine.recorder.partitions
    with sqlite3.connect(path) as connection:
        connection.create_function("partition_of", 1, lambda one: partition_of(one, partitions), deterministic=True)
        connection.execute("PRAGMA synchronous = OFF")
        for table in _TABLES:
            _copy(connection, table, events // FACTS - 1)
    connection.close()


def _copy(connection: sqlite3.Connection, table: str, times: int) -> None:
    """The template's rows of `table`, under `times` other ids."""
    columns = [(name, kind) for _, name, kind, *_ in connection.execute(f"PRAGMA table_info({table})") if name != "id"]
    if table == "instances":
        columns.append(("id", "TEXT"))
    key = {"stored_events": "originator_id", "instances": "id"}.get(table, "instance_id")
    values = [
        f"partition_of('m-' || n.value) AS {name}"
        if name == "partition"
        else f"replace(t.{name}, '{TEMPLATE}', 'm-' || n.value) AS {name}"
        if kind == "TEXT"
        else f"t.{name}"
        for name, kind in columns
    ]
    connection.execute(
        f"WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < {times})"
        f" INSERT INTO {table} ({', '.join(name for name, _ in columns)})"
        f" SELECT {', '.join(values)} FROM n CROSS JOIN {table} t WHERE t.{key} = '{TEMPLATE}'"
        + (" ORDER BY n.value, t.id" if table == "stored_events" else "")
    )
    connection.commit()


async def one_round(path: Path, number: int, seconds: float) -> tuple[float, float]:
    """Events a second, and microseconds of CPU an event."""
    async with Engine.open(f"sqlite:///{path}", charts=[approval()], run_due=False) as engine:
        ids = await start_many(engine, SENDERS, f"r{number}")

        async def send(instance_id: str, name: str, data: Any, event_id: str) -> Outcome:
            return await engine.send(instance_id, name, data, event_id=event_id)

        await drive(send, ids, min(0.5, seconds / 4))
        began = time.process_time()
        run = await drive(send, ids, seconds)
        return run.rate, (time.process_time() - began) / run.events * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each timed run")
    parser.add_argument("--folder", type=Path, help="where the stores are made (default: a temporary folder)")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="statewright-bench-", dir=given.folder))
    try:
        measure(folder, given.events, given.rounds, given.seconds)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, events: int, rounds: int, seconds: float) -> None:
    few, many = folder / "few.db", folder / "many.db"
    for path, count in ((few, FEW), (many, events)):
        asyncio.run(fill(path, count))
    rates: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        fresh = folder / f"few-{number}.db"
        shutil.copy(few, fresh)  # Rounds before must not make it grow.
        for which, path in enumerate((fresh, many)):
            rate, us = asyncio.run(one_round(path, number, seconds))
            rates[which].append(rate)
            cpu[which].append(us)
        print(f"round {number + 1}: {rates[0][-1]:,.0f} events/s among {FEW:,}, {rates[1][-1]:,.0f} among {events:,}")
        _check(fresh)
    _check(many)
    print(
        f"CPU an event: {statistics.median(cpu[0]):.0f} us among {FEW:,}, {statistics.median(cpu[1]):.0f} us among ",
        end="",
    )
    print(f"{events:,}; ratio {median_ratio(cpu[0], cpu[1]):.2f}")
    print(f"throughput among {events:,} is {median_ratio(rates[1], rates[0]):.2f} of that among {FEW:,}, bar 0.9")


def _check(path: Path) -> None:
    """Rows = fold, or stop."""
    found = verify_store(f"sqlite:///{path}")
    if not found.is_true:
        raise SystemExit(f"{path.name} is not true to itself: {found.differences[:5]}")
    print(f"verified {path.name}: {found.facts:,} facts of {found.instances:,} instances fold to their rows")


if __name__ == "__main__":
    main()
