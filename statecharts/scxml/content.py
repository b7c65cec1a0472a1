"""Reads executable content (SCXML 1.0, 4 and 6): `raise if foreach log assign script send cancel`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path as FilePath
from typing import Any, get_args

from statewright.statecharts import definition as d
from statewright.statecharts.actions_reader import ActionsReader
from statewright.statecharts.definition import Json
from statewright.statecharts.documents import DOCUMENT_BYTES_MAX
from statewright.statecharts.places import Faults
from statewright.statecharts.scxml.elements import EXTENSION, SCXML, Element
from statewright.statecharts.scxml.values import inline, literal, mapping

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


class ContentReader:
    """Reading with faults: each method gives something usable and notes what was wrong."""

    def __init__(self, faults: Faults, folder: FilePath | None) -> None:
        """`folder`: where `src` is looked up; None: nothing can be read from there."""
        self.faults = faults
        self.folder = folder
        self.state = ""
        self._readers: dict[str, Callable[[Element], d.AnyAction | None]] = {
            "raise": self._raise,
            "if": self._if,
            "foreach": self._foreach,
            "log": lambda element: d.Log(label=element.get("label"), expr=element.get("expr")),
            "assign": self._assign,
            "script": self.script,
            "send": self._send,
            "cancel": self._cancel,
        }

    def fault(self, element: Element, message: str) -> None:
        self.faults.places.know(element.path, element.line)
        self.faults.at(element.path, self.state, message)

    def put(self, node: d.Node, element: Element) -> None:
        """Remember where the node was read."""
        self.faults.places.know(element.path, element.line)
        self.faults.places.put(node, element.path, self.state)

    def children(self, element: Element) -> list[Element]:
        """The element's children, those of foreign namespaces left out."""
        return [child for child in element.elements if child.space in ("", SCXML)]

    def actions(self, elements: Iterable[Element]) -> tuple[d.AnyAction, ...]:
        found: list[d.AnyAction] = []
        for element in elements:
            own = element.space in ("", SCXML)
            read = self._readers.get(element.tag) if own else self._effect if element.space == EXTENSION else None
            if read is None:
                self.fault(element, f"expected executable content ({', '.join(self._readers)}), got <{element.tag}>")
                continue
            action = read(element)
            if action is None:
                continue
            self.put(action, element)
            found.append(action)
        return tuple(found)

    def blocks(self, elements: list[Element]) -> tuple[d.AnyAction, ...]:
        """Several `<onentry>`: each fails on its own."""
        if len(elements) < 2:
            return self.actions(elements[0].elements) if elements else ()
        found = []
        for element in elements:
            block = d.Block(actions=self.actions(element.elements))
            self.put(block, element)
            found.append(block)
        return tuple(found)

    def entries(self, element: Element) -> dict[str, str]:
        """`namelist` and `<param>`s: names to expressions."""
        entries = {name: name for name in element.get("namelist").split()}
        for param in self.children(element):
            if param.tag == "param":
                name, expr = param.get("name"), self.either(param, "expr", "location")
                if not name:
                    self.fault(param, "expected a name in <param>, which is missing")
                entries[name] = expr[0] or expr[1]
        return entries

    def payload(self, element: Element, entries: dict[str, str]) -> Json:
        """What an event carries: `<content>`, or the entries, or nothing."""
        contents = [child for child in self.children(element) if child.tag == "content"]
        if not contents:
            return mapping(entries) if entries else None
        if entries or len(contents) > 1:
            self.fault(
                contents[-1], f"expected either one <content> or names and <param>s in <{element.tag}>, got both"
            )
        expr = contents[0].get("expr")
        return expr or literal(inline(contents[0]))

    def either(self, element: Element, *names: str, required: bool = True) -> tuple[str, ...]:
        """These attributes, of which one at most (or exactly) has a value."""
        values = tuple(element.get(name) for name in names)
        count = sum(1 for value in values if value)
        if count > 1 or (required and not count):
            given = "both" if count else "none"
            self.fault(element, f"expected {'either ' * required}{' or '.join(names)} in <{element.tag}>, got {given}")
            return (*values[:1], *("" for _ in values[1:])) if count else values
        return values

    def read_file(self, element: Element, src: str) -> tuple[FilePath, bytes] | None:
        """The file at `src`, which is to lie in the chart's folder or below; None with a fault if it can't be read."""
        name = src.removeprefix("file:")
        if _SCHEME.match(name) or self.folder is None:
            self.fault(element, f"expected a file in the chart's folder as src, got {src!r}")
            return None
        folder = self.folder.resolve()
        path = (folder / name).resolve()
        if not path.is_relative_to(folder):
            self.fault(element, f"expected a file in the chart's folder as src, got {src!r}, which leads out of it")
            return None
        try:
            with path.open("rb") as file:
                data = file.read(DOCUMENT_BYTES_MAX + 1)
        except OSError as error:
            self.fault(element, f"the file {src!r} cannot be read: {error.strerror}")
            return None
        if len(data) > DOCUMENT_BYTES_MAX:
            self.fault(element, f"expected a file of at most {DOCUMENT_BYTES_MAX} bytes, {src!r} has more")
            return None
        return path, data

    def script(self, element: Element) -> d.Script:
        src = element.get("src")
        if not src:
            return d.Script(source=element.text.strip())
        found = self.read_file(element, src)
        return d.Script(source=found[1].decode("utf-8", "replace").strip() if found else "")

    def _raise(self, element: Element) -> d.Raise:
        if not element.get("event"):
            self.fault(element, "expected an event in <raise>, which is missing")
        return d.Raise(event=element.get("event"))

    def _if(self, element: Element) -> d.If:
        arms: list[tuple[Element, list[Element]]] = [(element, [])]
        for child in element.elements:
            if child.tag in ("elseif", "else") and child.space in ("", SCXML):
                if arms[-1][0].tag == "else":
                    self.fault(child, f"expected nothing after <else>, got <{child.tag}>")
                arms.append((child, []))
            else:
                arms[-1][1].append(child)
        branches = []
        otherwise: tuple[d.AnyAction, ...] = ()
        for head, elements in arms:
            if head.tag == "else":
                otherwise = self.actions(elements)
                continue
            if not head.get("cond"):
                self.fault(head, f"expected a cond in <{head.tag}>, which is missing")
            branch = d.Branch(guard=head.get("cond"), actions=self.actions(elements))
            self.put(branch, head)
            branches.append(branch)
        return d.If(branches=tuple(branches), otherwise=otherwise)

    def _foreach(self, element: Element) -> d.Foreach:
        for name in ("array", "item"):
            if not element.get(name):
                self.fault(element, f"expected {name} in <foreach>, which is missing")
        return d.Foreach(
            array=element.get("array"),
            item=element.get("item"),
            index=element.get("index"),
            actions=self.actions(element.elements),
        )

    def _assign(self, element: Element) -> d.Assign:
        if not element.get("location"):
            self.fault(element, "expected a location in <assign>, which is missing")
        expr = element.get("expr")
        if expr and element.elements:
            self.fault(element, "expected either expr or content in <assign>, got both")
        return d.Assign(values={element.get("location"): expr or literal(inline(element))})

    def _send(self, element: Element) -> d.Send:
        event, eventexpr = self.either(element, "event", "eventexpr", required=False)
        target, targetexpr = self.either(element, "target", "targetexpr", required=False)
        processor, processorexpr = self.either(element, "type", "typeexpr", required=False)
        send_id, idlocation = self.either(element, "id", "idlocation", required=False)
        delay, delayexpr = self.either(element, "delay", "delayexpr", required=False)
        return d.Send(
            event=event,
            eventexpr=eventexpr,
            data=self.payload(element, self.entries(element)),
            delay=delay or delayexpr,
            id=send_id,
            idlocation=idlocation,
            target=target,
            targetexpr=targetexpr,
            processor=processor,
            processorexpr=processorexpr,
        )

    def _effect(self, element: Element) -> d.AnyAction | None:
        """Our own `<perform>`, `<emit>` and `<call>`, and an `<assign>` of several; `data` and `values` are JSON whose
        texts are expressions."""
        data: Json = None
        text = element.get("values" if element.tag == "assign" else "data")
        if text:
            try:
                data = json.loads(text)
            except (ValueError, RecursionError):
                self.fault(element, f"expected JSON in <{element.tag}>, got {text!r}")
        if element.tag == "assign" and isinstance(data, dict):
            return d.Assign(values=data)
        if element.tag == "perform" and element.get("name"):
            return d.Perform(name=element.get("name"), data=data, **self._how(element, "timeout", "heartbeat"))
        if element.tag == "emit":
            subject, subjectexpr = self.either(element, "subject", "subjectexpr")
            return d.Emit(subject=subject, subjectexpr=subjectexpr, data=data, **self._how(element, "timeout"))
        if element.tag == "call" and element.get("service") and element.get("method"):
            how = self._how(element, "timeout", "heartbeat")
            return d.Call(service=element.get("service"), method=element.get("method"), data=data, **how)
        if element.tag == "run_step" and element.get("step"):
            return d.RunStep(
                step=element.get("step"), by=element.get("by"), **self._how(element, "timeout", "heartbeat")
            )
        if element.tag == "record" and element.get("step") and element.get("status") in get_args(d.StepStatus):
            return d.Record(step=element.get("step"), status=element.get("status"))  # type: ignore[arg-type]
        expected = "<perform name>, <emit subject>, <call service method>, <run_step step>, <record step status>"
        expected = f"{expected} or <assign values>"
        self.fault(element, f"expected {expected} of namespace {EXTENSION}, got <{element.tag}>")
        return None

    def _how(self, element: Element, *durations: str) -> dict[str, Any]:
        """How an effect is performed, read as our own forms write it; `retry` is JSON."""
        reader = ActionsReader(self.faults)
        reader.state = self.state
        self.faults.places.know(element.path, element.line)
        how: dict[str, Any] = {name: element.get(name) for name in durations if element.get(name)}
        if cancel := element.get("cancel"):
            how["cancel"] = reader.choice(cancel, get_args(d.CancelWhen), element.path)
        if text := element.get("retry"):
            try:
                how["retry"] = reader.retry(json.loads(text), element.path)
            except (ValueError, RecursionError):
                self.fault(element, f"expected JSON as the retry of <{element.tag}>, got {text!r}")
        return how

    def _cancel(self, element: Element) -> d.Cancel:
        sendid, sendidexpr = self.either(element, "sendid", "sendidexpr")
        return d.Cancel(sendid=sendid, sendidexpr=sendidexpr)
