"""Instances that invoke each other: how what a step asks of them becomes effects, and who knows whom.

Whatever crosses from one instance to another is an effect of the one that asks, written in the transaction of its fact
and performed after it (`engine/messages.py`):

    start    begin the child that a state has invoked; the child's id is made from the effect's
    send     deliver an event to another instance
    forward  deliver the event of the step to a child too
    cancel   end a child, because its state was left or its parent has ended
    done     tell the parent that the child has ended, and how

So a crash loses none of it and does none of it twice. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from statewright.engine.events import ChildLink, Macrostep, ParentLink, RequestedEffect, Trigger
from statewright.engine.instance import Instance
from statewright.statecharts.dynamic import location
from statewright.statecharts.facts import CancelChild, Event, ForwardEvent, Request, SendEvent, StartChild, Step

KINDS = ("start", "send", "forward", "cancel", "done")
"""The kinds of effects that instances ask of each other."""
LASTING = frozenset({"start", "cancel", "done"})
"""Those that are performed even if the instance that asked for them is cancelled meanwhile. A "start" is, because a
"cancel" follows it: to drop it would race with whoever is just performing it."""
GENERATIONS_MAX = 32
"""How far a child may be from the first of its family: one that invokes itself would go on for ever."""
_ID_CHARS_MAX = 128

M = TypeVar("M", bound=Macrostep)


class Start(msgspec.Struct, frozen=True):
    """The data of a "start": which child to begin, as what, and what the step said about it."""

    to: str
    parent: ParentLink
    request: StartChild


class Message(msgspec.Struct, frozen=True):
    """The data of a "send", "forward", "cancel" (without an event) and "done". `to` is "" if nobody is there."""

    to: str
    event: Event | None = None


def child_id(effect_id: str) -> str:
    """The id of the child that a "start" begins: the effect's own, shortened if it is longer than an id may be."""
    if len(effect_id) <= _ID_CHARS_MAX:
        return effect_id
    digest = blake2b(effect_id.encode(), digest_size=16).hexdigest()
    return f"{effect_id[: _ID_CHARS_MAX - len(digest) - 1]}-{digest}"


def with_relatives(
    fact: M, step: Step, parent: ParentLink | None, children: Mapping[str, ChildLink], bound: tuple[str, ...]
) -> M:
    """`fact` with what its step means for other instances. `parent` and `children` are the instance's before it,
    `bound` the states whose late data was bound in it."""
    asked = _Asked(fact.instance_id, fact.sequence, fact.effects, parent, children)
    for request in step.requests:
        asked.add(request)
    if fact.status == "completed" and parent is not None:
        asked.done(f"done.invoke.{parent.invokeid}", step.output)
    elif fact.status in ("failed", "cancelled") and parent is not None:
        asked.done(f"error.invoke.{parent.invokeid}", {"message": step.error or fact.status})
    active = step.snapshot.invoked
    after = {invokeid: child for invokeid, child in asked.children.items() if invokeid in active}
    return replace(
        fact,
        effects=tuple(asked.effects),
        children_ended=tuple(invokeid for invokeid, child in children.items() if after.get(invokeid) is not child),
        children_started=tuple(child for invokeid, child in after.items() if children.get(invokeid) is not child),
        bound=bound,
    )


def at_the_end(instance: Instance, error: str = "") -> tuple[RequestedEffect, ...]:
    """What is asked of the relatives of an instance that is ended, by its next fact, without its chart being asked: its
    children are cancelled, and its parent is told why (not with an empty `error`)."""
    asked = _Asked(instance.id, instance.sequence + 1, (), instance.parent, instance.children)
    for invokeid in instance.children:
        asked.add(CancelChild(invokeid))
    if error and instance.parent is not None:
        asked.done(f"error.invoke.{instance.parent.invokeid}", {"message": error})
    return tuple(asked.effects)


def asked_while_stopping(instance: Instance, step: Step) -> tuple[RequestedEffect, ...]:
    """The effects of the exit actions that ran because the parent has ended `instance`, and those on its relatives."""
    sequence = instance.sequence + 1
    own = effects_of(instance.id, sequence, step)
    asked = _Asked(instance.id, sequence, own, instance.parent, instance.children)
    for request in step.requests:
        if isinstance(request, CancelChild):  # Nothing else that it still says counts.
            asked.add(request)
    return tuple(asked.effects)


def sent_on(instance: Instance, trigger: Trigger) -> tuple[RequestedEffect, ...]:
    """The effect that takes a delayed event to its target, asked for by the next fact of `instance`."""
    asked = _Asked(instance.id, instance.sequence + 1, (), instance.parent, instance.children)
    asked.add(SendEvent(trigger.target, trigger.name, trigger.data, trigger.sendid, trigger.origintype))
    return tuple(asked.effects)


def is_stale(instance: Instance, trigger: Trigger) -> bool:
    """Whether a message is from a child, or about one, in whose place there is another by now."""
    if trigger.kind != "message" or not trigger.invokeid:
        return False
    child = instance.children.get(trigger.invokeid)
    return child is not None and child.instance_id != trigger.sender


def effects_of(instance_id: str, sequence: int, step: Step) -> tuple[RequestedEffect, ...]:
    """The effects that a step's actions ask for."""
    return tuple(
        [
            RequestedEffect(
                f"{instance_id}-{sequence}-{index}", effect.name, effect.kind, effect.data, effect.state, effect.policy
            )
            for index, effect in enumerate(step.effects)
        ]
    )


class _Asked:
    """Effects in the making: requests in order, with the children as they are by then."""

    def __init__(
        self,
        instance_id: str,
        sequence: int,
        effects: tuple[RequestedEffect, ...],
        parent: ParentLink | None,
        children: Mapping[str, ChildLink],
    ) -> None:
        self.effects = list(effects)
        self.children = dict(children)
        self._instance_id = instance_id
        self._sequence = sequence
        self._parent = parent

    def add(self, request: Request) -> None:
        if isinstance(request, StartChild):
            self._start(request)
        elif isinstance(request, CancelChild):
            child = self.children.pop(request.invokeid, None)
            if child is not None:
                self._ask("cancel", request.invokeid, Message(child.instance_id))
        elif isinstance(request, ForwardEvent):
            child = self.children.get(request.invokeid)
            if child is not None:
                self._ask("forward", request.event.name, Message(child.instance_id, request.event))
        else:
            self._send(request)

    def done(self, name: str, output: Any) -> None:
        assert self._parent is not None
        event = Event(name, output, invokeid=self._parent.invokeid)
        self._ask("done", name, Message(self._parent.instance_id, event))

    def _start(self, request: StartChild) -> None:
        to = child_id(self._next_id())
        root, generation = self._instance_id, 1
        if self._parent is not None:
            root, generation = self._parent.root, self._parent.generation + 1
        link = ParentLink(self._instance_id, request.invokeid, root, generation)
        self.children[request.invokeid] = ChildLink(request.invokeid, request.key, to)
        self._ask("start", request.invokeid, Start(to, link, request))

    def _send(self, request: SendEvent) -> None:
        parent = self._parent
        to, invokeid = "", ""
        if request.target == "#_parent":
            if parent is not None:
                to, invokeid = parent.instance_id, parent.invokeid
        elif request.target.startswith(prefix := location("")):
            to = request.target.removeprefix(prefix)
            # A parent may be addressed by its session as well: it is the same message.
            invokeid = parent.invokeid if parent is not None and parent.instance_id == to else ""
        elif (child := self.children.get(request.target.removeprefix("#_"))) is not None:
            to = child.instance_id
        origin = location(self._instance_id) if request.origintype else ""
        event = Event(
            request.event,
            request.data,
            sendid=request.sendid,
            origin=origin,
            origintype=request.origintype,
            invokeid=invokeid,
        )
        self._ask("send", request.event, Message(to, event))

    def _ask(self, kind: str, name: str, data: Start | Message) -> None:
        self.effects.append(RequestedEffect(self._next_id(), name, kind, msgspec.to_builtins(data)))

    def _next_id(self) -> str:
        return f"{self._instance_id}-{self._sequence}-{len(self.effects)}"
