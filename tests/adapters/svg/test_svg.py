"""The picture of a chart: everything is drawn, in its place, and nothing covers anything else."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from statewright.adapters.svg import render_svg
from statewright.adapters.svg.graph import picture
from statewright.adapters.svg.layout import LayoutError, lay_out
from statewright.adapters.svg.text import width, wrap
from statewright.statecharts import Chart, load_chart
from statewright.statecharts.definition import walk_states
from statewright.statecharts.errors import ChartError
from tests.adapters.svg.pictures import Picture, expected_arrows, faults, misplaced_ends, read
from tests.statecharts.random_charts import Tree, charts

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "document_approval" / "chart.yaml"

PLAYER = {
    "name": "player",
    "context": {"volume": "int"},
    "initial": "off",
    "on": {"emergency": {"target": "gone", "guard": "event.data.level > 3 && context.volume >= 0"}},
    "states": {
        "off": {"on": {"power": "on", "eject": {"target": "off", "actions": ["open_tray"]}}},
        "on": {
            "type": "parallel",
            "entry": ["light_up"],
            "exit": ["light_off"],
            "on": {"power": "off", "break": "broken"},
            "states": {
                "transport": {
                    "initial": "stopped",
                    "on": {"eject": "stopped"},
                    "states": {
                        "recent": {"history": "deep", "target": "stopped"},
                        "stopped": {"on": {"play": "playing"}},
                        "playing": {
                            "initial": "normal",
                            "on": {"stop": "stopped", "pause": "paused"},
                            "states": {"normal": {"on": {"fast": "fast"}}, "fast": {"after": {"10s": "normal"}}},
                        },
                        "paused": {"on": {"play": "recent"}},
                    },
                },
                "sound": {
                    "initial": "audible",
                    "states": {
                        "audible": {
                            "on": {
                                "mute": "muted",
                                "up": {"actions": {"assign": {"volume": "context.volume + 1"}}},
                                "again": "audible",
                            }
                        },
                        "muted": {"on": {"unmute": "audible"}},
                    },
                },
                "screen": {
                    "initial": "bright",
                    "states": {
                        "was": {"history": "shallow"},
                        "bright": {"after": {"30s": "dim"}},
                        "dim": {"on": {"touch": "bright"}},
                    },
                },
            },
        },
        "service": {"on": {"resume": {"target": ["recent", "was"]}, "reset": "on"}},
        "broken": {"on": {"repair": "service"}, "after": {"720h": "gone"}},
        "gone": {"type": "final"},
    },
}
FLAT = {
    "name": "flat",
    "initial": "a",
    "states": {
        source: {"on": {f"to_{target}": {"target": target, "guard": "event.data.n > 10"} for target in "abcdef"}}
        for source in "abcdef"
    },
}
SCXML = b"""<scxml xmlns="http://www.w3.org/2005/07/scxml" version="1.0" initial="s0" name="timeouts">
  <state id="s0" initial="s01">
    <onentry><send event="timeout" delay="2s"/></onentry>
    <invoke id="worker"><content>
      <scxml xmlns="http://www.w3.org/2005/07/scxml" version="1.0" name="work"><final id="done"/></scxml>
    </content></invoke>
    <transition event="timeout" target="fail"/>
    <state id="s01"><transition event="event1 event2.*" cond="1 == 1" target="p"/></state>
  </state>
  <parallel id="p"><state id="p1"/><state id="p2"/><transition event="done.invoke" target="pass"/></parallel>
  <final id="pass"/><final id="fail"/>
</scxml>"""


@pytest.fixture(scope="module", params=["example", "player", "flat", "scxml"])
def chart(request: pytest.FixtureRequest) -> Chart:
    if request.param == "example":
        return load_chart(EXAMPLE)
    if request.param == "scxml":
        return Chart.from_scxml(SCXML)
    return Chart.from_tree({"player": PLAYER, "flat": FLAT}[request.param])


@pytest.fixture(scope="module")
def shown(chart: Chart) -> Picture:
    return read(render_svg(chart))


def test_every_state_is_drawn_once_inside_its_parent(chart: Chart, shown: Picture) -> None:
    parents = {state.id: state.parent.id for state in chart.machine.by_index[1:] if state.parent}
    assert {state.id: state.parent for state in shown.states.values() if state.id} == parents
    assert {one.id: one.type for one in walk_states(chart.definition)} == {
        state.id: state.kind for state in shown.states.values() if state.id
    }
    assert faults(shown) == []


def test_every_state_says_its_name(shown: Picture) -> None:
    assert {state.id for state in shown.states.values() if state.id and state.texts[0][0] != state.id} == set()


def test_every_transition_has_a_path_from_border_to_border_and_a_label(chart: Chart, shown: Picture) -> None:
    arrows = [edge for edge in shown.transitions if edge.texts and not edge.initial]
    assert misplaced_ends(shown) == []
    by_transition = [t for t in chart.machine.transitions if t.targets]
    assert len(arrows) == len(by_transition)
    assert {(edge.source, edge.targets) for edge in arrows} == {(t.owner.id, t.target_ids) for t in by_transition}
    assert shown.initials == sum(state.is_compound and bool(state.initial_states) for state in chart.machine.by_index)


def test_labels_cover_no_state_and_no_other_label(shown: Picture) -> None:
    inner = {state.parent for state in shown.states.values()}
    leaves = [state for state in shown.states.values() if state.id not in inner]
    labels = [(text, box) for edge in shown.transitions for text, box in edge.texts]
    assert [(text, leaf.id) for text, box in labels for leaf in leaves if box.meets(leaf.box)] == []
    assert [(a[0], b[0]) for a, b in combinations(labels, 2) if a[1].meets(b[1])] == []
    assert [text for text, box in labels if not shown.frame.holds(box)] == []


def test_the_words_of_the_diagram() -> None:
    player = read(render_svg(Chart.from_tree(PLAYER)))
    labels = {" ".join(text for text, _ in edge.texts) for edge in player.transitions}
    assert {"emergency [event.data.level > 3 && context. volume >= 0]", "eject / open_tray", "after 720h"} <= labels
    lines = {state.id: [text for text, _ in state.texts] for state in player.states.values()}
    assert lines["on"] == ["on", "entry / light_up", "exit / light_off"]
    assert lines["audible"] == ["audible", "up / assign volume"]
    assert (player.states["on"].kind, player.separators) == ("parallel", 2)
    assert "invoke work as worker" in render_svg(Chart.from_scxml(SCXML))
    assert "send timeout after 2s" in render_svg(Chart.from_scxml(SCXML))


def test_history_and_final_states_have_their_own_shapes() -> None:
    svg = render_svg(Chart.from_tree(PLAYER))
    assert re.findall(r'class="mark"[^>]*>(H\*?)<', svg) == ["H*", "H"]
    assert svg.count('class="ring"') == 1


HOSTILE = """<b>&amp;"']]>-->"""


def test_names_and_texts_are_escaped() -> None:
    tree = {
        "name": "hostile",
        "description": f"{HOSTILE}</title><script>alert(1)</script>",
        "initial": "größe",
        "states": [
            {
                "id": "größe",
                "description": HOSTILE,
                "on": {"weiter": {"target": "承認", "guard": f'event.data == "{"<&>" * 90}"'}},
            },
            {"id": "承認", "entry": [{"log": {"expr": "'<script>'", "label": f"\x07{HOSTILE}"}}]},
        ],
    }
    svg = render_svg(Chart.from_tree(tree))
    shown = read(svg)
    assert set(shown.states) == {"", "größe", "承認"}
    assert shown.states["承認"].texts[1][0] == f"entry / log \ufffd{HOSTILE}"
    assert "<script" not in svg
    assert faults(shown) == []
    (transition,) = (edge for edge in shown.transitions if not edge.initial)
    assert transition.texts[0][0] == "weiter"
    assert transition.texts[-1][0].endswith("…")


def test_a_picture_stands_alone() -> None:
    svg = render_svg(load_chart(EXAMPLE))
    assert re.findall(r"<script|<image|<foreignObject|href|@import|@font-face|\son\w+=", svg) == []
    assert set(re.findall(r"url\(([^)]*)\)", svg)) <= {"#head", "#head-taken"}
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]


def test_the_same_chart_gives_the_same_picture() -> None:
    assert render_svg(Chart.from_tree(PLAYER)) == render_svg(Chart.from_tree(PLAYER))


def test_the_picture_in_the_documents_is_the_examples() -> None:
    """`statewright render examples/document_approval/chart.yaml --format svg --output docs/document_approval.svg`"""
    assert (ROOT / "docs" / "document_approval.svg").read_text(encoding="utf-8") == render_svg(load_chart(EXAMPLE))


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(charts())
def test_any_chart_can_be_drawn(tree: Tree) -> None:
    try:
        chart = Chart.from_tree(tree)
    except ChartError:
        return
    shown = read(render_svg(chart))
    assert faults(shown) == []
    assert misplaced_ends(shown) == []
    assert sum(not edge.initial for edge in shown.transitions) == expected_arrows(chart)


def test_a_chart_of_200_states(capsys: pytest.CaptureFixture[str]) -> None:
    chart = Chart.from_tree(_large(20, 9))
    begun = time.perf_counter()
    shown = read(render_svg(chart))
    with capsys.disabled():
        print(f"\n200 states drawn in {time.perf_counter() - begun:.1f} s")
    assert len(shown.states) == 201
    assert faults(shown) == []


def _large(groups: int, steps: int) -> Tree:
    """A chain of compound states, each with a chain of steps inside, with ways back and out."""
    return {
        "name": "large",
        "initial": "g0",
        "states": {
            f"g{group}": {
                "initial": f"g{group}_0",
                "on": {"abort": "g0"} if group % 5 == 4 else {},
                "states": {
                    f"g{group}_{step}": {
                        "on": {
                            "next": f"g{group}_{step + 1}" if step + 1 < steps else f"g{(group + 1) % groups}",
                            **({"back": f"g{group}_{step - 2}"} if step % 4 == 3 else {}),
                        }
                    }
                    for step in range(steps)
                },
            }
            for group in range(groups)
        },
    }


def test_without_the_engine_one_line_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['quickjs'] = None\n"
        "from statewright.adapters.cli.main import run\n"
        f"sys.exit(run(['render', {str(EXAMPLE)!r}, '--format', 'svg']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "statewright: drawing needs a JavaScript engine: pip install 'statewright[svg]'\n"


def test_a_layout_that_fails_says_so() -> None:
    graph = picture(load_chart(EXAMPLE)).graph
    graph["edges"].append({"id": "astray", "sources": ["s1"], "targets": ["nowhere"]})
    with pytest.raises(LayoutError, match="nowhere"):
        lay_out(graph)


def test_elkjs_is_as_it_was_published() -> None:
    folder = ROOT / "adapters" / "svg" / "elkjs"
    said = re.search(r"`([0-9a-f]{64})`", (folder / "README.md").read_text(encoding="utf-8"))
    assert said is not None
    assert hashlib.sha256((folder / "elk-worker.min.js").read_bytes()).hexdigest() == said[1]
    assert "Eclipse Public License - v 2.0" in (folder / "LICENSE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["", "one", "a" * 200, "one two three " * 30, "漢字" * 60, "a.b.c(d)[e]" * 20])
def test_wrapped_lines_fit(text: str) -> None:
    lines = wrap(text, 11, 120, lines_max=5)
    assert 1 <= len(lines) <= 5
    assert [line for line in lines if width(line, 11) > 120] == []
    assert lines[-1].endswith("…") or "".join("".join(lines).split()) == "".join(text.split())
