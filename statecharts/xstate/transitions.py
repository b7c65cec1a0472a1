"""Transitions as XState selects and takes them, said in SCXML's terms.

XState differs in four ways; each is expressed where it can be, and refused where it cannot:

- A transition without `reenter` keeps its source active: that is SCXML's internal transition, or, to itself, one
  without a target. XState keeps parallel states active too, SCXML only compound ones.
- A descriptor fits one name (`a` not `a.b`), and the longest comes first, whatever the order in which they are written.
- `*` fits no events that XState does not have: results of plain actions, errors of evaluation.
- If one region of a parallel state takes an event, a state around it does not, even if it could for another region.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from statewright.statecharts import definition as d
from statewright.statecharts.places import Path
from statewright.statecharts.xstate import guards as g
from statewright.statecharts.xstate.names import StateNode, common_ancestor

ALWAYS_SENT = ("error.execution", "done.state.*", "done.effect.*", "error.effect.*", "done.invoke.*", "error.invoke.*")
"""Events that nobody has to name for them to come."""
_FOREIGN = ("done.effect.*", "error.effect.*", "error.execution", "error.communication")


class Draft(NamedTuple):
    """A transition as it is written, its targets resolved. No `descriptors` and no `delay`: it is eventless."""

    source: StateNode
    place: Path
    descriptors: tuple[str, ...] = ()
    delay: str = ""
    targets: tuple[StateNode, ...] = ()
    guard: g.Guard | None = None
    actions: tuple[d.AnyAction, ...] = ()
    reenter: bool = False
    description: str = ""


class Form(NamedTuple):
    """How SCXML says where a transition leads. `fault` is why it can't."""

    targets: tuple[StateNode, ...] = ()
    internal: bool = False
    fault: str = ""


def form(draft: Draft, root: StateNode) -> Form:
    """What leaves and enters in SCXML what `draft` does in XState."""
    source, targets = draft.source, draft.targets
    if not targets:
        return Form()
    inner = not draft.reenter and all(target is source or target.is_inside(source) for target in targets)
    if inner and targets == (source,) and not source.children:
        return Form()
    if inner and source.kind == "compound":
        begin = (source.initial,) if source.initial is not None and source in targets else targets
        return Form(begin, internal=source is not root or bool(root.id))
    domain = source if inner else common_ancestor([*targets, source])
    if domain is None:  # reenter from the machine itself
        what = "enters the machine itself again" if notices(source) else ""
        return Form(targets, fault=what)
    fault = ""
    if domain.kind == "parallel" and (notices(domain) or (domain.parent and domain.parent.kind == "parallel")):
        fault = f"keeps the parallel state {domain.said} active"
    return Form(targets, fault=fault)


def notices(node: StateNode) -> bool:
    """Whether something happens when the state is left and entered again."""
    has = any(node.config.get(key) for key in ("entry", "exit", "after", "invoke"))
    return has or any(child.kind == "history" for child in node.children.values())


def ordered(drafts: Iterable[Draft]) -> list[Draft]:
    """In the order in which XState tries those of one state: names, then wildcards, the longest first."""
    return sorted(drafts, key=lambda draft: _rank(draft.descriptors[0]) if draft.descriptors else 0)


def _rank(descriptor: str) -> int:
    return -len(descriptor) if descriptor.endswith("*") else -(10**6)


def narrowed(draft: Draft, prefixes: Collection[str], invoked: Iterable[str], root: StateNode) -> g.Guard | None:
    """Its guard, and that the event is one that XState's descriptor fits. `prefixes` are what names of
    other events begin with, `invoked` the names of actors' results."""
    guard = draft.guard
    # When the machine itself is done XState does nothing any more.
    foreign_names = (*_FOREIGN, f"done.state.{root.id}") if root.id else _FOREIGN
    for descriptor in draft.descriptors:
        if descriptor == "*":
            foreign = g.Not(g.AnyOf(tuple(map(g.Named, foreign_names))))
            results = tuple(map(g.Named, invoked))
            guard = g.both(g.AnyOf((foreign, *results)) if results else foreign, guard)
        elif not descriptor.endswith("*") and descriptor in prefixes:
            guard = g.both(g.Named(descriptor), guard)
    return guard


def rivals(draft: Draft, drafts: dict[StateNode, list[Draft]], root: StateNode) -> Iterator[g.Guard]:
    """When a region of a parallel state takes the event instead: XState then leaves `draft` out, SCXML only if both
    leave some same state, which is so whenever both leave any."""
    if not draft.descriptors:
        return
    stays = not form(draft, root).targets
    for region in _regions(draft.source):
        for state in (region, *region.below()):
            fitting = [(other, fit) for other in drafts.get(state, ()) if (fit := _overlap(draft, other))]
            whens = [_when(other, fit) for other, fit in fitting if stays or not form(other, root).targets]
            if whens:
                always = any(when is None for when in whens)
                guard = None if always else g.AnyOf(tuple(when for when in whens if when is not None))
                when_active = g.both(g.active(state.id), guard)
                assert when_active is not None
                yield when_active


def _when(draft: Draft, fit: str) -> g.Guard | None:
    """When a transition of an active state is enabled by an event that may `fit` it; None: always."""
    return draft.guard if fit == "same" else g.both(g.Named(draft.descriptors[0]), draft.guard)


def _regions(node: StateNode) -> Iterator[StateNode]:
    """The outermost regions of parallel states in or at the state."""
    for child in node.children.values():
        if node.kind == "parallel":
            yield child
        else:
            yield from _regions(child)


def _overlap(outer: Draft, inner: Draft) -> str:
    """`same` if every event that `outer` takes fits `inner`, `some` if some may, else nothing."""
    if not inner.descriptors:
        return ""
    one, other = outer.descriptors[0], inner.descriptors[0]
    if other == "*" or one == other or (other.endswith(".*") and g.fits(one.removesuffix(".*"), other)):
        return "same"
    return "some" if one.endswith("*") and g.fits(other.removesuffix(".*"), one) else ""
