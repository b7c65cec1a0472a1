"""The part of generated tests that runs paths on a durable engine, where the user's handlers perform the effects.

Results then come from the handlers, with their own data. So only those paths are run that follow the handlers' success
and that no guard makes depend on what a result holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from statewright.statecharts import definition as d
from statewright.statecharts.checks.subject import Subject
from statewright.statecharts.coverage import Path
from statewright.statecharts.exploration import is_result

IMPORTS = [
    "from statewright.adapters.cli.loading import load_handlers",
    "from statewright.engine import Engine",
    "from statewright.engine.clock import ManualClock",
    "from statewright.statecharts.durations import parse_duration",
]
_DONE = "done.effect."


def is_durable(subject: Subject, path: Path) -> bool:
    """Whether a path goes the same way when handlers perform its effects."""
    handled = subject.chart.handler_names
    awaited: list[str] = []
    known_from_results: set[str] = set()
    for position, seen in enumerate(path.seen):
        name = seen.token.partition("=")[0]
        if is_result(name):
            effect = name.removeprefix(_DONE)
            if not name.startswith(_DONE) or effect not in handled or not seen.taken:
                return False
            known_from_results |= _assigned_by(subject, name)
        elif awaited:
            return False  # the handler's result would come first
        if position and _asks_for(subject, known_from_results, name):
            return False
        moving = [
            effect for effect in seen.effects if effect in handled and _moves(subject, f"{_DONE}{effect}", seen.leaves)
        ]
        awaited = [effect for effect in awaited if f"{_DONE}{effect}" != name] + moving
        if len(awaited) > 1:
            return False  # which comes first is open
    return True


def _moves(subject: Subject, event: str, leaves: Sequence[str]) -> bool:
    """Whether an event of this name leads anywhere from these states."""
    active = 1
    for leaf in leaves:
        state = subject.machine.by_id[leaf]
        active |= state.bit | state.ancestors
    candidates = subject.machine.handlers(event).by_bit
    return any(candidate.transition.targets for bit, found in candidates.items() if bit & active for candidate in found)


def _assigned_by(subject: Subject, event: str) -> set[str]:
    found: set[str] = set()
    for candidates in subject.machine.handlers(event).by_bit.values():
        for candidate in candidates:
            for action in subject.transitions[candidate.transition.order][1].actions:
                found |= set(action.values) if isinstance(action, d.Assign) else set()
    return found


def _asks_for(subject: Subject, fields: set[str], event: str) -> bool:
    """Whether a guard for this event, or one of those that follow by themselves, asks for one of the fields."""
    candidates = [c for found in subject.machine.handlers(event).by_bit.values() for c in found]
    candidates += [c for found in subject.machine.eventless.by_bit.values() for c in found]
    guards = [candidate.transition.guard for candidate in candidates]
    return any(re.search(rf"\bcontext\.{re.escape(field)}\b", guard) for guard in guards for field in fields)


def durable_tests(names: Sequence[str]) -> str:
    """The source of the tests of these paths."""
    listed = "\n".join(f"    {name!r}," for name in names)
    return f"\n\nDURABLE: list[str] = [\n{listed}\n]\n{_TEST}"


_TEST = '''"""The paths that are run with the handlers, too: those that handlers' results can't lead elsewhere."""


async def follow(name: str, folder: Path) -> None:
    """Take a path on an engine in `folder`, waiting after each token until what it leads to is recorded."""
    context, expected = PATHS[name]
    clock = ManualClock()
    async with Engine.open(f"sqlite:///{folder}/test.db", charts=[CHART], clock=clock) as engine:
        HANDLERS(engine)
        await engine.start(CHART.name, context, id="test")
        to_come: list[str] = []
        for seen in expected:
            event = parse_token(seen.token).meaning if seen.token else None
            if seen.token.startswith("+"):
                clock.advance((parse_duration(seen.token[1:]) or 0) / 1e9)
            elif event is not None and not event.name.startswith("done.effect."):
                outcome = await engine.send("test", event.name, event.data)
                assert (outcome.kind == "recorded") == bool(seen.taken), outcome.reason
            to_come += seen.taken
            async with asyncio.timeout(10):
                while not is_within(to_come, await taken(engine)):
                    await asyncio.sleep(0.01)


async def taken(engine: Engine) -> list[str]:
    return [
        f"{item.source or 'chart'} -> {' '.join(item.targets) or 'stays'}"
        for fact in await engine.history("test")
        for item in getattr(fact, "taken", ())
    ]


def is_within(wanted: list[str], recorded: list[str]) -> bool:
    """Whether all that is wanted was recorded in this order, be it with other things between."""
    remaining = iter(recorded)
    return all(item in remaining for item in wanted)


@pytest.mark.parametrize("name", DURABLE)
def test_path_with_handlers(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asyncio.run(follow(name, tmp_path))
'''
