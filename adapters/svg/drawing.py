"""A laid-out chart as the text of an SVG: plain shapes and text, no script, no font and no file from elsewhere.

For tools: each state is a `<g data-state="id" data-kind="...">` inside that of its parent, each transition a
`<g data-source data-targets>` with its path and label; what stands at the top of a state that contains others is a
`<g data-heading="id">`. Of an instance, active states have the class `active` and
transitions that were taken the class `taken`. Colours follow the reader's choice of light or dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from statewright.adapters.svg.graph import (
    BULLSEYE_PX,
    FINAL_INSET_PX,
    HISTORY_PX,
    PADDING_PX,
    Arrow,
    Line,
    Picture,
    size_of,
)
from statewright.adapters.svg.style import STYLE
from statewright.adapters.svg.text import number, xml
from statewright.statecharts.machine import ChartState

BEND_PX = 6
Node = dict[str, Any]


def draw(picture: Picture, laid_out: Node) -> str:
    """The SVG. `laid_out` is the picture's graph with places."""
    definition = picture.chart.definition
    size = f"{number(laid_out['width'])} {number(laid_out['height'])}"
    wide, high = size.split()
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{wide}" height="{high}" role="img">',
        f"<title>{xml(definition.name)}</title>",
        f"<desc>{xml(_description(picture))}</desc>",
        f"<style>{STYLE}</style>",
        "<defs>",
        *(_arrowhead(name) for name in ("head", "head-taken")),
        "</defs>",
        *_state(picture, laid_out["children"][0]),
        *(line for edge in laid_out["edges"] for line in _transition(picture, edge)),
        *_headings(picture, laid_out["children"][0]),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _description(picture: Picture) -> str:
    definition, visits = picture.chart.definition, picture.visits
    said = definition.description or f"Statechart {definition.name}, version {definition.version}."
    if visits is None:
        return said
    return f"{said} Instance {visits.instance} is {visits.status} in {', '.join(visits.configuration)}."


def _state(picture: Picture, node: Node) -> Iterator[str]:
    state = picture.chart.machine.by_index[int(node["id"][1:])]
    owner = picture.owners[state.index]
    kind = "chart" if state.parent is None else state.kind
    children = node.get("children", ())
    regions = [child for child in children if _is_region(picture, child)] if state.is_parallel else []
    gaps = _gaps(regions)
    classes = " ".join([*_classes(picture, state, kind), *["stacked"] * (len(regions) > 1 and not gaps)])
    named = f'data-chart="{xml(picture.chart.name)}"' if state.parent is None else f'data-state="{xml(state.id)}"'
    yield f'<g class="{classes}" {named} data-kind="{kind}">'
    if owner.description:
        yield f"<title>{xml(owner.description)}</title>"
    yield from _box(picture, node, state)
    for middle in gaps:
        top, bottom = min(region["y"] for region in regions) - 6, node["y"] + node["height"] - 8
        yield f'<path class="separator" d="M{number(middle)} {number(top)}V{number(bottom)}"/>'
    for child in children:
        if child["id"].startswith("i"):
            x, y, r = child["x"] + child["width"] / 2, child["y"] + child["height"] / 2, child["width"] / 2
            yield f'<circle class="initial" cx="{number(x)}" cy="{number(y)}" r="{number(r)}"/>'
        else:
            yield from _state(picture, child)
    yield "</g>"


def _classes(picture: Picture, state: ChartState, kind: str) -> Iterator[str]:
    yield from ("state", kind)
    if state.parent is not None and state.parent.is_parallel and not state.is_history:
        yield "region"
    if picture.visits is None:
        return
    if state.id in picture.visits.configuration and state.parent is not None:
        yield "active"
        if picture.visits.status != "active":
            yield picture.visits.status
    elif state.parent is not None and not picture.visits.entered.get(state.id):
        yield "unvisited"


def _box(picture: Picture, node: Node, state: ChartState) -> Iterator[str]:
    """The shape of a state, with its lines in it."""
    lines = picture.cards[node["id"]]
    x, y, wide, high = node["x"], node["y"], node["width"], node["height"]
    if state.is_history:
        radius = HISTORY_PX / 2
        middle = y + high / 2
        yield _rect(x, y, wide, high, high / 2)
        yield f'<circle cx="{number(x + radius + 2)}" cy="{number(middle)}" r="{number(radius)}"/>'
        mark = "H*" if state.deep else "H"
        yield f'<text class="mark" x="{number(x + radius + 2)}" y="{number(middle + 4)}">{mark}</text>'
        yield from _text(lines, x + HISTORY_PX + 7, middle - size_of(lines)[1] / 2)
        return
    yield _rect(x, y, wide, high, 10 if state.parent is not None else 14)
    left, top, inner = x, y, wide
    if state.kind == "final":
        inset = FINAL_INSET_PX
        yield _rect(x + inset, y + inset, wide - 2 * inset, high - 2 * inset, 7, "inner")
        centre = x + inset + PADDING_PX + BULLSEYE_PX / 2 - 4
        middle = y + inset + PADDING_PX + 9
        yield f'<circle class="ring" cx="{number(centre)}" cy="{number(middle)}" r="7"/>'
        yield f'<circle class="dot" cx="{number(centre)}" cy="{number(middle)}" r="3.5"/>'
        left, top, inner = x + inset + BULLSEYE_PX, y + inset, wide - 2 * inset - BULLSEYE_PX
    if "children" in node:
        # Its lines come later, above the edges that pass through.
        bar = number(y + size_of(lines)[1] + 2 * PADDING_PX - 4)
        yield f'<path class="bar" d="M{number(x)} {bar}H{number(x + wide)}"/>'
        return
    spare = max(0.0, node["height"] - 2 * (top - y) - size_of(lines)[1] - 2 * PADDING_PX)
    if len(lines) == 1:
        yield from _text(lines, left + inner / 2, top + PADDING_PX + spare / 2, "middle")
    else:
        yield from _text(lines, left + PADDING_PX, top + PADDING_PX + spare / 2)


def _headings(picture: Picture, node: Node) -> Iterator[str]:
    """The lines of the states that contain others."""
    state = picture.chart.machine.by_index[int(node["id"][1:])]
    yield f'<g class="heading" data-heading="{xml(state.id)}">'
    yield from _text(picture.cards[node["id"]], node["x"] + PADDING_PX, node["y"] + PADDING_PX - 2)
    yield "</g>"
    for child in node["children"]:
        if "children" in child:
            yield from _headings(picture, child)


def _text(lines: Iterable[Line], x: float, y: float, anchor: str = "start") -> Iterator[str]:
    """Lines below one another, from the top at `y`; `x` is their start, middle or end."""
    anchored = "" if anchor == "start" else f' text-anchor="{anchor}"'
    for line in lines:
        base = y + line.height * 0.74
        yield f'<text class="{line.kind}" x="{number(x)}" y="{number(base)}"{anchored}>{xml(line.text)}</text>'
        y += line.height


def _rect(x: float, y: float, wide: float, high: float, radius: float, name: str = "box") -> str:
    place = f'x="{number(x)}" y="{number(y)}" width="{number(wide)}" height="{number(high)}"'
    return f'<rect class="{name}" {place} rx="{number(radius)}"/>'


def _is_region(picture: Picture, node: Node) -> bool:
    return node["id"].startswith("s") and not picture.chart.machine.by_index[int(node["id"][1:])].is_history


def _gaps(regions: list[Node]) -> list[float]:
    """The middle between each region and the next to its right; empty if they do not all lie beside one another."""
    ordered = sorted(regions, key=lambda region: float(region["x"]))
    gaps = [(one["x"] + one["width"], other["x"]) for one, other in pairwise(ordered)]
    return [(end + begin) / 2 for end, begin in gaps] if all(end < begin for end, begin in gaps) else []


def _transition(picture: Picture, edge: Node) -> Iterator[str]:
    arrow = picture.arrows[edge["id"]]
    targets = arrow.transition.targets if arrow.transition is not None else (arrow.target,)
    says = xml(" ".join(target.id for target in targets))
    kind = "transition" if arrow.transition is not None else "initial"
    classes = f"{kind} taken" if arrow.count else kind
    yield f'<g class="{classes}" data-edge="{edge["id"]}" data-source="{xml(arrow.source.id)}" data-targets="{says}">'
    yield f"<title>{xml(arrow.says)}</title>"
    head = "head-taken" if arrow.count else "head"
    for section in edge["sections"]:
        points = [(point["x"], point["y"]) for point in _points(section)]
        yield f'<path d="{_path(points)}" marker-end="url(#{head})"/>'
    yield from _labels(arrow, edge)
    yield "</g>"


def _labels(arrow: Arrow, edge: Node) -> Iterator[str]:
    """The label, on the side of its place that is next to its edge."""
    for label in edge.get("labels", ()):
        left, right = label["x"], label["x"] + label["width"]
        beside = _nearest(edge, label) > (left + right) / 2
        x, anchor = (right, "end") if beside else (left, "start")
        yield from _text(arrow.lines, x, label["y"], anchor)


def _nearest(edge: Node, label: Node) -> float:
    """Where the edge passes by its label: the x of the nearest piece that leads down at the label's height."""
    top, bottom, middle = label["y"], label["y"] + label["height"], label["x"] + label["width"] / 2
    passing = [
        start["x"]
        for section in edge["sections"]
        for start, end in pairwise(_points(section))
        if start["x"] == end["x"] and min(start["y"], end["y"]) < bottom and max(start["y"], end["y"]) > top
    ]
    return float(min(passing, key=lambda x: abs(x - middle), default=label["x"]))


def _points(section: Node) -> list[Node]:
    return [section["startPoint"], *section.get("bendPoints", ()), section["endPoint"]]


def _path(points: list[tuple[float, float]]) -> str:
    """Straight pieces with rounded corners."""
    parts = [f"M{number(points[0][0])} {number(points[0][1])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        start, end = _towards(corner, before), _towards(corner, after)
        parts.append(f"L{_pair(start)}Q{_pair(corner)} {_pair(end)}")
    parts.append(f"L{_pair(points[-1])}")
    return "".join(parts)


def _towards(corner: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    """The point where the curve around a corner meets the piece to `other`: at most half way."""
    dx, dy = other[0] - corner[0], other[1] - corner[1]
    distance = max(abs(dx), abs(dy))
    share = min(BEND_PX, distance / 2) / distance if distance else 0
    return corner[0] + dx * share, corner[1] + dy * share


def _pair(point: tuple[float, float]) -> str:
    return f"{number(point[0])} {number(point[1])}"


def _arrowhead(name: str) -> str:
    return (
        f'<marker id="{name}" class="{name}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8" '
        'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.5L8 4L0 7.5Z"/></marker>'
    )
