"""`verify_store` finds what is wrong."""

from __future__ import annotations

import sqlite3

import pytest

from statewright.engine.verify import verify_store
from tests.engine.worlds import World


async def populate(world: World) -> None:
    async with world:
        await world.engine.start("counter", id="c")
        for n in range(120):
            await world.engine.send("c", "add", n, event_id=f"e-{n}")
        await world.engine.start("timers", id="t")
        await world.engine.send("t", "set_many")
        await world.engine.start("effects", id="e")
        await world.engine.send("e", "both")
        world.engine.handler("work")(lambda call: 1)
        await world.until_recorded("e", "transition_taken", 2)


async def test_a_sound_store_is_verified_and_counted(world: World) -> None:
    await populate(world)

    found = verify_store(world.url)

    assert found.is_true
    assert (found.instances, found.facts, found.effects, found.results) == (3, 121 + 2 + 3, 2, 1)


@pytest.mark.parametrize(
    ("damage", "difference"),
    [
        ("UPDATE instances SET context = '{}' WHERE id = 'c'", "instance 'c' is expected to be InstanceRow"),
        ("UPDATE instances SET sequence = 7 WHERE id = 't'", "instance 't' is expected to be InstanceRow"),
        ("DELETE FROM instances WHERE id = 'e'", "it is None"),
        ("UPDATE instances SET id = 'x' WHERE id = 'c'", "instance 'x' has a row and no facts"),
        ("DELETE FROM timers WHERE timer_id = 'm'", "timer 'm' of instance 't' is expected to be TimerRow"),
        ("UPDATE timers SET due_at = due_at + 1 WHERE timer_id = 'z'", "timer 'z' of instance 't'"),
        ("INSERT INTO timers VALUES ('t', 'x', 1, 'ring', 0)", "timer 'x' of instance 't' is expected to be None"),
        ("DELETE FROM effects WHERE name = 'other'", "effect 'e-2-1' is expected to be"),
        ("UPDATE effects SET state = 'done' WHERE name = 'other'", "'e-2-1' is expected to be pending or running"),
        ("UPDATE effects SET state = 'pending' WHERE name = 'work'", "effect 'e-2-0' is expected to be done or failed"),
        ("UPDATE effects SET data = '8' WHERE name = 'work'", "effect 'e-2-0' is expected to be ('e', "),
        ("DELETE FROM inbox WHERE event_id = 'e-5'", "inbox identity 'e-5' of source '' of instance 'c'"),
        ("UPDATE inbox SET sequence = 3 WHERE event_id = 'e-5'", "is expected to be 7, it is 3"),
        ("DELETE FROM stored_events WHERE originator_id = 'c' AND originator_version = 50",
         "instance 'c' has sequence 51 in its log where 50 is expected"),
        ("UPDATE stored_events SET state = replace(state, 'e-7', 'e-8') WHERE originator_id = 'c' AND"
         " originator_version = 9", "instance 'c' recorded event 'e-8' of source '' at sequence 9 and again at 10"),
        ("UPDATE stored_events SET state = '{}' WHERE originator_id = 't'", "the log can't be read on"),
        ("UPDATE stored_snapshots SET state = replace(state, '\"total\":', '\"totl\":')",
         "instance 'c' loads from its snapshot as another"),
    ],
)  # fmt: skip
async def test_damage_is_found(world: World, damage: str, difference: str) -> None:
    await populate(world)
    with sqlite3.connect(world.path) as connection:
        assert connection.execute(damage).rowcount > 0
    connection.close()

    found = verify_store(world.url)

    assert not found.is_true
    assert any(difference in one for one in found.differences), found.differences
