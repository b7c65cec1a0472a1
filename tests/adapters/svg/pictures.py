"""An SVG read back as what it shows: states with their boxes, transitions with their paths and labels."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from statewright.adapters.svg.graph import Line
from statewright.statecharts import definition as d
from statewright.statecharts.chart import Chart

SVG = "{http://www.w3.org/2000/svg}"
SLACK = 0.11
"""Places are written with one digit after the point."""


class Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def holds(self, other: Box) -> bool:
        return (
            self.left <= other.left + SLACK
            and self.top <= other.top + SLACK
            and other.right <= self.right + SLACK
            and other.bottom <= self.bottom + SLACK
        )

    def meets(self, other: Box) -> bool:
        """Whether the two share more than an edge."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return across > SLACK and down > SLACK

    def touches(self, x: float, y: float) -> bool:
        """Whether a point lies on the border."""
        inside = self.left - 1 <= x <= self.right + 1 and self.top - 1 <= y <= self.bottom + 1
        ends = (x - self.left, x - self.right, y - self.top, y - self.bottom)
        return inside and min(map(abs, ends)) <= 1


class State(NamedTuple):
    id: str
    kind: str
    parent: str
    classes: frozenset[str]
    box: Box
    texts: tuple[tuple[str, Box], ...]


class Transition(NamedTuple):
    source: str
    targets: tuple[str, ...]
    initial: bool
    """The way from an initial dot or from a history state, which is no transition."""
    taken: bool
    start: tuple[float, float]
    end: tuple[float, float]
    texts: tuple[tuple[str, Box], ...]


class Picture(NamedTuple):
    states: dict[str, State]
    """By id; the chart's own frame is ""."""
    transitions: list[Transition]
    initials: int
    separators: int
    frame: Box


def read(svg: str) -> Picture:
    """Raises an error if a state is drawn twice."""
    root = ET.fromstring(svg)
    wide, high = map(float, root.attrib["viewBox"].split()[2:])
    headings = {group.attrib["data-heading"]: group for group in root.iter(f"{SVG}g") if "data-heading" in group.attrib}
    states: dict[str, State] = {}
    for group, parent in _state_groups(root, ""):
        name = group.attrib.get("data-state", "")
        assert name not in states, f"{name} is drawn twice"
        shown = [*group.findall(f"{SVG}text"), *(headings[name].findall(f"{SVG}text") if name in headings else ())]
        lines = tuple(_text(text) for text in shown if text.attrib["class"] != "mark")
        classes = frozenset(group.attrib["class"].split())
        states[name] = State(name, group.attrib["data-kind"], parent, classes, _box(group), lines)
    edges = [group for group in root.findall(f"{SVG}g") if "data-source" in group.attrib]
    initials = sum(one.attrib.get("class") == "initial" for one in root.iter(f"{SVG}circle"))
    separators = sum(one.attrib.get("class") == "separator" for one in root.iter(f"{SVG}path"))
    return Picture(states, [_edge(edge) for edge in edges], initials, separators, Box(0, 0, wide, high))


def faults(picture: Picture) -> list[str]:
    """What is wrong with how the states lie."""
    wrong = []
    by_parent: dict[str, list[State]] = {}
    for state in picture.states.values():
        around = picture.frame if state.id == "" else picture.states[state.parent].box
        if not around.holds(state.box):
            wrong.append(f"{state.id} is not inside {state.parent or 'the chart'}")
        if state.id:
            by_parent.setdefault(state.parent, []).append(state)
        for text, place in state.texts:
            if not state.box.holds(place):
                wrong.append(f"{text!r} is wider than {state.id}")
        for child in by_parent.get(state.parent, ()):
            if child.parent and child.id != child.parent:
                heading = picture.states[child.parent].texts
                wrong += [f"{child.id} covers {text!r}" for text, place in heading if child.box.meets(place)]
    for siblings in by_parent.values():
        wrong += [
            f"{one.id} overlaps {other.id}" for one, other in combinations(siblings, 2) if one.box.meets(other.box)
        ]
    return wrong


def misplaced_ends(picture: Picture) -> list[str]:
    """Arrows that do not lead from the border of their source (if that is a state) to that of a target."""
    return [
        f"{edge.source} -> {edge.targets}"
        for edge in picture.transitions
        if not any(picture.states[target].box.touches(*edge.end) for target in edge.targets)
        or not (edge.initial or picture.states[edge.source].box.touches(*edge.start))
    ]


def expected_arrows(chart: Chart) -> int:
    """How many arrows the transitions of a chart are: one a target."""
    owners: list[d.Definition | d.State] = [chart.definition, *d.walk_states(chart.definition)]
    return sum(len(transition.target) for owner in owners for transition in owner.transitions)


def _state_groups(element: ET.Element, parent: str) -> Iterator[tuple[ET.Element, str]]:
    for group in element.findall(f"{SVG}g"):
        if "data-kind" in group.attrib:
            yield group, parent
            yield from _state_groups(group, group.attrib.get("data-state", ""))


def _box(group: ET.Element) -> Box:
    rect = next(rect for rect in group.findall(f"{SVG}rect") if rect.attrib["class"] == "box")
    x, y, wide, high = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
    return Box(x, y, x + wide, y + high)


def _text(element: ET.Element) -> tuple[str, Box]:
    line = Line(element.text or "", element.attrib["class"])
    x, y = float(element.attrib["x"]), float(element.attrib["y"])
    left = x - line.width * {"middle": 0.5, "end": 1.0}.get(element.attrib.get("text-anchor", ""), 0)
    return line.text, Box(left, y - line.size * 0.8, left + line.width, y + line.size * 0.2)


def _edge(group: ET.Element) -> Transition:
    path = next(path for path in group.findall(f"{SVG}path"))
    numbers = [float(text) for text in re.findall(r"-?\d+(?:\.\d+)?", path.attrib["d"])]
    return Transition(
        group.attrib["data-source"],
        tuple(group.attrib["data-targets"].split()),
        "initial" in group.attrib["class"].split(),
        "taken" in group.attrib["class"].split(),
        (numbers[0], numbers[1]),
        (numbers[-2], numbers[-1]),
        tuple(_text(text) for text in group.findall(f"{SVG}text")),
    )
