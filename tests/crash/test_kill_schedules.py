"""The engine dies by SIGKILL again and again while a schedule starts instances: each due time starts one.

Most kills come right after a commit: of a start, or of the schedule's moving on.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from statewright.engine import Engine, InstanceFilter
from statewright.engine.verify import verify_store
from tests.crash.processes import EngineProcesses, until

SEED = 20_260_105
KILLS = 12
LIMIT_S = 120.0
PROGRAM = Path(__file__).with_name("schedule_process.py")


def never() -> bool:
    return False


async def commits(path: Path, count: int, or_else: Callable[[], bool] = never) -> None:
    """Return as soon as `count` more commits are seen, or `or_else()` is true, after which there may be none."""
    connection = sqlite3.connect(path)

    def version() -> int:
        return int(connection.execute("PRAGMA data_version").fetchone()[0])

    for _ in range(count):
        before = version()
        await until(lambda before=before: version() != before or or_else(), looking_every_s=0)  # type: ignore[misc]
    connection.close()


def instances(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    ids = [row[0] for row in connection.execute("SELECT id FROM instances ORDER BY id")]
    connection.close()
    return ids


@pytest.mark.integration
async def test_each_due_time_starts_one_instance_whenever_the_engine_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    url = f"sqlite:///{path}"
    lots = random.Random(SEED)
    engines = EngineProcesses(PROGRAM, url, str(time.time()), log=tmp_path / "engine.log")
    async with asyncio.timeout(LIMIT_S):
        try:
            for _ in range(KILLS):
                await engines.start()
                await commits(path, lots.randrange(1, 4))
                await engines.kill()
            await engines.start()
            begun = len(instances(path))
            await until(lambda: len(instances(path)) > begun)
            await engines.stop()  # It may have more to make up for.
        finally:
            await engines.close()
    ids = instances(path)
    times = [datetime.strptime(one, "every-minute-%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) for one in ids]
    assert {after - before for before, after in pairwise(times)} == {timedelta(minutes=1)}
    assert len(ids) > KILLS
    assert verify_store(url).differences == []
    async with Engine.open(url, read_only=True) as engine:
        rows = await engine.list(InstanceFilter(limit=10_000))
        assert {row.sequence for row in rows} == {1}
        (schedule,) = await engine.schedules()
        assert schedule.last_at is not None
        assert datetime.fromtimestamp(schedule.last_at // 10**9, UTC) in times[-2:]
