"""Reading SCXML: what documents mean as definitions, what is refused and where, and that reading is safe."""

from __future__ import annotations

from pathlib import Path

import pytest

from statewright.statecharts import Chart, ChartError, ChartNotFound, load_chart
from statewright.statecharts.check import check
from tests.statecharts.scxml_runs import Run, scxml

HEAD = '<scxml xmlns="http://www.w3.org/2005/07/scxml" version="1.0">'


def refused(data: str | bytes, *parts: str, folder: Path | None = None) -> ChartError:
    with pytest.raises(ChartError) as caught:
        Chart.from_scxml(data.encode() if isinstance(data, str) else data, "test", folder=folder)
    for part in parts:
        assert part in str(caught.value)
    return caught.value


def test_a_file_is_a_chart_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "door.scxml"
    path.write_text(f'{HEAD}<state id="open"/></scxml>')
    chart = load_chart(path)
    assert chart.name == "door"
    assert chart.definition.expressions == "dynamic"
    assert Run(chart).leaves == ("open",)
    with pytest.raises(ChartNotFound, match=r"\.scxml"):
        load_chart(tmp_path / "door.xml")


def test_structure() -> None:
    run = Run(
        """
        <parallel id="p">
          <state id="a"><initial><transition target="a2"><raise event="begun"/></transition></initial>
            <state id="a1"/><state id="a2"><transition event="go" type="internal" target="a1"/></state>
            <history id="h" type="deep"><transition target="a1"/></history>
          </state>
          <state><state/><final/></state>
          <transition event="out" target="away"/>
        </parallel>
        <state id="away"><transition event="in.* other" target="h"/></state>
        """
    )
    assert run.leaves == ("a2", "state.2")
    assert run.raised == ["begun"]
    assert run.after("go", "out").leaves == ("away",)
    assert run.after("in.again").leaves == ("a1", "state.2")
    assert run.after("go").line.configuration == ("p", "a", "a1", "state.1", "state.2")


def test_generated_ids_are_not_those_given() -> None:
    assert Run('<parallel><state id="state.1"/><state/></parallel>').leaves == ("state.1", "state.2")


def test_ids_may_differ_in_case_alone_and_be_of_any_script() -> None:
    body = '<state id="été"><transition event="go" target="ÉTÉ"/></state><state id="ÉTÉ"/><state id="日本"/>'
    assert Run(body).after("go").leaves == ("ÉTÉ",)


@pytest.mark.parametrize("event", ["*", ".*", "go", "go.*", "go.", "other go.now"])
def test_descriptors(event: str) -> None:
    body = f'<state id="s"><transition event="{event}" target="t"/></state><state id="t"/>'
    assert Run(body).after("go.now").leaves == ("t",)


def test_all_faults_come_at_once_with_their_lines() -> None:
    error = refused(
        f"""{HEAD}
        <state id="a" initial="b">
          <onentry><raise/><foo/><send event="x" eventexpr="y"/><if/></onentry>
          <transition/>
          <transition target="nowhere"/>
          <bogus/>
          <invoke/>
        </state>
        <state id="a"/>
        <datamodel><data id="not-one"/><data id="x"/><data id="x" expr="1">2</data></datamodel>
        </scxml>"""
    )
    found = {(fault.line, fault.message.split(",")[0][:60]) for fault in error.faults}
    assert {line for line, _ in found} == {2, 3, 4, 5, 6, 7, 9, 10}
    assert (3, "expected an event in <raise>") in found
    assert (5, "unknown target 'nowhere'") in found


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("", "not valid XML: no element found"),
        ("hello", "not valid XML: syntax error"),
        ("<html/>", "expected the element <scxml>"),
        (f"{HEAD}<state></scxml>", "mismatched tag"),
        (HEAD.replace(">", ' datamodel="ecmascript">') + "<state/></scxml>", "datamodel cel or null, got 'ecmascript'"),
        (HEAD.replace(">", ' binding="never">') + "<state/></scxml>", "binding early or late, got 'never'"),
        (f"{HEAD}</scxml>", "expected at least one state"),
        ('<?xml version="1.0" encoding="klingon"?><scxml/>', "unknown encoding"),
    ],
)
def test_what_is_no_chart_is_refused(document: str, message: str) -> None:
    refused(document, message)


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE s [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>',
        '<!DOCTYPE s [<!ENTITY f SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE s SYSTEM "http://localhost/s.dtd">',
        "<!DOCTYPE s>",
    ],
)
def test_no_document_type_hence_no_entities(doctype: str) -> None:
    error = refused(f"\n{doctype}{HEAD}<state id='s'/></scxml>", "expected no document type")
    assert error.faults[0].line == 2


def test_bounds_are_said() -> None:
    refused(HEAD + "<state>" * 10_000 + "</state>" * 10_000 + "</scxml>", "at most 200 levels")
    refused(HEAD + "<state>" * 150 + "</state>" * 150 + "</scxml>", "at most 100 deep")
    refused(HEAD + "<state/>" * 10_001 + "</scxml>", "at most 10000 states")
    refused(HEAD + "<state/>" * 200_001 + "</scxml>", "at most 200000 elements")
    refused(HEAD + "<state/>" * 1_100_000 + "</scxml>", "a file of at most 8388608 bytes")


@pytest.mark.parametrize("src", ["../secret.txt", "/etc/passwd", "file:../secret.txt", "http://localhost/x", "link"])
def test_no_file_outside_of_the_folder_is_read(tmp_path: Path, src: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "charts"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret.txt")
    body = f'<datamodel><data id="x" src="{src}"/></datamodel><state id="s"/>'
    refused(f"{HEAD}{body}</scxml>", "expected a file in the chart's folder as src", folder=folder)
    refused(f"{HEAD}{body}</scxml>", "expected a file in the chart's folder as src")
    refused(f'{HEAD}<state id="s"><invoke src="{src}"/></state></scxml>', "in the chart's folder", folder=folder)


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    body = '<datamodel><data id="x" src="no.txt"/></datamodel><state id="s"/>'
    refused(f"{HEAD}{body}</scxml>", "'no.txt' cannot be read: No such file", folder=tmp_path)


def test_expressions_are_warned_of_not_refused() -> None:
    chart = scxml(
        """
        <datamodel><data id="a" expr="1"/></datamodel>
        <state id="s">
          <onentry><assign location="a" expr="a +"/><assign location="b" expr="1"/>
            <foreach array="[1]" item="x"><log expr="x + y"/></foreach><script>made = 1; nonsense</script></onentry>
          <transition event="go" cond="made == 1 &amp;&amp; [1].all(z, z == 1) &amp;&amp; In('s')" target="s"/>
        </state>
        """
    )
    found = [(fault.line, fault.message) for fault in check(chart) if fault.severity == "warning"]
    assert [line for line, _ in found] == [5, 5, 6, 6]
    assert "bad expression 'a +'" in found[0][1]
    assert "nothing declares 'b'" in found[1][1]
    assert "nothing declares 'y'" in found[2][1]
    assert "'nonsense'" in found[3][1]


def test_a_chart_that_raises_events_to_itself_for_ever_stops() -> None:
    run = Run('<state id="s"><transition event="x"><raise event="x"/></transition></state>').after("x")
    assert "did not settle within" in run.simulation.reason


def test_an_expression_has_a_budget() -> None:
    xs = "[" + ", ".join("1" * 1 for _ in range(300)) + "]"
    body = f"""<datamodel><data id="xs">{xs}</data></datamodel>
      <state id="s"><transition event="go" target="t"
        cond="xs.all(a, xs.all(b, xs.all(c, xs.all(d, a + b + c + d > 0))))"/>
      <transition event="error.execution" target="u"/></state><state id="t"/><state id="u"/>"""
    assert Run(body).after("go").leaves == ("u",)
