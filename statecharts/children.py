"""Children: sessions that a state invokes and that live no longer than it (SCXML 1.0, 6.4 and 6.5).

A step only says which child to start, cancel or pass an event on to; the host does it. Which children are active is
`Snapshot.invoked`. A child is started when the macrostep that entered its state is over, and only if the state is
still active then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from statewright.statecharts.facts import CancelChild, ForwardEvent, Request, Snapshot, StartChild

if TYPE_CHECKING:
    from statewright.statecharts.actions import Block, Operation
    from statewright.statecharts.machine import ChartState
    from statewright.statecharts.step import Macrostep


class Child(NamedTuple):
    """A compiled invoke. `request` evaluates what it says and raises ActionError where that fails."""

    key: str
    state: ChartState
    request: Callable[[Macrostep], StartChild]
    finalize: Block
    autoforward: bool


class Family:
    """What one macrostep has to do with children and late data.

    entered, invoked: as in `Snapshot`, as of now. to_invoke: the states whose children are to be started. requests:
    what is asked of other sessions, in order.
    """

    __slots__ = ("entered", "invoked", "requests", "to_invoke")

    def __init__(self, before: Snapshot) -> None:
        self.entered = before.entered
        self.invoked = before.invoked
        self.to_invoke = 0
        self.requests: list[Request] = []


def child_key(state: str, index: int) -> str:
    """The key of a state's invoke number `index`."""
    return f"{state}#{index}"


class Kin(NamedTuple):
    """Who invoked a session: its parent's and its first session's id, and the invoke's. Empty if nobody did."""

    parent: str = ""
    invokeid: str = ""
    root: str = ""


NOBODY = Kin()


def child_session(session: str, invokeid: str) -> str:
    """The session id of a simulated child."""
    return f"{session}.{invokeid}"


def is_of_family(session: str, root: str) -> bool:
    """Whether a session id is that of the first session `root`, or made from it: by the simulation with a dot, by the
    engine (an effect's id) with a hyphen."""
    return session == root or session.startswith((f"{root}.", f"{root}-"))


def receive(run: Macrostep) -> None:
    """Before a transition is chosen: finalize what comes from a child, pass on what a child wants to hear."""
    event, machine, family = run.event, run.machine, run.relate()
    for invokeid, key in family.invoked.items():
        child = machine.children[key]
        if event.invokeid == invokeid:
            run.run(child.finalize)
            if event.name in (f"done.invoke.{invokeid}", f"error.invoke.{invokeid}"):
                family.invoked = {other: its for other, its in family.invoked.items() if other != invokeid}
                continue
        if child.autoforward and event.name not in machine.delay_events:
            # SCXML wants an exact copy (6.4); to a strict chart the id would be of an invoke of its own.
            family.requests.append(ForwardEvent(invokeid, replace(event, invokeid="") if machine.strict else event))


def begin(run: Macrostep) -> None:
    """Start the children of the states that were entered and are still active, in document order."""
    family = run.relate()
    states, family.to_invoke = family.to_invoke, 0
    for child in run.machine.children.values():
        if child.state.bit & states:
            run.run((_starting(child),))


def _starting(child: Child) -> Operation:
    def start(run: Macrostep) -> None:
        request, family = child.request(run), run.relate()
        family.invoked = {**family.invoked, request.invokeid: child.key}
        family.requests.append(request)

    return start


def mark(state: ChartState) -> Block:
    """The block of a state's entry that has its children started."""

    def to_invoke(run: Macrostep) -> None:
        run.relate().to_invoke |= state.bit

    return (to_invoke,)


def end(state: ChartState) -> Block:
    """The block of a state's exit that cancels its children."""
    prefix = f"{state.id}#"

    def cancel(run: Macrostep) -> None:
        family = run.relate()
        family.to_invoke &= ~state.bit
        gone = [invokeid for invokeid, key in family.invoked.items() if key.startswith(prefix)]
        if gone:
            family.invoked = {other: key for other, key in family.invoked.items() if other not in gone}
            family.requests += [CancelChild(invokeid) for invokeid in gone]

    return (cancel,)
