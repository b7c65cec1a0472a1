"""The circuit breaker of a service: closed, open, half-open. Pure; times are given (integer ns).

closed: calls pass; `failures_max` failures in a row open it. open: no call passes until `open_for_s` are over.
half_open: up to `trials_max` calls at once pass as trials; `successes_min` successes close it, one failure opens it.
Invariants: a call that was admitted ends in exactly one of `succeeded`, `failed`, `released`; what a call says that was
admitted before the circuit last changed its state doesn't count.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec.structs import replace

from statewright.engine.clock import SECOND_NS
from statewright.engine.errors import InvalidError

CircuitState = Literal["closed", "open", "half_open"]
TRIAL_WAIT_S = 1.0
"""How much later than `open_for_s` who finds all trials under way is to come again: by then a trial that fails soon is
over, and so is the time that the circuit is open after it. A trial may take as long as any call, and to be refused
every second meanwhile would cost each who waits a claim and a write."""


class CircuitPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When a circuit opens, how long it stays so (seconds), how many trials there are at once, and how many successes
    close it again. Raises `InvalidError`."""

    failures_max: int = 5
    open_for_s: float = 30.0
    trials_max: int = 1
    successes_min: int = 1

    def __post_init__(self) -> None:
        for name in ("failures_max", "trials_max", "successes_min"):
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise InvalidError(f"expected a circuit's {name} to be 1 or more, got {value!r}")
        if not isinstance(self.open_for_s, int | float) or not 0 < self.open_for_s < float("inf"):
            raise InvalidError(f"expected a circuit's open_for_s to be seconds over 0, got {self.open_for_s!r}")


class Circuit(msgspec.Struct, frozen=True):
    """Where a circuit is. `failures` counts those in a row, `generation` the changes of state so far."""

    state: CircuitState = "closed"
    failures: int = 0
    successes: int = 0
    trials: int = 0
    opened_at: int = 0
    generation: int = 0


def admitted(circuit: Circuit, policy: CircuitPolicy, now: int) -> tuple[Circuit, float | None]:
    """The circuit after asking for one more call, and in how many seconds to ask again (None: the call may go)."""
    if circuit.state == "closed":
        return circuit, None
    if circuit.state == "open":
        left_ns = circuit.opened_at + round(policy.open_for_s * SECOND_NS) - now
        if left_ns > 0:
            return circuit, left_ns / SECOND_NS
        circuit = _changed(circuit, "half_open", now)
    if circuit.trials >= policy.trials_max:
        return circuit, policy.open_for_s + TRIAL_WAIT_S
    return replace(circuit, trials=circuit.trials + 1), None


def state_at(circuit: Circuit, policy: CircuitPolicy, now: int) -> CircuitState:
    """Its state as the next call will find it: an open circuit whose time is over is half open."""
    is_over = now >= circuit.opened_at + round(policy.open_for_s * SECOND_NS)
    return "half_open" if circuit.state == "open" and is_over else circuit.state


def succeeded(circuit: Circuit, policy: CircuitPolicy, generation: int, now: int) -> Circuit:
    """After a success of a call that was admitted in `generation`."""
    if generation != circuit.generation:
        return circuit
    if circuit.state == "closed":
        return replace(circuit, failures=0) if circuit.failures else circuit
    circuit = replace(circuit, trials=circuit.trials - 1, successes=circuit.successes + 1)
    return _changed(circuit, "closed", now) if circuit.successes >= policy.successes_min else circuit


def failed(circuit: Circuit, policy: CircuitPolicy, generation: int, now: int) -> Circuit:
    """After a failure of a call that was admitted in `generation`."""
    if generation != circuit.generation:
        return circuit
    circuit = replace(circuit, failures=circuit.failures + 1)
    if circuit.state == "half_open" or circuit.failures >= policy.failures_max:
        return _changed(circuit, "open", now)
    return circuit


def released(circuit: Circuit, generation: int) -> Circuit:
    """After a call that says nothing about the service: it was cancelled, say."""
    if generation != circuit.generation or circuit.state != "half_open":
        return circuit
    return replace(circuit, trials=circuit.trials - 1)


def _changed(circuit: Circuit, state: CircuitState, now: int) -> Circuit:
    failures = 0 if state == "closed" else circuit.failures
    opened_at = now if state == "open" else circuit.opened_at
    return Circuit(state, failures, opened_at=opened_at, generation=circuit.generation + 1)
