"""When a failed attempt of an effect is made again, and whether it is. Pure.

Invariant: a wait follows from the policy, the effect's id and the number of the attempt alone, jitter included: so a
simulation repeats itself to the nanosecond, and effects that failed together still come back at different times.
"""

from __future__ import annotations

from hashlib import blake2b

from statewright.statecharts.facts import RetryPolicy

DEFAULT = RetryPolicy()


def backoff_ns(policy: RetryPolicy, effect_id: str, attempt: int) -> int:
    """The wait after the failure of `attempt` (counted from 1)."""
    try:
        wait = min(policy.initial_ns * policy.multiplier ** (attempt - 1), policy.maximum_ns)
    except OverflowError:
        wait = policy.maximum_ns
    if policy.jitter:
        wait *= 1 - policy.jitter * _fraction(f"{effect_id}:{attempt}")
    return int(wait)


def is_final(policy: RetryPolicy, error: BaseException) -> bool:
    """Whether `policy` names `error`: its class, a base of it, or the code that a service gave (`service_code`)."""
    if not policy.final:
        return False
    names = {kind.__name__ for kind in type(error).__mro__} | {str(getattr(error, "service_code", ""))}
    return not names.isdisjoint(policy.final)


def _fraction(text: str) -> float:
    """From 0 up to 1, always the same for the same text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest()) / 2**48
