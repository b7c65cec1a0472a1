"""Compiles a definition into a `ChartMachine`: validates it, gives every state its bit, compiles all expressions.

All faults of the definition are found in one go; a machine comes back only if there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from transitions.extensions.nesting import NestedEvent

from statewright.statecharts import children
from statewright.statecharts import definition as d
from statewright.statecharts.actions import ActionCompiler, Block, Operation
from statewright.statecharts.context import ContextType, FieldType, parse_type
from statewright.statecharts.dynamic import DynamicExpressions
from statewright.statecharts.errors import ChartError, ContextError, Fault
from statewright.statecharts.expressions import Expressions
from statewright.statecharts.facts import Event, TimerSet
from statewright.statecharts.machine import ChartMachine, ChartState, ChartTransition
from statewright.statecharts.places import Faults
from statewright.statecharts.plans import EntrySet
from statewright.statecharts.scripts import compile_first_value, created
from statewright.statecharts.sends import compile_invoke
from statewright.statecharts.step import ActionError, Macrostep
from statewright.statecharts.subscriptions import Subscription, compile_subscription
from statewright.statecharts.validation import validate


class Compiled:
    """What the compiler makes of a definition: the machine, the functions it uses, its subscriptions."""

    __slots__ = ("functions", "machine", "subscriptions", "warnings")

    def __init__(
        self,
        machine: ChartMachine,
        functions: Mapping[str, Callable[..., Any]],
        subscriptions: tuple[Subscription, ...],
        warnings: tuple[Fault, ...] = (),
    ) -> None:
        self.machine = machine
        self.functions = functions
        self.subscriptions = subscriptions
        self.warnings = warnings


def compile_definition(
    definition: d.Definition, functions: Mapping[str, Callable[..., Any]], faults: Faults
) -> Compiled:
    """Compile. Raises ChartError with all faults, those that `faults` already holds included."""
    if not validate(definition, faults):
        raise ChartError(faults.sorted(), definition.name)
    context = _context_type(definition, faults)
    machine = ChartMachine(definition.name, context, strict=definition.expressions == "strict")
    expressions: Expressions | DynamicExpressions
    known = {*context.fields, *created(d.walk_actions(definition))}
    if machine.strict:
        expressions = Expressions(context, machine.in_state, machine.by_id)
    else:
        expressions = DynamicExpressions(str(definition.meta.get("name", definition.name)), machine.in_state, known)
    actions = ActionCompiler(context, expressions, functions, faults, known=known)
    _Compiler(machine, actions, faults).compile(definition)
    subscriptions = tuple(compile_subscription(item, faults) for item in definition.subscribe)
    warnings = list(actions.warnings)
    for _, _, invoke in d.walk_invokes(definition):
        if invoke.chart is not None:
            with suppress(ChartError):  # its faults are among ours then
                warnings += compile_definition(invoke.chart, functions, faults).warnings
    if faults:
        raise ChartError(faults.sorted(), definition.name)
    return Compiled(machine, actions.used, subscriptions, tuple(dict.fromkeys(warnings)))


def _context_type(definition: d.Definition, faults: Faults) -> ContextType:
    fields: dict[str, tuple[FieldType, d.Declaration]] = {}
    dynamic = definition.expressions == "dynamic"
    late = [declaration for state in d.walk_states(definition) for declaration in state.context]
    for declaration in (*definition.context, *late):
        if not dynamic and (declaration.expr or declaration in late):
            faults.add(declaration, "expected a default: only dynamic expressions compute first values or bind late")
        try:
            field = parse_type(declaration.type)
        except ValueError as error:
            faults.add(declaration, str(error), "type")
            field = parse_type("dyn")
        try:
            ContextType({declaration.name: (field, declaration)}, dynamic=dynamic)
        except ContextError as error:
            faults.add(declaration, f"default: {error}", "default")
            declaration = d.Declaration(name=declaration.name)
        # Bound late it is null until then.
        fields[declaration.name] = (field, d.Declaration(name=declaration.name) if declaration in late else declaration)
    return ContextType(fields, dynamic=dynamic)


class _Compiler:
    def __init__(self, machine: ChartMachine, actions: ActionCompiler, faults: Faults) -> None:
        self.machine = machine
        self.actions = actions
        self.faults = faults
        self.transitions: list[ChartTransition] = []

    def compile(self, definition: d.Definition) -> None:
        machine = self.machine
        pairs: list[tuple[d.State | d.Definition, ChartState]] = [(definition, machine.root)]
        stack = [(node, machine.root) for node in reversed(definition.states)]
        while stack:
            node, parent = stack.pop()
            state = self._add_state(node, parent)
            pairs.append((node, state))
            stack.extend((child, state) for child in reversed(node.states))
        self._relate()
        for owner, state in pairs:
            self._initial(owner, state)
        for owner, state in pairs:
            self._content(owner, state)
        machine.first_values = tuple(
            (declaration.name, (compile_first_value(self.actions, declaration, "the chart"),))
            for declaration in definition.context
            if declaration.expr
        )
        if not self.faults:
            machine.seal(self.transitions)

    def _add_state(self, node: d.State, parent: ChartState) -> ChartState:
        machine = self.machine
        state = ChartState(node.id, node.type, len(machine.by_index), parent)
        machine.by_index.append(state)
        machine.by_id.setdefault(node.id, state)
        if parent is machine.root:
            machine.states[node.id] = state
        else:
            parent.states[node.id] = state
        if state.is_history:
            state.deep = node.history == "deep"
            parent.histories.append(state)
        else:
            parent.children.append(state)
            parent.child_bits |= state.bit
        return state

    def _relate(self) -> None:
        """The sets that follow from the tree; children come after their parents, so bottom-up is backwards."""
        machine = self.machine
        for state in reversed(machine.by_index):
            if state.parent is not None and not state.is_history:
                state.parent.descendants |= state.descendants | state.bit
            if state.kind == "final" and state.parent is not None:
                state.parent.final_bits |= state.bit
            if state.kind in ("atomic", "final"):
                machine.atomic |= state.bit
            if state.is_parallel and all(child.is_compound for child in state.children):
                for child in state.children:
                    state.final_bits |= child.final_bits
            if state.histories:
                machine.with_history |= state.bit

    def _initial(self, node: d.State | d.Definition, state: ChartState) -> None:
        by_id = self.machine.by_id
        if node.initial is not None:
            state.initial_states = tuple(by_id[target] for target in node.initial.target if target in by_id)
            where = f"initial of state {state.id!r}" if state.id else "initial of the chart"
            # What a history state stands for is entered within its parent.
            within = state.parent if state.is_history and state.parent is not None else state
            state.initial_block = self.actions.block(node.initial.actions, state.id, where, within.id)
        elif state.is_compound:
            state.initial_states = tuple(state.children[:1])
        elif state.is_history and state.parent is not None:
            # Without a default of its own a history stands for what its parent begins with.
            parent = state.parent
            state.initial_states = tuple(parent.children) if parent.is_parallel else parent.initial_states
        if state.initial_block:
            self.machine.with_initial_actions |= state.bit

    def _content(self, node: d.State | d.Definition, state: ChartState) -> None:
        machine, blocks = self.machine, self.actions.blocks
        name = f"state {state.id!r}" if state.id else "the chart"
        # Transitions of one state with the same delay share a timer.
        delays = dict.fromkeys(transition.delay for transition in node.transitions if transition.delay)
        timers = {text: f"after.{state.id}.{index}" for index, text in enumerate(delays)}
        setting = self._timers(node, timers, name)
        cancels = tuple(_cancel(timer_id) for timer_id in timers.values())
        first: tuple[Block, ...] = ()
        begin: Block = ()
        end: Block = ()
        if isinstance(node, d.State):
            first = self._late_values(node, state, name)
            begin, end = self._children(node, state)
        state.entry_blocks = _filled(
            *first, *blocks(node.entry, state.id, f"entry of {name}", state.id), *setting, begin
        )
        state.exit_blocks = _filled(*blocks(node.exit, state.id, f"exit of {name}", ""), cancels, end)
        if isinstance(node, d.State) and node.type == "final":
            self._final(node, state)
        if state.entry_blocks or state.final_block:
            machine.with_entry |= state.bit
        if state.exit_blocks:
            machine.with_exit |= state.bit
        for transition in node.transitions:
            self._transition(transition, state, name, timers)

    def _late_values(self, node: d.State, state: ChartState, name: str) -> tuple[Block, ...]:
        """What gives its late bound fields their values when the state is entered for the first time."""
        if not node.context:
            return ()
        values = [(compile_first_value(self.actions, declaration, name),) for declaration in node.context]

        def bind(run: Macrostep) -> None:
            family = run.relate()
            if not family.entered & state.bit:
                family.entered |= state.bit
                for block in values:
                    run.run(block)

        return ((bind,),)

    def _children(self, node: d.State, state: ChartState) -> tuple[Block, Block]:
        """The blocks that start and end the children of a state."""
        if not node.invoke:
            return (), ()
        for index, invoke in enumerate(node.invoke):
            child = compile_invoke(self.actions, state, index, invoke)
            self.machine.children[child.key] = child
        return children.mark(state), children.end(state)

    def _timers(self, node: d.State | d.Definition, timers: Mapping[str, str], name: str) -> list[Block]:
        """One block a timer, so that a delay that fails to evaluate keeps no other from being set."""
        blocks: list[Block] = []
        for text, timer_id in timers.items():
            first = next(transition for transition in node.transitions if transition.delay == text)
            literal, delay = self.actions.delay(text, first, f"after {text!r} of {name}")
            blocks.append((_set_timer(timer_id, literal, delay),))
        return blocks

    def _final(self, node: d.State, state: ChartState) -> None:
        """Procedure enterStates, its last part: what entering a final state means."""
        what = f"output of state {node.id!r}"
        output = self.actions.output(node.output, node, what) if node.output is not None else None
        if output is not None:
            state.output = output
        if node.status != "completed":
            state.status = node.status
        parent = state.parent
        assert parent is not None
        if parent.parent is None:
            state.final_block = (_complete(state),)
            return
        blocks: list[Operation] = [_done(parent.id, output)]
        if parent.parent.is_parallel:
            blocks.append(_done_when(parent.parent))
        state.final_block = tuple(blocks)

    def _transition(self, node: d.Transition, source: ChartState, name: str, timers: Mapping[str, str]) -> None:
        by_id = self.machine.by_id
        targets = [by_id[target] for target in node.target if target in by_id]
        transition = ChartTransition(source, targets, len(self.transitions))
        self.transitions.append(transition)
        source.transitions.append(transition)
        transition.internal = node.internal
        transition.descriptors = node.events
        transition.delay_event = timers.get(node.delay, "")
        said = " ".join(node.events) or (f"after {node.delay}" if node.delay else "always")
        if node.guard is not None:
            transition.guard, transition.function, transition.expression = self.actions.guard(node.guard, node)
        where = f"transition {said!r} of {name}"
        transition.block = self.actions.block(node.actions, source.id, where, _arrives_in(transition))
        if any(target.is_history for target in targets):
            transition.exit_bits = None
        elif (domain := transition.domain(targets)) is not None:
            transition.exit_bits = domain.descendants
        if not self._asks_history(transition):
            transition.plans = {}
        self._register(transition)

    def _asks_history(self, transition: ChartTransition) -> bool:
        """Whether what it enters depends on history: by a target, or by an initial that is a history state."""
        if self.faults or not self.machine.with_history:
            return False  # a faulty definition may not even end: initials outside their states can go round
        entry = EntrySet(self.machine, {})
        entry.add_transition(transition)
        return entry.asked_history

    def _register(self, transition: ChartTransition) -> None:
        """Make it known to `transitions` too."""
        for trigger in transition.descriptors or (transition.delay_event,):
            event = self.machine.events.get(trigger)
            if event is None:
                event = self.machine.events[trigger] = NestedEvent(trigger, self.machine)
            event.transitions[transition.source].append(transition)


def _arrives_in(transition: ChartTransition) -> str:
    """The state that is active after a transition for certain: the one it leads to, or stays in; "" with several."""
    if not transition.targets:
        return transition.owner.id
    target = transition.targets[0]
    if target.is_history and target.parent is not None:
        target = target.parent
    return target.id if len(transition.targets) == 1 else ""


def _filled(*blocks: Block) -> tuple[Block, ...]:
    return tuple(block for block in blocks if block)


def _set_timer(timer_id: str, literal: int | None, delay: Callable[[Macrostep], int]) -> Operation:
    if literal is not None:
        timer = TimerSet(timer_id, timer_id, literal)
        return lambda run: run.timers.append(timer)
    return lambda run: run.timers.append(TimerSet(timer_id, timer_id, delay(run)))


def _cancel(timer_id: str) -> Operation:
    return lambda run: run.cancel_own_timer(timer_id)


def _complete(state: ChartState) -> Operation:
    def complete(run: Macrostep) -> None:
        run.final = state

    return complete


def _done(state_id: str, output: Callable[[Macrostep], Any] | None) -> Operation:
    name = f"done.state.{state_id}"
    if output is None:
        event = Event(name, None, "platform")
        return lambda run: run.enqueue(event)

    def done(run: Macrostep) -> None:
        data = None
        try:
            data = output(run)
        except ActionError as error:  # the event comes all the same, without data (SCXML 5.5)
            run.fail(str(error))
        run.enqueue(Event(name, data, "platform"))

    return done


def _done_when(parallel: ChartState) -> Operation:
    event = Event(f"done.state.{parallel.id}", None, "platform")

    def done_when(run: Macrostep) -> None:
        if parallel.is_done(run.configuration):
            run.enqueue(event)

    return done_when
