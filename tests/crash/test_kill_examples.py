"""The kill test of the examples: whatever the moment at which one dies, started again it comes to the same end.

Each example runs in a process of its own, in a folder of its own, is killed at a random moment (mostly after it has
begun a step; a tenth of them from the start), started again (and perhaps killed again), until it is through. Then its
result and its files must be those of an undisturbed run; no step may have begun after its result was recorded; and what
was undone, in the reverse order of completion. Then the next folder, until there were as many kills as asked for.

`STATEWRIGHT_CRASH_KILLS=20 pytest -s tests/crash/test_kill_examples.py` kills each 20 times; STATEWRIGHT_CRASH_SEED
says at which shares of what a run takes here.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from statewright.engine import Engine
from statewright.engine.events import AnyFact, Macrostep
from statewright.engine.recorder import InstanceFilter
from statewright.engine.verify import verify_store
from statewright.examples.command import store_in
from statewright.examples.files import JOURNAL
from tests.crash.processes import until

SEED = int(os.environ.get("STATEWRIGHT_CRASH_SEED", "20240601"))
KILLS = int(os.environ.get("STATEWRIGHT_CRASH_KILLS", "3"))
LIMIT_S = 60.0 + 10.0 * KILLS
FROM_THE_START = 0.1
"""The share of kills at a moment of the whole run; opening the store is a good part of it."""
PROGRAM = Path(__file__).with_name("example_process.py")


@dataclass(frozen=True)
class Example:
    """An example that is killed: `examples/<name>/main.py` with `async def main(folder, store URL)`.

    `main` returns what is the same each time, as JSON (no times, no generated ids), starts executions under ids of its
    own, so that a second run goes on with them, and has each step note that it begins (`examples.files.note`).
    `varying` are patterns of files in its folder that need not be the same each time (a database file, say: `main`
    returns what is in it). `silent` are the effects that don't note that they begin, because what performs them is not
    the example's own.
    """

    name: str
    varying: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


EXAMPLES = (
    Example("document_processing"),
    Example("data_pipeline", varying=("orders.db",)),
    Example("media_batch"),
    Example("conditional_analysis"),
    Example("data_aggregation", varying=("purchases.db*",)),
    Example("document_router", varying=("ledger.db*",), silent=("route",)),
    Example("reactive_approval"),
    Example("system_update", silent=("transaction.commit", "transaction.rollback")),
)


@dataclass(frozen=True)
class Length:
    """How long a run took that was not killed, and how long of that from its first step on."""

    whole_s: float
    steps_s: float

    def least(self, other: Length) -> Length:
        return Length(min(self.whole_s, other.whole_s), min(self.steps_s, other.steps_s))


@dataclass(frozen=True)
class Moment:
    """When to kill: so long after the start, or after the run's first step has begun."""

    after_s: float
    of: str

    @classmethod
    def draw(cls, lots: random.Random, length: Length) -> Moment:
        if lots.random() < FROM_THE_START:
            return cls(lots.uniform(0, length.whole_s), "start")
        return cls(lots.uniform(0, length.steps_s), "first step")


class Process:
    """One run of an example; its code is loaded before its folder is known, so that kills meet its work."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.began_at = self.ended_at = 0.0

    @classmethod
    async def load(cls, name: str, log: Path) -> Process:
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(PROGRAM),
                name,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        loaded = cls(process)
        said = await loaded._line()
        assert said == "loaded", f"expected the example to say 'loaded', it said {said!r}; see {log}"
        return loaded

    def begin(self, folder: Path) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{folder}\n".encode())
        self.began_at = time.time()

    async def result(self) -> str | None:
        """What it has come to; None if it was killed before it said so."""
        said = await self._line()
        self.ended_at = time.time()
        if not said:
            assert await self._process.wait() == -signal.SIGKILL
            return None
        word, _, found = said.partition(" ")
        assert word == "result", f"expected the example to end with its result, it said {said!r}"
        await self._process.wait()
        return found

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    async def end(self) -> None:
        if self._process.returncode is None:
            self.kill()
            await self._process.wait()

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().rstrip("\n")


@pytest.mark.integration
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
async def test_killed_and_started_again_it_comes_to_the_same_end(
    example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lots = random.Random(f"{SEED} {example.name}")
    runs = Runs(example, tmp_path)
    moments: list[str] = []
    async with asyncio.timeout(LIMIT_S):
        try:
            undisturbed = tmp_path / "undisturbed"
            expected = await runs.through(undisturbed)
            await check_log(undisturbed, example.silent)
            for folder in (tmp_path / f"killed-{number}" for number in itertools.count(1)):
                result = None
                while result is None and len(moments) < KILLS:
                    moment = Moment.draw(lots, runs.length)
                    if (result := await runs.killed(folder, moment)) is None:
                        under_way = "" if await has_active(folder) else ", nothing under way"
                        moments.append(f"{moment.after_s:.3f} s ({moment.of}{under_way})")
                assert (result or await runs.through(folder)) == expected
                assert files(folder, example.varying) == files(undisturbed, example.varying)
                await check_log(folder, example.silent)
                if len(moments) == KILLS:
                    break
        finally:
            await runs.close()
    with capsys.disabled():
        took = f"{runs.length.whole_s:.3f} s undisturbed, {runs.length.steps_s:.3f} s of it from the first step on"
        print(f"\n{example.name}: seed {SEED}, {took}")
        print(f"killed after {', '.join(moments)}")


class Runs:
    """Runs of one example, one after another; the next one is loading meanwhile."""

    def __init__(self, example: Example, folder: Path) -> None:
        self._example = example
        self._log = folder / "errors.log"
        self._next = asyncio.create_task(Process.load(example.name, self._log))
        self.length = Length(math.inf, math.inf)

    async def through(self, folder: Path) -> str:
        """The result of a run that nobody disturbs."""
        is_fresh = journal_size(folder) == 0
        async with self._running(folder) as process:
            result = await process.result()
            assert result is not None
        if is_fresh:
            self._measure(folder, process)
        return result

    async def killed(self, folder: Path, moment: Moment) -> str | None:
        """None if it was killed at that moment; its result if it came to that before."""
        size = journal_size(folder)
        async with self._running(folder) as process:
            strike = asyncio.create_task(strike_at(moment, process, folder, size))
            try:
                result = await process.result()
            finally:
                strike.cancel()
        if result is not None and size == 0:
            self._measure(folder, process)
        return result

    def _measure(self, folder: Path, process: Process) -> None:
        """The shortest run counts: of most moments drawn from a longer one nothing would be left to kill."""
        first_ns = int((folder / JOURNAL).read_text().partition(" ")[0])
        length = Length(process.ended_at - process.began_at, process.ended_at - first_ns / 1e9)
        self.length = length.least(self.length)

    @asynccontextmanager
    async def _running(self, folder: Path) -> AsyncIterator[Process]:
        os.makedirs(folder, exist_ok=True)
        process = await self._next
        process.begin(folder)
        try:
            yield process
        finally:
            await process.end()
            self._next = asyncio.create_task(Process.load(self._example.name, self._log))

    async def close(self) -> None:
        for process in await asyncio.gather(self._next, return_exceptions=True):
            if isinstance(process, Process):
                await process.end()


def journal_size(folder: Path) -> int:
    journal = folder / JOURNAL
    return journal.stat().st_size if journal.exists() else 0


async def strike_at(moment: Moment, process: Process, folder: Path, size: int) -> None:
    """Kill it at that moment; its first step has begun once the journal is longer than `size`."""
    if moment.of == "first step":
        await until(lambda: journal_size(folder) > size, looking_every_s=0.002)
    await asyncio.sleep(moment.after_s)
    process.kill()


async def has_active(folder: Path) -> bool:
    if not (folder / "store.db").exists():
        return False
    async with Engine.open(store_in(folder), read_only=True) as engine:
        return any([await engine.list(InstanceFilter(status="active", limit=1))])


def files(folder: Path, varying: Iterable[str]) -> dict[str, str]:
    """Of each file its content's hash, without the store, the journal, what varies, and what a killed step left behind
    beside its place."""
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        own = relative.name.startswith((JOURNAL, ".")) or relative.parts[0].startswith("store.db")
        if path.is_file() and not own and not any(relative.match(pattern) for pattern in varying):
            found[str(relative)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


# What the log says, beside what was done


async def check_log(folder: Path, silent: Collection[str]) -> None:
    """Rows are what the facts say, nothing was begun after its result was recorded, and undone backwards."""
    found = verify_store(store_in(folder))
    assert found.differences == []
    begun = [line.split(" ") for line in (folder / JOURNAL).read_text().splitlines()]
    async with Engine.open(store_in(folder), read_only=True) as engine:
        rows = await engine.list(InstanceFilter(limit=1_000))
        assert rows
        recorded: dict[str, int] = {}
        for row in rows:
            facts = await engine.history(row.id)
            recorded |= results(facts, silent)
            undone, completed = undone_in(facts), completed_in(facts)
            last_first = [step for step in reversed(completed) if step in undone]
            assert undone == last_first, f"{row.id}: expected to be undone {last_first}, got {undone}"
    late = [f"{step} ({effect_id})" for at, effect_id, step in begun if int(at) > recorded.get(effect_id, sys.maxsize)]
    assert late == [], "steps that began after their result was recorded"
    assert {effect_id for _, effect_id, _ in begun} >= recorded.keys(), "expected each step to note that it begins"


def results(facts: Iterable[AnyFact], silent: Collection[str]) -> dict[str, int]:
    """When the result of each effect was recorded (ns UTC), by the effect's id; without those that are silent."""
    return {
        fact.trigger.id.removesuffix("-result"): fact.time
        for fact in facts
        if (trigger := getattr(fact, "trigger", None)) is not None
        and trigger.kind == "effect"
        and trigger.name.split(".", 2)[2] not in silent
    }


def completed_in(facts: Iterable[AnyFact]) -> list[str]:
    """The steps that have ended otherwise than skipped, in that order."""
    found = (one for fact in facts if isinstance(fact, Macrostep) for one in fact.steps)
    return [one.step for one in found if one.status in ("completed", "failed", "cancelled")]


def undone_in(facts: Iterable[AnyFact]) -> list[str]:
    """The steps that were undone, in that order: what undoes `load` is called `undo_load`, as it is by default."""
    found = (one for fact in facts if isinstance(fact, Macrostep) for one in fact.steps)
    return [one.step.removeprefix("undo_") for one in found if one.status in ("compensated", "compensation_failed")]
