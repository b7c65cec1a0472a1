"""Lanes: how the units of a workflow are laid out as the regions of a chart, and what each of them waits for.

A unit that requires one other follows it in its lane, if it is the first to do so; every other begins a lane of its
own, in which it waits. So a chain is one lane and independent steps are one each. A lane is active from the beginning
on, so nothing that it waits for can be missed, and what is still awaited is counted in states: nothing has to be kept
in the context or asked of other regions.

Who waits for a single unit hears its event. Who waits for several is told by each of them (`join.<id>`); units that
wait for the same ones share the counting, so that m units after n others cost m + n, not m times n.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import NamedTuple

from statewright.statecharts.workflows.dependencies import Unit, in_order


class Join(NamedTuple):
    """Units that wait for the same several others. With one member the counting is done in its lane; with more in a
    lane of its own, which tells them."""

    id: str
    sources: tuple[str, ...]
    any: bool
    members: tuple[str, ...]


class Lanes:
    """lanes: the units of each lane in their order. after: unit -> the next in its lane. joins: by id. join_of: unit ->
    the join it waits for. joined_by: unit -> the joins it is a source of. heard: the units that others wait for by
    themselves. may_skip: the units that can be skipped. recalled: the units whose being skipped has to be kept."""

    def __init__(self, units: Mapping[str, Unit], conditional: Collection[str], *, sequential: bool) -> None:
        """`conditional`: the units that can be skipped by a condition or policy of their own."""
        self.units = units
        self.sequential = sequential
        self.after: dict[str, str] = {}
        self.joins: dict[str, Join] = {}
        self.join_of: dict[str, str] = {}
        self.joined_by: dict[str, list[str]] = {}
        self.heard: set[str] = set()
        self.recalled: set[str] = set()
        self.lanes: tuple[tuple[str, ...], ...] = ()
        self.may_skip = _may_skip(units, conditional)
        if sequential:
            self._chain()
        else:
            self._branch_out()

    def _chain(self) -> None:
        order = list(self.units)
        self.after = dict(pairwise(order))
        self.lanes = (tuple(order),)
        for before, unit in self.after.items():
            requires = self.units[unit].requires
            if requires != (before,):
                self.recalled |= self.may_skip.intersection(requires)

    def _branch_out(self) -> None:
        following: set[str] = set()
        waiting: dict[tuple[frozenset[str], bool], list[str]] = {}
        for unit in self.units.values():
            if len(unit.requires) == 1:
                (before,) = unit.requires
                if before in self.after:
                    self.heard.add(before)
                else:
                    self.after[before] = unit.id
                    following.add(unit.id)
            elif unit.requires:
                waiting.setdefault((frozenset(unit.requires), unit.any), []).append(unit.id)
        for (_, is_any), members in waiting.items():
            join = Join(members[0], self.units[members[0]].requires, is_any, tuple(members))
            self.joins[join.id] = join
            self.join_of |= dict.fromkeys(members, join.id)
            for source in join.sources:
                self.joined_by.setdefault(source, []).append(join.id)
        self.lanes = tuple(self._lane(unit) for unit in self.units if unit not in following)

    def _lane(self, first: str) -> tuple[str, ...]:
        lane = [first]
        while (following := self.after.get(lane[-1])) is not None:
            lane.append(following)
        return tuple(lane)


def _may_skip(units: Mapping[str, Unit], conditional: Collection[str]) -> frozenset[str]:
    found = set(conditional)
    for unit in in_order(units):
        skippable = [required in found for required in unit.requires]
        if skippable and (all(skippable) if unit.any else any(skippable)):
            found.add(unit.id)
    return frozenset(found)
