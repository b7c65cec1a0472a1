"""Plugins of distributions that are installed, found by their entry points."""

from __future__ import annotations

from pathlib import Path

import pytest

from statewright.adapters.plugins import InvalidPlugin, PluginExists, PluginNotFound, Plugins
from tests.adapters.plugins.distributions import install

GREETER = """
class Greeter:
    "Says hello."
    dependencies = ["words >= 1"]
    def initialise(self, dependencies):
        self.words = dependencies["words"]
    def greet(self, name: str) -> str:
        return self.words.hello("en") + " " + name
"""
WORDS = """
name = "words"
version = "1.5"
def hello(language: str) -> str:
    return {"en": "hello"}[language]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed distributions, on the path."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


async def test_an_installed_plugin_is_found_and_called(site: Path) -> None:
    points = {"greeter": "found_greeter:Greeter", "words": "found_words"}
    install(site, "acme-greeter", "2.3", points, {"found_greeter": GREETER, "found_words": WORDS})
    async with Plugins(discover=True) as plugins:
        assert await plugins.invoke("greeter", "greet", {"name": "ann"}) == "hello ann"
        greeter, words = plugins.info()
        # Its name and version are the entry point's and the distribution's, where it doesn't say.
        assert (greeter.name, greeter.version, greeter.origin) == ("greeter", "2.3", "acme-greeter 2.3")
        assert (words.name, words.version, words.origin) == ("words", "1.5", "acme-greeter 2.3")


def test_whatever_is_wrong_with_an_entry_point_is_told_at_once_and_nothing_registered(site: Path) -> None:
    points = {
        "greeter": "wrong_greeter:Greeter",
        "missing": "not_there_at_all:Plugin",
        "raising": "wrong_raising",
        "absent": "wrong_greeter:Nobody",
        "other": "wrong_words",
    }
    modules = {"wrong_greeter": GREETER, "wrong_words": WORDS, "wrong_raising": "1 / 0"}
    install(site, "acme", "1", points, modules)
    plugins = Plugins()
    with pytest.raises(InvalidPlugin) as caught:
        plugins.discover()
    for said in (
        "entry point missing = 'not_there_at_all:Plugin' of acme 1 can't be loaded: ModuleNotFoundError",
        "entry point raising = 'wrong_raising' of acme 1 can't be loaded: ZeroDivisionError: division by zero",
        "entry point absent = 'wrong_greeter:Nobody' of acme 1 can't be loaded: AttributeError",
        "its entry point is called 'other', but it calls itself 'words'",
    ):
        assert said in str(caught.value)
    assert plugins.info() == ()


def test_only_what_is_named_is_imported(site: Path) -> None:
    points = {"words": "only_words", "raising": "only_raising"}
    install(site, "acme", "1", points, {"only_words": WORDS, "only_raising": "1 / 0"})
    plugins = Plugins()
    assert [each.name for each in plugins.discover(["Words"])] == ["words"]
    with pytest.raises(PluginNotFound, match=r"expected installed plugins \(raising, words\), got nothing-such"):
        plugins.discover(["nothing-such"])


def test_two_distributions_with_one_plugin_are_refused(site: Path) -> None:
    install(site, "acme", "1", {"words": "two_words"}, {"two_words": WORDS})
    install(site, "brand", "2", {"Words": "two_words"}, {})
    with pytest.raises(InvalidPlugin, match="one installed plugin 'words', got one of acme 1 and one of brand 2"):
        Plugins(discover=True)


def test_an_installed_plugin_does_not_replace_a_registered_one(site: Path) -> None:
    install(site, "acme", "1", {"words": "same_words"}, {"same_words": WORDS})
    mine = type("Mine", (), {"name": "words", "version": "9"})
    with pytest.raises(PluginExists, match=r"'words' 1\.5 from acme 1 can't be registered: there is 'words' 9"):
        Plugins([mine], discover=True)
