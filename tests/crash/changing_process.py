"""The program that the kill test of changes kills: `changing_process.py STORE LOG`.

Round after round, two executions, one of steps in line and one of a graph. While their first steps run, each is given
a checkpoint, is changed, is resumed from the checkpoint, is changed again and given another checkpoint; then its gate
opens, it fails, undoes what it did, and is resumed from the second checkpoint, to complete. Whatever was killed is
taken up by what the history says: what is recorded is not asked for again. A step that begins is a line in LOG: its
effect, itself, the time (ns), its execution and its revision. It says "loaded", waits for a line on stdin, opens the
store, says "ready"; on SIGTERM it ends once what has begun is through.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterable
from itertools import count
from pathlib import Path

from statewright.adapters.sqlite import store  # noqa: F401  (loaded before it is needed)
from statewright.engine.events import AnyFact, CheckpointTaken, InstanceModified
from statewright.engine.recorder import InstanceFilter
from statewright.engine.workflows import Orchestrator, StepCall
from statewright.statecharts.workflows import Workflow, WorkflowStep
from statewright.statecharts.workflows.model import Mode

LOG = Path(sys.argv[2] if len(sys.argv) > 2 else "log")
ALL = InstanceFilter(limit=100_000)
MODES: tuple[Mode, ...] = ("sequential", "parallel")
QUICK = 12
"""How many steps there are before the gate. Each depends on the one three before: in a graph three run at once."""
UNDOABLE = range(4, QUICK, 2)
"""Which of them have a rollback step. Of what has been undone, and comes after that, nothing counts as done."""
EARLY, LATE = "early", "late"
FIRST, SECOND, AGAIN, MENDED = "first change", "second change", "again", "mended"
ASKED = (EARLY, FIRST, AGAIN, SECOND, LATE)
"""What is asked for before the gate opens, in order: names of checkpoints, reasons of what else."""

_gates: dict[str, asyncio.Event] = {}


async def play(call: StepCall, revision: int = 1) -> str:
    note(f"{call.effect_id} {call.step} {time.time_ns()} {call.execution_id} {revision}")
    if call.step == "gate":
        await _gates.setdefault(call.execution_id, asyncio.Event()).wait()
    if call.step == "last" and not mark(call.execution_id).exists():
        raise ValueError("it is broken")
    return call.step


def note(line: str) -> None:
    with LOG.open("a") as log:
        log.write(f"{line}\n")


def mark(execution_id: str) -> Path:
    """There once an execution may complete."""
    return LOG.with_name(f"{execution_id}.mended")


def step(id: str, *dependencies: str, undo: bool = False, **fields: object) -> WorkflowStep:  # noqa: A002 (as of a step)
    rollback = WorkflowStep(id=f"undo_{id}", function="play", max_retries=0) if undo else None
    return WorkflowStep(
        id=id,
        dependencies=dependencies,
        rollback=rollback,
        **{"function": "play", "max_retries": 0, **fields},  # type: ignore[arg-type]
    )


def workflow(mode: Mode) -> Workflow:
    """`gate` after all that is quick, `kept`, `swapped` and `dropped` after that, `last` after these."""
    found = Workflow(f"w-{mode}", mode=mode)
    quick = [f"s{number}" for number in range(QUICK)]
    for number, one in enumerate(quick):
        dependencies = quick[number - 3 : number - 2] if number > 2 else ()
        found.add_step(step(one, *dependencies, undo=number in UNDOABLE))
    found.add_step(step("gate", *quick))
    for one in ("kept", "swapped", "dropped"):
        found.add_step(step(one, "gate", undo=one == "kept"))
    return found.add_step(step("last", "kept", "swapped", "dropped"))


async def play_round(orchestrator: Orchestrator, execution_id: str, mode: Mode) -> None:
    """Whatever of it is still to be done."""
    await orchestrator.execute(f"w-{mode}", id=execution_id)
    done = asked_in(await orchestrator.engine.history(execution_id))
    if EARLY not in done:
        await orchestrator.checkpoint(execution_id, EARLY)
    if FIRST not in done:
        await orchestrator.change(
            execution_id,
            add=[step("between", "s1", undo=True)],
            replace=[step("swapped", "gate", "between", parameters={"revision": 2}), step("last", "kept", "swapped")],
            remove=["dropped"],
            reason=FIRST,
        )
    if AGAIN not in done:
        await orchestrator.resume_from(execution_id, EARLY, reason=AGAIN)
    if SECOND not in done:
        await orchestrator.change(
            execution_id,
            add=[step("more", "gate", undo=True)],
            replace=[step("last", "kept", "swapped", "more")],
            reason=SECOND,
        )
    if LATE not in done:
        await orchestrator.checkpoint(execution_id, LATE)
    _gates.setdefault(execution_id, asyncio.Event()).set()
    if MENDED not in done:
        assert (await orchestrator.wait(execution_id)).status == "failed"
        mark(execution_id).touch()
        await orchestrator.resume_from(execution_id, LATE, reason=MENDED)
    await orchestrator.wait(execution_id)


def asked_in(facts: Iterable[AnyFact]) -> list[str]:
    """What of all that was asked for is recorded, in order."""
    return [
        fact.name if isinstance(fact, CheckpointTaken) else fact.reason
        for fact in facts
        if isinstance(fact, CheckpointTaken | InstanceModified)
    ]


async def serve(store_url: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    workflows = [workflow(mode) for mode in MODES]
    async with Orchestrator.open(store_url, workflows=workflows, functions={"play": play}) as orchestrator:
        print("ready", flush=True)
        begun = {row.id for row in await orchestrator.engine.list(ALL)}
        for number in count(1):
            ids = {f"{mode}-{number}": mode for mode in MODES}
            if ended.is_set() and not begun & ids.keys():
                break
            await asyncio.gather(*(play_round(orchestrator, one, mode) for one, mode in ids.items()))


if __name__ == "__main__":
    print("loaded", flush=True)
    if sys.stdin.readline():
        asyncio.run(serve(sys.argv[1]))
