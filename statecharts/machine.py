"""A chart compiled onto the classes of `transitions`: immutable, shared by all instances and threads.

`ChartMachine`, `ChartState` and `ChartTransition` are a `HierarchicalMachine`, its `NestedState`s and
`NestedTransition`s, so what reads those (markup, introspection) reads ours. They hold no model and run nothing: the
step function is in `step.py`. `transitions` would import a callback that is named by a dotted path; here callbacks
come from the chart's registry when it is compiled, and `resolve_callable` refuses anything else.

Ids are flat and unique in the chart, as in SCXML. A configuration is an int: bit i is the i-th state in document
order, bit 0 the root. Caches are capped and only ever hold what can be computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from transitions.extensions.nesting import HierarchicalMachine, NestedState, NestedTransition

from statewright.statecharts import step as stepping
from statewright.statecharts.caches import CACHED_MAX, JOINT_MAX, PLANS_MAX, WIDE_MAX, keep
from statewright.statecharts.children import NOBODY, Child, Kin
from statewright.statecharts.context import Context
from statewright.statecharts.definition import FinalStatus, Json
from statewright.statecharts.errors import StatewrightError, UnknownState
from statewright.statecharts.facts import Event, Snapshot, Step, Taken, Verdict
from statewright.statecharts.plans import EntrySet, Plan

if TYPE_CHECKING:
    from statewright.statecharts.actions import Block
    from statewright.statecharts.context import ContextType
    from statewright.statecharts.expressions import Expression

SEPARATOR = "/"
"""Between the names of nested states in `transitions`' own views; no id can hold it."""
_MANY = 32
"""From how many members on a set is read digit by digit."""


class ChartState(NestedState):
    """One state with its bit, its relatives as sets, and its compiled actions. Built by the compiler, then left
    alone.
    """

    separator = SEPARATOR

    # What few states have.
    deep = False
    status: FinalStatus = "completed"
    output: Callable[[Any], Json] | None = None

    def __init__(self, state_id: str, kind: str, index: int, parent: ChartState | None) -> None:
        super().__init__(state_id, final=kind == "final")
        self.id = state_id
        self.kind = kind
        self.index = index
        self.bit = 1 << index
        self.parent = parent
        self.is_compound = kind == "compound"
        self.is_parallel = kind == "parallel"
        self.is_history = kind == "history"
        self.children: list[ChartState] = []
        self.histories: list[ChartState] = []
        self.transitions: list[ChartTransition] = []
        self.ancestors: int = parent.ancestors | parent.bit if parent else 0
        self.descendants = 0
        self.child_bits = 0
        self.final_bits = 0
        self.initial_states: tuple[ChartState, ...] = ()
        self.entry_blocks: tuple[Block, ...] = ()
        self.exit_blocks: tuple[Block, ...] = ()
        self.initial_block: Block = ()
        self.final_block: Block = ()

    def is_done(self, configuration: int) -> bool:
        """Procedure isInFinalState. Finished regions are counted, not visited: each compound one holds one active
        child.
        """
        if self.is_compound:
            return configuration & self.final_bits != 0
        if not self.is_parallel:
            return False
        if self.final_bits:
            return (configuration & self.final_bits).bit_count() == len(self.children)
        return all(child.is_done(configuration) for child in self.children)


class ChartTransition(NestedTransition):
    """One transition with its compiled guard, actions and plans."""

    def __init__(self, source: ChartState, targets: Sequence[ChartState], order: int) -> None:
        super().__init__(path_of(source), path_of(targets[0]) if targets else "")
        self.owner = source
        self.targets = tuple(targets)
        self.target_ids = tuple(target.id for target in targets)
        self.order = order
        self.internal = False
        self.descriptors: tuple[str, ...] = ()
        self.delay_event = ""
        self.guard = ""
        self.function: Callable[[Mapping[str, Json], Event], Any] | None = None
        self.expression: Expression | None = None
        self.block: Block = ()
        self.exit_bits: int | None = 0
        """All that it can leave: the descendants of its domain; None if that depends on history."""
        self.plans: dict[int, Plan] | None = None
        """Plans by the active states below the domain; None if they depend on history."""

    def domain(self, targets: Iterable[ChartState]) -> ChartState | None:
        """Procedure getTransitionDomain for the effective `targets`; None if there are none."""
        targets = tuple(targets)
        if not targets:
            return None
        source = self.owner
        inside = all(target.ancestors & source.bit for target in targets)
        if source.parent is None or (self.internal and source.is_compound and inside):
            return source
        ancestor = source.parent
        while ancestor.parent is not None and not (
            ancestor.is_compound and all(target.ancestors & ancestor.bit for target in targets)
        ):
            ancestor = ancestor.parent
        return ancestor


class Candidate:
    """A transition as one event name meets it, with its facts made beforehand."""

    __slots__ = ("failed", "passed", "taken", "transition")

    def __init__(self, transition: ChartTransition, event: str) -> None:
        source = transition.owner.id
        self.transition = transition
        self.taken = Taken(source, event, transition.target_ids)
        self.passed = Verdict(source, event, transition.guard, True)
        self.failed = Verdict(source, event, transition.guard, False)


class Handlers:
    """Who handles one event name: the set of states with a matching transition, and for each its candidates.

    plain: those of `states` that are atomic and whose first transition has no guard and a fixed domain. What several of
    them select together follows from the set alone; `chosen` remembers it.
    """

    __slots__ = ("by_bit", "chosen", "event", "plain", "states")

    def __init__(self, transitions: Iterable[ChartTransition], event: str) -> None:
        self.event = event
        self.states = 0
        by_bit: dict[int, tuple[Candidate, ...]] = {}
        for transition in sorted(set(transitions), key=lambda t: t.order):
            bit = transition.owner.bit
            self.states |= bit
            by_bit[bit] = (*by_bit.get(bit, ()), Candidate(transition, event))
        self.by_bit = by_bit
        self.chosen: dict[int, tuple[Candidate, ...]] = {}
        self.plain = 0
        for bit, candidates in by_bit.items():
            first = candidates[0].transition
            if not first.guard and first.exit_bits is not None and not first.owner.children:
                self.plain |= bit


class ChartMachine(HierarchicalMachine):
    """The compiled chart. `states` are the top-level states, `by_index` all of them in document order with the root
    first.
    """

    state_cls = ChartState
    transition_cls = ChartTransition

    def __init__(self, name: str, context_type: ContextType, *, strict: bool) -> None:
        super().__init__(model=None, states=None, initial=None, auto_transitions=False, name=name)
        self.chart_name = name
        self.context_type = context_type
        self.strict = strict
        self.root = ChartState("", "compound", 0, None)
        self.by_index: list[ChartState] = [self.root]
        self.by_id: dict[str, ChartState] = {}
        self.transitions: list[ChartTransition] = []
        self.atomic = 0
        self.with_history = self.with_exit = self.with_entry = self.with_initial_actions = 0
        self.first_values: tuple[tuple[str, Block], ...] = ()
        """(field, what computes its first value), in document order."""
        self.children: dict[str, Child] = {}
        """The invokes by their keys."""
        self.delay_events: frozenset[str] = frozenset()
        """The names of `after` timers' events. They match their own transitions only, and no descriptor."""
        self.eventless = Handlers((), "")
        self._by_descriptor: dict[str, list[ChartTransition]] = {}
        self._handlers: dict[str, Handlers] = {}
        self._joint: dict[tuple[Any, ...], Plan] = {}
        self._joint_wide: dict[tuple[Any, ...], Plan] = {}
        self._names: dict[int, tuple[str, ...]] = {}
        self._accepts: dict[int, tuple[str, ...]] = {}

    def start(self, context: Mapping[str, Json], session: str = "", kin: Kin = NOBODY) -> Step:
        """Enter the initial configuration. `Step.context` is the full context, defaults filled in.

        A chart with dynamic expressions sees `session` as `_sessionid`, and in `_x` who has invoked it.

        Raises ContextError if `context` does not fit the declaration. If an initial action fails, `Step.reason`
        says so.
        """
        full = self.context_type.start(context)
        if not self.strict:
            system = {"_sessionid": session or self.chart_name}
            invoked = {"_x": kin._asdict()} if kin.parent else {}
            full = Context({**full, **system, **invoked})
        return stepping.start(self, full, context)

    def stop(self, snapshot: Snapshot) -> Step:
        """Leave all states, as when a parent cancels its child: only what the exit actions ask for is of interest."""
        return stepping.stop(self, snapshot)

    def step(self, snapshot: Snapshot, event: Event) -> Step:
        """The macrostep that `event` causes from `snapshot` (SCXML 3.13, Appendix D mainEventLoop). Pure; raises
        nothing but for bugs in the machine: what goes wrong in the chart is in `Step.reason` or handled as
        `error.execution`."""
        return stepping.step(self, snapshot, event)

    def restore(
        self,
        configuration: Sequence[str],
        context: Mapping[str, Json],
        history: Mapping[str, tuple[str, ...]],
        serial: int,
        entered: Sequence[str] = (),
        invoked: Mapping[str, str] | None = None,
    ) -> Snapshot:
        """The snapshot that was recorded by names (as `names` gives them). Raises UnknownState."""
        bits = self.root.bit if configuration else 0
        for name in configuration:
            bits |= self._state(name).bit
        for names in (tuple(history), *history.values()):
            for name in names:
                self._state(name)
        ever = 0
        for name in entered:
            ever |= self._state(name).bit
        values = {key: tuple(value) for key, value in history.items()}
        return Snapshot(bits, Context(context), values, serial, ever, invoked or {})

    def names(self, configuration: int) -> tuple[str, ...]:
        """The active states in document order, the root omitted."""
        names = self._names.get(configuration)
        if names is None:
            names = keep(self._names, configuration, self.ids(configuration))
        return names

    def leaves(self, configuration: int) -> tuple[str, ...]:
        """The active atomic and final states in document order."""
        return self.ids(configuration & self.atomic)

    def accepts(self, configuration: int) -> tuple[str, ...]:
        """The event descriptors that active states handle, in document order; delays and eventless ones omitted."""
        accepted = self._accepts.get(configuration)
        if accepted is None:
            found = (
                descriptor
                for state in self.members(configuration)
                for transition in state.transitions
                for descriptor in transition.descriptors
            )
            accepted = keep(self._accepts, configuration, tuple(dict.fromkeys(found)))
        return accepted

    def in_state(self, state_id: str, configuration: int) -> bool:
        """SCXML's In(): whether the state is active; an unknown id is not."""
        state = self.by_id.get(state_id)
        return state is not None and configuration & state.bit != 0

    def members(self, states: int) -> list[ChartState]:
        """The states of a set in document order."""
        by_index = self.by_index
        members = []
        if states.bit_count() > _MANY:  # Arithmetic on the whole set, once for each member, would cost its square.
            digits = f"{states:b}"[::-1]
            index = digits.find("1")
            while index >= 0:
                members.append(by_index[index])
                index = digits.find("1", index + 1)
            return members
        while states:
            lowest = states & -states
            members.append(by_index[lowest.bit_length() - 1])
            states ^= lowest
        return members

    def ids(self, states: int) -> tuple[str, ...]:
        """The ids of a set in document order, the root omitted."""
        return tuple([state.id for state in self.members(states & ~1)])

    def handlers(self, event: str) -> Handlers:
        """Who handles an event of this name: its own descriptors, those that are a prefix of its tokens, and `*`."""
        found = self._handlers.get(event)
        if found is not None:
            return found
        index = self._by_descriptor
        matching = list(index.get(event, ()))
        if event not in self.delay_events:
            matching += index.get("*", ())
            dot = event.find(".")
            while dot >= 0:
                matching += index.get(event[:dot], ())
                dot = event.find(".", dot + 1)
        # A wide chart has several events of its own for each of its regions.
        most = max(CACHED_MAX, 4 * len(self.by_index))
        return keep(self._handlers, event, Handlers(matching, event), most)

    def plan(self, transition: ChartTransition, configuration: int) -> Plan:
        """The plan of a transition whose plans do not depend on history, from its memory or new."""
        assert transition.plans is not None
        assert transition.exit_bits is not None
        leaves = configuration & transition.exit_bits
        plan = transition.plans.get(leaves)
        if plan is None:
            entry = EntrySet(self, {})
            entry.add_transition(transition)
            plan = Plan(self, leaves, entry.enters, entry.defaults, entry.history_defaults)
            keep(transition.plans, leaves, plan, PLANS_MAX)
        return plan

    def joint_plan(
        self, transitions: Sequence[ChartTransition], configuration: int, history: Mapping[str, tuple[str, ...]]
    ) -> Plan:
        """The plan of several transitions together, or of one whose plan depends on history."""
        leaves = 0
        asks = False
        for transition in transitions:
            leaves |= self.exit_set(transition, configuration, history)
            asks = asks or transition.plans is None
        key = (tuple([t.order for t in transitions]), leaves, tuple(history.items()) if asks else ())
        is_wide = len(transitions) > JOINT_MAX
        known = self._joint_wide if is_wide else self._joint
        plan = known.get(key)
        if plan is None:
            # History values are set by leaving, before anything is entered (procedures exitStates, enterStates).
            entry = EntrySet(self, {**history, **dict(Plan(self, leaves).records)})
            for transition in transitions:
                entry.add_transition(transition)
            plan = Plan(self, leaves, entry.enters, entry.defaults, entry.history_defaults)
            keep(known, key, plan, WIDE_MAX if is_wide else CACHED_MAX)
        return plan

    def exit_set(self, transition: ChartTransition, configuration: int, history: Mapping[str, tuple[str, ...]]) -> int:
        """Procedure computeExitSet for one transition."""
        if transition.exit_bits is not None:
            return configuration & transition.exit_bits
        domain = transition.domain(EntrySet(self, history).effective_targets(transition.targets))
        return configuration & domain.descendants if domain is not None else 0

    def seal(self, transitions: Iterable[ChartTransition]) -> None:
        """Index what the compiler has built. After this nothing of the machine changes but its caches."""
        self.transitions = list(transitions)
        for transition in self.transitions:
            keys = (transition.delay_event,) if transition.delay_event else transition.descriptors
            for key in keys:
                if key != "*":
                    key = key.removesuffix("*").removesuffix(".") or key
                self._by_descriptor.setdefault(key, []).append(transition)
        eventless = (t for t in self.transitions if not t.descriptors and not t.delay_event)
        self.delay_events = frozenset(t.delay_event for t in self.transitions if t.delay_event)
        self.eventless = Handlers(eventless, "")

    @staticmethod
    def resolve_callable(func: Any, event_data: Any) -> Any:
        """`transitions`' door from names to code, shut: only functions themselves pass."""
        if callable(func):
            return func
        raise StatewrightError(f"expected a function from the chart's registry, got the name {func!r}")

    def add_states(self, states: Any, *args: Any, **kwargs: Any) -> None:
        if states:
            self._refuse_change()

    def add_transition(self, *args: Any, **kwargs: Any) -> None:
        self._refuse_change()

    def add_model(self, model: Any, initial: Any = None) -> None:
        self._refuse_change()

    def get_state(self, state: Any, hint: Any = None) -> ChartState:
        """A state by its id or by its path in `transitions`' form."""
        return self._state(state[-1] if isinstance(state, list) else str(state).rpartition(SEPARATOR)[2])

    def _state(self, state_id: str) -> ChartState:
        state = self.by_id.get(state_id)
        if state is None:
            raise UnknownState(f"chart {self.chart_name!r} has no state {state_id!r}")
        return state

    def _refuse_change(self) -> NoReturn:
        raise StatewrightError(f"the machine of chart {self.chart_name!r} is compiled; change the definition instead")


def path_of(state: ChartState) -> str:
    """The state's path in `transitions`' own forms."""
    names = []
    inner: ChartState | None = state
    while inner is not None and inner.parent is not None:
        names.append(inner.id)
        inner = inner.parent
    return SEPARATOR.join(reversed(names))
