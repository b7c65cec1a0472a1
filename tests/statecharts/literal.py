"""SCXML 1.0's Appendix D, transcribed procedure by procedure: slow, with sets and lists where the Recommendation
has them.

The judge of the real step function: random charts must come out the same here and there. It reads the definition
itself, shares no code with the machine, and knows only what the random charts use: `raise`, `if`, and guards
`In('x')`, `!In('x')`, `true` and `false`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from statewright.statecharts import definition as d


@dataclass(eq=False)
class Node:
    """A state, history states included; `scxml` is the root."""

    id: str
    kind: str
    parent: Node | None
    order: int
    initial: list[Node] = field(default_factory=list)
    initial_actions: tuple[d.AnyAction, ...] = ()
    deep: bool = False
    children: list[Node] = field(default_factory=list)
    history: list[Node] = field(default_factory=list)
    transitions: list[Arrow] = field(default_factory=list)
    entry: tuple[d.AnyAction, ...] = ()
    exit: tuple[d.AnyAction, ...] = ()


@dataclass(eq=False)
class Arrow:
    """A transition."""

    source: Node
    target: list[Node]
    events: tuple[str, ...]
    guard: str
    actions: tuple[d.AnyAction, ...]
    internal: bool


@dataclass
class Outcome:
    """What one macrostep did, in the terms of `Step`."""

    taken: list[tuple[str, str, tuple[str, ...]]] = field(default_factory=list)
    exited: list[str] = field(default_factory=list)
    entered: list[str] = field(default_factory=list)
    raised: list[str] = field(default_factory=list)


class TooManyMicrosteps(Exception):
    pass


class Interpreter:
    """One instance. `configuration` is the set of active nodes, the root left out as in the Recommendation."""

    def __init__(self, definition: d.Definition, microsteps_max: int) -> None:
        self.nodes: dict[str, Node] = {}
        self.microsteps_max = microsteps_max
        self.root = self._build(definition, None)
        self._link(definition, self.root)
        self.configuration: set[Node] = set()
        self.history_value: dict[str, list[Node]] = {}
        self.internal_queue: list[str] = []
        self.running = True
        self.outcome = Outcome()

    def names(self) -> tuple[str, ...]:
        return tuple(node.id for node in sorted(self.configuration, key=entry_order))

    def start(self) -> Outcome:
        self.outcome = Outcome()
        arrow = Arrow(self.root, self.root.initial, (), "true", self.root.initial_actions, False)
        self.enter_states([arrow])
        self.macrostep()
        return self.outcome

    def send(self, event: str) -> Outcome:
        """One turn of mainEventLoop's outer loop, for one external event."""
        self.outcome = Outcome()
        enabled = self.select_transitions(event)
        if enabled:
            self.microstep(enabled, event)
            self.macrostep()
        return self.outcome

    # procedure mainEventLoop, the inner loop
    def macrostep(self) -> None:
        count = 0
        done = False
        while self.running and not done:
            event = ""
            enabled = self.select_eventless_transitions()
            if not enabled:
                if not self.internal_queue:
                    done = True
                else:
                    event = self.internal_queue.pop(0)
                    self.outcome.raised.append(event)
                    enabled = self.select_transitions(event)
            if enabled:
                self.microstep(enabled, event)
            count += 1
            if count > self.microsteps_max:
                raise TooManyMicrosteps

    def select_eventless_transitions(self) -> list[Arrow]:
        enabled: list[Arrow] = []
        for state in sorted(filter(is_atomic, self.configuration), key=entry_order):
            for s in [state, *proper_ancestors(state, None)]:
                chosen = next((t for t in s.transitions if not t.events and self.condition_match(t)), None)
                if chosen is not None:
                    add(enabled, chosen)
                    break
        return self.remove_conflicting_transitions(enabled)

    def select_transitions(self, event: str) -> list[Arrow]:
        enabled: list[Arrow] = []
        for state in sorted(filter(is_atomic, self.configuration), key=entry_order):
            for s in [state, *proper_ancestors(state, None)]:
                chosen = next(
                    (t for t in s.transitions if t.events and name_match(t.events, event) and self.condition_match(t)),
                    None,
                )
                if chosen is not None:
                    add(enabled, chosen)
                    break
        return self.remove_conflicting_transitions(enabled)

    def remove_conflicting_transitions(self, enabled: list[Arrow]) -> list[Arrow]:
        filtered: list[Arrow] = []
        for t1 in enabled:
            preempted = False
            to_remove: list[Arrow] = []
            for t2 in filtered:
                if set(self.compute_exit_set([t1])) & set(self.compute_exit_set([t2])):
                    if is_descendant(t1.source, t2.source):
                        add(to_remove, t2)
                    else:
                        preempted = True
                        break
            if not preempted:
                for t3 in to_remove:
                    filtered.remove(t3)
                add(filtered, t1)
        return filtered

    def microstep(self, enabled: list[Arrow], event: str) -> None:
        for t in enabled:
            self.outcome.taken.append((t.source.id, event, tuple(node.id for node in t.target)))
        self.exit_states(enabled)
        for t in enabled:
            self.execute(t.actions)
        self.enter_states(enabled)

    def exit_states(self, enabled: list[Arrow]) -> None:
        states = sorted(self.compute_exit_set(enabled), key=entry_order, reverse=True)
        for s in states:
            for h in s.history:
                if h.deep:
                    kept = [s0 for s0 in self.configuration if is_atomic(s0) and is_descendant(s0, s)]
                else:
                    kept = [s0 for s0 in self.configuration if s0.parent is s]
                self.history_value[h.id] = sorted(kept, key=entry_order)
        for s in states:
            self.outcome.exited.append(s.id)
            self.execute(s.exit)
            self.configuration.remove(s)

    def compute_exit_set(self, transitions: list[Arrow]) -> list[Node]:
        states: list[Node] = []
        for t in transitions:
            if t.target:
                domain = self.get_transition_domain(t)
                for s in self.configuration:
                    if is_descendant(s, domain):
                        add(states, s)
        return states

    def enter_states(self, enabled: list[Arrow]) -> None:
        to_enter: list[Node] = []
        for_default: list[Node] = []
        default_history: dict[str, tuple[d.AnyAction, ...]] = {}
        self.compute_entry_set(enabled, to_enter, for_default, default_history)
        for s in sorted(to_enter, key=entry_order):
            self.configuration.add(s)
            self.outcome.entered.append(s.id)
            self.execute(s.entry)
            if s in for_default:
                self.execute(s.initial_actions)
            if s.id in default_history:
                self.execute(default_history[s.id])
            if s.kind == "final":
                parent = s.parent
                assert parent is not None
                if parent.parent is None:
                    self.running = False
                else:
                    grandparent = parent.parent
                    self.internal_queue.append(f"done.state.{parent.id}")
                    if grandparent.kind == "parallel" and all(map(self.is_in_final_state, grandparent.children)):
                        self.internal_queue.append(f"done.state.{grandparent.id}")

    def compute_entry_set(
        self,
        transitions: list[Arrow],
        to_enter: list[Node],
        for_default: list[Node],
        default_history: dict[str, tuple[d.AnyAction, ...]],
    ) -> None:
        for t in transitions:
            for s in t.target:
                self.add_descendants(s, to_enter, for_default, default_history)
            ancestor = self.get_transition_domain(t)
            for s in self.get_effective_target_states(t):
                self.add_ancestors(s, ancestor, to_enter, for_default, default_history)

    def add_descendants(
        self,
        state: Node,
        to_enter: list[Node],
        for_default: list[Node],
        default_history: dict[str, tuple[d.AnyAction, ...]],
    ) -> None:
        if state.kind == "history":
            parent = state.parent
            assert parent is not None
            targets = self.history_value.get(state.id)
            if not targets:
                default_history[parent.id] = state.initial_actions
                targets = state.initial
            for s in targets:
                self.add_descendants(s, to_enter, for_default, default_history)
            for s in targets:
                self.add_ancestors(s, parent, to_enter, for_default, default_history)
            return
        add(to_enter, state)
        if state.kind == "compound":
            add(for_default, state)
            for s in state.initial:
                self.add_descendants(s, to_enter, for_default, default_history)
            for s in state.initial:
                self.add_ancestors(s, state, to_enter, for_default, default_history)
        elif state.kind == "parallel":
            for child in state.children:
                if not any(is_descendant(s, child) for s in to_enter):
                    self.add_descendants(child, to_enter, for_default, default_history)

    def add_ancestors(
        self,
        state: Node,
        ancestor: Node | None,
        to_enter: list[Node],
        for_default: list[Node],
        default_history: dict[str, tuple[d.AnyAction, ...]],
    ) -> None:
        for anc in proper_ancestors(state, ancestor):
            if anc.parent is None:
                continue  # the root is no state that is entered
            add(to_enter, anc)
            if anc.kind == "parallel":
                for child in anc.children:
                    if not any(is_descendant(s, child) for s in to_enter):
                        self.add_descendants(child, to_enter, for_default, default_history)

    def is_in_final_state(self, s: Node) -> bool:
        if s.kind == "compound":
            return any(c.kind == "final" and c in self.configuration for c in s.children)
        if s.kind == "parallel":
            return all(map(self.is_in_final_state, s.children))
        return False

    def get_transition_domain(self, t: Arrow) -> Node:
        targets = self.get_effective_target_states(t)
        source = t.source
        if source.parent is None:
            return source
        if t.internal and source.kind == "compound" and all(is_descendant(s, source) for s in targets):
            return source
        return find_lcca([source, *targets])

    def get_effective_target_states(self, t: Arrow) -> list[Node]:
        return self._effective(t.target)

    def _effective(self, targets: list[Node]) -> list[Node]:
        effective: list[Node] = []
        for s in targets:
            if s.kind != "history":
                add(effective, s)
            elif self.history_value.get(s.id):
                for remembered in self.history_value[s.id]:
                    add(effective, remembered)
            else:
                for default in self._effective(s.initial):
                    add(effective, default)
        return effective

    # executable content and guards, as far as the random charts have them
    def execute(self, actions: tuple[d.AnyAction, ...]) -> None:
        for action in actions:
            if isinstance(action, d.Raise):
                self.internal_queue.append(action.event)
            elif isinstance(action, d.If):
                for branch in action.branches:
                    assert isinstance(branch.guard, str)
                    if self.holds(branch.guard):
                        self.execute(branch.actions)
                        break
                else:
                    self.execute(action.otherwise)
            else:
                raise TypeError(type(action))

    def condition_match(self, t: Arrow) -> bool:
        return self.holds(t.guard)

    def holds(self, guard: str) -> bool:
        if guard in ("true", "false"):
            return guard == "true"
        negated = guard.startswith("!")
        asked = guard.removeprefix("!").removeprefix("In('").removesuffix("')")
        return (asked in self.names()) != negated

    # building
    def _build(self, source: d.Definition | d.State, parent: Node | None) -> Node:
        if isinstance(source, d.Definition):
            node = Node("", "compound", None, 0)
        else:
            node = Node(source.id, source.type, parent, len(self.nodes) + 1)
            node.deep = source.history == "deep"
            self.nodes[source.id] = node
            assert parent is not None
            (parent.history if source.type == "history" else parent.children).append(node)
        node.entry, node.exit = source.entry, source.exit
        for child in source.states:
            self._build(child, node)
        return node

    def _link(self, source: d.Definition | d.State, node: Node) -> None:
        if source.initial is not None:
            node.initial = [self.nodes[target] for target in source.initial.target]
            node.initial_actions = source.initial.actions
        elif node.kind == "compound":
            node.initial = node.children[:1]
        elif node.kind == "history":
            assert node.parent is not None
            node.initial = node.parent.initial if node.parent.kind == "compound" else node.parent.children
        for t in source.transitions:
            assert t.guard is None or isinstance(t.guard, str)
            target = [self.nodes[name] for name in t.target]
            node.transitions.append(Arrow(node, target, t.events, t.guard or "true", t.actions, t.internal))
        for child in source.states:
            self._link(child, self.nodes[child.id])


def add(items: list, item: object) -> None:  # type: ignore[type-arg]
    """OrderedSet.add."""
    if item not in items:
        items.append(item)


def entry_order(node: Node) -> int:
    return node.order


def is_atomic(node: Node) -> bool:
    return not node.children


def is_descendant(node: Node, ancestor: Node) -> bool:
    return ancestor in proper_ancestors(node, None)


def proper_ancestors(node: Node, end: Node | None) -> list[Node]:
    """The ancestors in ancestry order, without `end`; none if `end` is the node, its descendant or its parent."""
    ancestors = []
    parent = node.parent
    while parent is not None and parent is not end:
        ancestors.append(parent)
        parent = parent.parent
    return ancestors


def find_lcca(states: list[Node]) -> Node:
    for ancestor in proper_ancestors(states[0], None):
        compound_or_root = ancestor.kind == "compound" or ancestor.parent is None
        if compound_or_root and all(is_descendant(s, ancestor) for s in states[1:]):
            return ancestor
    raise AssertionError("the root is an ancestor of all states")


def name_match(descriptors: tuple[str, ...], event: str) -> bool:
    """SCXML 3.12.1: some descriptor is `*` or, token by token, a prefix of the event's name."""
    tokens = event.split(".")
    for descriptor in descriptors:
        wanted = descriptor.removesuffix("*").removesuffix(".")
        if not wanted or tokens[: len(wanted.split("."))] == wanted.split("."):
            return True
    return False
