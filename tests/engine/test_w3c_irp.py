"""The W3C IRP tests, transformed, through the durable engine (see `tests/statecharts/w3c_irp.py`).

No instance is ever kept in memory: before each event the instance, a child too, is rebuilt from the stored log alone.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from statewright.statecharts import load_chart
from tests.engine.worlds import World
from tests.statecharts.w3c_irp import FOLDER, IDS, clause, skip_if_absent

pytestmark = skip_if_absent


@pytest.mark.parametrize("test", IDS)
async def test_ends_in_pass(test: str, tmp_path: Path) -> None:
    chart = load_chart(FOLDER / f"{test}.scxml")
    world = World(tmp_path / "store.db", chart)
    world.options = {"residents_max": 0}
    async with world:
        await world.engine.start(chart.name, id="i")
        await world.run()
        instance = (await world.engine.replay("i")).instance
        assert (instance.configuration[-1:], instance.status) == (("pass",), "completed"), clause(test)
        assert len(world.engine._running.residents) == 0
