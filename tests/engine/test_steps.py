"""Steps of a workflow as the engine keeps them: rows that say what the facts say, whatever becomes of the instance."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from statewright.adapters.cli.pruning import prune, restore
from statewright.adapters.encryption.keyring import new_entry
from statewright.engine import EffectCall
from statewright.engine.cipher import KEYS
from statewright.engine.clock import SECOND_NS
from statewright.engine.recorder import EndedFilter
from statewright.engine.steps import StepRow
from statewright.engine.verify import verify_store
from tests.engine.charts import from_yaml
from tests.engine.secrets import SECRET, ring
from tests.engine.worlds import PATIENCE_S, World, until

LOADING = from_yaml("""
name: loading
context: {error: {type: string, default: ""}}
states:
  load:
    entry:
      - run_step: {step: load, retry: {attempts: 2, initial: 10s}, cancel: on_exit}
      - record: {step: load, status: running}
    exit: {record: {step: load, status: cancelled}}
    on:
      done.effect.load: {target: save, actions: {record: {step: load, status: completed}}}
      error.effect.load: {target: broken, actions: {record: {step: load, status: failed}}}
      stop: stopped
  save:
    entry:
      - run_step: {step: save, cancel: on_exit}
      - record: {step: save, status: running}
    on:
      done.effect.save:
        target: end
        actions: [{record: {step: save, status: completed}}, {record: {step: report, status: skipped}}]
      again: {target: load, actions: {record: {step: save, status: pending}}}
  end: {type: final}
  broken: {type: final, status: failed}
  stopped: {type: final, status: cancelled}
""")


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "store").mkdir()
    return World(tmp_path / "store" / "store.db", LOADING)


def steps_of(world: World, instance_id: str = "w") -> dict[str, StepRow]:
    return {row.step: row for row in world.engine.recorder.select_steps(instance_id)}


async def test_a_step_has_a_row_from_when_it_is_asked_for_to_when_it_has_ended(world: World) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def perform(call: EffectCall) -> str:
        begun.set()
        await gate.wait()
        return call.name

    async with world:
        asked_at = world.clock.now()
        await world.engine.start("loading", id="w")
        assert steps_of(world) == {"load": StepRow("w", "load", "running", 1, asked_at, None)}
        world.clock.advance(3)
        world.engine.performer("step", perform)
        await asyncio.wait_for(begun.wait(), PATIENCE_S)
        world.clock.advance(4)
        gate.set()
        facts = await world.until_recorded("w", "transition_taken", 2)
        began_at, ended_at = asked_at + 3 * SECOND_NS, asked_at + 7 * SECOND_NS
        assert steps_of(world) == {
            "load": StepRow("w", "load", "completed", 2, began_at, ended_at),
            "save": StepRow("w", "save", "completed", 3, ended_at, ended_at),
            "report": StepRow("w", "report", "skipped", 3, None, ended_at),
        }
        assert [(fact.trigger.data, fact.trigger.attempt, fact.trigger.began_at) for fact in facts] == [
            ("load", 1, began_at),
            ("save", 1, ended_at),
        ]


async def test_the_last_attempt_counts(world: World) -> None:
    attempts: list[int] = []

    async def perform(call: EffectCall) -> None:
        attempts.append(call.attempt)
        raise ValueError("no file")

    async with world:
        world.engine.performer("step", perform)
        started_at = world.clock.now()
        await world.engine.start("loading", id="w")
        await until(lambda: [e.error for e in world.engine.recorder.select_effects("w")] != [""], "the first to fail")
        world.clock.advance(10)
        (fact,) = await world.until_recorded("w", "transition_taken")
        row = steps_of(world)["load"]
        assert (row.status, fact.trigger.attempt, row.sequence) == ("failed", 2, 2)
        assert row.started_at == fact.trigger.began_at
        assert row.started_at is not None
        assert row.started_at >= started_at + 10 * SECOND_NS
        assert (await world.engine.status("w")).status == "failed"


async def test_a_step_that_is_left_keeps_when_it_began(world: World) -> None:
    async with world:
        asked_at = world.clock.now()
        await world.engine.start("loading", id="w")
        world.clock.advance(2)
        await world.engine.send("w", "stop")
        assert steps_of(world)["load"] == StepRow("w", "load", "cancelled", 2, asked_at, asked_at + 2 * SECOND_NS)
        assert [row.state for row in world.engine.recorder.select_effects("w")] == ["cancelled"]
        assert (await world.engine.status("w")).status == "cancelled"


async def test_a_step_runs_again(world: World) -> None:
    async def perform(call: EffectCall) -> None:
        if call.name == "save":
            await asyncio.Event().wait()

    async with world:
        world.engine.performer("step", perform)
        await world.engine.start("loading", id="w")
        await world.until_recorded("w", "transition_taken", 1)
        world.clock.advance(5)
        await world.engine.send("w", "again")
        facts = await world.until_recorded("w", "transition_taken", 3)
        rows = steps_of(world)
        assert (rows["load"].status, rows["load"].sequence) == ("completed", 4)
        assert rows["save"] == StepRow("w", "save", "running", 4, facts[-1].time, None)


async def test_rows_go_with_the_instance_and_come_back(world: World, tmp_path: Path) -> None:
    async with world:
        await world.engine.start("loading", id="w")
        await world.engine.send("w", "stop")
        before = steps_of(world)
        path = str(tmp_path / "archive.jsonl.gz")
        where = EndedFilter(status="cancelled", ended_before=world.clock.now() + 1)
        await prune(world.engine, world.engine.upkeep, [where], path, world.url)
        assert steps_of(world) == {}
        await restore(world.engine, path)
        assert steps_of(world) == before


@pytest.mark.parametrize(
    ("damage", "difference"),
    [
        ("UPDATE steps SET status = 'completed'", "step 'load' of instance 'w' is expected to be StepRow"),
        ("UPDATE steps SET sequence = 2", "step 'load' of instance 'w' is expected to be StepRow"),
        ("DELETE FROM steps", "it is None"),
        (
            "INSERT INTO steps VALUES ('w', 'x', 'running', 1, 1, NULL)",
            "step 'x' of instance 'w' is expected to be None",
        ),
    ],
)
async def test_rows_that_the_facts_do_not_say_are_found(world: World, damage: str, difference: str) -> None:
    async with world:
        await world.engine.start("loading", id="w")
    connection = sqlite3.connect(world.path)
    with connection:
        connection.execute(damage)
    connection.close()
    (found,) = verify_store(world.url).differences
    assert difference in found


async def test_what_a_step_has_brought_is_encrypted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEYS, ring(new_entry("one")))

    async def perform(call: EffectCall) -> str:
        return SECRET

    async with world:
        world.engine.performer("step", perform)
        await world.engine.start("loading", id="w")
        facts = await world.until_recorded("w", "transition_taken", 2)
        assert facts[steps_of(world)["load"].sequence - 2].trigger.data == SECRET
        for path in world.path.parent.iterdir():
            assert SECRET.encode() not in path.read_bytes()
