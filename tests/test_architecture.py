"""The house holds: imports point one way, nothing is too big, and nothing reaches for what its room must not know."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("statecharts", "engine", "projections", "adapters")
"""In the order of the arrows: a room may import itself and the rooms before it."""

FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500

THIRD_PARTY = {
    "statecharts": {"msgspec", "transitions", "cel_expr_python", "ruamel"},
    "engine": {"msgspec", "eventsourcing", "cronsim"},
    "projections": {"msgspec", "eventsourcing"},
}
"""What a room may import beyond the standard library. Adapters are where the rest of the world is."""

IMPURE = {"asyncio", "socket", "sqlite3", "subprocess", "time", "random", "uuid"}
"""What a pure room has no use for: it is told the time, it draws no lots, and it waits for nothing."""


def modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import in the file, wherever it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module == "statewright":
                yield from ((node.lineno, f"statewright.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, ("." * node.level) + (node.module or "")


def place(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_imports_point_one_way() -> None:
    """statecharts <- engine <- projections <- adapters."""
    wrong = []
    for room in ROOMS:
        allowed = ROOMS[: ROOMS.index(room) + 1]
        for path in modules(room):
            for line, name in imports(path):
                first, _, rest = name.partition(".")
                if first in ROOMS or name.startswith("."):
                    wrong.append(f"{place(path, line)}: import '{name}' as statewright.{name.lstrip('.')}")
                elif first == "statewright" and rest.partition(".")[0] not in allowed:
                    wrong.append(f"{place(path, line)}: {room} must not import {name}")
    assert wrong == []


def test_inner_rooms_know_no_driver() -> None:
    """A bus, a database driver or a terminal is an adapter's business."""
    wrong = [
        f"{place(path, line)}: {room} must not import {name}"
        for room, allowed in THIRD_PARTY.items()
        for path in modules(room)
        for line, name in imports(path)
        if name.partition(".")[0] not in {*allowed, "statewright", *sys.stdlib_module_names}
        or name.startswith(("sqlite3", "eventsourcing.sqlite", "eventsourcing.postgres", "eventsourcing.popo"))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "folder", ["statecharts", "engine/instance.py", "engine/decisions.py", "projections/metrics.py"]
)
def test_pure_modules_import_nothing_impure(folder: str) -> None:
    """No clock, no chance, no waiting: the same facts give the same result."""
    path = ROOT / folder
    wrong = [
        f"{place(module, line)}: a pure module must not import {name}"
        for module in ([path] if path.is_file() else modules(folder))
        for line, name in imports(module)
        if name.partition(".")[0] in IMPURE
    ]
    assert wrong == []


def test_only_wiring_builds_the_system() -> None:
    """Commands get their engine, store and bus from `adapters/cli/wiring.py`; adapters don't reach across."""
    wrong = []
    for path in modules("adapters"):
        adapter = path.relative_to(ROOT / "adapters").parts[0]
        for line, name in imports(path):
            parts = name.split(".")
            across = parts[:2] == ["statewright", "adapters"] and len(parts) > 2 and parts[2] != adapter
            if across and path != ROOT / "adapters" / "cli" / "wiring.py":
                wrong.append(f"{place(path, line)}: {adapter} must not import {name}")
    assert wrong == []


def test_modules_are_short() -> None:
    lengths = {
        path.relative_to(ROOT): len(path.read_text().splitlines()) for path in modules(*ROOMS, "tests", "examples")
    }
    too_long = {str(path): count for path, count in lengths.items() if count >= MODULE_LINES_MAX}
    assert too_long == {}, f"modules of {MODULE_LINES_MAX} lines or more"


def test_functions_are_short() -> None:
    too_long = [
        f"{place(path, node.lineno)}: {node.name} has {length} lines, expected under {FUNCTION_LINES_MAX}"
        for path in modules(*ROOMS, "tests", "examples")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) >= FUNCTION_LINES_MAX
    ]
    assert too_long == []


def test_every_module_says_its_job() -> None:
    """A docstring at the top, unless there is nothing below it."""
    silent = [
        str(path.relative_to(ROOT))
        for path in modules(*ROOMS)
        if (tree := ast.parse(path.read_text())).body and ast.get_docstring(tree) is None
    ]
    assert silent == []
