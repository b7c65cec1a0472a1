"""Instances with many active states: facts say what has changed, and everybody is told what is."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import msgspec
import pytest

from statewright.projections.metrics import Metrics
from statewright.projections.timeline import history_json, timeline
from statewright.projections.visits import visits
from statewright.statecharts.builder import chart, final, parallel, state, to
from tests.engine.worlds import World

WIDTH = 60
REGIONS = tuple(f"r{number}" for number in range(WIDTH))
WIDE = chart(
    "wide",
    initial="all",
    states=[
        parallel(
            "all",
            states=[
                state(
                    name,
                    initial=f"{name}.on",
                    states=[
                        state(f"{name}.on", on={f"go.{name}": f"{name}.off", "swap": f"{name}.off"}),
                        state(f"{name}.off", on={f"go.{name}": f"{name}.on"}),
                    ],
                )
                for name in REGIONS
            ],
            on={"stop": "over", "note": to(actions=[])},
        ),
        state("over", on={"again": "all", "end": "done"}),
        final("done"),
    ],
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "store.db", WIDE)


def active(*off: str) -> tuple[str, ...]:
    """All names in document order, the regions in `off` being off."""
    names = (part for name in REGIONS for part in (name, f"{name}.off" if name in off else f"{name}.on"))
    return ("all", *names)


async def test_a_fact_of_a_wide_instance_says_what_has_changed(world: World) -> None:
    async with world:
        await world.engine.start("wide", id="w")
        outcome = await world.engine.send("w", "go.r7")
        assert outcome.configuration == active("r7")
        await world.engine.send("w", "note")
        await world.engine.send("w", "swap")
        await world.engine.send("w", "stop")
        await world.engine.send("w", "again")
        started, gone, noted, swapped, stopped, again = await world.facts("w")
        assert started.configuration == again.configuration == active()
        assert (gone.configuration, gone.configuration_changes) == ((), ((16, 1, ("r7.off",)),))
        assert (noted.configuration, noted.configuration_changes) == ((), ())
        assert (swapped.configuration, swapped.configuration_changes) == (active(*REGIONS), None)
        assert (stopped.configuration, stopped.configuration_changes) == (("over",), None)


async def test_a_duplicate_is_told_where_it_led(world: World) -> None:
    async with world:
        await world.engine.start("wide", id="w")
        for number in range(50):
            await world.engine.send("w", f"go.r{number}", event_id=f"e-{number}")
        for number in (0, 3, 49):
            again = await world.engine.send("w", f"go.r{number}", event_id=f"e-{number}")
            assert (again.kind, again.sequence) == ("duplicate", number + 2)
            assert again.configuration == active(*REGIONS[: number + 1])


async def test_it_goes_on_after_a_restart_and_from_a_snapshot(world: World) -> None:
    async with world:
        await world.engine.start("wide", id="w")
        for number in range(250):
            await world.engine.send("w", f"go.r{number % WIDTH}")
        off = [f"r{number}" for number in range(10)]
        await world.restart()
        assert (await world.engine.replay("w")).instance.configuration == active(*off)
        assert (await world.engine.send("w", "go.r0")).configuration == active(*off[1:])
        assert (await world.engine.status("w")).configuration == msgspec.json.encode(active(*off[1:])).decode()


async def test_projections_tell_what_they_tell_of_others(world: World) -> None:
    async with world:
        await world.engine.start("wide", id="w")
        for name in ("go.r1", "swap", "go.r1", "stop", "again", "go.r2"):
            await world.engine.send("w", name)
        facts = await world.facts("w")
    lines = [history_json(entry) for entry in timeline(facts)]
    assert [line["to"] for line in lines] == [
        list(one)
        for one in (
            active(),
            active("r1"),
            active(*REGIONS),
            active(*(name for name in REGIONS if name != "r1")),
            ("over",),
            active(),
            active("r2"),
        )
    ]
    assert all(not {"configuration", "configuration_changes"} & line.keys() for line in lines)
    assert visits(WIDE, facts).configuration == active("r2")
    metrics = Metrics()
    metrics.apply_all(facts)
    (figures,) = metrics.figures.values()
    assert {name for name, seen in figures.states.items() if seen.now} == set(active("r2"))
    assert (figures.states["r1.off"].entered, figures.states["r1.off"].dwell.count) == (1, 1)


async def test_bytes_of_a_fact_do_not_grow_with_the_configuration(world: World) -> None:
    async with world:
        await world.engine.start("wide", id="w")
        await asyncio.gather(*(world.engine.send("w", f"go.{name}") for name in REGIONS))
    connection = sqlite3.connect(world.path)
    (largest,) = connection.execute(
        "SELECT max(length(state)) FROM stored_events WHERE topic = 'transition_taken'"
    ).fetchone()
    connection.close()
    assert largest < 400
