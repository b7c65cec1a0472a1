"""XState machine configurations behave here as they do in XState, or are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from statewright.engine import Engine
from statewright.statecharts import ChartError, chart, final, from_xstate, load_chart, state, to
from statewright.statecharts.definition import walk_states
from statewright.statecharts.simulate import Line, Simulation, parse_token

Config = dict[str, Any]


class Run:
    """A started machine. `leaves`, `effects` and `status` are those after the last token."""

    def __init__(self, config: Config, *tokens: str, context: Config | None = None, **given: Any) -> None:
        self.chart = from_xstate({"id": "m", **config}, **given)
        self.simulation = Simulation(self.chart, context)
        self.line: Line = self.simulation.begin()
        self.feed(*tokens)

    def feed(self, *tokens: str) -> Run:
        for token in tokens:
            self.line = self.simulation.feed(parse_token(token))
        return self

    @property
    def leaves(self) -> tuple[str, ...]:
        return self.line.leaves

    @property
    def effects(self) -> list[str]:
        return [effect.name for effect in self.line.effects]


def flat(first: Config, **rest: Config) -> Config:
    """A machine of `a`, `b` and more, that begins in `a`."""
    return {"initial": "a", "states": {"a": first, "b": {}, **rest}}


# Targets and ids


NESTED: Config = {
    "initial": "a",
    "states": {
        "a": {"initial": "one", "states": {"one": {}, "two": {"initial": "x", "states": {"x": {}, "y": {}}}}},
        "b": {"id": "other", "initial": "one", "states": {"one": {}, "three": {}}},
    },
}


@pytest.mark.parametrize(
    ("target", "leaf"),
    [
        ("b", "b.one"),
        ("b.three", "three"),
        (".two", "x"),
        (".two.y", "y"),
        ("#other", "b.one"),
        ("#other.three", "three"),
        ("#m.b.three", "three"),
        ("#m", "a.one"),
        (["b.three"], "three"),
    ],
)
def test_every_way_to_say_a_target(target: Any, leaf: str) -> None:
    states = {**NESTED["states"], "a": {**NESTED["states"]["a"], "on": {"go": {"target": target}}}}
    assert Run({**NESTED, "states": states}, "go").leaves == (leaf,)


def test_several_targets_enter_several_regions() -> None:
    region = {"initial": "off", "states": {"off": {}, "on": {}}}
    run = Run(
        flat(
            {"on": {"go": {"target": ["#m.p.left.on", "#m.p.right.on"]}}},
            p={"type": "parallel", "states": {"left": region, "right": region}},
        ),
        "go",
    )
    assert run.leaves == ("p.left.on", "p.right.on")


def test_ids_are_keys_where_they_are_unique_and_paths_where_not() -> None:
    chart = from_xstate({"id": "m", **NESTED})
    assert [node.id for node in walk_states(chart.definition)] == ["a", "a.one", "two", "x", "y", "b", "b.one", "three"]


def test_keys_with_spaces_become_legal() -> None:
    config = {"initial": "Under review", "states": {"Under review": {"on": {"go": "v1\\.0"}}, "v1.0": {}}}
    run = Run(config)
    assert run.leaves == ("Under_review",)
    assert run.feed("go").leaves == ("v1_0",)


# Selection


def test_a_transition_without_reenter_leaves_its_source_active() -> None:
    inside = {"initial": "x", "states": {"x": {"on": {"next": "y"}}, "y": {}}}
    parent = {
        **inside,
        "entry": "came",
        "exit": "left",
        "on": {"reset": ".x", "self": "a", "again": {"target": "a", "reenter": True}},
    }
    run = Run(flat(parent), "next")
    assert (run.feed("reset").leaves, run.effects) == (("x",), [])
    assert (run.feed("next", "self").leaves, run.effects) == (("x",), [])
    assert (run.feed("next", "again").leaves, run.effects) == (("x",), ["left", "came"])


def test_an_atomic_state_keeps_its_timer_unless_it_reenters() -> None:
    config = flat({"after": {"100": "b"}, "on": {"stay": "a", "restart": {"target": "a", "reenter": True}}})
    assert Run(config, "+60ms", "stay", "+50ms").leaves == ("b",)
    assert Run(config, "+60ms", "restart", "+50ms").leaves == ("a",)


def test_exact_names_go_before_wildcards_and_long_ones_before_short_ones() -> None:
    on = {
        "*": {"actions": "any"},
        "a.*": {"actions": "some"},
        "a.b.*": {"actions": "more"},
        "a.b.c": {"actions": "one"},
    }
    run = Run(flat({"on": on}))
    assert [run.feed(token).effects for token in ("z", "a", "a.x", "a.b", "a.b.c")] == [
        ["any"], ["some"], ["some"], ["more"], ["one"],
    ]  # fmt: skip


def test_a_guarded_exact_name_falls_through_to_the_wildcard() -> None:
    on = {"go": {"guard": "never", "target": "b"}, "*": {"actions": "fell"}}
    assert Run(flat({"on": on}), "go", functions={"never": "false"}).effects == ["fell"]


def test_a_name_is_no_prefix_where_the_machine_uses_both() -> None:
    on = {"order": {"actions": "ordered"}}
    parent = {"on": {"order.paid": {"actions": "paid"}}, "initial": "x", "states": {"x": {"on": on}}}
    run = Run(flat(parent))
    assert run.feed("order").effects == ["ordered"]
    assert run.feed("order.paid").effects == ["paid"]


def test_events_called_done_are_not_those_of_the_engine() -> None:
    inner = {"initial": "x", "states": {"x": {"on": {"finish": "y"}}, "y": {"type": "final"}}}
    run = Run(flat({**inner, "on": {"done": "b"}}), "finish")
    assert run.leaves == ("y",)
    assert run.feed("done").leaves == ("b",)


def test_the_wildcard_takes_no_results_of_plain_actions() -> None:
    run = Run(flat({"entry": "notify", "on": {"*": "b"}}), "done.effect.notify")
    assert run.leaves == ("a",)
    assert run.feed("anything").leaves == ("b",)


def test_an_empty_transition_forbids_what_the_parent_would_do() -> None:
    config = flat({"initial": "x", "states": {"x": {"on": {"go": {}}}}, "on": {"go": "b"}})
    assert Run(config, "go").leaves == ("x",)


def test_a_state_around_a_region_that_takes_the_event_does_not() -> None:
    """XState asks the regions first, all together; SCXML would do both."""
    config = {
        "type": "parallel",
        "states": {
            "left": {"initial": "x", "states": {"x": {"on": {"go": "y"}}, "y": {}}},
            "right": {"initial": "z", "states": {"z": {}}},
        },
        "on": {"go": {"actions": "outer"}},
    }
    run = Run(config, "go")
    assert (run.leaves, run.effects) == (("y", "z"), [])
    assert run.feed("go").effects == ["outer"]


def test_what_a_region_takes_under_a_guard_a_state_around_it_takes_otherwise() -> None:
    small = {"type": "small", "params": {"limit": 5}}
    config = {
        "context": {"n": 0},
        "type": "parallel",
        "states": {
            "left": {
                "initial": "x",
                "states": {"x": {"on": {"go": {"guard": small, "actions": "inner"}, "go.on": {}}}},
            },
            "right": {},
        },
        "on": {"go": {"actions": "outer"}},
    }
    with pytest.raises(ChartError, match="expected guards all in CEL"):
        Run(config, functions={"small": lambda context, event, params: context.n < params["limit"]})
    config["states"]["left"]["states"]["x"]["on"]["go"]["guard"] = "small"
    given: Config = {"functions": {"small": "context.n < 5"}}
    assert Run(config, "go", context={"n": 1}, **given).effects == ["inner"]
    assert Run(config, "go", context={"n": 9}, **given).effects == ["outer"]


def test_always_is_taken_at_once_when_its_guard_holds() -> None:
    config = {
        **flat({"always": {"guard": "enough", "target": "b"}, "on": {"add": {"actions": "add"}}}),
        "context": {"n": 0},
    }
    given = {"functions": {"enough": "context.n >= 2", "add": {"n": "context.n + 1"}}}
    assert Run(config, "add", **given).leaves == ("a",)
    assert Run(config, "add", "add", **given).leaves == ("b",)


# Guards and actions


GUARDS: list[tuple[Any, bool]] = [
    ("yes", True),
    ({"type": "yes"}, True),
    ({"type": "xstate.not", "guards": ["yes"]}, False),
    ({"type": "xstate.and", "guards": ["yes", "no"]}, False),
    ({"type": "xstate.or", "guards": ["no", {"type": "xstate.not", "guards": "no"}]}, True),
    ({"type": "xstate.and", "params": {"guards": ["yes", "python"]}}, None),
    ({"type": "above", "params": {"limit": 5}}, True),
    ({"type": "xstate.not", "guards": [{"type": "above", "params": {"limit": 10}}]}, True),
    ({"type": "xstate.and", "guards": ["python", {"type": "above", "params": {"limit": 5}}]}, True),
    ({"type": "xstate.stateIn", "stateValue": "#m.a"}, True),
    ({"type": "xstate.stateIn", "stateValue": {"a": {}}}, True),
    ({"type": "xstate.and", "guards": ["yes", {"type": "stateIn", "stateValue": "b"}]}, False),
]


@pytest.mark.parametrize(("guard", "passes"), GUARDS)
def test_guards(guard: Any, passes: bool | None) -> None:
    functions = {
        "yes": "context.amount > 0 || false",
        "no": "false",
        "python": lambda context, event: context.amount == 7,
        "above": lambda context, event, params: context.amount > params["limit"],
    }
    config = {**flat({"on": {"go": {"guard": guard, "target": "b"}}}), "context": {"amount": 7}}
    if passes is None:
        with pytest.raises(ChartError, match="expected guards all in CEL where one is needed"):
            Run(config, functions=functions)
    else:
        assert Run(config, "go", functions=functions).leaves == (("b",) if passes else ("a",))


def test_actions_are_assigns_if_they_are_given_and_effects_if_not() -> None:
    actions = ["keep", {"type": "add", "params": {"by": 3}}, {"type": "notify", "params": {"text": "it's"}}, "ring"]
    config = {**flat({"on": {"go": {"actions": actions}}}), "context": {"who": "", "n": 1}}
    functions = {
        "keep": {"who": "event.data.who"},
        "add": lambda context, event, params: {"n": context.n + params["by"]},
    }
    run = Run(config, 'go={"who": "ann"}', functions=functions)
    assert run.line.context == {"who": "ann", "n": 4}
    assert [(effect.name, effect.data) for effect in run.line.effects] == [("notify", {"text": "it's"}), ("ring", None)]


def test_built_in_actions() -> None:
    go = [
        {"type": "xstate.assign", "assignment": {"text": "a 'quoted' \"text\"", "list": [1, "x"]}},
        {"type": "xstate.raise", "event": {"type": "inner", "n": 5}},
        {"type": "xstate.raise", "event": "later", "delay": 1000, "id": "t1"},
        {"type": "xstate.raise", "params": {"event": {"type": "later"}, "delay": "soon", "id": "t2"}},
        {"type": "xstate.emit", "event": {"type": "news", "text": "hello"}},
        {"type": "xstate.log", "value": "said", "label": "audit"},
    ]
    on = {
        "go": {"actions": go},
        "inner": {"actions": "keep"},
        "later": {"actions": "came"},
        "stop": {"actions": {"type": "xstate.cancel", "sendId": "t1"}},
    }
    config = {**flat({"on": on}), "context": {"text": "", "list": [], "n": 0}}
    given: Config = {"functions": {"keep": {"n": "event.data.n"}}, "delays": {"soon": 500}}
    run = Run(config, "go", **given)
    assert run.line.context == {"text": "a 'quoted' \"text\"", "list": [1, "x"], "n": 5}
    assert [(effect.kind, effect.name, effect.data) for effect in run.line.effects] == [
        ("emit", "news", {"text": "hello"})
    ]
    assert run.simulation.steps[-1].logs == ("audit: said",)
    assert run.feed("+600ms").effects == ["came"]
    assert run.feed("stop", "+10s").effects == []


def test_context_types_come_from_the_first_values() -> None:
    config = {**flat({}), "context": {"i": 0, "d": 0.5, "s": "", "b": True, "l": [1], "o": {}, "n": None, "price": 1}}
    chart = from_xstate({"id": "m", **config}, types={"price": "double", "needed": "string"})
    assert {field.name: field.type for field in chart.definition.context} == {
        "i": "int", "d": "double", "s": "string", "b": "bool", "l": "list(dyn)", "o": "map(string, dyn)", "n": "dyn?",
        "price": "double", "needed": "string",
    }  # fmt: skip


# After, done, history


def test_delays_in_milliseconds_and_by_name() -> None:
    config = flat({"after": {"500": {"actions": "early"}, "a day": "b"}})
    run = Run(config, "+500ms", delays={"a day": "24h"})
    assert (run.leaves, run.effects) == (("a",), ["early"])
    assert run.feed("+24h").leaves == ("b",)


def test_a_compound_state_that_is_done_gives_its_output() -> None:
    done = {"type": "final", "output": {"verdict": "yes"}}
    inner = {"initial": "x", "states": {"x": {"on": {"go": "done"}}, "done": done}}
    config = {**flat({**inner, "onDone": {"target": "b", "actions": "keep"}}), "context": {"verdict": ""}}
    run = Run(config, "go", functions={"keep": {"verdict": "event.data.verdict"}})
    assert (run.leaves, run.line.context) == (("b",), {"verdict": "yes"})


@pytest.mark.parametrize("own", [None, {"from": "machine"}])
def test_a_machine_that_is_done_completes_the_instance(own: Any) -> None:
    config = flat({"on": {"go": "end"}}, end={"type": "final", "output": {"from": "state"}})
    run = Run({**config, **({"output": own} if own else {})}, "go")
    assert (run.line.status, run.simulation.output) == ("completed", own or {"from": "state"})


def test_a_parallel_machine_is_a_state_and_is_done_with_its_regions() -> None:
    region = {"initial": "open", "states": {"open": {"on": {"close": "shut"}}, "shut": {"type": "final"}}}
    run = Run({"type": "parallel", "states": {"left": region, "right": region}, "output": {"ok": True}})
    assert run.line.configuration == ("m", "left", "left.open", "right", "right.open")
    assert run.feed("close").line.status == "completed"
    assert (run.leaves, run.simulation.output) == (("m.done",), {"ok": True})


@pytest.mark.parametrize(("kind", "leaf"), [("shallow", "one"), ("deep", "two")])
def test_history(kind: str, leaf: str) -> None:
    inner = {"initial": "one", "states": {"one": {"on": {"next": "two"}}, "two": {}}}
    outer = {
        "initial": "first",
        "states": {"first": inner, "hist": {"type": "history", "history": kind, "target": "first"}},
        "on": {"pause": "b"},
    }
    assert Run(flat(outer, b={"on": {"back": "a.hist"}}), "next", "pause", "back").leaves == (leaf,)


# Actors


PROMISE = {
    "invoke": {
        "id": "loading",
        "src": "load",
        "input": {"url": "x"},
        "onDone": {"target": "b", "actions": "keep"},
        "onError": "c",
    }
}


def test_an_actor_is_performed_and_its_result_waited_for() -> None:
    config = {**flat(PROMISE, c={}), "context": {"got": None}}
    given: Config = {"functions": {"keep": {"got": "event.data"}}}
    run = Run(config, **given)
    assert [(effect.name, effect.data) for effect in run.line.effects] == [("load", {"url": "x"})]
    assert run.feed("done.effect.load=7").leaves == ("b",)
    assert run.line.context == {"got": 7}
    assert Run(config, "error.effect.load", **given).leaves == ("c",)


def test_a_child_machine_is_invoked_by_src() -> None:
    child = chart(
        "child",
        context={"name": "string"},
        states=[state("wait", on={"ping": to("done")}), final("done", output="context.name")],
    )
    go = {"actions": {"type": "xstate.sendTo", "to": "kid", "event": "ping"}}
    first = {
        "invoke": {"id": "kid", "src": "sub", "input": {"name": "it's"}, "onDone": {"target": "b", "actions": "keep"}},
        "on": {"go": go},
    }
    config = {**flat(first), "context": {"got": None}}
    run = Run(config, children={"sub": child}, functions={"keep": {"got": "event.data"}})
    assert (run.leaves, run.effects) == (("a",), [])
    assert (run.feed("go").leaves, run.line.context) == (("b",), {"got": "it's"})


# A whole machine, as the Stately editor exports it


EXPORTED = Path(__file__).parent / "xstate" / "approval.json"


def approval(**more: Any) -> dict[str, Any]:
    def may_sign(context: Any, event: Any, params: Any) -> bool:
        return bool(context.amount <= params["limit"])

    return {"isComplete": "context.amount > 0 && context.title != ''", "maySign": may_sign, **more}


def test_the_export_is_told_by_its_shape_and_says_what_it_lacks() -> None:
    with pytest.raises(ChartError) as caught:
        load_chart(EXPORTED)
    assert [(fault.line, fault.path) for fault in caught.value.faults] == [
        (16, "states.draft.on.submit[0].guard"),
        (54, "states.in review.states.finance.states.pending.on.finance.sign[0].guard"),
    ]


def test_the_exported_approval() -> None:
    made = from_xstate(EXPORTED, functions=approval())
    simulation = Simulation(made, {"title": "press", "amount": 900})
    simulation.begin()
    story = [
        ("submit", ("in_review.legal.pending", "in_review.finance.pending")),
        ("legal.sign", ("in_review.legal.signed", "in_review.finance.pending")),
        ("request changes", None),
        ("changes.requested", ("changes",)),
        ("resubmit", ("in_review.legal.signed", "in_review.finance.pending")),
        ("+48h", ("in_review.legal.signed", "escalated")),
        ("finance.sign", ("booking",)),
        ("error.effect.bookInLedger", ("in_review.legal.pending", "in_review.finance.pending")),
        ("legal.sign", ("in_review.legal.signed", "in_review.finance.pending")),
        ("finance.sign", ("booking",)),
        ("done.effect.bookInLedger", ("approved",)),
    ]
    for token, leaves in story:
        if leaves is not None:
            assert simulation.feed(parse_token(token)).leaves == leaves, token
    assert simulation.status == "completed"


async def test_an_instance_of_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    """A function with parameters is found again for the stored definition."""
    url = f"sqlite:///{tmp_path / 'approvals.db'}"
    async with Engine.open(url, charts=[from_xstate(EXPORTED, functions=approval())]) as engine:
        await engine.start("approval", {"title": "press", "amount": 5000}, id="p-1")
        await engine.send("p-1", "submit", event_id="e-1")
        refused = await engine.send("p-1", "finance.sign", event_id="e-2")
        assert refused.kind == "refused"
        assert 'maySign({"limit": 1000})' in refused.reason
    async with Engine.open(url, charts=[from_xstate(EXPORTED, functions=approval())]) as engine:
        refused = await engine.send("p-1", "finance.sign", event_id="e-3")
        assert refused.kind == "refused"
        signed = await engine.send("p-1", "legal.sign", event_id="e-4")
        assert "in_review.legal.signed" in signed.configuration


# How it is told from our own form


@pytest.mark.parametrize(
    ("name", "tree", "is_machine"),
    [
        ("x.json", {"id": "m", **flat({})}, True),
        ("x.xstate.json", flat({}), True),
        ("x.json", {"name": "m", **flat({})}, False),
    ],
)
def test_which_form_a_file_has(tmp_path: Path, name: str, tree: Config, is_machine: bool) -> None:
    tree = {
        **tree,
        "states": {
            **tree["states"],
            "a": {"on": {"go": {"target": ".x" if is_machine else "b"}}, "initial": "x", "states": {"x": {}}},
        },
    }
    (tmp_path / name).write_text(json.dumps(tree))
    made = load_chart(tmp_path / name)
    assert made.name == ("x" if "id" not in tree and is_machine else "m")
    assert made.definition.states[0].transitions[0].target == (("x",) if is_machine else ("b",))
