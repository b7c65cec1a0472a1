"""The order in which plugins are activated, and what is missing for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statewright.adapters.plugins import CircularDependency, Plugin, PluginDependencyNotSatisfied
from statewright.adapters.plugins.dependencies import load_order
from statewright.engine.workflows.errors import DependencyNotSatisfied


def plugin(name: str, *needs: str, version: str = "1.0", optional: tuple[str, ...] = ()) -> Plugin:
    attributes = {"name": name, "version": version, "dependencies": needs, "optional_dependencies": optional}
    return Plugin(type("Made", (), attributes))


def test_each_comes_after_what_it_needs() -> None:
    order = load_order([plugin("c", "b"), plugin("b", "a"), plugin("a"), plugin("d")])
    names = [each.name for each in order.plugins]
    assert names.index("a") < names.index("b") < names.index("c")
    assert sorted(names) == ["a", "b", "c", "d"]


@given(st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(lambda pair: pair[0] > pair[1])))
def test_any_graph_without_circles_has_an_order(edges: set[tuple[int, int]]) -> None:
    plugins = [plugin(f"p{n}", *(f"p{need}" for of, need in sorted(edges) if of == n)) for n in reversed(range(10))]
    at = {each.name: place for place, each in enumerate(load_order(plugins).plugins)}
    assert all(at[f"p{need}"] < at[f"p{of}"] for of, need in edges)
    assert len(at) == 10


def test_a_circle_is_named() -> None:
    with pytest.raises(
        CircularDependency, match=r"in a circle, got (a -> b -> c -> a|b -> c -> a -> b|c -> a -> b -> c)$"
    ):
        load_order([plugin("a", "b"), plugin("b", "c"), plugin("c", "a"), plugin("d", "a")])


def test_all_that_is_missing_or_of_the_wrong_version_is_told() -> None:
    plugins = [
        plugin("reports", "document-parser >= 1.0, < 2", "store"),
        plugin("document_parser", version="2.1"),
        plugin("mailer", "smtp"),
    ]
    with pytest.raises(PluginDependencyNotSatisfied) as caught:
        load_order(plugins)
    assert str(caught.value) == (
        "plugin 'reports' wants 'document-parser >= 1.0, < 2', there is document_parser 2.1; "
        "plugin 'reports' wants 'store', there is none; plugin 'mailer' wants 'smtp', there is none "
        "(registered: reports 1.0, document_parser 2.1, mailer 1.0)"
    )
    assert caught.value.unsatisfied == (
        ("reports", "document-parser >= 1.0, < 2", "2.1"),
        ("reports", "store", ""),
        ("mailer", "smtp", ""),
    )
    assert isinstance(caught.value, DependencyNotSatisfied)


@pytest.mark.parametrize(
    ("needs", "version", "fits"),
    [
        (">= 1.0, < 2", "1.9.9", True),
        (">= 1.0, < 2", "2.0", False),
        (">= 1.0, < 2", "2.0rc1", False),
        (">= 1.0", "1.1rc1", True),
        ("~= 1.4", "1.9", True),
        ("~= 1.4", "2.0", False),
        ("== 1.4.*", "1.4.2", True),
        ("!= 1.4.2", "1.4.2", False),
        ("", "0.0.1", True),
    ],
)
def test_versions_are_compared_by_pep_440(needs: str, version: str, fits: bool) -> None:
    plugins = [plugin("a", f"b {needs}"), plugin("b", version=version)]
    if fits:
        assert [each.name for each in load_order(plugins).plugins] == ["b", "a"]
    else:
        with pytest.raises(PluginDependencyNotSatisfied, match=f"there is b {version}"):
            load_order(plugins)


def test_what_is_optional_is_missed_with_a_warning_and_comes_first_if_it_is_there() -> None:
    plugins = [plugin("a", optional=("ocr", "b >= 2", "c")), plugin("b"), plugin("c")]
    order = load_order(plugins)
    assert order.warnings == {"a": ("goes without 'ocr': there is none", "goes without 'b >= 2': there is b 1.0")}
    names = [each.name for each in order.plugins]
    assert names.index("c") < names.index("a")
