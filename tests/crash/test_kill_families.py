"""The kill test of parents and children.

Whatever the moment at which the engine dies, every child that was asked for is started once, what they tell each other
arrives once, and every parent comes to its end.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from statewright.engine import Engine
from statewright.engine.recorder import InstanceFilter
from statewright.engine.verify import verify_store
from tests.crash.processes import EngineProcesses, until

SEED = 20_240_301
FAMILIES = 60
ROUNDS = 10
KILLS = 12
LIMIT_S = 90.0
PROGRAM = Path(__file__).with_name("family_process.py")


def under_way(path: Path) -> tuple[int, int]:
    """How many effects are still to be performed, and how many instances are active."""
    connection = sqlite3.connect(path)
    effects = connection.execute("SELECT count(*) FROM effects WHERE state IN ('pending', 'running')").fetchone()[0]
    active = connection.execute("SELECT count(*) FROM instances WHERE status = 'active'").fetchone()[0]
    connection.close()
    return effects, active


@pytest.mark.integration
async def test_every_child_is_started_once_and_heard_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, performed = tmp_path / "store.db", tmp_path / "performed"
    lots = random.Random(SEED)
    engines = EngineProcesses(PROGRAM, f"sqlite:///{path}", str(FAMILIES), str(performed), log=tmp_path / "engine.log")
    left: list[tuple[int, int]] = []
    async with asyncio.timeout(LIMIT_S):
        try:
            for _ in range(KILLS):
                await engines.start()
                await asyncio.sleep(lots.uniform(0.005, 0.2))
                await engines.kill()
                left.append(under_way(path))
            await engines.start()
            await until(lambda: under_way(path) == (0, 0))
            await engines.stop()
        finally:
            await engines.close()
    found = verify_store(f"sqlite:///{path}")
    with capsys.disabled():
        print(f"\nfamily kill test: effects pending and instances active at each kill: {left}")
    assert found.differences == []
    assert sum(effects > 0 for effects, _ in left) >= KILLS // 2, "kills that met nothing under way show nothing"
    await check(f"sqlite:///{path}", set(performed.read_text().split()))


async def check(url: str, performed: set[str]) -> None:
    async with Engine.open(url, read_only=True) as engine:
        rows = await engine.list(InstanceFilter(limit=10_000))
        children = Counter(row.parent for row in rows if row.parent is not None)
        assert children == {f"f-{n:03}": ROUNDS for n in range(FAMILIES)}
        works = {
            effect.effect_id
            for row in rows
            for fact in await engine.history(row.id)
            for effect in getattr(fact, "effects", ())
            if effect.kind == "perform"
        }
        for n in range(FAMILIES):
            instance = (await engine.replay(f"f-{n:03}")).instance
            context: dict[str, Any] = dict(instance.context)
            assert instance.status == "completed"
            assert context["heard"] == ROUNDS
            assert context["round"] == ROUNDS - 1
    assert performed == works
