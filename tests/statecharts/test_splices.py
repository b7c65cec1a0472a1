"""Splices lead from one list of active states to another."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from statewright.statecharts.builder import chart, state
from statewright.statecharts.splices import spliced, splices

MACHINE = chart("many", initial="s0", states=[state(f"s{number}") for number in range(40)]).machine
BITS = st.integers(min_value=0, max_value=(1 << 41) - 1).map(lambda bits: bits | 1)


@given(BITS, BITS)
def test_splices_lead_from_any_configuration_to_any_other(before: int, after: int) -> None:
    assert spliced(MACHINE.ids(before), splices(MACHINE.by_index, before, after)) == MACHINE.ids(after)


def test_nothing_is_said_where_nothing_changes() -> None:
    assert splices(MACHINE.by_index, 0b1101, 0b1101) == ()
    assert spliced(("s1", "s2"), ()) == ("s1", "s2")


def test_neighbours_go_together() -> None:
    before, after = 0b1_0111_0011, 0b1_1100_1011
    assert splices(MACHINE.by_index, before, after) == ((1, 2, ("s2",)), (4, 0, ("s6",)))
    assert MACHINE.ids(before) == ("s0", "s3", "s4", "s5", "s7")
    assert MACHINE.ids(after) == ("s0", "s2", "s5", "s6", "s7")
