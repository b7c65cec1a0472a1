"""Writes a pytest module of shortest paths that cover a chart: configurations, transitions, guard outcomes.

The paths are played on the chart when the file is written, and what came of each token is what the tests expect. What
no path was found for is listed in the file with the event and the guard in question, and skipped until somebody fills
in data. The same chart gives the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from statewright.statecharts import definition as d
from statewright.statecharts.chart import Chart
from statewright.statecharts.checks.stuck import token
from statewright.statecharts.checks.subject import Subject, said, trigger
from statewright.statecharts.coverage import Configuration, Coverage, Goal, Path, Seen, Taken, cover, goals_of
from statewright.statecharts.exploration import Edge, Outcome
from statewright.statecharts.testgen_durable import IMPORTS, durable_tests, is_durable

NEEDS_MAX = 50
"""How much of what is not covered is listed, and can be filled in."""


class Generated(NamedTuple):
    """text: of the module. paths: how many tests. covered, goals: counts by kind. missing: in words."""

    text: str
    paths: int
    covered: Mapping[str, int]
    goals: Mapping[str, int]
    missing: tuple[str, ...]


def generate(chart: Chart, load: str, *, handlers: str = "", data: Mapping[str, Any] | None = None) -> Generated:
    """The test module of a chart.

    load: the source of an expression that loads it, in which `HERE` is the test's folder. handlers: likewise of what
    registers the handlers with an engine, for tests on a durable engine too. data: what has been filled in already.
    """
    subject = Subject(chart)
    goals = goals_of(subject.exploration)
    coverage = cover(chart, goals)
    missing, needs = _missing(subject, coverage)
    paths = _longest(coverage.paths)
    named = dict(zip(_ids(paths), paths, strict=True))
    counts, covered = _counts(goals), _counts(set(goals) - set(coverage.missing))
    bounds = subject.exploration.bounds
    parts = [
        _head(chart, counts, covered, missing, bounds, durable=bool(handlers)),
        f"CHART = {load}\n",
        *([f"HANDLERS = {handlers}\n"] if handlers else []),
        *([_needs(needs, data or {})] if needs else []),
        _table(named),
        _TEST,
        *([_NEEDING] if needs else []),
        *([durable_tests([name for name, path in named.items() if is_durable(subject, path)])] if handlers else []),
    ]
    text = "\n".join(parts)
    return Generated(text, len(paths), covered, counts, tuple(missing))


class Need(NamedTuple):
    """A goal without a path: what it is, the guards that data are needed for, and the way there from the start."""

    what: str
    guards: tuple[str, ...]
    tokens: tuple[str, ...]
    leaves: tuple[str, ...]
    taken: tuple[str, ...]


def _counts(goals: Iterable[Goal]) -> dict[str, int]:
    counts = {"configurations": 0, "transitions": 0, "guard outcomes": 0}
    for goal in goals:
        kind = "configurations" if isinstance(goal, Configuration) else "transitions"
        counts["guard outcomes" if isinstance(goal, Outcome) else kind] += 1
    return counts


def _longest(paths: Sequence[Path]) -> list[Path]:
    """Those that are not the beginning of another, which tests the same and more."""
    begun = {(repr(path.context), path.tokens[:length]) for path in paths for length in range(len(path.tokens))}
    return [path for path in paths if (repr(path.context), path.tokens) not in begun]


# -- what is missing -------------------------------------------------------------------------------------------------


def _missing(subject: Subject, coverage: Coverage) -> tuple[list[str], list[Need]]:
    """What is not covered, and what is needed for that: once for all that the same way covers."""
    names = []
    needs: dict[tuple[tuple[str, ...], tuple[str, ...]], Need] = {}
    # A guard's outcome says best what is missing.
    for goal in sorted(coverage.missing, key=lambda goal: not isinstance(goal, Outcome)):
        names.append(_named(subject, goal))
        edges = _edges_to(subject, goal)
        last = edges[-1]
        guards = tuple(dict.fromkeys(_outcome(subject, outcome) for edge in edges for outcome in edge.guards))
        tokens = tuple(token(subject, edge.stimulus) for edge in edges[1:])
        leaves = subject.machine.leaves(subject.exploration.nodes[last.target].configuration)
        taken = tuple(_taken(subject, number) for number in last.transitions)
        if len(needs) >= NEEDS_MAX:
            continue
        needs.setdefault((guards, tokens), Need(names[-1], guards, tokens, leaves, taken))
    return names, list(needs.values())


def _edges_to(subject: Subject, goal: Goal) -> list[Edge]:
    exploration = subject.exploration
    for edge in exploration.all_edges():
        reaches = isinstance(goal, Configuration) and exploration.nodes[edge.target].configuration == goal.bits
        takes = isinstance(goal, Taken) and goal.transition in edge.transitions
        if reaches or takes or (isinstance(goal, Outcome) and goal in edge.guards):
            return [*exploration.path_to(edge.source), edge]
    raise LookupError(goal)  # every goal comes from an edge


def _named(subject: Subject, goal: Goal) -> str:
    if isinstance(goal, Configuration):
        return f"configuration {subject.names(goal.bits)}"
    if isinstance(goal, Outcome):
        return f"{_outcome(subject, goal)} (for {trigger(subject.transitions[goal.transition][1])})"
    return f"transition {_taken(subject, goal.transition)} for {trigger(subject.transitions[goal.transition][1])}"


def _outcome(subject: Subject, outcome: Outcome) -> str:
    owner, transition = subject.transitions[outcome.transition]
    state = f" of state {owner.id!r}" if isinstance(owner, d.State) else ""
    return f"guard {said(transition.guard)}{state} {'true' if outcome.passed else 'false'}"


def _taken(subject: Subject, number: int) -> str:
    owner, transition = subject.transitions[number]
    source = owner.id if isinstance(owner, d.State) else "chart"
    return f"{source} -> {' '.join(transition.target) or 'stays'}"


# -- the text --------------------------------------------------------------------------------------------------------


def _head(
    chart: Chart,
    counts: Mapping[str, int],
    covered: Mapping[str, int],
    missing: Sequence[str],
    bounds: Sequence[str],
    *,
    durable: bool,
) -> str:
    reached = ", ".join(f"{covered[kind]} of {count} {kind}" for kind, count in counts.items())
    lines = [f"Covered: {reached}."]
    if missing:
        lines += ["Not covered:", *(f"- {what}" for what in missing[:NEEDS_MAX])]
        lines += [f"- and {len(missing) - NEEDS_MAX} more"] * (len(missing) > NEEDS_MAX)
        lines += ["Fill in DATA to have these tested, too."]
    lines += [f"The chart was not explored to its end: {bound}." for bound in bounds]
    about = "\n".join(lines).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    imports = ["from __future__ import annotations", "", *(["import asyncio"] if durable else [])]
    imports += ["from pathlib import Path", "from typing import Any, NamedTuple", "", "import pytest", ""]
    ours = [
        "from statewright.statecharts.chart import load_chart",
        "from statewright.statecharts.simulate import Simulation, parse_token",
    ]
    imports += sorted([*ours, *(IMPORTS if durable else [])])
    title = f"Shortest paths through the chart {chart.name!r}, written by `statewright testgen`."
    head = f"# ruff: noqa\n{_QUOTES}{title}\n\n{about}\n{_QUOTES}\n\n"
    return head + "\n".join(imports) + "\n\nHERE = Path(__file__).resolve().parent"


def _needs(needs: Sequence[Need], data: Mapping[str, Any]) -> str:
    lines = [
        "# Data that no sample was found for. `context` is what to start with; `tokens` are the events with their data",
        "# (`name=JSON`) and delays. The way is given, the data that make the guards so are to be filled in; what is",
        "# None is skipped.",
        "DATA: dict[str, dict[str, Any] | None] = {",
    ]
    for need in needs:
        lines += [f"    # {_one_line(f'where {guard}')}" for guard in need.guards]
        lines.append(f"    # {_one_line(json.dumps({'context': {}, 'tokens': need.tokens}, ensure_ascii=False))}")
        lines.append(f"    {_string(need.what)}: {_literal(data.get(need.what))},")
    lines += ["}", "NEEDED: dict[str, tuple[list[str], list[str]]] = {"]
    for need in needs:
        lines.append(f"    {_string(need.what)}: ({_literal([*need.leaves])}, {_literal([*need.taken])}),")
    return "\n".join([*lines, "}", '"""What the last token leads to: the active states, and transitions taken."""', ""])


def _table(named: Mapping[str, Path]) -> str:
    lines = [
        "",
        "class Seen(NamedTuple):",
        '    """A token, and what is to come of it: active states, transitions taken, effects asked for."""',
        "",
        "    token: str",
        "    leaves: str",
        "    taken: tuple[str, ...] = ()",
        "    effects: tuple[str, ...] = ()",
        '    status: str = "active"',
        "",
        "",
        "PATHS: dict[str, tuple[dict[str, Any], list[Seen]]] = {",
    ]
    for name, path in named.items():
        lines += [f"    {_string(name)}: (", f"        {_literal(path.context)},", "        ["]
        lines += [f"            {_row(seen)}," for seen in path.seen]
        lines += ["        ],", "    ),"]
    return "\n".join([*lines, "}", ""])


def _ids(paths: Sequence[Path]) -> Iterator[str]:
    """A name for each path: its last event and where that leads, numbered."""
    for number, path in enumerate(paths, 1):
        last = path.seen[-1]
        event = last.token.partition("=")[0] or "start"
        yield f"{number}: {event} -> {' '.join(last.leaves)}"


def _row(seen: Seen) -> str:
    values = [_string(seen.token), _string(" ".join(seen.leaves))]
    if seen.taken or seen.effects:
        values.append(_strings(seen.taken))
    if seen.effects:
        values.append(_strings(seen.effects))
    if seen.status != "active":
        values.append(f"status={_string(seen.status)}")
    return f"Seen({', '.join(values)})"


def _strings(values: Sequence[str]) -> str:
    return f"({', '.join(map(_string, values))}{',' if len(values) == 1 else ''})"


def _literal(value: Any) -> str:
    """JSON as Python writes it."""
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_string(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return repr(value)


def _string(text: str) -> str:
    """A Python literal; double quotes unless the text has some."""
    literal = repr(text)
    return f'"{literal[1:-1]}"' if literal[0] == "'" and '"' not in text and "\\'" not in literal else literal


def _one_line(text: str) -> str:
    return " ".join(text.split())


_QUOTES = '"' * 3

_TEST = '''
def play(context: dict[str, Any], tokens: list[str]) -> list[Seen]:
    """What comes of the start and of each token."""
    simulation = Simulation(CHART, context)
    seen = []
    for token in ["", *tokens]:
        before = len(simulation.steps)
        line = simulation.feed(parse_token(token)) if token else simulation.begin()
        taken = [
            f"{item.source or 'chart'} -> {' '.join(item.targets) or 'stays'}"
            for step in simulation.steps[before:]
            for item in step.taken
        ]
        effects = tuple(effect.name for effect in line.effects)
        seen.append(Seen(token, " ".join(line.leaves), tuple(taken), effects, line.status))
    return seen


@pytest.mark.parametrize("name", PATHS)
def test_path(name: str) -> None:
    context, expected = PATHS[name]
    assert play(context, [seen.token for seen in expected[1:]]) == expected
'''

_NEEDING = """
@pytest.mark.parametrize("name", DATA)
def test_path_with_data(name: str) -> None:
    given = DATA[name]
    if given is None:
        pytest.skip(f"needs data for {name}")
    leaves, taken = NEEDED[name]
    last = play(given["context"], given["tokens"])[-1]
    assert (last.leaves.split(), list(last.taken)) == (leaves, taken)
"""
