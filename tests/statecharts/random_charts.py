"""Hypothesis strategies for charts and event lists: parallel and nested states, history, several targets, internal,
eventless and targetless transitions, `In()` guards, raised events."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

EVENTS = ("a", "b", "c.x", "c.y")
DESCRIPTORS = ("a", "b", "c", "c.x", "c.*", "a", "b", "c.x", "a c.y", "d.x", "d", "done.state", "*")
RAISED = ("d", "d.x", "d.y", "e")

Tree = dict[str, Any]


class Skeleton:
    """The tree of a random chart while it is drawn: ids, kinds and parents."""

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}
        self.parents: dict[str, str] = {}
        self.trees: dict[str, Tree] = {}

    def add(self, kind: str, parent: str, tree: Tree) -> str:
        name = f"s{len(self.kinds)}"
        self.kinds[name], self.parents[name], self.trees[name] = kind, parent, tree
        tree["id"] = name
        return name

    def ancestors(self, name: str) -> list[str]:
        found = []
        while name := self.parents.get(name, ""):
            found.append(name)
        return found

    def orthogonal(self, one: str, other: str) -> bool:
        line = [one, *self.ancestors(one)]
        common = next((name for name in [other, *self.ancestors(other)] if name in line), "")
        return common not in ("", one, other) and self.kinds[common] == "parallel"

    def inside(self, parent: str, *, history: bool = True) -> list[str]:
        return [n for n, k in self.kinds.items() if parent in self.ancestors(n) and (history or k != "history")]


@st.composite
def charts(draw: st.DrawFn) -> Tree:
    """The written form of a legal chart."""
    skeleton = Skeleton()
    states = [_state(draw, skeleton, "", 1) for _ in range(draw(st.integers(1, 3)))]
    if _one_in(draw, 3):
        final: Tree = {"type": "final"}
        skeleton.add("final", "", final)
        states.append(final)
    chart: Tree = {"name": "random", "states": states}
    for name, kind in list(skeleton.kinds.items()):
        _furnish(draw, skeleton, name, kind)
    if draw(st.booleans()):
        chart["initial"] = _targets(draw, skeleton, [n for n, k in skeleton.kinds.items() if k != "history"])
    if _one_in(draw, 5):
        chart["transitions"] = [_transition(draw, skeleton)]
    return chart


def _state(draw: st.DrawFn, skeleton: Skeleton, parent: str, depth: int) -> Tree:
    options = ["atomic"] if depth > 3 or len(skeleton.kinds) > 14 else ["atomic", "compound", "compound", "parallel"]
    kind = draw(st.sampled_from(options))
    tree: Tree = {"type": kind}
    name = skeleton.add(kind, parent, tree)
    if kind != "atomic":
        children = [_state(draw, skeleton, name, depth + 1) for _ in range(draw(st.integers(1, 3)))]
        if kind == "compound" and draw(st.integers(0, 2)) == 0:
            final: Tree = {"type": "final"}
            skeleton.add("final", name, final)
            children.append(final)
        if _one_in(draw, 3):
            history: Tree = {"history": draw(st.sampled_from(["shallow", "deep"]))}
            skeleton.add("history", name, history)
            children.insert(draw(st.integers(0, len(children))), history)
        tree["states"] = children
    return tree


def _furnish(draw: st.DrawFn, skeleton: Skeleton, name: str, kind: str) -> None:
    tree = skeleton.trees[name]
    if kind == "history":
        parent = skeleton.parents[name]
        inside = skeleton.inside(parent, history=False)
        if tree["history"] == "shallow":
            inside = [child for child in inside if skeleton.parents[child] == parent]
        begins = skeleton.trees[parent].get("initial", {"target": []})["target"]
        if any(skeleton.kinds[target] == "history" for target in begins) or draw(st.booleans()):
            tree["target"] = _targets(draw, skeleton, inside)
            tree["actions"] = _actions(draw, skeleton)
        return
    tree["entry"], tree["exit"] = _actions(draw, skeleton), _actions(draw, skeleton)
    if kind == "compound" and draw(st.booleans()):
        tree["initial"] = {
            "target": _targets(draw, skeleton, skeleton.inside(name)),
            "actions": _actions(draw, skeleton),
        }
    if kind != "final":
        tree["transitions"] = [_transition(draw, skeleton) for _ in range(draw(st.integers(0, 3)))]


def _one_in(draw: st.DrawFn, count: int) -> bool:
    """True about once in `count` times; hypothesis favours the ends of a range, so ask for none of them."""
    return draw(st.sampled_from(range(count))) == count // 2


def _targets(draw: st.DrawFn, skeleton: Skeleton, among: list[str]) -> list[str]:
    targets = [draw(st.sampled_from(among))]
    for name in draw(st.lists(st.sampled_from(among), max_size=2)):
        if all(skeleton.orthogonal(name, other) for other in targets):
            targets.append(name)
    return targets


def _transition(draw: st.DrawFn, skeleton: Skeleton) -> Tree:
    tree: Tree = {"actions": _actions(draw, skeleton), "internal": draw(st.booleans())}
    if not _one_in(draw, 12):
        tree["events"] = draw(st.sampled_from(DESCRIPTORS))
    if not _one_in(draw, 6):
        tree["target"] = _targets(draw, skeleton, list(skeleton.kinds))
    if "events" not in tree:
        # Mostly such that taking it makes the guard false: else every second chart would go round for ever.
        asked = draw(st.sampled_from(tree.get("target") or list(skeleton.kinds)))
        tree["guard"] = f"!In('{asked}')"
    elif draw(st.booleans()):
        tree["guard"] = _guard(draw, skeleton)
    return tree


def _guard(draw: st.DrawFn, skeleton: Skeleton) -> str:
    asked = draw(st.sampled_from(list(skeleton.kinds)))
    return draw(st.sampled_from(["true", "false", f"In('{asked}')", f"!In('{asked}')"]))


def _actions(draw: st.DrawFn, skeleton: Skeleton) -> list[Tree]:
    actions: list[Tree] = []
    if _one_in(draw, 8):
        event = draw(st.sampled_from(RAISED))
        if draw(st.booleans()):
            actions.append({"raise": event})
        else:
            actions.append({"if": {"guard": _guard(draw, skeleton), "then": [{"raise": event}], "else": []}})
    return actions


events = st.lists(st.sampled_from(EVENTS), max_size=16)
