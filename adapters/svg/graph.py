"""A chart as a graph in ELK's JSON: what is to be laid out, with the size of everything that is written.

Nodes: the chart is `s0`, its states are `s<index>` in document order, inside their parents; `i<index>` is the dot from
which the state's initial transition starts. Edges: `t<order>.<n>` is a transition to its n-th target, `d<index>.<n>`
the way from an initial dot, or from a history state to its default. A transition without a target is no edge but a
line in its state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from statewright.adapters.svg import words
from statewright.adapters.svg.text import width, wrap
from statewright.projections.visits import Visits
from statewright.statecharts import definition as d
from statewright.statecharts.chart import Chart
from statewright.statecharts.machine import ChartState, ChartTransition

TITLE_PX, DETAIL_PX, LABEL_PX = 13, 11, 11
LINE_PX: Mapping[str, int] = {"title": 18, "detail": 15, "event": 14, "guard": 14, "action": 14}
PADDING_PX = 10
CARD_WIDTH_MAX_PX, LABEL_WIDTH_MAX_PX = 260, 210
INITIAL_PX, HISTORY_PX, BULLSEYE_PX = 14, 26, 20
FINAL_INSET_PX = 4
STRAIGHT_STATES_MAX = 80
"""Up to here edges are made as straight as can be, which takes half as long again."""


@dataclass(frozen=True)
class Line:
    """One line of text. kind: title and detail stand in a state's box; event, guard and action on a transition."""

    text: str
    kind: str

    @property
    def bold(self) -> bool:
        """Events are, once their transition has been taken."""
        return self.kind in ("title", "event")

    @property
    def size(self) -> int:
        return {"title": TITLE_PX, "detail": DETAIL_PX}.get(self.kind, LABEL_PX)

    @property
    def width(self) -> float:
        return width(self.text, self.size, bold=self.bold)

    @property
    def height(self) -> int:
        return LINE_PX[self.kind]


@dataclass(frozen=True)
class Arrow:
    """An edge. `count`: how often it was taken, if that is known; `transition`: None for initial and default ways."""

    source: ChartState
    target: ChartState
    lines: tuple[Line, ...]
    transition: ChartTransition | None
    says: str
    count: int = 0


@dataclass
class Picture:
    """A chart ready to be laid out. `cards` are the lines in the boxes by node id, `arrows` the edges by id."""

    chart: Chart
    visits: Visits | None
    owners: dict[int, d.Definition | d.State]
    cards: dict[str, tuple[Line, ...]] = field(default_factory=dict)
    arrows: dict[str, Arrow] = field(default_factory=dict)
    graph: dict[str, Any] = field(default_factory=dict)


def picture(chart: Chart, visits: Visits | None = None) -> Picture:
    """What there is to draw of `chart`, and of an instance of it if `visits` are given."""
    owners: list[d.Definition | d.State] = [chart.definition, *d.walk_states(chart.definition)]
    drawn = Picture(chart, visits, dict(enumerate(owners)))
    for state, owner in zip(chart.machine.by_index, owners, strict=True):
        drawn.cards[f"s{state.index}"] = tuple(_card(drawn, state, owner))
        drawn.arrows.update(_arrows(drawn, state, owner))
    drawn.graph = {
        "id": "graph",
        "layoutOptions": _layered(chart) | _WHOLE,
        "children": [_node(drawn, chart.machine.root)],
        "edges": [_edge(name, arrow) for name, arrow in drawn.arrows.items()],
    }
    return drawn


def size_of(lines: Iterable[Line]) -> tuple[float, float]:
    """Width and height of lines below one another."""
    lines = list(lines)
    return max((line.width for line in lines), default=0), sum(line.height for line in lines)


def _card(drawn: Picture, state: ChartState, owner: d.Definition | d.State) -> Iterator[Line]:
    """The lines in a state's box: its name, then what it does by itself."""
    visits = drawn.visits
    if isinstance(owner, d.Definition):
        yield from _lines(f"{owner.name} · version {owner.version}", "title", CARD_WIDTH_MAX_PX)
        if visits is not None:
            yield from _lines(f"instance {visits.instance}: {visits.status}", "detail", CARD_WIDTH_MAX_PX)
        if visits is not None and visits.failure:
            yield from _lines(visits.failure, "detail", CARD_WIDTH_MAX_PX)
    else:
        yield from _lines(owner.id, "title", CARD_WIDTH_MAX_PX)
        if visits is not None and (count := visits.entered.get(state.id)):
            yield Line(f"entered {count}×", "detail")
    for text in words.details(owner):
        yield from _lines(text, "detail", CARD_WIDTH_MAX_PX)
    for node, transition in zip(owner.transitions, state.transitions, strict=True):
        if not transition.targets:
            taken = visits.taken.get(transition.order, 0) if visits is not None else 0
            yield from _lines(words.reaction(node) + _times(taken), "detail", CARD_WIDTH_MAX_PX)


def _arrows(drawn: Picture, state: ChartState, owner: d.Definition | d.State) -> Iterator[tuple[str, Arrow]]:
    for node, transition in zip(owner.transitions, state.transitions, strict=True):
        count = drawn.visits.taken.get(transition.order, 0) if drawn.visits is not None else 0
        lines = tuple(_label(node, count))
        for index, target in enumerate(transition.targets):
            # One label for all targets: the arrows of one transition start together.
            arrow = Arrow(state, target, () if index else lines, transition, words.reaction(node), count)
            yield f"t{transition.order}.{index}", arrow
    if state.is_compound or state.is_history or state.parent is None:
        actions = owner.initial.actions if owner.initial is not None else ()
        said = f"/ {words.actions(actions)}" if actions else ""
        lines = tuple(_lines(said, "action", LABEL_WIDTH_MAX_PX)) if said else ()
        for index, target in enumerate(state.initial_states):
            yield f"d{state.index}.{index}", Arrow(state, target, () if index else lines, None, said or "initial")


def _label(node: d.Transition, count: int) -> Iterator[Line]:
    yield from _lines(words.trigger(node) + _times(count), "event", LABEL_WIDTH_MAX_PX)
    if node.guard is not None:
        yield from _lines(words.guard(node.guard), "guard", LABEL_WIDTH_MAX_PX)
    if node.actions:
        yield from _lines(f"/ {words.actions(node.actions)}", "action", LABEL_WIDTH_MAX_PX)


def _times(count: int) -> str:
    return f" · {count}×" if count else ""


def _lines(text: str, kind: str, limit: float) -> Iterator[Line]:
    size = Line("", kind).size
    return (Line(line, kind) for line in wrap(text, size, limit, bold=Line("", kind).bold))


def _node(drawn: Picture, state: ChartState) -> dict[str, Any]:
    name = f"s{state.index}"
    wide, high = size_of(drawn.cards[name])
    if state.is_history:
        return {"id": name, "width": HISTORY_PX + wide + PADDING_PX * 1.5, "height": max(HISTORY_PX, high) + 4}
    wide, high = wide + 2 * PADDING_PX, high + 2 * PADDING_PX
    if state.kind == "final":
        wide, high = wide + BULLSEYE_PX + 2 * FINAL_INSET_PX, high + 2 * FINAL_INSET_PX
    inner = sorted([*state.children, *state.histories], key=lambda one: one.index)
    if not inner:
        return {"id": name, "width": max(wide, 70), "height": max(high, 38)}
    children = [_node(drawn, child) for child in inner]
    if f"d{state.index}.0" in drawn.arrows:
        children.insert(0, {"id": f"i{state.index}", "width": INITIAL_PX, "height": INITIAL_PX})
    return {
        "id": name,
        "children": children,
        "layoutOptions": _layered(drawn.chart)
        | {
            "elk.padding": f"[top={high + 14},left=20,bottom=20,right=20]",
            "elk.nodeSize.constraints": "[MINIMUM_SIZE]",
            # Drawn downwards, ELK takes the least size of a nested graph as (height, width).
            "elk.nodeSize.minimum": f"({high + 40},{wide})",
        },
    }


def _edge(name: str, arrow: Arrow) -> dict[str, Any]:
    source = (
        f"i{arrow.source.index}" if name.startswith("d") and not arrow.source.is_history else f"s{arrow.source.index}"
    )
    edge: dict[str, Any] = {"id": name, "sources": [source], "targets": [f"s{arrow.target.index}"]}
    if arrow.transition is None or arrow.target.index > arrow.source.index:
        # Of a cycle, the way that the document goes leads down. (ELK's own model order fails on nested graphs.)
        edge["layoutOptions"] = {"elk.layered.priority.direction": "10"}
    if arrow.lines:
        wide, high = size_of(arrow.lines)
        edge["labels"] = [{"id": f"{name}.label", "text": arrow.lines[0].text, "width": wide, "height": high}]
    return edge


def _layered(chart: Chart) -> dict[str, str]:
    """The options of every graph, the nested ones too: ELK does not pass them on to the graphs inside nodes."""
    placement = "NETWORK_SIMPLEX" if len(chart.machine.by_index) <= STRAIGHT_STATES_MAX else "BRANDES_KOEPF"
    return _LAYERED | {"elk.layered.nodePlacement.strategy": placement}


_LAYERED = {
    "elk.algorithm": "layered",
    "elk.direction": "DOWN",
    "elk.edgeRouting": "ORTHOGONAL",
    "elk.layered.cycleBreaking.strategy": "GREEDY",
    "elk.spacing.nodeNode": "28",
    "elk.spacing.edgeNode": "16",
    "elk.spacing.edgeEdge": "12",
    "elk.spacing.edgeLabel": "4",
    "elk.layered.spacing.nodeNodeBetweenLayers": "30",
    "elk.layered.spacing.edgeNodeBetweenLayers": "16",
    "elk.layered.spacing.edgeEdgeBetweenLayers": "10",
}
_WHOLE = {
    "elk.hierarchyHandling": "INCLUDE_CHILDREN",
    "elk.json.shapeCoords": "ROOT",
    "elk.json.edgeCoords": "ROOT",
    "elk.padding": "[top=8,left=8,bottom=8,right=8]",
}
