"""SCXML documents run: data, executable content, sends and errors. The clauses are those of SCXML 1.0."""

from __future__ import annotations

from typing import Any

import pytest

from statewright.statecharts import Event
from statewright.statecharts.dynamic import SCXML_PROCESSOR
from tests.statecharts.scxml_runs import Run, scxml

# -- data (5) ------------------------------------------------------------------------------------------------------


def test_data_comes_from_expressions_inline_content_and_files(tmp_path: Any) -> None:
    (tmp_path / "rates.json").write_text('{"low": 0.5}')
    chart = scxml(
        """
        <datamodel>
          <data id="a" expr="1 + 1"/>
          <data id="b" expr="a * 10"/>
          <data id="list">[1, "two", null]</data>
          <data id="words">  some
             words </data>
          <data id="rates" src="file:rates.json"/>
          <data id="nothing"/>
          <data id="xml"><point x="1"/></data>
        </datamodel>
        <state id="s"/>
        """,
        folder=tmp_path,
    )
    assert Run(chart).data == {
        "a": 2,
        "b": 20,
        "list": [1, "two", None],
        "words": "some words",
        "rates": {"low": 0.5},
        "nothing": None,
        "xml": '<point xmlns="http://www.w3.org/2005/07/scxml" x="1"/>',
    }


def test_data_that_is_given_is_not_computed() -> None:
    body = '<datamodel><data id="a" expr="1"/><data id="b" expr="a + 1"/></datamodel><state id="s"/>'
    assert Run(body, context={"a": 5}).data == {"a": 5, "b": 6}


def test_data_that_cannot_be_computed_is_null_and_an_error() -> None:
    run = Run(
        """
        <datamodel><data id="a" expr="return"/><data id="b" expr="missing"/><data id="c" expr="3"/></datamodel>
        <state id="s"><transition event="error.execution" cond="a == null &amp;&amp; c == 3" target="t"/></state>
        <state id="t"/>
        """
    )
    assert run.leaves == ("t",)
    assert run.raised == ["error.execution", "error.execution"]


LATE = """
  <datamodel><data id="top" expr="1"/></datamodel>
  <state id="s"><transition event="go" target="t"/></state>
  <state id="t">
    <datamodel><data id="late" expr="top + 1"/><data id="empty"/></datamodel>
    <onentry><assign location="top" expr="late"/></onentry>
    <transition event="again" target="t"><assign location="late" expr="7"/></transition>
  </state>
"""


def test_early_binding_computes_all_at_the_start() -> None:
    assert Run(LATE).data == {"top": 1, "late": 2, "empty": None}


def test_late_binding_computes_on_the_first_entry_only() -> None:
    run = Run(LATE, 'binding="late"')
    assert run.data == {"top": 1, "late": None, "empty": None}
    assert run.after("go").data == {"top": 2, "late": 2, "empty": None}
    assert run.after("again").data == {"top": 7, "late": 7, "empty": None}


def test_late_binding_overwrites_what_was_assigned_before() -> None:
    body = LATE.replace(
        'target="t"/></state>', 'target="t"/><onentry><assign location="late" expr="9"/></onentry></state>'
    )
    run = Run(body, 'binding="late"')
    assert run.data["late"] == 9
    assert run.after("go").data["late"] == 2


@pytest.mark.parametrize(
    ("location", "expr", "expected"),
    [
        ("a", "5", 5),
        ("a.b", "5", {"b": 5, "list": [1, 2]}),
        ("a.new", "5", {"b": 0, "list": [1, 2], "new": 5}),
        ("a['b']", "'x'", {"b": "x", "list": [1, 2]}),
        ("a.list[1]", "5", {"b": 0, "list": [1, 5]}),
        ("a.list[i + 0]", "5", {"b": 0, "list": [5, 2]}),
    ],
)
def test_assigning_to_a_place(location: str, expr: str, expected: Any) -> None:
    run = Run(
        f"""
        <datamodel><data id="i" expr="0"/><data id="a">{{"b": 0, "list": [1, 2]}}</data></datamodel>
        <state id="s"><onentry><assign location="{location}" expr="{expr}"/></onentry></state>
        """
    )
    assert run.data["a"] == expected


@pytest.mark.parametrize(
    "location",
    [
        "b",
        "b.c",
        "a.x.y",
        "a.list[9]",
        "a.list[-1]",
        "a.list.x",
        "_event",
        "_name",
        "_sessionid",
        "a[",
        "'a'",
        "a b",
    ],
)
def test_a_place_that_is_none_is_an_error(location: str) -> None:
    body = f"""
        <datamodel><data id="a">{{"list": [1, 2]}}</data></datamodel>
        <state id="s"><onentry>
          <assign location="{location}" expr="1"/><assign location="a" expr="1"/>
        </onentry></state>
        """
    run = Run(body)
    assert run.data == {"a": {"list": [1, 2]}}, "the rest of the block is not run"
    assert run.raised == ["error.execution"]


def test_a_script_assigns_and_makes_fields() -> None:
    run = Run(
        """
        <script>
          x = 1; y = [x,
                      2]  // a comment; not = code
          z = "a;b=c" ; y[0] = x + 10
        </script>
        <state id="s"><onentry><script>x = x + 1; oops; y = 0</script></onentry></state>
        """
    )
    assert run.data == {"x": 2, "y": [11, 2], "z": "a;b=c"}
    assert run.raised == ["error.execution"]


def test_system_variables() -> None:
    run = Run(
        f"""
        <datamodel>
          <data id="name" expr="_name"/><data id="session" expr="_sessionid"/><data id="event"/>
          <data id="before" expr="_event"/><data id="where" expr="_ioprocessors['{SCXML_PROCESSOR}'].location"/>
        </datamodel>
        <state id="s"><transition event="go"><assign location="event" expr="_event"/></transition></state>
        """,
        'name="the.chart"',
    )
    assert run.data | {"event": None} == {
        "name": "the.chart",
        "session": "the-chart",
        "before": None,
        "where": "#_scxml_the-chart",
        "event": None,
    }
    absent = {"sendid": None, "origin": None, "origintype": None, "invokeid": None}
    assert run.after("go=1").data["event"] == {"name": "go", "type": "external", "data": 1} | absent


def test_a_guard_that_fails_is_false_and_an_error() -> None:
    run = Run(
        """
        <state id="s"><transition event="go" cond="nothing.there" target="t"/>
          <transition event="error.execution" target="u"/></state>
        <state id="t"/><state id="u"/>
        """
    )
    assert run.after("go").leaves == ("u",)


def test_an_event_whose_only_effect_is_an_unheard_error_changes_nothing() -> None:
    chart = scxml('<state id="s"><transition event="go" cond="nothing" target="s"/></state>')
    start = chart.machine.start({})
    step = chart.machine.step(start.snapshot, Event("go"))
    assert "guard 'nothing' of state 's' failed" in step.reason
    assert step.snapshot is start.snapshot


def test_data_may_be_named_like_a_cel_type() -> None:
    run = Run(
        """
        <datamodel><data id="list">[1]</data><data id="type" expr="'x'"/><data id="o"/></datamodel>
        <state id="s"><onentry>
          <assign location="o" expr="[list[0], type + 'list', type(1) == int, [1].map(int, int + 1)[0]]"/>
        </onentry></state>
        """
    )
    assert run.data["o"] == [1, "xlist", True, 2]


# -- executable content (4) ----------------------------------------------------------------------------------------


def test_foreach_goes_over_a_copy_and_makes_its_variables() -> None:
    run = Run(
        """
        <datamodel><data id="list">[1, 2, 3]</data><data id="sum" expr="0"/></datamodel>
        <state id="s"><onentry><foreach array="list" item="x" index="i">
          <assign location="sum" expr="sum + x * i"/><assign location="list" expr="list + [9]"/>
        </foreach></onentry></state>
        """
    )
    assert run.data == {"list": [1, 2, 3, 9, 9, 9], "sum": 8, "x": 3, "i": 2}


@pytest.mark.parametrize(
    "foreach", ['array="7" item="x"', 'array="[1]" item="\'x\'"', 'array="[1]" item="x" index="_event"']
)
def test_a_foreach_that_cannot_be_is_an_error(foreach: str) -> None:
    run = Run(f'<state id="s"><onentry><foreach {foreach}/><raise event="after"/></onentry></state>')
    assert run.raised == ["error.execution"]


def test_if_takes_the_first_that_holds_and_an_error_for_false() -> None:
    run = Run(
        """
        <state id="s"><onentry>
          <if cond="broken("><raise event="one"/>
            <elseif cond="1 == 1"/><raise event="two"/><else/><raise event="three"/></if>
        </onentry></state>
        """
    )
    assert run.raised == ["error.execution", "two"]


def test_blocks_fail_on_their_own() -> None:
    run = Run(
        """
        <state id="s">
          <onentry><raise event="one"/><assign location="no" expr="1"/><raise event="not"/></onentry>
          <onentry><raise event="two"/></onentry>
          <transition event="go" target="t"/>
          <onexit><assign location="no" expr="1"/><raise event="not"/></onexit>
          <onexit><raise event="left"/></onexit>
        </state><state id="t"/>
        """
    )
    assert run.raised == ["one", "error.execution", "two"]
    assert run.after("go").raised[3:] == ["error.execution", "left"]


def test_donedata_leaves_out_what_fails() -> None:
    run = Run(
        """
        <datamodel><data id="got"/></datamodel>
        <state id="s" initial="f">
          <final id="f"><donedata><param name="a" expr="1"/><param name="b" location="no.place"/></donedata></final>
          <transition event="done.state.s" target="t"><assign location="got" expr="_event.data"/></transition>
        </state><state id="t"/>
        """
    )
    assert run.raised == ["error.execution", "done.state.s"]
    assert run.data["got"] == {"a": 1}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("<content>123</content>", 123),
        ('<content>{"function": "x"}</content>', {"function": "x"}),
        ("<content>two  words</content>", "two words"),
        ("<content expr=\"'a' + 'b'\"/>", "ab"),
        ('<param name="x" expr="1"/><param name="y" location="z"/>', {"x": 1, "y": 3}),
        ('<param name="function" expr="1"/>', {"function": 1}),
        ("", None),
    ],
)
def test_what_a_send_carries(content: str, expected: Any) -> None:
    run = Run(
        f"""
        <datamodel><data id="got" expr="'none'"/><data id="z" expr="3"/></datamodel>
        <state id="s"><onentry><send event="it">{content}</send></onentry>
          <transition event="it"><assign location="got" expr="_event.data"/></transition></state>
        """
    )
    assert run.data["got"] == expected


# -- sends (6.2) ---------------------------------------------------------------------------------------------------


def test_internal_sends_go_before_external_ones() -> None:
    run = Run(
        """
        <state id="s"><onentry><send event="second"/><send event="first" target="#_internal"/></onentry>
          <transition event="first" target="t"/><transition event="second" target="no"/></state>
        <state id="t"><transition event="second" target="end"/></state>
        <final id="end"/><final id="no"/>
        """
    )
    assert run.leaves == ("end",)


def test_delays_are_literals_or_expressions() -> None:
    run = Run(
        """
        <datamodel><data id="d" expr="'1.5s'"/></datamodel>
        <state id="s"><onentry>
            <send event="b" delayexpr="d"/><send event="a" delay="1s"/><send event="c" delayexpr="2000"/>
          </onentry>
          <transition event="a" target="one"/></state>
        <state id="one"><transition event="b" target="two"/></state>
        <state id="two"><transition event="c" target="three"/></state>
        <state id="three"/>
        """
    )
    assert run.after("+999ms").leaves == ("s",)
    assert run.after("+1ms").leaves == ("one",)
    assert run.after("+500ms").leaves == ("two",)
    assert run.after("+500ms").leaves == ("three",)


def test_cancel_takes_all_sends_of_an_id() -> None:
    run = Run(
        """
        <datamodel><data id="n" expr="0"/></datamodel>
        <state id="s"><onentry>
            <send event="tick" id="t" delay="1s"/><send event="tick" id="t" delay="2s"/>
            <send event="tick" id="u" delay="3s"/>
          </onentry>
          <transition event="stop"><cancel sendidexpr="'t'"/></transition>
          <transition event="tick"><assign location="n" expr="n + 1"/></transition></state>
        """
    )
    assert Run(run.simulation.chart).to_the_end().data["n"] == 3, "the same id twice is two sends"
    assert run.after("stop").to_the_end().data["n"] == 1


def test_a_send_says_where_it_comes_from_and_can_be_answered() -> None:
    run = Run(
        """
        <datamodel><data id="id"/><data id="seen"/></datamodel>
        <state id="s"><onentry><send event="ask" idlocation="id"/></onentry>
          <transition event="ask" target="t"><assign location="seen" expr="_event.sendid"/>
            <send event="answer" targetexpr="_event.origin" typeexpr="_event.origintype"/></transition></state>
        <state id="t"><transition event="answer" target="u"/></state><state id="u"/>
        """
    )
    assert run.leaves == ("u",)
    assert run.data["id"] == run.data["seen"]


@pytest.mark.parametrize(
    ("send", "error"),
    [
        ('event="x" target="nonsense"', "error.execution"),
        ('event="x" type="carrier-pigeon"', "error.execution"),
        ('event="x" namelist="nope"', "error.execution"),
        ('eventexpr="17"', "error.execution"),
        ('event="x" delayexpr="\'soon\'"', "error.execution"),
        ('event="x" target="#_internal" delay="1s"', "error.execution"),
        ('event="x" target="#_parent"', "error.communication"),
        ('event="x" target="#_child"', "error.communication"),
        ('event="x" target="#_scxml_elsewhere"', "error.communication"),
        ('event="x" type="basichttp" target="http://localhost/"', "error.communication"),
    ],
)
def test_a_send_that_cannot_be_is_an_error_with_its_id(send: str, error: str) -> None:
    run = Run(
        f"""
        <datamodel><data id="seen"/></datamodel>
        <state id="s"><onentry><send {send} id="mine"/></onentry>
          <transition event="error"><assign location="seen" expr="[_event.name, _event.sendid]"/></transition>
          <transition event="*"><assign location="seen" expr="'sent'"/></transition></state>
        """
    )
    assert run.to_the_end().data["seen"] == [error, "mine"]


def test_the_default_of_a_shallow_history_may_be_deeper() -> None:
    run = Run(
        scxml(
            """<state id="o"><transition event="x" target="h"/></state>
            <parallel id="p"><history id="h"><transition target="a2 b2"/></history><transition event="x" target="o"/>
              <state id="a" initial="a1"><state id="a1"/><state id="a2"/></state>
              <state id="b" initial="b1"><state id="b1"/><state id="b2"/></state></parallel>"""
        )
    )
    assert run.after("x").leaves == ("a2", "b2")
    assert run.after("x", "x").leaves == ("a1", "b1"), "what was recorded are the regions, which begin anew"
