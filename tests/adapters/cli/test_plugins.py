"""The command plugins: what is installed, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.cli.conftest import Cli
from tests.adapters.plugins.distributions import install

MODULE = '''
class Reports:
    """Writes reports."""
    dependencies = ["{needs}"]
    optional_dependencies = ["ocr"]
    def write(self, title: str, pages: int = 1) -> str:
        raise AssertionError("nothing is called")
    def activate(self):
        raise AssertionError("nothing is activated")

class Parser:
    name, version = "parser", "1.5"
'''


def test_plugins_lists_what_is_installed(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    points = {"reports": "cli_listed:Reports", "parser": "cli_listed:Parser"}
    install(tmp_path, "acme", "2.0", points, {"cli_listed": MODULE.format(needs="parser >= 1, < 2")})
    result = cli("plugins", "--json")
    assert (result.code, result.err) == (0, "")
    parser, reports = result.lines
    assert (parser["name"], parser["version"], parser["state"], parser["origin"]) == (
        "parser", "1.5", "usable", "acme 2.0",
    )  # fmt: skip
    assert reports == {
        "name": "reports",
        "version": "2.0",
        "state": "usable",
        "origin": "acme 2.0",
        "description": "Writes reports.",
        "dependencies": ["parser >= 1, < 2"],
        "optional_dependencies": ["ocr"],
        "methods": ["write(title: str, pages: int = 1) -> str"],
        "problem": "",
        "warnings": ["goes without 'ocr': there is none"],
    }
    assert cli("plugins").out.splitlines() == [
        "parser 1.5 (acme 2.0)",
        "reports 2.0 (acme 2.0): Writes reports.",
        "  warning: goes without 'ocr': there is none",
        "  needs: parser >= 1, < 2",
        "  can use: ocr",
        "  method: write(title: str, pages: int = 1) -> str",
    ]


def test_plugins_says_what_is_wrong_and_exits_1(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    points = {"reports": "cli_wrong:Reports", "parser": "cli_wrong:Parser", "gone": "cli_wrong:Gone"}
    install(tmp_path, "acme", "2.0", points, {"cli_wrong": MODULE.format(needs="parser >= 2")})
    result = cli("plugins", "--json")
    assert (result.code, result.err) == (1, "")
    problems = {line["name"]: (line["state"], line["problem"]) for line in result.lines}
    assert problems["parser"] == ("usable", "")
    assert problems["reports"] == ("broken", "wants 'parser >= 2', there is parser 1.5")
    state, problem = problems["gone"]
    assert state == "broken"
    assert (
        "'cli_wrong:Gone' of acme 2.0 can't be loaded: AttributeError: module 'cli_wrong' has no attribute" in problem
    )


def test_a_circle_is_shown_with_each_of_it(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = "class A:\n    dependencies = ['b']\nclass B:\n    dependencies = ['a']\n"
    install(tmp_path, "acme", "1", {"a": "cli_circle:A", "b": "cli_circle:B"}, {"cli_circle": source})
    result = cli("plugins", "--json")
    assert result.code == 1
    assert {line["problem"] for line in result.lines} <= {
        "depends on itself: a -> b -> a",
        "depends on itself: b -> a -> b",
    }


def test_without_plugins_it_says_so(cli: Cli) -> None:
    assert cli("plugins").out == "no plugins are installed\n"
    assert cli("plugins", "--json").out == ""
