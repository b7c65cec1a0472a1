"""The kill test: the engine dies by SIGKILL again and again while clients send; nothing acknowledged is lost or twice.

A client sends 2,000 events to 200 instances by request, retrying with the same ids until each is acknowledged, and
leaves 200 more with JetStream; the engine process is killed 20 times at random moments (some while it is starting up,
some right after a commit), each with at least one request unacknowledged. The nats-server lives on.

By hand, with other moments and more kills (100 events for each):

    STATEWRIGHT_CRASH_SEED=7 STATEWRIGHT_CRASH_KILLS=200 pytest -s tests/crash/test_kill.py
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from statewright.adapters.nats.client import Client
from statewright.adapters.nats.server import EmbeddedServer
from statewright.engine import Engine, Outcome
from statewright.engine.events import EventDeferred
from statewright.engine.verify import Verification, verify_store
from tests.crash.processes import EngineProcesses, until
from tests.crash.workload import Item, Workload

SEED = int(os.environ.get("STATEWRIGHT_CRASH_SEED", "20240229"))
KILLS = int(os.environ.get("STATEWRIGHT_CRASH_KILLS", "20"))
KILLS_TRIED_MAX = KILLS + KILLS // 2 + 1
INSTANCES = 200
EVENTS = INSTANCES * max(10, KILLS // 2)
PUBLISHED = 200
LIMIT_S = 120.0 if KILLS <= 20 else 10.0 * KILLS
REQUEST_TIMEOUT_S = 0.4
PROGRAM = Path(__file__).with_name("engine_process.py")


def work() -> tuple[list[Item], list[Item]]:
    """The starts, and the events in the order in which they are sent. Those left with JetStream come early, since what
    a killed engine had taken from it comes again only after its ack wait."""
    lots = random.Random(SEED)
    names = [f"i-{n:03}" for n in range(INSTANCES)]
    sent = [Item("send", names[n % INSTANCES], f"e-{n}") for n in range(EVENTS)]
    lots.shuffle(sent)
    early = [Item("publish", names[n % INSTANCES], f"j-{n}") for n in range(PUBLISHED)] + sent[:PUBLISHED]
    lots.shuffle(early)
    return [Item("start", name) for name in names], early + sent[PUBLISHED:]


async def kill_again_and_again(engines: EngineProcesses, workload: Workload, path: Path) -> list[int]:
    """How many requests were unacknowledged at each kill. There is always more to send than is acknowledged in time; a
    kill by which everything sent was answered all the same does not count."""
    lots = random.Random(SEED)
    counts: list[int] = []
    starts, events = work()
    workload.put(starts)
    for number in range(KILLS_TRIED_MAX):
        starting_up = number % 4 == 3
        await engines.start(until_ready=not starting_up)
        if starting_up:
            await asyncio.sleep(lots.uniform(0, 0.2))
        else:
            if number == 1:
                await workload.until_acknowledged(len(starts))
                workload.put(events)
            await workload.until_acknowledged(len(workload.acknowledged) + lots.randrange(1, 30))
            await (a_commit(path) if number % 4 == 2 else asyncio.sleep(lots.uniform(0, 0.003)))
        sent = workload.unacknowledged
        await engines.kill()
        await workload.settled()
        if unacknowledged := [item for item in sent & workload.unacknowledged if item.how != "publish"]:
            counts.append(len(unacknowledged))
        if len(counts) == KILLS:
            break
    return counts


async def a_commit(path: Path) -> None:
    """Return as soon as another commit is seen: what it records is durable, and most likely not acknowledged yet."""
    connection = sqlite3.connect(path)
    version = connection.execute("PRAGMA data_version").fetchone()
    await until(lambda: connection.execute("PRAGMA data_version").fetchone() != version, looking_every_s=0)
    connection.close()


def is_at_rest(path: Path) -> bool:
    """Everything sent is recorded, all effects have ended and no timer is left."""
    connection = sqlite3.connect(path)
    count = connection.execute("SELECT count(*) FROM inbox WHERE source = ''").fetchone()[0]
    effects = connection.execute("SELECT count(*) FROM effects WHERE state IN ('pending', 'running')").fetchone()[0]
    timers = connection.execute("SELECT count(*) FROM timers").fetchone()[0]
    connection.close()
    return bool(count == EVENTS + PUBLISHED and effects == 0 and timers == 0)


@pytest.mark.integration
async def test_what_was_acknowledged_is_recorded_once_whenever_the_engine_is_killed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    path, performed = tmp_path / "store.db", tmp_path / "performed"
    async with asyncio.timeout(LIMIT_S):
        server = await EmbeddedServer.start(tmp_path / "server")
        where = server.endpoint
        url = where.url.replace("://", f"://{where.user}:{where.password}@")
        engines = EngineProcesses(PROGRAM, f"sqlite:///{path}", url, str(performed), log=tmp_path / "engine.log")
        client = await Client.connect(where, timeout_s=REQUEST_TIMEOUT_S)
        workload = Workload(client)
        try:
            unacknowledged = await kill_again_and_again(engines, workload, path)
            await engines.start()
            await workload.until_acknowledged(INSTANCES + EVENTS + PUBLISHED)
            await until(lambda: is_at_rest(path))
            await engines.stop()
        finally:
            await workload.close()
            await client.close()
            await engines.close()
            await server.stop()
    found = verify_store(f"sqlite:///{path}")
    facts = await all_facts(f"sqlite:///{path}")
    effects = Counter(performed.read_text().split())
    with capsys.disabled():
        report(time.monotonic() - began, unacknowledged, workload, found, effects)
    assert len(unacknowledged) == KILLS
    assert min(unacknowledged) >= 1, unacknowledged
    assert found.differences == []
    check_acknowledged(workload, facts)
    check_instances(facts)
    check_effects(found, facts, effects)


async def all_facts(url: str) -> dict[str, list[Any]]:
    async with Engine.open(url, read_only=True) as engine:
        return {f"i-{n:03}": list(await engine.history(f"i-{n:03}")) for n in range(INSTANCES)}


def check_acknowledged(workload: Workload, facts: dict[str, list[Any]]) -> None:
    """Each acknowledged event is recorded exactly once, where its acknowledgement says."""
    recorded: dict[tuple[str, str], list[int]] = {}
    for instance_id, history in facts.items():
        for fact in history:
            trigger = getattr(fact, "trigger", None)
            if trigger is not None and trigger.kind == "event":
                recorded.setdefault((instance_id, trigger.id), []).append(fact.sequence)
    assert all(len(sequences) == 1 for sequences in recorded.values())
    for item, answer in workload.acknowledged.items():
        if item.how != "start":
            (sequence,) = recorded[(item.instance_id, item.event_id)]
            assert answer is None or answer.sequence == sequence
        if isinstance(answer, Outcome):
            assert answer.kind in ("recorded", "duplicate")
    assert len(recorded) == EVENTS + PUBLISHED


def check_instances(facts: dict[str, list[Any]]) -> None:
    """No gap, and every step, result and timer counted once."""
    for history in facts.values():
        assert [fact.sequence for fact in history] == list(range(1, len(history) + 1))
        triggers = [fact.trigger for fact in history[1:] if not isinstance(fact, EventDeferred)]
        assert len({(trigger.source, trigger.id) for trigger in triggers}) == len(triggers)
        context: dict[str, Any] = {}
        for fact in history:
            context |= getattr(fact, "context", {})
        kinds = Counter(trigger.kind for trigger in triggers)
        assert context == {"steps": kinds["event"], "noted": kinds["effect"], "ticks": kinds["timer"]}
        assert context["steps"] == context["noted"] == (EVENTS + PUBLISHED) // INSTANCES


def check_effects(found: Verification, facts: dict[str, list[Any]], performed: Counter[str]) -> None:
    """Each effect that was asked for ran at least once and none that was not; each result is recorded once."""
    asked = {
        effect.effect_id for history in facts.values() for fact in history for effect in getattr(fact, "effects", ())
    }
    assert performed.keys() == asked
    assert found.effects == found.results == len(asked) == EVENTS + PUBLISHED


def report(
    seconds: float, unacknowledged: list[int], workload: Workload, found: Verification, performed: Counter[str]
) -> None:
    kinds = Counter(answer.kind for answer in workload.acknowledged.values() if isinstance(answer, Outcome))
    again = sum(count > 1 for count in performed.values())
    print(
        f"\nkill test: {len(unacknowledged)} kills in {seconds:.1f} s"
        f"\n  requests unacknowledged at each: {unacknowledged}"
        f"\n  {len(workload.acknowledged)} items acknowledged after {sum(workload.attempts.values())} attempts;"
        f" events by request: {kinds['recorded']} recorded, {kinds['duplicate']} answered as duplicates"
        f"\n  {found.facts} facts of {found.instances} instances; {found.effects} effects, {again} performed more than"
        f" once, {found.results} results; {len(found.differences)} differences between rows and fold"
    )
