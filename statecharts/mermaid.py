"""A chart as a Mermaid `stateDiagram-v2`: nested and parallel states, history, guards and delays as labels.

`transitions` can draw Mermaid too, but of its own machine: no history, one target, names joined from paths; so this is
drawn from the definition. Ids that Mermaid cannot take are replaced by short names and shown as labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from statewright.statecharts import definition as d
from statewright.statecharts.chart import Chart
from statewright.statecharts.machine import ChartState

LABEL_CHARS_MAX = 80
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_RESERVED = frozenset(["state", "note", "end", "direction", "class", "classDef", "style", "as", "default", "click"])
_INDENT = "    "


def mermaid(chart: Chart) -> str:
    """The diagram's source, one line a statement, ending in a newline."""
    drawing = _Drawing(chart)
    return "\n".join(["stateDiagram-v2", *drawing.inside(chart.machine.root, 1), *drawing.everywhere()]) + "\n"


class _Drawing:
    def __init__(self, chart: Chart) -> None:
        machine = chart.machine
        self.reactions: list[str] = []
        """What the chart itself does in every state, without leaving it."""
        self.names = {state.id: self._name(state) for state in machine.by_index[1:]}
        self.root = machine.root
        self.arrows: dict[str, list[str]] = {}
        """By the id of the state inside which they are drawn: the nearest that holds both ends."""
        owners: list[d.Definition | d.State] = [chart.definition, *d.walk_states(chart.definition)]
        for owner, state in zip(owners, machine.by_index, strict=True):
            for transition, compiled in zip(owner.transitions, state.transitions, strict=True):
                self._arrows_of(state, transition, compiled.targets)
            if state.is_history and owner.initial is not None:
                for target in state.initial_states:
                    self._arrow(state, target, "")

    def inside(self, state: ChartState, depth: int) -> Iterable[str]:
        """The statements inside a state: its initial, its children, the arrows among them."""
        indent = _INDENT * depth
        if not state.is_parallel:
            for target in state.initial_states:
                yield f"{indent}[*] --> {self.names[target.id]}"
        for index, child in enumerate(state.children):
            if index and state.is_parallel:
                yield f"{indent}--"
            yield from self._state(child, depth)
        for history in state.histories:
            yield f'{indent}state "{"H*" if history.deep else "H"} {_escape(history.id)}" as {self.names[history.id]}'
        for arrow in self.arrows.get(state.id, ()):
            yield f"{indent}{arrow}"

    def everywhere(self) -> Iterable[str]:
        """A note on what happens in every state: an arrow from each to itself would hide the others."""
        if self.reactions:
            yield f"{_INDENT}note right of {self.names[self.root.children[0].id]}"
            yield from (f"{_INDENT * 2}{line}" for line in ("in every state", *self.reactions))
            yield f"{_INDENT}end note"

    def _state(self, state: ChartState, depth: int) -> Iterable[str]:
        indent, name = _INDENT * depth, self.names[state.id]
        if name != state.id:
            yield f'{indent}state "{_escape(state.id)}" as {name}'
        if state.children:
            yield f"{indent}state {name} {{"
            yield from self.inside(state, depth + 1)
            yield f"{indent}}}"
        elif name == state.id:
            yield f"{indent}{name}"
        if state.kind == "final":
            yield f"{indent}{name} --> [*]"

    def _arrows_of(self, source: ChartState, transition: d.Transition, targets: Sequence[ChartState]) -> None:
        label = label_of(transition)
        if not targets and source is self.root:
            self.reactions.append(label)
        elif not targets:
            self._arrow(source, source, label)
        for target in targets:
            for start in _starts(source, target):
                self._arrow(start, target, label)

    def _arrow(self, source: ChartState, target: ChartState, label: str) -> None:
        scope = source.parent
        while scope is not None and scope is not self.root and not target.ancestors & scope.bit:
            scope = scope.parent
        # Regions of a parallel state are drawn apart; an arrow between them belongs outside.
        while scope is not None and scope.is_parallel:
            scope = scope.parent
        said = f" : {label}" if label else ""
        arrow = f"{self.names[source.id]} --> {self.names[target.id]}{said}"
        self.arrows.setdefault(scope.id if scope is not None else "", []).append(arrow)

    def _name(self, state: ChartState) -> str:
        plain = _PLAIN.fullmatch(state.id) and state.id not in _RESERVED and not re.fullmatch(r"s\d+_", state.id)
        return state.id if plain else f"s{state.index}_"


def _starts(source: ChartState, target: ChartState) -> Iterator[ChartState]:
    """Where an arrow begins: Mermaid has none from a state (or the chart) into itself; that begins at its children."""
    if not target.ancestors & source.bit:
        yield source
        return
    for child in source.children:
        if child.kind != "final":
            yield from _starts(child, target)


def label_of(transition: d.Transition) -> str:
    """`event [guard] / actions`, escaped; actions only where nothing else would be said."""
    parts = [" ".join(transition.events)] if transition.events else []
    if transition.delay:
        parts.append(f"after {transition.delay}")
    if transition.guard is not None:
        guard = transition.guard if isinstance(transition.guard, str) else transition.guard.function
        parts.append(f"[{guard}]")
    if not transition.target and transition.actions:
        parts.append("/ " + ", ".join(describe(action) for action in transition.actions))
    return _escape(" ".join(parts))


def describe(action: d.AnyAction) -> str:
    """An action in a word or two."""
    if isinstance(action, d.Perform):
        return action.name
    if isinstance(action, d.RunStep):
        return f"run_step {action.step}"
    if isinstance(action, d.Record):
        return f"record {action.step} {action.status}"
    if isinstance(action, d.Assign):
        return f"assign {', '.join(action.values) or action.function}"
    if isinstance(action, d.Raise | d.Send):
        return f"{action.__struct_config__.tag} {action.event or '…'}"
    if isinstance(action, d.Call):
        return f"call {action.service}.{action.method}"
    if isinstance(action, d.Emit):
        return f"emit {action.subject or '…'}"
    return str(action.__struct_config__.tag)


def _escape(text: str) -> str:
    """Mermaid's entity codes for what it would read as its own syntax."""
    text = re.sub(r"\s+", " ", text)
    if len(text) > LABEL_CHARS_MAX:
        text = text[: LABEL_CHARS_MAX - 1] + "…"
    for character, code in (("#", "35"), (";", "59")):
        text = text.replace(character, f"\0{code}\1")
    for character, code in (('"', "quot"), ("<", "lt"), (">", "gt"), ("{", "123"), ("}", "125"), (":", "58")):
        text = text.replace(character, f"\0{code}\1")
    return text.replace("\0", "#").replace("\1", ";")
