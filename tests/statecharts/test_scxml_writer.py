"""Writing SCXML: a chart that was read and is written back is the same; what SCXML cannot say is named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from statewright.statecharts import Chart, ChartError, Event, Step
from statewright.statecharts.scxml import write_scxml
from tests.statecharts.behaviour import read
from tests.statecharts.random_charts import charts, events
from tests.statecharts.scxml_runs import Run, scxml
from tests.statecharts.test_appendix_d import quickly


def again(chart: Chart) -> Chart:
    return Chart.from_scxml(write_scxml(chart.definition).encode())


EVERYTHING = """
  <script>made = 1</script>
  <datamodel><data id="a" expr="'&lt;x>'"/><data id="b">[1, {"c": "d"}]</data><data id="e">words</data></datamodel>
  <parallel id="p">
    <onentry><raise event="x"/></onentry><onentry><log label="l" expr="a"/></onentry>
    <onexit><cancel sendid="t"/></onexit>
    <invoke id="i" type="scxml" autoforward="true" idlocation=""><param name="n" expr="1"/><finalize><assign
      location="e" expr="2"/></finalize><content><scxml><final id="f"/></scxml></content></invoke>
    <invoke typeexpr="'scxml'" srcexpr="a" idlocation="e"/><invoke><content expr="a"/></invoke>
    <state id="s"><datamodel><data id="late" expr="made"/></datamodel>
      <initial><transition target="h"><raise event="y"/></transition></initial>
      <history id="h" type="deep"><transition target="s1"><raise event="z"/></transition></history>
      <state id="s1"><transition event="a b.* *" cond="a == 'x' &amp;&amp; b[0] &lt; 2" type="internal" target="s2 q"/>
        <transition cond="false"><if cond="a == e"><raise event="1"/><elseif cond="made > 1"/><raise event="2"/><else/>
          <foreach array="b" item="v" index="w"><assign location="b[0]" expr="w"/></foreach></if></transition></state>
      <state id="s2"/>
    </state>
    <state id="q"><transition event="go" target="f2"><send event="e1" id="t" delay="1.5s" type="scxml" target="#_i">
        <param name="k" expr="1 + 1"/></send>
        <send eventexpr="a" delayexpr="e" targetexpr="a" typeexpr="a" idlocation="e">
        <content>7</content></send><send event="e2" target="#_internal"><content expr="a"/></send></transition></state>
  </parallel>
  <final id="f2"><donedata><content>{"function": "x"}</content></donedata></final>
"""


@pytest.mark.parametrize("binding", ["early", "late"])
def test_a_document_written_back_is_the_same_definition(binding: str) -> None:
    chart = scxml(EVERYTHING, f'name="every.thing" initial="s q" binding="{binding}"')
    assert again(chart).digest == chart.digest
    assert write_scxml(again(chart).definition) == write_scxml(chart.definition)


OURS = """
name: ours
context: {n: {type: int, default: 0}, m: {type: int, default: 5}, list: {type: list(int), default: [1]}}
initial: one
states:
  one:
    entry: [{assign: {n: context.m, m: context.n}}, {perform: {name: notify, data: {to: "'ann'"}}}]
    on:
      go: {target: two, guard: event.data.x > context.n}
      say: {actions: [{raise: {event: heard, data: "event.data"}}]}
      heard: {actions: [{assign: {list: "context.list + [event.data]"}}, {emit: topic}, {call: service.method}]}
      paid:
        actions:
          - perform:
              name: pay
              retry: {attempts: 3, initial: 2s, maximum: 1m, multiplier: 3, jitter: 0.5, final: [ValueError, "409"]}
              timeout: 30s
              heartbeat: 10s
              cancel: on_exit
          - {call: {service: bank, method: wire, timeout: 5s, heartbeat: 1s, retry: {}}}
          - {emit: {subject: paid, retry: {attempts: 9}, cancel: on_exit}}
    after: {1h: two, "string(context.n) + 's'": three}
  two: {after: {90m: three}}
  three: {type: final, output: context.n}
on: {stop: three}
"""


def test_our_own_charts_mean_the_same_as_scxml() -> None:
    def outcome(chart: Chart, *tokens: str) -> tuple[object, ...]:
        run = Run(chart).after(*tokens)
        effects = [effect.name for step in run.simulation.steps for effect in step.effects]
        return run.leaves, run.data, effects, run.simulation.output

    chart = read(OURS)
    for tokens in (['go={"x": 1}'], ['go={"x": 9}', "+90m"], ["say=7"], ["+4s"], ["+5s"], ["stop"]):
        assert outcome(again(chart), *tokens) == outcome(chart, *tokens), tokens


@pytest.mark.parametrize(
    ("chart", "named"),
    [
        ("states: {a: {on: {go: {target: a, guard: {function: f}}}}}", "the Python function 'f'"),
        ("states: {a: {entry: {assign: {function: f}}}}", "the Python function 'f'"),
        ("entry: [notify]\nstates: {a: {}}", "entry or exit actions of the chart itself"),
        ("after: {1h: a}\nstates: {a: {}}", "delayed transitions of the chart itself"),
    ],
)
def test_what_scxml_cannot_say_is_named(chart: str, named: str) -> None:
    def f(context: object, event: object) -> object:
        return {}

    with pytest.raises(ChartError, match=f"SCXML has no place for .*{named}"):
        write_scxml(read(chart, f=f).definition)


@quickly(60)
@given(charts(), events)
def test_any_chart_does_the_same_as_scxml(tree: dict[str, Any], names: list[str]) -> None:
    chart = Chart.from_tree(tree)
    written = again(chart)

    def said(of: Chart, step: Step) -> tuple[object, ...]:
        active = of.machine.names(step.snapshot.configuration)
        # A transition of the chart itself has been written to its states, so only its source differs.
        taken = [(item.event, item.targets) for item in step.taken]
        return active, taken, step.exited, step.entered, step.raised, step.status, bool(step.reason)

    one, other = chart.machine.start({}), written.machine.start({})
    for name in [*names, ""]:
        assert said(chart, one) == said(written, other)
        if not name or one.reason or one.status == "completed":
            return
        one, other = chart.machine.step(one.snapshot, Event(name)), written.machine.step(other.snapshot, Event(name))
        if one.reason:
            assert other.reason
            return
