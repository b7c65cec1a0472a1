"""What a chart says, in the words of a statechart diagram: `event [guard] / actions`, `entry / …`, `after 24h`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from statewright.statecharts import definition as d


def trigger(transition: d.Transition) -> str:
    """What fires a transition: its events, its delay, or `always`."""
    if transition.events:
        return " ".join(transition.events)
    return f"after {transition.delay}" if transition.delay else "always"


def guard(value: d.Guard) -> str:
    """A guard in brackets: its CEL text, or the name of its function."""
    return f"[{value if isinstance(value, str) else value.function}]"


def actions(items: Iterable[d.AnyAction]) -> str:
    """Actions in order, parted by commas."""
    return ", ".join(map(action, items))


def action(item: d.AnyAction) -> str:
    """One action in a few words; what it contains is said too."""
    match item:
        case d.Perform():
            return item.name
        case d.Assign():
            return f"assign {', '.join(item.values) or item.function}"
        case d.Raise():
            return f"raise {item.event}"
        case d.Send():
            event = item.event or f"({item.eventexpr})"
            target = item.target or (f"({item.targetexpr})" if item.targetexpr else "")
            return (
                f"send {event}" + (f" to {target}" if target else "") + (f" after {item.delay}" if item.delay else "")
            )
        case d.Cancel():
            return f"cancel {item.sendid or f'({item.sendidexpr})'}"
        case d.Emit():
            return f"emit {item.subject or f'({item.subjectexpr})'}"
        case d.Call():
            return f"call {item.service}.{item.method}"
        case d.RunStep():
            return f"run step {item.step}"
        case d.Record():
            return f"record {item.step} {item.status}"
        case d.Log():
            return f"log {item.label or item.expr}"
        case d.Script():
            return f"script {item.source}"
        case d.Foreach():
            return f"for each {item.item} of {item.array}: {actions(item.actions)}"
        case d.Block():
            return actions(item.actions)
        case d.If():
            return "; ".join(_branches(item))


def details(owner: d.Definition | d.State) -> Iterator[str]:
    """What a state does by itself, a line each: on entry and exit, its children, what it answers without leaving."""
    if owner.entry:
        yield f"entry / {actions(owner.entry)}"
    if owner.exit:
        yield f"exit / {actions(owner.exit)}"
    if isinstance(owner, d.State):
        yield from map(_invoke, owner.invoke)
        if owner.output is not None:
            yield f"output {', '.join(owner.output) if isinstance(owner.output, dict) else owner.output}"


def reaction(transition: d.Transition) -> str:
    """A transition without a target, on one line."""
    parts = [trigger(transition)]
    if transition.guard is not None:
        parts.append(guard(transition.guard))
    if transition.actions:
        parts.append(f"/ {actions(transition.actions)}")
    return " ".join(parts)


def _branches(item: d.If) -> Iterator[str]:
    for index, branch in enumerate(item.branches):
        yield f"{'else ' * bool(index)}if {guard(branch.guard)} {actions(branch.actions)}".rstrip()
    if item.otherwise:
        yield f"else {actions(item.otherwise)}"


def _invoke(invoke: d.Invoke) -> str:
    if invoke.chart is not None:
        what = invoke.chart.name
    else:
        what = invoke.src or f"({invoke.srcexpr or invoke.contentexpr})"
    return f"invoke {what}" + (f" as {invoke.id}" if invoke.id and invoke.id != what else "")
