"""A chart without its data: the same states, transitions and raised events, its guards answered by an `Oracle`.

The abstract chart is an ordinary definition, compiled and stepped by the same machine as the chart itself, so there is
no second semantics. What is left out: context, effects, sends (whoever explores delivers any event that a state
handles), children, and actions that fail. A guard that asks only for the configuration (`In('a')`, `true`) is kept and
answered as it would be; any other becomes a question to the oracle. `foreach` runs its actions once or not at all.

Between two assignments the same question has the same answer: a guard and its negation are one question.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from statewright.statecharts import definition as d
from statewright.statecharts.compiler import compile_definition
from statewright.statecharts.dynamic import variables
from statewright.statecharts.machine import ChartMachine
from statewright.statecharts.places import Faults, Places

_MARK = "//"
"""Begins a comment in CEL: what stands behind it tells guards apart in verdicts."""
_ASSIGN = "assign"
_COMPARED = re.compile(r"([^<>=!&|?]+)(<=|>=|<|>|==|!=)([^<>=!&|?]+)")
_TERM = re.compile(r"[\w.]+(\([^()]*\))?")
_STRINGS = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""")


class Oracle:
    """Answers questions about data: as decided, then as known, then true. `made` are the decisions of this run."""

    def __init__(self) -> None:
        self.begin((), {})

    def begin(self, decisions: tuple[bool, ...], known: Mapping[str, bool]) -> None:
        """Begin a run whose first new questions are answered by `decisions`, in order."""
        self.decisions = decisions
        self.known = dict(known)
        self.made: list[bool] = []

    def ask(self, key: str) -> bool:
        known = self.known.get(key)
        if known is not None:
            return known
        position = len(self.made)
        answer = self.decisions[position] if position < len(self.decisions) else True
        self.made.append(answer)
        self.known[key] = answer
        return answer

    def forget(self) -> None:
        """Data have changed: every question is open again."""
        self.known.clear()


class Abstraction:
    """machine: compiled from the definition without data. transitions: the chart's own, with their owners, by the
    machine's order. oracle: whom its guards ask."""

    def __init__(self, definition: d.Definition) -> None:
        self.oracle = Oracle()
        self.transitions: list[tuple[d.Definition | d.State, d.Transition]] = []
        rewriting = _Rewriting(self.oracle, self.transitions)
        abstract = rewriting.definition(definition)
        faults = Faults(Places.canonical(abstract))
        self.machine: ChartMachine = compile_definition(abstract, rewriting.functions, faults).machine


def asked_by(verdict: str) -> int | None:
    """The transition whose guard a verdict of the abstract machine is about."""
    mark = verdict.rpartition(_MARK)[2]
    return int(mark) if mark.isdigit() else None


def question(guard: d.Guard) -> tuple[str, bool]:
    """(what a guard asks, whether it passes if the answer is yes): one question for a guard and its negation."""
    if not isinstance(guard, str):
        return f"{guard.function}()", True
    text, positive = _stripped(guard), True
    while text.startswith("!") and (_wrapped(text[1:].strip()) or _TERM.fullmatch(text[1:].strip())):
        text, positive = _stripped(text[1:]), not positive
    compared = _COMPARED.fullmatch(_STRINGS.sub(_letters, text))
    if compared is not None:
        at, end = compared.span(2)
        left, operator, right = text[:at].strip(), text[at:end], text[end:].strip()
        if operator in (">", "<="):
            left, right = right, left
        if operator in ("==", "!="):
            left, right = sorted((left, right))
        text = f"{left} {'==' if operator in ('==', '!=') else '<'} {right}"
        positive = positive is (operator in ("==", "<", ">"))
    return text, positive


def asks_configuration(guard: d.Guard) -> bool:
    """Whether a guard is answered by the configuration alone."""
    return isinstance(guard, str) and not variables(guard)


def _letters(match: re.Match[str]) -> str:
    """A string of the same length with nothing in it that looks like an operator."""
    return "s" * len(match[0])


def _stripped(text: str) -> str:
    text = text.strip()
    while _wrapped(text):
        text = text[1:-1].strip()
    return text


def _wrapped(text: str) -> bool:
    """Whether the first parenthesis closes at the very end."""
    if not (text.startswith("(") and text.endswith(")")):
        return False
    depth = 0
    plain = _STRINGS.sub(_letters, text)
    for position, character in enumerate(plain):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return position == len(plain) - 1
    return False


class _Rewriting:
    def __init__(self, oracle: Oracle, transitions: list[tuple[d.Definition | d.State, d.Transition]]) -> None:
        self.oracle = oracle
        self.transitions = transitions
        self.functions: dict[str, Callable[..., Any]] = {_ASSIGN: self._assigned}

    def _assigned(self, context: object, event: object) -> dict[str, Any]:
        self.oracle.forget()
        return {}

    def definition(self, node: d.Definition) -> d.Definition:
        transitions = self._transitions(node)
        return d.Definition(
            name=node.name,
            expressions=node.expressions,
            initial=self._initial(node.initial),
            entry=self._actions(node.entry),
            exit=self._actions(node.exit),
            transitions=transitions,
            states=tuple(self._state(state) for state in node.states),
        )

    def _state(self, node: d.State) -> d.State:
        transitions = self._transitions(node)
        entry = self._actions(node.entry)
        if node.context or any(invoke.idlocation for invoke in node.invoke):
            entry = (*entry, d.Assign(function=_ASSIGN))
        return replace(
            node,
            context=(),
            initial=self._initial(node.initial),
            entry=entry,
            exit=self._actions(node.exit),
            invoke=(),
            transitions=transitions,
            states=tuple(self._state(state) for state in node.states),
            output=None,
        )

    def _initial(self, node: d.Initial | None) -> d.Initial | None:
        return replace(node, actions=self._actions(node.actions)) if node is not None else None

    def _transitions(self, owner: d.Definition | d.State) -> tuple[d.Transition, ...]:
        # The delays themselves don't matter, but those of the same text share a timer.
        delays = {text: f"{index}s" for index, text in enumerate(dict.fromkeys(t.delay for t in owner.transitions), 1)}
        rewritten = []
        for node in owner.transitions:
            order = len(self.transitions)
            self.transitions.append((owner, node))
            rewritten.append(
                replace(
                    node,
                    delay=delays[node.delay] if node.delay else "",
                    guard=self._guard(node.guard, str(order)) if node.guard is not None else None,
                    actions=self._actions(node.actions),
                )
            )
        return tuple(rewritten)

    def _guard(self, guard: d.Guard, mark: str) -> d.Guard:
        if isinstance(guard, str) and asks_configuration(guard):
            return f"{guard} {_MARK}{mark}"
        key, positive = question(guard)
        return self._question(f"{key} {_MARK}{mark}", key, positive)

    def _question(self, name: str, key: str, positive: bool = True) -> d.FunctionRef:
        ask = self.oracle.ask
        self.functions[name] = lambda context, event: ask(key) is positive
        return d.FunctionRef(function=name)

    def _actions(self, actions: tuple[d.AnyAction, ...]) -> tuple[d.AnyAction, ...]:
        return tuple(rewritten for action in actions for rewritten in self._action(action))

    def _action(self, action: d.AnyAction) -> tuple[d.AnyAction, ...]:
        if isinstance(action, d.Raise):
            return (d.Raise(event=action.event),)
        if isinstance(action, d.Send):
            return self._send(action)
        if isinstance(action, d.Assign | d.Script):
            return (d.Assign(function=_ASSIGN),)
        if isinstance(action, d.Block):
            return self._actions(action.actions)
        if isinstance(action, d.If):
            return self._if(action)
        if isinstance(action, d.Foreach):
            # How many items there are is data; what an item is, too.
            actions = (d.Assign(function=_ASSIGN), *self._actions(action.actions))
            guard = self._question(f"items {_MARK}f{len(self.functions)}", f"there are items in {action.array}")
            return (d.If(branches=(d.Branch(guard=guard, actions=actions),)), d.Assign(function=_ASSIGN))
        return ()

    def _send(self, action: d.Send) -> tuple[d.AnyAction, ...]:
        sent: tuple[d.AnyAction, ...] = (d.Assign(function=_ASSIGN),) if action.idlocation else ()
        if action.target == "#_internal" and action.event and not action.delay:
            sent = (*sent, d.Raise(event=action.event))
        return sent

    def _if(self, action: d.If) -> tuple[d.AnyAction, ...]:
        branches = [(branch, self._actions(branch.actions)) for branch in action.branches]
        otherwise = self._actions(action.otherwise)
        if not otherwise and not any(actions for _, actions in branches):
            return ()  # whichever way it goes, nothing is left of it
        asked = tuple(
            d.Branch(guard=self._guard(branch.guard, f"i{len(self.functions)}"), actions=actions)
            for branch, actions in branches
        )
        return (d.If(branches=asked, otherwise=otherwise),)
