"""Strategies of load balancing: who gets the next call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statewright.adapters.services.balancing import STRATEGIES, Candidate, Strategy, StrategyName, Turn, is_overloaded


def chosen(strategy: StrategyName, candidates: Sequence[Candidate], times: int) -> str:
    """The ids of that many choices in a row, one after another."""
    function, turn, ids = STRATEGIES[strategy], Turn(), []
    for _ in range(times):
        name, turn = function(candidates, turn)
        ids.append(name)
    return "".join(ids)


ABC = (Candidate("a"), Candidate("b"), Candidate("c"))


def test_round_robin_gives_each_its_turn() -> None:
    assert chosen("round_robin", ABC, 7) == "abcabca"


def test_round_robin_goes_on_where_it_was_when_one_goes_or_comes() -> None:
    function = STRATEGIES["round_robin"]
    _, turn = function(ABC, Turn())
    name, turn = function((ABC[0], ABC[2]), turn)
    assert name == "c"
    assert function(ABC, turn)[0] == "a"


def test_least_connections_takes_the_one_with_the_fewest_calls() -> None:
    assert chosen("least_connections", (Candidate("a", in_flight=2), Candidate("b", in_flight=1)), 3) == "bbb"


def test_least_connections_takes_turns_between_equals() -> None:
    busy = Candidate("c", in_flight=4)
    assert chosen("least_connections", (*ABC[:2], busy), 4) == "abab"


def test_weighted_round_robin_is_smooth() -> None:
    """The sequence that nginx's algorithm gives for 5, 1, 1."""
    weighted = (Candidate("a", weight=5), Candidate("b"), Candidate("c"))
    assert chosen("weighted_round_robin", weighted, 7) == "aabacaa"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 4))
def test_weighted_round_robin_is_exact_over_each_round(weights: list[int], rounds: int) -> None:
    candidates = [Candidate(chr(97 + number), weight=weight) for number, weight in enumerate(weights)]
    counted = Counter(chosen("weighted_round_robin", candidates, rounds * sum(weights)))
    assert counted == {candidate.id: rounds * candidate.weight for candidate in candidates}


def test_resource_based_takes_the_least_load() -> None:
    loaded = (Candidate("a", load=0.7), Candidate("b", load=0.2), Candidate("c", load=0.9))
    assert chosen("resource_based", loaded, 2) == "bb"


def test_resource_based_takes_an_unknown_load_for_a_half() -> None:
    assert chosen("resource_based", (Candidate("a", load=0.6), Candidate("b"), Candidate("c", load=0.9)), 1) == "b"
    assert chosen("resource_based", (Candidate("a", load=0.4), Candidate("b")), 1) == "a"


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
@given(
    st.lists(
        st.builds(
            Candidate,
            st.text("abcdef", min_size=1, max_size=3),
            st.integers(1, 10),
            st.integers(0, 5),
            st.none() | st.floats(0, 1),
        ),
        min_size=1,
        unique_by=lambda candidate: candidate.id,
    )
)
def test_every_strategy_chooses_a_candidate_and_the_same_one_again(
    strategy: Strategy, candidates: list[Candidate]
) -> None:
    name, turn = strategy(candidates, Turn())
    assert name in {candidate.id for candidate in candidates}
    assert strategy(candidates, Turn()) == (name, turn)
    assert strategy(candidates, turn)[0] in {candidate.id for candidate in candidates}


def test_overload_begins_at_ninety_percent_and_does_not_flutter() -> None:
    assert not is_overloaded(0.89, was_overloaded=False)
    assert is_overloaded(0.9, was_overloaded=False)
    assert is_overloaded(0.85, was_overloaded=True)
    assert not is_overloaded(0.79, was_overloaded=True)
    assert not is_overloaded(None, was_overloaded=True)
