"""testgen, and check with handlers, through the command line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.cli.conftest import Cli

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "document_approval"


def pytest_on(file: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", str(file), *options]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_file_finds_the_chart_from_where_it_is(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    result = cli("testgen", "chart.yaml", "--output", "tests/test_approval.py")
    assert result.code == 0, result.err
    # Three configurations at rest, each way between them, and both answers of the guard.
    assert result.out.startswith("tests/test_approval.py: ")
    assert "cover 4 of 4 configurations, 5 of 5 transitions, 2 of 2 guard outcomes" in result.out
    text = (tmp_path / "tests" / "test_approval.py").read_text()
    assert 'load_chart(HERE / "../chart.yaml")' in text
    assert str(tmp_path) not in text
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("chart.yaml", "tests"):
        (tmp_path / name).rename(moved / name)
    code, said = pytest_on(moved / "tests" / "test_approval.py")
    assert code == 0, said


def test_without_a_file_the_tests_are_printed(cli: Cli) -> None:
    printed = cli("testgen", "chart.yaml")
    assert printed.code == 0
    compile(printed.out, "test_chart.py", "exec")
    assert "Covered: 4 of 4 configurations" in printed.out
    assert cli("testgen", "chart.yaml").out == printed.out


def test_json_says_what_is_covered(cli: Cli) -> None:
    (line,) = cli("testgen", "chart.yaml", "--output", "test_chart.py", "--json").lines
    assert line["goals"] == line["covered"] == {"configurations": 4, "transitions": 5, "guard outcomes": 2}
    assert (line["file"], line["missing"]) == ("test_chart.py", [])


def test_written_again_it_keeps_the_data_filled_in(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "charts.py").write_text(
        "from statewright.statecharts.builder import chart, final, state, to\n\n\n"
        "def hidden(context, event):\n    return str(event.data).startswith('\\u2603')\n\n\n"
        "CHART = chart('hiding', states=[state('a', on={'go': to('b', guard=hidden)}), final('b')])\n"
    )
    arguments = ("testgen", "charts.py:CHART", "--output", "test_charts.py")
    assert "not covered: guard 'hidden' of state 'a' true (for 'go')" in cli(*arguments).out
    file = tmp_path / "test_charts.py"
    before = file.read_text()
    filled = before.replace("(for 'go')\": None", '(for \'go\')": {"context": {}, "tokens": [\'go="\u2603"\']}')
    assert filled != before
    file.write_text(filled)
    assert cli(*arguments).code == 0
    assert "\u2603" in file.read_text()
    code, said = pytest_on(file)
    assert (code, "skipped" in said) == (0, False), said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chart.yaml", "--output", "chart.yaml"), "is there already"),
        (("chart.yaml", "--output", "mine.py"), "was not written by `statewright testgen`"),
        (("chart.yaml", "--output", "nowhere/test_it.py"), "a folder that exists"),
        (("nothing.yaml",), "there is no such file"),
        (("chart.yaml", "--handlers", "nothing.py:register"), "no handlers"),
    ],
)
def test_what_cannot_be_written_is_said(cli: Cli, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "mine.py").write_text("MINE = 1\n")
    result = cli("testgen", *arguments)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert message in result.err
    assert (tmp_path / "mine.py").read_text() == "MINE = 1\n"


@pytest.mark.integration
def test_the_example_with_its_handlers_on_an_engine(cli: Cli, tmp_path: Path) -> None:
    for name in ("chart.yaml", "handlers.py"):
        shutil.copy(EXAMPLE / name, tmp_path / name)
    result = cli("testgen", "chart.yaml", "--output", "test_it.py", "--handlers", "handlers.py:register")
    assert result.code == 0, result.err
    text = (tmp_path / "test_it.py").read_text()
    assert "archived" in text.partition("DURABLE: ")[2].partition("]\n")[0]
    code, said = pytest_on(tmp_path / "test_it.py")
    assert code == 0, said
    # A handler that does not do its work fails them.
    handlers = (tmp_path / "handlers.py").read_text()
    (tmp_path / "handlers.py").write_text(handlers.replace('return {"reference":', 'return {"place":'))
    code, said = pytest_on(tmp_path / "test_it.py", "-k", "with_handlers and archived")
    assert code == 1, said


def test_check_with_handlers(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "handlers.py").write_text(
        "def register(engine):\n    engine.handler('notify')(print)\n\n\nOTHERS = {'archive': print}\n"
    )
    assert cli("check", "chart.yaml", "--handlers", "handlers.py:register") == cli("check", "chart.yaml")
    result = cli("check", "chart.yaml", "--handlers", "handlers.py:OTHERS", "--json")
    assert result.code == 1
    (fault,) = result.lines
    assert (fault["severity"], fault["state"]) == ("error", "first")
    assert "'notify' has no handler" in fault["message"]
    both = ("--handlers", "handlers.py:OTHERS", "--handlers", "handlers.py:register")
    assert cli("check", "chart.yaml", *both).code == 0
    assert cli("check", "chart.yaml", "--handlers", "handlers.py:NONE").code == 2


def test_check_tells_more_on_request(cli: Cli) -> None:
    result = cli("check", "chart.yaml", "--info")
    assert result.code == 0
    assert "info line 5" in result.out
    assert "0 errors, 0 warnings" in result.out
