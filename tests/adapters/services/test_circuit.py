"""The circuit breaker, on given times."""

from __future__ import annotations

import pytest

from statewright.adapters.services.circuit import (
    TRIAL_WAIT_S,
    Circuit,
    CircuitPolicy,
    admitted,
    failed,
    released,
    state_at,
    succeeded,
)
from statewright.engine.clock import SECOND_NS
from statewright.engine.errors import InvalidError

POLICY = CircuitPolicy(failures_max=3, open_for_s=10, trials_max=2, successes_min=2)


def opened(at_s: int = 0) -> Circuit:
    circuit = Circuit()
    for _ in range(3):
        circuit = failed(circuit, POLICY, circuit.generation, at_s * SECOND_NS)
    assert circuit.state == "open"
    return circuit


def half_open() -> Circuit:
    circuit, wait_s = admitted(opened(), POLICY, 10 * SECOND_NS)
    assert (circuit.state, circuit.trials, wait_s) == ("half_open", 1, None)
    return circuit


def test_failures_in_a_row_open_it() -> None:
    circuit = Circuit()
    for _ in range(2):
        circuit = failed(circuit, POLICY, 0, 0)
    assert circuit.state == "closed"
    assert failed(circuit, POLICY, 0, 0).state == "open"


def test_a_success_between_begins_the_count_anew() -> None:
    circuit = failed(failed(Circuit(), POLICY, 0, 0), POLICY, 0, 0)
    assert succeeded(circuit, POLICY, 0, 0).failures == 0


def test_open_says_when_to_try_again() -> None:
    circuit = opened(at_s=5)
    assert admitted(circuit, POLICY, 6 * SECOND_NS) == (circuit, 9.0)
    assert state_at(circuit, POLICY, 14 * SECOND_NS) == "open"
    assert state_at(circuit, POLICY, 15 * SECOND_NS) == "half_open"


def test_half_open_lets_a_few_trials_through() -> None:
    circuit, wait_s = admitted(half_open(), POLICY, 10 * SECOND_NS)
    assert (circuit.trials, wait_s) == (2, None)
    assert admitted(circuit, POLICY, 10 * SECOND_NS) == (circuit, 10 + TRIAL_WAIT_S)


def test_enough_successes_close_it() -> None:
    circuit = succeeded(half_open(), POLICY, 2, 0)
    assert circuit.state == "half_open"
    circuit, _ = admitted(circuit, POLICY, 10 * SECOND_NS)
    assert succeeded(circuit, POLICY, circuit.generation, 0) == Circuit(generation=3)


def test_one_failure_opens_it_again_for_the_whole_time() -> None:
    circuit = failed(half_open(), POLICY, 2, 12 * SECOND_NS)
    assert (circuit.state, admitted(circuit, POLICY, 12 * SECOND_NS)[1]) == ("open", 10.0)


def test_a_trial_that_says_nothing_gives_its_place_back() -> None:
    assert released(half_open(), 2).trials == 0
    assert released(Circuit(failures=2), 0) == Circuit(failures=2)


def test_what_began_before_the_last_change_does_not_count() -> None:
    """A slow call from before must neither close a circuit nor open one."""
    circuit = half_open()
    assert succeeded(circuit, POLICY, 0, 0) == circuit
    assert failed(circuit, POLICY, 0, 0) == circuit
    assert released(circuit, 0) == circuit


@pytest.mark.parametrize(
    "wrong",
    [
        {"failures_max": 0},
        {"open_for_s": 0},
        {"open_for_s": float("inf")},
        {"trials_max": 0},
        {"successes_min": -1},
        {"open_for_s": "1s"},
        {"failures_max": "3"},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidError, match=f"circuit's {next(iter(wrong))}"):
        CircuitPolicy(**wrong)  # type: ignore[arg-type]
