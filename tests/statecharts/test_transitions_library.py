"""Configurations of `transitions` behave here as in the library, beside which they run: for random machines and events
the same states and the same callbacks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transitions import Machine
from transitions.extensions.nesting import HierarchicalMachine

from statewright.statecharts import Event, Snapshot, Taken, from_transitions

CONDITIONS = ("c0", "c1")
FUNCTIONS = {name: (lambda context, event, name=name: event.data[name]) for name in CONDITIONS}


class Model:
    """Conditions answer from the event; every other callback is recorded by its name."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name in CONDITIONS:
            return lambda **flags: flags[name]
        if name.startswith(("enter_", "exit_", "before_", "after_")):
            return lambda **flags: self.calls.append(name)
        raise AttributeError(name)


class Beside:
    """One configuration in the library and here, driven by the same events."""

    def __init__(self, config: dict[str, Any], *, nested: bool) -> None:
        self.chart = from_transitions(config, name="beside", functions=FUNCTIONS, nested=nested)
        self.model = Model()
        kind = HierarchicalMachine if nested else Machine
        self.library = kind(model=self.model, **json.loads(json.dumps(config)))
        self.snapshot: Snapshot = self.chart.machine.start({}).snapshot

    def send(self, trigger: str, **flags: bool) -> None:
        self.model.calls.clear()
        self.model.trigger(trigger, **flags)
        step = self.chart.machine.step(self.snapshot, Event(trigger, flags))
        self.snapshot = step.snapshot
        if not any(self._leads_deep(taken) for taken in step.taken):
            assert sorted(effect.name for effect in step.effects) == sorted(self.model.calls)
        self.agree()

    def _leads_deep(self, taken: Taken) -> bool:
        """More than one level into its source: the library keeps the levels between if they are active."""
        by_id = self.chart.machine.by_id
        parents = [by_id[target].parent for target in taken.targets]
        return any(parent is not None and parent.ancestors & by_id[taken.source].bit for parent in parents)

    def agree(self) -> None:
        state = self.model.state
        names = state if isinstance(state, list) else [state]
        assert sorted(self.leaves()) == sorted(name.rpartition("_")[2] for name in names)

    def leaves(self) -> list[str]:
        return [leaf.removesuffix(".itself") for leaf in self.chart.machine.leaves(self.snapshot.configuration)]


FLAGS = st.fixed_dictionaries(dict.fromkeys(CONDITIONS, st.booleans()))
TRIGGERS = ("go", "back", "jump")
EVENTS = st.lists(st.tuples(st.sampled_from(TRIGGERS), FLAGS), max_size=12)


def callbacks(name: str) -> dict[str, Any]:
    return {"on_enter": f"enter_{name}", "on_exit": [f"exit_{name}"]}


@st.composite
def trees(draw: st.DrawFn, depth: int) -> tuple[list[Any], list[str]]:
    """States with unique local names, nested, some with an initial; and the paths of all."""
    count = iter(range(100))
    paths: list[str] = []

    def level(prefix: str, depth: int) -> list[Any]:
        states = []
        for _ in range(draw(st.integers(2, 3))):
            name = f"s{next(count)}"
            paths.append(f"{prefix}{name}")
            state: dict[str, Any] = {"name": name, **callbacks(name)}
            if depth > 1 and draw(st.booleans()):
                state["children"] = level(f"{prefix}{name}_", depth - 1)
                if draw(st.booleans()):
                    state["initial"] = draw(st.sampled_from([child["name"] for child in state["children"]]))
            states.append(state)
        return states

    return level("", depth), paths


@st.composite
def configs(draw: st.DrawFn, depth: int) -> dict[str, Any]:
    states, paths = draw(trees(depth))
    transitions: list[Any] = []
    for number in range(draw(st.integers(1, 10))):
        source: Any = draw(st.sampled_from([*paths, "*"]) | st.lists(st.sampled_from(paths), min_size=1, max_size=2))
        dest = draw(st.sampled_from([*paths, "=", None]))
        fields = {"trigger": draw(st.sampled_from(TRIGGERS)), "source": source, "dest": dest}
        fields |= {"before": f"before_{number}", "after": f"after_{number}"} if draw(st.booleans()) else {}
        for key in ("conditions", "unless"):
            if draw(st.booleans()):
                fields[key] = draw(st.sampled_from([*CONDITIONS, list(CONDITIONS)]))
        transitions.append(fields)
    config = {"states": states, "initial": draw(st.sampled_from(paths)), "transitions": transitions}
    common = {"before_state_change": "before_all", "after_state_change": ["after_all"]} if draw(st.booleans()) else {}
    ordered = {"ordered_transitions": True} if draw(st.booleans()) else {}
    return {**config, **common, **ordered, "auto_transitions": False, "ignore_invalid_triggers": True}


@settings(max_examples=50)
@given(configs(1), EVENTS)
def test_flat_machines_behave_as_in_the_library(config: dict[str, Any], events: list[Any]) -> None:
    beside = Beside(config, nested=False)
    beside.agree()
    for trigger, flags in [*events, ("next_state", dict.fromkeys(CONDITIONS, True))]:
        beside.send(trigger, **flags)


@settings(max_examples=100)
@given(configs(3), EVENTS)
def test_nested_machines_behave_as_in_the_library(config: dict[str, Any], events: list[Any]) -> None:
    beside = Beside(config, nested=True)
    beside.agree()
    for trigger, flags in [*events, ("next_state", dict.fromkeys(CONDITIONS, True))]:
        beside.send(trigger, **flags)


REGIONS = {
    "states": [
        "idle",
        {
            "name": "on",
            "parallel": [
                {
                    "name": "heat",
                    "children": [{"name": "low", **callbacks("low")}, {"name": "high", **callbacks("high")}],
                    "initial": "low",
                    "transitions": [["go", "low", "high"], {"trigger": "go", "source": "high", "dest": "="}],
                },
                {
                    "name": "fan",
                    "children": ["still", "slow", "fast"],
                    "initial": "still",
                    "transitions": [["back", "*", "still"], ["speed", "still", "slow"], ["speed", "slow", "fast"]],
                },
            ],
            **callbacks("on"),
        },
    ],
    "initial": "idle",
    "transitions": [["start", "idle", "on"], ["stop", "on", "idle", "c0"]],
    "auto_transitions": False,
    "ignore_invalid_triggers": True,
}
REGION_EVENTS = st.lists(st.tuples(st.sampled_from(["start", "stop", "go", "speed", "back"]), FLAGS), max_size=15)


@settings(max_examples=30)
@given(REGION_EVENTS)
def test_regions_that_keep_to_themselves_behave_as_in_the_library(events: list[Any]) -> None:
    beside = Beside(REGIONS, nested=True)
    for trigger, flags in events:
        beside.send(trigger, **flags)


@pytest.mark.parametrize(
    ("trigger", "library", "here"),
    [
        ("first", "P_v_d", ("out",)),  # the library leaves P, then moves the other region: `out` and `u` are lost
        ("second", "out", ("b", "c")),  # what leaves P is preempted by the region before it
    ],
)
def test_leaving_a_parallel_state_from_one_region_differs_as_documented(
    trigger: str, library: str, here: tuple[str, ...]
) -> None:
    regions = [
        {"name": "u", "children": ["a", "b"], "initial": "a"},
        {"name": "v", "children": ["c", "d"], "initial": "c"},
    ]
    config: dict[str, Any] = {
        "states": [{"name": "P", "parallel": regions}, "out"],
        "initial": "P",
        "transitions": [
            ["first", "P_u_a", "out"],
            ["first", "P_v_c", "P_v_d"],
            ["second", "P_u_a", "P_u_b"],
            ["second", "P_v_c", "out"],
        ],
        "auto_transitions": False,
    }
    machine = HierarchicalMachine(**config)
    machine.trigger(trigger)
    assert machine.state == library
    chart = from_transitions(config, name="preempted")
    step = chart.machine.step(chart.machine.start({}).snapshot, Event(trigger))
    assert chart.machine.leaves(step.snapshot.configuration) == here
