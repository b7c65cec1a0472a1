"""Waits between attempts follow their policy, and errors are final by their names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from statewright.engine.retries import backoff_ns, is_final
from statewright.statecharts.facts import RetryPolicy

S = 1_000_000_000


# Up to 2**53 ns, some 100 days, floating point is exact to the nanosecond.
def policies(jitter: st.SearchStrategy[float]) -> st.SearchStrategy[RetryPolicy]:
    return st.builds(
        lambda initial, factor, multiplier, jitter: RetryPolicy(
            5, initial, min(initial * factor, 2**53), multiplier, jitter
        ),
        st.integers(1, 2**53),
        st.integers(1, 10_000),
        st.floats(1, 1e300),
        jitter,
    )


@given(policies(st.just(0.0)), st.integers(1, 1_000_000))
def test_waits_grow_by_the_multiplier_from_the_initial_to_the_maximum(policy: RetryPolicy, attempt: int) -> None:
    first, wait, after = (backoff_ns(policy, "a-1-0", n) for n in (1, attempt, attempt + 1))
    assert first == policy.initial_ns
    assert policy.initial_ns <= wait <= after <= policy.maximum_ns
    # In floating point, as it is computed: to one part in 2**50.
    assert abs(after - min(wait * policy.multiplier, policy.maximum_ns)) <= after * 2**-40 + policy.multiplier


@given(policies(st.floats(0, 1)), st.integers(1, 100), st.text(max_size=20))
def test_jitter_shortens_a_wait_by_its_part_at_most_and_always_the_same(
    policy: RetryPolicy, attempt: int, effect_id: str
) -> None:
    wait = backoff_ns(policy, effect_id, attempt)
    longest = backoff_ns(RetryPolicy(5, policy.initial_ns, policy.maximum_ns, policy.multiplier), effect_id, attempt)
    assert int(longest * (1 - policy.jitter) * (1 - 2**-40)) - 1 <= wait <= longest
    assert backoff_ns(policy, effect_id, attempt) == wait


def test_the_default_is_as_documented() -> None:
    assert [backoff_ns(RetryPolicy(), "a-1-0", n) / S for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_jitter_tells_effects_and_attempts_apart() -> None:
    policy = RetryPolicy(initial_ns=S, multiplier=1, jitter=1)
    waits = [backoff_ns(policy, f"a-{sequence}-0", attempt) for sequence in range(40) for attempt in range(1, 6)]
    assert len(set(waits)) == 200
    assert min(waits) < S * 0.05
    assert max(waits) > S * 0.95
    assert 0.4 * S < sum(waits) / 200 < 0.6 * S


class CardExpired(ValueError):
    service_code = "402"


def test_an_error_is_final_by_its_class_a_base_of_it_or_a_services_code() -> None:
    error = CardExpired()
    for name, final in (("CardExpired", True), ("ValueError", True), ("402", True), ("KeyError", False), ("", False)):
        assert is_final(RetryPolicy(final=(name,)), error) is final, name
    assert not is_final(RetryPolicy(), error)
    assert not is_final(RetryPolicy(final=("402",)), ValueError())
