"""Entry and exit sets: which states a microstep leaves and enters, in which order (SCXML 1.0, Appendix D).

States are bits: the i-th state in document order is bit i, the root bit 0. A set of states is an int, so that
"active descendants of the domain" is one `&`. Document order is ascending bits, exit order descending.

A `Plan` is all that a microstep does to the configuration, with the blocks of actions to run on the way. It follows
from the transition and the active states below its domain alone, so a transition keeps its plans (unless they also
depend on history); a chart with a thousand regions pays for the one that changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statewright.statecharts.actions import Block
    from statewright.statecharts.machine import ChartMachine, ChartState, ChartTransition


class Plan:
    """What one microstep does. Immutable.

    leaves, enters: the sets. exited, entered: their ids, in exit and entry order, the root omitted.
    exits: for each state with something to do on exit, its blocks and the set of those that have been left before it.
    entries: likewise with the set of those entered up to and with it. records: history values set by leaving.
    """

    __slots__ = ("entered", "enters", "entries", "exited", "exits", "leaves", "records")

    def __init__(
        self,
        machine: ChartMachine,
        leaves: int,
        enters: int = 0,
        defaults: int = 0,
        history_defaults: Mapping[ChartState, ChartState] | None = None,
    ) -> None:
        """`defaults`: entered by default, so their initial actions run; `history_defaults`: parent -> history state
        whose default actions run."""
        self.leaves = leaves
        self.enters = enters
        self.exited = tuple(reversed(machine.ids(leaves)))
        self.entered = machine.ids(enters)
        self.records = _records(machine, leaves) if leaves & machine.with_history else ()
        self.exits = tuple(_exits(machine, leaves))
        self.entries = tuple(_entries(machine, enters, defaults, history_defaults or {}))


def _records(machine: ChartMachine, leaves: int) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The history values that leaving these states sets (procedure exitStates)."""
    records = []
    for state in machine.members(leaves & machine.with_history):
        for history in state.histories:
            kept = leaves & (state.descendants & machine.atomic if history.deep else state.child_bits)
            records.append((history.id, machine.ids(kept)))
    return tuple(records)


def _exits(machine: ChartMachine, leaves: int) -> Iterator[tuple[tuple[Block, ...], int]]:
    for state in reversed(machine.members(leaves & machine.with_exit)):
        yield state.exit_blocks, leaves & ~(state.bit * 2 - 1)


def _entries(
    machine: ChartMachine, enters: int, defaults: int, history_defaults: Mapping[ChartState, ChartState]
) -> Iterator[tuple[tuple[Block, ...], int]]:
    """Each state's onentry, then its initial's content, then a history default's, then done events (procedure
    enterStates).
    """
    busy = enters & machine.with_entry | defaults & machine.with_initial_actions
    for state in history_defaults:
        busy |= state.bit & enters
    for state in machine.members(busy):
        blocks = state.entry_blocks
        if defaults & state.bit and state.initial_block:
            blocks = (*blocks, state.initial_block)
        if (history := history_defaults.get(state)) is not None and history.initial_block:
            blocks = (*blocks, history.initial_block)
        if state.final_block:
            blocks = (*blocks, state.final_block)
        if blocks:
            yield blocks, enters & (state.bit * 2 - 1)


class EntrySet:
    """The states to enter for some transitions, given the history values (procedure computeEntrySet)."""

    __slots__ = ("asked_history", "defaults", "enters", "history", "history_defaults", "machine")

    def __init__(self, machine: ChartMachine, history: Mapping[str, tuple[str, ...]]) -> None:
        self.machine = machine
        self.history = history
        self.enters = 0
        self.defaults = 0
        self.history_defaults: dict[ChartState, ChartState] = {}
        self.asked_history = False

    def add_transition(self, transition: ChartTransition) -> None:
        for state in transition.targets:
            self.add_descendants(state)
        domain = transition.domain(self.effective_targets(transition.targets))
        for state in self.effective_targets(transition.targets):
            self.add_ancestors(state, domain)

    def effective_targets(self, targets: Iterable[ChartState]) -> tuple[ChartState, ...]:
        """`targets` with history states replaced by what they stand for (procedure getEffectiveTargetStates)."""
        effective: dict[ChartState, None] = {}
        for state in targets:
            if state.is_history:
                effective |= dict.fromkeys(self.effective_targets(self._remembered(state) or state.initial_states))
            else:
                effective[state] = None
        return tuple(effective)

    def add_descendants(self, state: ChartState) -> None:
        """Procedure addDescendantStatesToEnter."""
        if state.is_history:
            self._add_history(state)
            return
        self.enters |= state.bit
        if state.is_compound:
            self.defaults |= state.bit
            for child in state.initial_states:
                self.add_descendants(child)
            for child in state.initial_states:
                self.add_ancestors(child, state)
        elif state.is_parallel:
            self._add_regions(state)

    def add_ancestors(self, state: ChartState, ancestor: ChartState | None) -> None:
        """Procedure addAncestorStatesToEnter: the proper ancestors of `state` up to, without, `ancestor`."""
        parent = state.parent
        while parent is not None and parent is not ancestor:
            self.enters |= parent.bit
            if parent.is_parallel:
                self._add_regions(parent)
            parent = parent.parent

    def _add_regions(self, state: ChartState) -> None:
        for child in state.children:
            if not self.enters & child.descendants:
                self.add_descendants(child)

    def _add_history(self, state: ChartState) -> None:
        assert state.parent is not None
        targets = self._remembered(state)
        if not targets:
            self.history_defaults[state.parent] = state
            targets = state.initial_states
        for child in targets:
            self.add_descendants(child)
        for child in targets:
            self.add_ancestors(child, state.parent)

    def _remembered(self, state: ChartState) -> tuple[ChartState, ...]:
        self.asked_history = True
        return tuple(self.machine.by_id[name] for name in self.history.get(state.id, ()))
