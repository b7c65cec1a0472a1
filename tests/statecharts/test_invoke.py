"""Children (SCXML 1.0, 6.4 and 6.5): started, heard, forwarded to, cancelled. On one virtual clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from statewright.statecharts import Chart, ChartError, load_chart
from statewright.statecharts.simulate import Simulation
from tests.statecharts.behaviour import read
from tests.statecharts.scxml_runs import Run, scxml

WORKER = """
  <scxml initial="work"><datamodel><data id="n" expr="0"/><data id="mine" expr="'own'"/></datamodel>
    <state id="work"><onentry><send event="ready" delay="1s"/></onentry>
      <transition event="ready" target="end"><send event="progress" target="#_parent"><param name="n" expr="n"/></send>
      </transition>
      <transition event="ping"><send event="pong" target="#_parent"/></transition>
      <onexit><send event="leaving" target="#_parent"/></onexit>
    </state>
    <final id="end"><donedata><param name="n" expr="n + 1"/><param name="mine" expr="mine"/></donedata></final>
  </scxml>
"""


def parent(invoke: str, rest: str = "", data: str = '<data id="seen" expr="[]"/>') -> Chart:
    """A chart that invokes WORKER in state `s` and notes what it hears there."""
    return scxml(
        f"""
        <datamodel>{data}</datamodel>
        <state id="s">
          <invoke {invoke}
          {rest}
          <transition event="stop" target="t"/>
          <transition event="*"><assign location="seen" expr="seen + [[_event.name, _event.invokeid, _event.data]]"/>
          </transition>
        </state>
        <state id="t"><transition event="back" target="s"/>
          <transition event="*"><assign location="seen" expr="seen + ['late ' + _event.name]"/></transition></state>
        """
    )


def child(attributes: str = 'id="w"', inner: str = "", worker: str = WORKER) -> str:
    return f"{attributes}>{inner}<content>{worker}</content></invoke>"


def test_a_child_runs_and_gives_its_result() -> None:
    run = Run(parent(child(inner='<param name="n" expr="41"/><param name="unknown" expr="1"/>')))
    assert run.data["seen"] == []
    assert run.after("+1s").data["seen"] == [
        ["leaving", "w", None],
        ["progress", "w", {"n": 41}],
        ["done.invoke.w", "w", {"n": 42, "mine": "own"}],
    ]
    assert run.leaves == ("s",)


def test_leaving_the_state_cancels_the_child_unheard() -> None:
    run = Run(parent(child())).after("stop")
    assert run.to_the_end().data["seen"] == []


def test_a_state_left_within_the_macrostep_starts_no_child() -> None:
    run = Run(parent(child(), '<transition target="t"/>'))
    assert run.to_the_end().data["seen"] == []
    assert not any(step.requests for step in run.simulation.steps)


def test_a_state_entered_again_starts_a_new_child() -> None:
    run = Run(parent(child())).after("+500ms", "stop", "back", "+999ms")
    assert run.data["seen"] == []
    assert [name for name, *_ in run.after("+1ms").data["seen"]] == ["leaving", "progress", "done.invoke.w"]


def test_ids_are_generated_and_put_where_they_are_wanted() -> None:
    run = Run(parent(child('idlocation="id"'), data='<data id="seen" expr="[]"/><data id="id"/>'))
    assert run.data["id"].startswith("s.")
    assert run.to_the_end().data["seen"][-1][0] == f"done.invoke.{run.data['id']}"


def test_events_go_to_a_child_by_its_id() -> None:
    run = Run(parent(child(), '<transition event="ask"><send event="ping" target="#_w"/></transition>'))
    assert run.after("ask").data["seen"] == [["pong", "w", None]]
    run.after("+1s", "ask")
    assert run.data["seen"][-1][0] == "error.communication", "it has ended"


def test_autoforward_passes_external_events_on() -> None:
    heard = Run(parent(child('id="w" autoforward="true"'))).after("ping").data["seen"]
    assert [name for name, *_ in heard] == ["ping", "pong"]
    assert [name for name, *_ in Run(parent(child())).after("ping").data["seen"]] == ["ping"]


def test_finalize_runs_before_a_transition_is_chosen() -> None:
    finalize = '<finalize><assign location="got" expr="_event.data"/></finalize>'
    guarded = '<transition event="progress" cond="got.n == 5" target="t"/>'
    data = '<data id="seen" expr="[]"/><data id="got"/>'
    run = Run(parent(child(inner=f'<param name="n" expr="5"/>{finalize}'), guarded, data))
    assert run.after("other=1").data["got"] is None, "not an event of the child"
    assert run.after("+1s").leaves == ("t",)


def test_an_empty_finalize_puts_back_what_was_given_by_location() -> None:
    worker = """<scxml><datamodel><data id="a"/></datamodel><final id="f"><onentry>
      <send event="back" target="#_parent"><param name="a" expr="a * 2"/></send></onentry></final></scxml>"""
    inner = '<param name="a" location="mine"/><finalize/>'
    run = Run(parent(child(inner=inner, worker=worker), data='<data id="seen" expr="[]"/><data id="mine" expr="21"/>'))
    assert run.data["mine"] == 42


def test_what_cannot_be_invoked_is_an_error() -> None:
    for attributes in ('type="carrier-pigeon"', 'namelist="nope"', 'typeexpr="17"'):
        run = Run(parent(child(attributes)))
        assert "error.execution" in run.raised
        assert not any(step.requests for step in run.simulation.steps)


def test_a_chart_in_a_text_is_read_when_it_is_invoked() -> None:
    text = "'&lt;scxml>&lt;final id=&quot;f&quot;/>&lt;/scxml>'"
    good = Run(parent(f'id="w"><content expr="{text}"/></invoke>'))
    assert good.data["seen"] == [["done.invoke.w", "w", None]]
    bad = Run(parent('id="w"><content expr="\'nonsense\'"/></invoke>')).data["seen"]
    assert bad[0][0] == "error.invoke.w"
    assert "not valid XML" in bad[0][2]["message"]


def test_files_are_read_with_the_chart_and_expressions_later(tmp_path: Path) -> None:
    (tmp_path / "child.scxml").write_text('<scxml><final id="f"/></scxml>')
    body = """<datamodel><data id="file" expr="'child.scxml'"/></datamodel>
      <state id="s"><invoke id="w" {}/><transition event="done.invoke.w" target="t"/>
      <transition event="error" target="u"/></state><state id="t"/><state id="u"/>"""
    static = scxml(body.format('src="file:child.scxml"'), folder=tmp_path)
    later = scxml(body.format('srcexpr="file"'), folder=tmp_path)
    outside = scxml(body.format("srcexpr=\"'../child.scxml'\""), folder=tmp_path / "below")
    assert Run(outside).leaves == ("u",)
    assert Run(later).leaves == ("t",)
    (tmp_path / "child.scxml").unlink()
    assert Run(static).leaves == ("t",)
    assert Run(later).leaves == ("u",)


def test_a_computed_src_leads_to_no_python(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("raise AssertionError('was run')")
    for src in ("code.py:chart", "code.py"):
        body = f"""<state id="s"><invoke id="w" srcexpr="'{src}'"/><transition event="error.invoke.w" target="t">
          <assign location="why" expr="_event.data.message"/></transition></state><state id="t"/>
          <datamodel><data id="why"/></datamodel>"""
        run = Run(scxml(body, folder=tmp_path))
        assert run.leaves == ("t",)
        assert "expected a file in the chart's folder, one of .yaml" in run.data["why"]


def test_a_yaml_chart_beside_a_yaml_chart(tmp_path: Path) -> None:
    (tmp_path / "child.yaml").write_text("name: child\nstates: {end: {type: final, output: 42}}\n")
    (tmp_path / "parent.yaml").write_text(
        "name: parent\nstates:\n  a: {invoke: {id: c, src: child.yaml}, on: {done.invoke.c: b}}\n  b: {}\n"
    )
    assert Run(load_chart(tmp_path / "parent.yaml")).leaves == ("b",)


def test_a_fault_of_a_child_is_a_fault_of_the_chart() -> None:
    with pytest.raises(ChartError, match="unknown target 'nowhere'") as caught:
        parent(child(worker='<scxml><state id="a"><transition target="nowhere"/></state></scxml>'))
    assert caught.value.faults[0].line == 5


def test_a_chart_that_invokes_itself_comes_to_an_end(tmp_path: Path) -> None:
    path = tmp_path / "self.scxml"
    path.write_text(
        """<scxml xmlns="http://www.w3.org/2005/07/scxml"><state id="s"><invoke id="w" src="self.scxml"/>
        <transition event="error.invoke" target="f"/><transition event="done.invoke" target="f"/></state>
        <final id="f"/></scxml>"""
    )
    chart = Chart.from_scxml(path.read_bytes(), "self", folder=tmp_path, file=path)
    assert Run(chart).to_the_end().leaves == ("f",)


def test_our_own_charts_invoke_too() -> None:
    chart = read(
        """
        context: {result: {type: int, default: 0}}
        states:
          asking:
            invoke:
              id: w
              data: {n: "20 + 1"}
              chart:
                name: worker
                context: {n: int}
                states:
                  work: {after: {1s: end}}
                  end: {type: final, output: context.n * 2}
            on:
              done.invoke.w: {target: asked, actions: [{assign: {result: event.data}}]}
              error.invoke.w: failed
          asked: {}
          failed: {}
        """
    )
    simulation = Simulation(chart)
    assert simulation.begin().leaves == ("asking",)
    line = simulation.run()
    assert line.leaves == ("asked",)
    assert line.context == {"result": 42}


def test_a_grandchild_goes_with_its_parent() -> None:
    inner = """<scxml><state id="i"><onentry><send event="x" delay="1s"/></onentry>
      <transition event="x"><send event="up" targetexpr="'#_scxml_test'"/></transition></state></scxml>"""
    outer = f'<scxml><state id="o"><invoke id="i"><content>{inner}</content></invoke></state></scxml>'
    assert [name for name, *_ in Run(parent(child(worker=outer))).after("+1s").data["seen"]] == ["up"]
    assert Run(parent(child(worker=outer))).after("stop", "+1s").data["seen"] == []


@pytest.mark.parametrize(
    ("src", "said"),
    [
        ("/etc/passwd.yaml", "expected a file in the chart's folder"),
        ("../other.yaml", "expected a file in the chart's folder"),
        ("nobody.yaml", "expected a file beside the chart, but there is no 'nobody.yaml'"),
    ],
)
def test_a_childs_file_is_looked_for_when_the_chart_is_loaded(tmp_path: Path, src: str, said: str) -> None:
    (tmp_path / "x.yaml").write_text(f"name: x\nstates:\n  s:\n    invoke: {{src: {src}}}\n")
    with pytest.raises(ChartError) as caught:
        load_chart(tmp_path / "x.yaml")
    (fault,) = caught.value.faults
    assert (fault.line, fault.state) == (4, "s")
    assert said in fault.message


def test_a_failure_that_a_strict_chart_does_not_handle_fails_it(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("{name: x, states: {s: {invoke: {id: c, src: nobody}, on: {go: s}}}}")
    simulation = Simulation(load_chart(tmp_path / "x.yaml"))
    assert simulation.begin().status == "failed"
    assert simulation.reason.startswith(
        "error.invoke.c: invoke 'c' failed: no chart at 'nobody': expected a definition"
    )
