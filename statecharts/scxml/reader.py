"""Reads an SCXML document into a definition with dynamic expressions.

Everything that a document refers to by `src` becomes part of the definition, so that it stands for itself once it is
read. Faults of structure are all found in one reading; expressions are looked at when they are evaluated (`check` says
beforehand what will fail).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import get_args

from msgspec import UNSET

from statewright.statecharts import definition as d
from statewright.statecharts.errors import ChartError
from statewright.statecharts.places import Faults
from statewright.statecharts.reader import CEL_WORDS
from statewright.statecharts.scxml.content import ContentReader
from statewright.statecharts.scxml.elements import PREFIX, SCXML, Element, parse_elements
from statewright.statecharts.scxml.values import cel_text, inline, parse_inline

_NAME_CHARS = re.compile(r"[^A-Za-z0-9_-]")
_FIELD = re.compile(r"[A-Za-z]\w*", re.ASCII)
_STATES = ("state", "parallel", "final", "history")
_DATAMODELS = ("", "cel", "null")
_ALLOWED = {
    "scxml": {"state", "parallel", "final", "datamodel", "script", "initial"},
    "state": {"onentry", "onexit", "transition", "initial", "datamodel", "invoke", *_STATES},
    "parallel": {"onentry", "onexit", "transition", "datamodel", "invoke", "state", "parallel", "history"},
    "final": {"onentry", "onexit", "donedata"},
    "history": {"transition"},
    "initial": {"transition"},
    "invoke": {"param", "finalize", "content"},
    "datamodel": {"data"},
    "donedata": {"param", "content"},
    "send": {"param", "content"},
}


def read_scxml(
    data: bytes, faults: Faults, *, name: str, folder: FilePath | None = None, file: FilePath | None = None
) -> d.Definition | None:
    """The definition, its places and faults in `faults`; None if the document is no SCXML at all.

    `name` is the chart's if the document gives none; `folder` is where `src` is looked up, None: nowhere; `file` is the
    document's own. Raises ChartError for a document that is no XML, or too large or deep.
    """
    root = parse_elements(data)
    return ChartReader(faults, folder, (file.resolve(),) if file else ()).chart(root, name)


class ChartReader(ContentReader):
    def __init__(
        self, faults: Faults, folder: FilePath | None, files: tuple[FilePath, ...] = (), version: str = "1"
    ) -> None:
        """`files`: those being read, so that one that invokes itself is not read for ever. `version`: that of a
        document which says none."""
        super().__init__(faults, folder)
        self.files = files
        self.name = ""
        self.version = version
        self.late = False
        self.ids: set[str] = set()
        self.numbers: dict[str, int] = {}
        self.declarations: list[d.Declaration] = []
        self.names: set[str] = set()

    def chart(self, root: Element, name: str) -> d.Definition | None:
        if root.tag != "scxml" or root.space not in ("", SCXML):
            self.fault(root, f"expected the element <scxml> of namespace {SCXML}, got <{root.tag}> of {root.space!r}")
            return None
        datamodel = root.get("datamodel")
        if datamodel not in _DATAMODELS:
            self.fault(root, f"expected the datamodel cel or null, got {datamodel!r}")
        if root.get("binding") not in ("", "early", "late"):
            self.fault(root, f"expected the binding early or late, got {root.get('binding')!r}")
        self.late = root.get("binding") == "late"
        self.ids = {element.get("id") for element in _walk(root) if element.tag in _STATES}
        self._known(root)
        title = root.get("name") or name
        self.name = chart_name = _NAME_CHARS.sub("-", title)[:128] or "chart"
        self.version = root.get(f"{PREFIX}version") or self.version
        states = []
        scripts = []
        initials = []
        for child in self.children(root):
            if child.tag in _STATES:
                states.append(self._state(child))
            elif child.tag == "datamodel":
                self.declarations += self._datamodel(child)
            elif child.tag == "script":
                scripts.append(child)
            elif child.tag == "initial":  # the Recommendation has it in states only; it can mean but one thing
                initials.append(child)
        chart = d.Definition(
            name=chart_name,
            version=self.version,
            expressions="dynamic",
            context=tuple(self.declarations),
            initial=self._initial(root, {"initial": initials}),
            entry=self.actions(scripts),
            states=tuple(states),
            meta={"name": title} if title != chart_name else {},
        )
        self.put(chart, root)
        return chart

    def _known(self, element: Element) -> None:
        for child in self.children(element):
            if child.tag not in _ALLOWED[element.tag]:
                allowed = ", ".join(sorted(_ALLOWED[element.tag]))
                self.fault(child, f"expected one of {allowed} in <{element.tag}>, got <{child.tag}>")

    def _state(self, element: Element) -> d.State:
        outer = self.state
        self.state = state_id = element.get("id") or self._generated(element.tag)
        self._known(element)
        parts: dict[str, list[Element]] = {}
        for child in self.children(element):
            parts.setdefault("state" if child.tag in _STATES else child.tag, []).append(child)
        late: tuple[d.Declaration, ...] = ()
        for datamodel in parts.get("datamodel", ()):
            if self.late:
                late += tuple(self._datamodel(datamodel))
            else:
                self.declarations += self._datamodel(datamodel)
        kind: d.StateType = "atomic"
        if element.tag != "state":
            kind = element.tag  # type: ignore[assignment]
        elif any(child.tag != "history" for child in parts.get("state", ())):
            kind = "compound"
        if kind == "history" and element.get("type") not in ("", "shallow", "deep"):
            self.fault(element, f"expected the type shallow or deep, got {element.get('type')!r}")
        state = d.State(
            id=state_id,
            type=kind,
            context=late,
            initial=self._history_default(parts) if kind == "history" else self._initial(element, parts),
            history="deep" if kind == "history" and element.get("type") == "deep" else "shallow",
            entry=self.blocks(parts.get("onentry", [])),
            exit=self.blocks(parts.get("onexit", [])),
            invoke=tuple(self._invoke(child) for child in parts.get("invoke", ())),
            transitions=tuple(self._transition(child) for child in parts.get("transition", ()) if kind != "history"),
            states=tuple(self._state(child) for child in parts.get("state", ())),
            output=self._donedata(parts.get("donedata", [])),
            status=self._status(element),
        )
        self.put(state, element)
        self.state = outer
        return state

    def _status(self, element: Element) -> d.FinalStatus:
        status, known = element.get(f"{PREFIX}status") or "completed", get_args(d.FinalStatus)
        if status not in known:
            self.fault(element, f"expected the status {' or '.join(known)}, got {status!r}")
            return "completed"
        return status  # type: ignore[return-value]

    def _generated(self, tag: str) -> str:
        while True:
            number = self.numbers[tag] = self.numbers.get(tag, 0) + 1
            if (state_id := f"{tag}.{number}") not in self.ids:
                return state_id

    def _initial_attribute(self, element: Element) -> d.Initial | None:
        targets = tuple(element.get("initial").split())
        if not targets:
            return None
        initial = d.Initial(target=targets)
        self.put(initial, element)
        return initial

    def _initial(self, element: Element, parts: dict[str, list[Element]]) -> d.Initial | None:
        elements = parts.get("initial", [])
        if len(elements) > 1 or (elements and element.get("initial")):
            self.fault(elements[-1], "expected one initial, as an attribute or an element, got more")
        if not elements:
            return self._initial_attribute(element)
        self._known(elements[0])
        return self._default(elements[0], [child for child in elements[0].elements if child.tag == "transition"])

    def _history_default(self, parts: dict[str, list[Element]]) -> d.Initial | None:
        transitions = parts.get("transition", [])
        return self._default(transitions[0], transitions) if transitions else None

    def _default(self, element: Element, transitions: list[Element]) -> d.Initial | None:
        """The transition of an `<initial>` or a `<history>`: a target, no event, no condition."""
        if len(transitions) != 1:
            self.fault(element, f"expected one <transition> in <initial> or <history>, got {len(transitions)}")
            return None
        transition = transitions[0]
        if transition.get("event") or transition.get("cond"):
            self.fault(transition, "expected neither event nor cond in the <transition> of an <initial> or <history>")
        initial = d.Initial(
            target=tuple(transition.get("target").split()), actions=self.actions(self.children(transition))
        )
        self.put(initial, transition)
        return initial

    def _transition(self, element: Element) -> d.Transition:
        if element.get("type") not in ("", "internal", "external"):
            self.fault(element, f"expected the type internal or external, got {element.get('type')!r}")
        events = tuple("*" if name == ".*" else name for name in element.get("event").split())
        targets = tuple(element.get("target").split())
        if not (events or targets or element.get("cond")):
            self.fault(element, "expected at least one of event, cond and target in <transition>, got none")
        transition = d.Transition(
            events=events,
            target=targets,
            guard=element.get("cond") or None,
            actions=self.actions(element.elements),
            internal=element.get("type") == "internal",
        )
        self.put(transition, element)
        return transition

    def _donedata(self, elements: list[Element]) -> d.Json:
        for element in elements:
            self._known(element)
            return self.payload(element, self.entries(element))
        return None

    def _datamodel(self, element: Element) -> list[d.Declaration]:
        self._known(element)
        return [self._data(child) for child in self.children(element) if child.tag == "data"]

    def _data(self, element: Element) -> d.Declaration:
        name = element.get("id")
        if not _FIELD.fullmatch(name) or name in CEL_WORDS:
            expected = "an identifier that begins with a letter and is no word of CEL's"
            self.fault(element, f"expected a data id that is {expected}, got {name!r}")
        if name in self.names:
            self.fault(element, f"the data id {name!r} is given twice")
        self.names.add(name)
        expr, src = self.either(element, "expr", "src", required=False)
        default: d.Json = UNSET
        if src:
            found = self.read_file(element, src)
            default = parse_inline(found[1].decode("utf-8", "replace")) if found else UNSET
        elif element.elements or element.text.strip():
            if expr:
                self.fault(element, f"expected either expr or content in <data>, got both for {name!r}")
            default = inline(element)
        declaration = d.Declaration(name=name, expr=expr, default=default)
        self.put(declaration, element)
        return declaration

    def _invoke(self, element: Element) -> d.Invoke:
        self._known(element)
        type_, typeexpr = self.either(element, "type", "typeexpr", required=False)
        invoke_id, idlocation = self.either(element, "id", "idlocation", required=False)
        src, srcexpr = self.either(element, "src", "srcexpr", required=False)
        contents = [child for child in self.children(element) if child.tag == "content"]
        if len(contents) + bool(src or srcexpr) != 1:
            self.fault(element, "expected one of src, srcexpr and <content> in <invoke>")
        chart, contentexpr = self._content(contents[0]) if contents else (None, "")
        if src:
            chart = self._file(element, src)
        entries = self.entries(element)
        invoke = d.Invoke(
            id=invoke_id,
            idlocation=idlocation,
            type=type_,
            typeexpr=typeexpr,
            chart=chart,
            src="" if chart is not None else src,
            srcexpr=srcexpr,
            contentexpr=contentexpr,
            data=dict(entries),
            autoforward=element.get("autoforward") == "true",
            finalize=self._finalize(element),
        )
        self.put(invoke, element)
        return invoke

    def _content(self, content: Element) -> tuple[d.Definition | None, str]:
        documents = [child for child in content.elements if child.tag == "scxml" and child.space in ("", SCXML)]
        if content.get("expr"):
            return None, content.get("expr")
        if len(documents) == 1:
            reader = ChartReader(self.faults, self.folder, self.files, self.version)
            return reader.chart(documents[0], self._child_name()), ""
        return None, cel_text(content.text.strip())

    def _child_name(self) -> str:
        """The name of a child that has none: no other chart's, because the engine tells definitions apart by it."""
        key = f"children of {self.state}"
        self.numbers[key] = number = self.numbers.get(key, 0) + 1
        return f"{self.name}-{self.state}" + (f"-{number}" if number > 1 else "")

    def _file(self, element: Element, src: str) -> d.Definition | None:
        """The chart in another file. One that is being read already is left to be read when it is invoked."""
        found = self.read_file(element, src)
        if found is None or found[0] in self.files:
            return None
        path, data = found
        try:
            root = parse_elements(data, (path.name,))
        except ChartError as error:
            self.fault(element, f"the file {src!r}: {error.faults[0]}")
            return None
        return ChartReader(self.faults, self.folder, (*self.files, path), self.version).chart(root, path.stem)

    def _finalize(self, element: Element) -> tuple[d.AnyAction, ...]:
        """The content; an empty one puts what comes back where `namelist` and locations say (6.5.2)."""
        found = [child for child in self.children(element) if child.tag == "finalize"]
        if not found:
            return ()
        if found[0].elements:
            return self.actions(found[0].elements)
        places = {name: name for name in element.get("namelist").split()}
        places |= {p.get("name"): p.get("location") for p in element.elements if p.tag == "param" and p.get("location")}
        actions = []
        for name, place in places.items():
            assign = d.Assign(values={place: f"_event.data.{name}"})
            branch = d.Branch(guard=f"_event.data != null && has(_event.data.{name})", actions=(assign,))
            action = d.If(branches=(branch,))
            for node in (assign, branch, action):
                self.put(node, found[0])
            actions.append(action)
        return tuple(actions)


def _walk(element: Element) -> Iterator[Element]:
    """All elements of the document in order, those of an invoked chart left out."""
    stack = [element]
    while stack:
        found = stack.pop()
        yield found
        if found.tag != "content":
            stack.extend(reversed(found.elements))
