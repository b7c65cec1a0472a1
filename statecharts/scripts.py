"""Compiles what dynamic charts do to their data: assignments to locations, scripts, `foreach`, first values.

What is wrong with a location or a script is an `error.execution` when it is run (SCXML 1.0, 5.9.3), and a warning
beforehand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from statewright.statecharts import definition as d
from statewright.statecharts.context import json_type
from statewright.statecharts.errors import ContextError
from statewright.statecharts.locations import parse_location, placed, split_assignment, split_script
from statewright.statecharts.step import ActionError, Macrostep

if TYPE_CHECKING:
    from statewright.statecharts.actions import ActionCompiler, Operation, Value
    from statewright.statecharts.definition import Json

_FIELD = re.compile(r"[A-Za-z]\w*")


class Place:
    """A compiled location. `make`: a field that is not there is made."""

    def __init__(self, compiler: ActionCompiler, text: str, node: d.Node, what: str, *, make: bool = False) -> None:
        self.text = text
        self.what = what
        self.make = make
        self.check = compiler.context.check
        found = parse_location(text)
        self.field = found.field if found is not None else ""
        steps = found.steps if found is not None else ()
        self.steps: list[str | Value] = [
            compiler.value(step, node, what)[0] if is_expression else step for step, is_expression in steps
        ]
        if found is None or self.field.startswith("_"):
            compiler.warn(node, f"{text!r} is no place to assign to")
        elif not make and self.field not in compiler.known:
            compiler.warn(node, f"{text!r} is assigned to, but nothing declares {self.field!r}")

    def assign(self, run: Macrostep, value: Json, changes: dict[str, Json] | None = None) -> None:
        """Put `value` there: into `changes`, or at once. Raises ActionError if there is no such place."""
        field, context = self.field, run.context
        pending = changes if changes is not None else {}
        if not field or field.startswith("_"):
            raise ActionError(f"{self.what} failed: expected a place in the data, got {self.text!r}")
        if field not in context and not (self.make and not self.steps):
            raise ActionError(f"{self.what} failed: there is no {field!r}")
        try:
            if self.steps:
                keys = [step if isinstance(step, str) else step(run) for step in self.steps]
                value = placed(pending.get(field, context[field]), keys, value)
            pending[field] = self.check(field, value)
        except (ContextError, ValueError) as error:
            raise ActionError(f"{self.what} failed: {error}") from None
        if changes is None:
            run.assign(pending)


def compile_assign(compiler: ActionCompiler, action: d.Assign, where: str) -> Operation:
    """Assign to locations; all values are computed before any is put in its place."""
    pairs = []
    for text, tree in action.values.items():
        what = f"assign {text!r} in {where}"
        pairs.append((Place(compiler, text, action, what), compiler.value(tree, action, what, text)[0]))

    def assign(run: Macrostep) -> None:
        changes: dict[str, Json] = {}
        for place, value in [(place, value(run)) for place, value in pairs]:
            place.assign(run, value, changes)
        run.assign(changes)

    return assign


def compile_script(compiler: ActionCompiler, action: d.Script, where: str) -> Operation:
    """Each statement sees what those before it have assigned."""
    statements: list[tuple[Place, Value]] = []
    broken = ""
    for statement in split_script(action.source):
        what = f"script {statement!r} in {where}"
        pair = split_assignment(statement)
        if pair is None:
            broken = f"{what} failed: expected an assignment, location = expression"
            compiler.warn(action, f"expected an assignment, location = expression, got {statement!r}")
            break
        value, _ = compiler.value(pair[1], action, what)
        statements.append((Place(compiler, pair[0], action, what, make=True), value))

    def script(run: Macrostep) -> None:
        for place, value in statements:
            place.assign(run, value(run))
        if broken:
            raise ActionError(broken)

    return script


def compile_foreach(compiler: ActionCompiler, action: d.Foreach, state: str, where: str) -> Operation:
    """Iterate over the array as it was at the beginning (SCXML 4.6)."""
    what = f"foreach over {action.array!r} in {where}"
    array, _ = compiler.value(action.array, action, what, "array")
    block = compiler.block(action.actions, state, where)
    names = [name for name in (action.item, action.index) if name]
    bad = [name for name in names if not _FIELD.fullmatch(name)]
    if bad or not action.item:
        compiler.warn(action, f"expected the name of a variable as item and index, got {(bad or [''])[0]!r}")

    def foreach(run: Macrostep) -> None:
        items = array(run)
        if not isinstance(items, list):
            raise ActionError(f"{what} failed: expected a list, got {json_type(items)}")
        if bad or not action.item:
            raise ActionError(f"{what} failed: expected the name of a variable, got {(bad or [''])[0]!r}")
        for index, item in enumerate(items):
            run.assign({action.item: item, **({action.index: index} if action.index else {})})
            for operation in block:
                operation(run)

    return foreach


def compile_first_value(compiler: ActionCompiler, declaration: d.Declaration, where: str) -> Operation:
    """A field's first value, when it is computed or bound late."""
    name, what = declaration.name, f"the first value of {declaration.name!r} in {where}"
    if declaration.expr:
        value, _ = compiler.value(declaration.expr, declaration, what, "expr")
    else:
        default = declaration.default if declaration.default is not UNSET else None
        value = lambda run: default  # noqa: E731
    check = compiler.context.check

    def assign(run: Macrostep) -> None:
        try:
            run.assign({name: check(name, value(run))})
        except ContextError as error:
            raise ActionError(f"{what} failed: {error}") from None

    return assign


def created(actions: Iterable[Any]) -> set[str]:
    """The fields that these actions may make: what `foreach` counts with, what scripts assign to."""
    names: set[str] = set()
    for action in actions:
        if isinstance(action, d.Foreach):
            names |= {action.item, action.index}
        elif isinstance(action, d.Script):
            for statement in split_script(action.source):
                pair = split_assignment(statement)
                place = parse_location(pair[0]) if pair else None
                names |= {place.field} if place else set()
    return names
