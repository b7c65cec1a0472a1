"""How effects are performed: what a chart, or a handler, says about it, checked and in nanoseconds.

One place for both, so that `retry` means the same wherever it is written. Pure.
"""

from __future__ import annotations

from statewright.statecharts.definition import Retry
from statewright.statecharts.durations import parse_duration
from statewright.statecharts.facts import Policy, RetryPolicy

ATTEMPTS_MAX = 1_000_000

PolicyFaults = list[tuple[tuple[str, ...], str]]
"""(path below the effect, what was expected and what came)."""


def compile_policy(retry: Retry | None, timeout: str, heartbeat: str, faults: PolicyFaults) -> Policy:
    """The policy that these words mean ("" and None: nothing said); what is wrong is added to `faults`."""
    timeout_ns = _duration(timeout, ("timeout",), faults)
    heartbeat_ns = _duration(heartbeat, ("heartbeat",), faults)
    if timeout_ns and heartbeat_ns >= timeout_ns:
        faults.append((("heartbeat",), f"expected a heartbeat shorter than the timeout, {timeout}, got {heartbeat}"))
    return Policy(_retry(retry, faults) if retry is not None else None, timeout_ns, heartbeat_ns)


def _retry(retry: Retry, faults: PolicyFaults) -> RetryPolicy:
    initial_ns = _duration(retry.initial or "0s", ("retry", "initial"), faults)
    maximum_ns = _duration(retry.maximum or "0s", ("retry", "maximum"), faults)
    if initial_ns and 0 < maximum_ns < initial_ns:
        said = f"expected a maximum of at least the initial wait, {retry.initial}, got {retry.maximum}"
        faults.append((("retry", "maximum"), said))
    if not 1 <= retry.attempts <= ATTEMPTS_MAX:
        faults.append((("retry", "attempts"), f"expected 1 to {ATTEMPTS_MAX:,} attempts, got {retry.attempts}"))
    if not 1 <= retry.multiplier < float("inf"):
        faults.append((("retry", "multiplier"), f"expected a multiplier of at least 1, got {retry.multiplier:g}"))
    if not 0 <= retry.jitter <= 1:
        faults.append((("retry", "jitter"), f"expected a jitter from 0 to 1, got {retry.jitter:g}"))
    return RetryPolicy(retry.attempts, initial_ns, maximum_ns, retry.multiplier, retry.jitter, tuple(retry.final))


def _duration(text: str, path: tuple[str, ...], faults: PolicyFaults) -> int:
    """Nanoseconds; 0 if nothing was said."""
    if not text:
        return 0
    ns = parse_duration(text)
    if not ns:
        faults.append((path, f"expected a duration such as 30s or PT30S, longer than nothing, got {text!r}"))
    return ns or 0
