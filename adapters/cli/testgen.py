"""The command testgen: writes the tests of a chart into a file, or prints them."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path
from typing import Any

from statewright.adapters.cli.options import DEFAULTS, Options, invalid

LISTED_MAX = 20
_MARK = "written by `statewright testgen`"


def generate_tests(
    chart: str,
    /,
    *,
    output: Path | None = None,
    handlers: str | None = None,
    options: Options = DEFAULTS,
) -> None:
    """Write a pytest file of shortest paths that cover a chart: configurations, transitions, guard outcomes.

    The file finds the chart by its path relative to itself. Written again, it keeps the data that were filled in.

    Parameters
    ----------
    chart
        A .yaml, .json or .scxml file, or module:attribute, or file.py:attribute.
    output
        The file to write, such as test_chart.py; without it the tests are printed.
    handlers
        As for serve. Adds tests on a durable engine, on which these handlers perform the effects.
    """
    from statewright.adapters.cli import output as printing
    from statewright.adapters.cli.loading import load, load_handlers
    from statewright.statecharts.testgen import generate

    folder = output.resolve().parent if output is not None else Path.cwd()
    if output is not None and not folder.is_dir():
        raise invalid(f"expected --output in a folder that exists, got {str(output)!r}")
    kept = _kept(output) if output is not None and output.exists() else {}
    registering = ""
    if handlers is not None:
        load_handlers(handlers)  # only to say at once if that fails
        registering = f"load_handlers({_source(handlers, folder)})"
    generated = generate(load(chart), f"load_chart({_source(chart, folder)})", handlers=registering, data=kept)
    if output is None:
        sys.stdout.write(generated.text)
        return
    output.write_text(generated.text, encoding="utf-8")
    if options.json:
        about = {"file": str(output), "tests": generated.paths, "covered": generated.covered, "goals": generated.goals}
        printing.print_json(about | {"missing": generated.missing})
        return
    reached = ", ".join(f"{generated.covered[kind]} of {count} {kind}" for kind, count in generated.goals.items())
    print(f"{output}: {generated.paths} tests cover {reached}")
    for what in generated.missing[:LISTED_MAX]:
        print(f"not covered: {printing.clean(what)}")
    if len(generated.missing) > LISTED_MAX:
        print(f"not covered: {len(generated.missing) - LISTED_MAX} more")


def _source(given: str, folder: Path) -> str:
    """Python for what names a chart or handlers, from the test's folder, wherever both are moved together."""
    name, colon, attribute = given.rpartition(":")
    if colon and attribute.isidentifier() and not Path(given).is_file():
        return f'f"{{HERE / {_relative(name, folder)!r}}}:{attribute}"' if name.endswith(".py") else f'"{given}"'
    return f'HERE / "{_relative(given, folder)}"'


def _relative(file: str, folder: Path) -> str:
    return Path(os.path.relpath(Path(file).resolve(), folder)).as_posix()


def _kept(output: Path) -> dict[str, Any]:
    """What was filled in in an earlier file. Raises `InvalidError` if the file is somebody's own."""
    try:
        text = output.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except (OSError, ValueError, SyntaxError) as error:
        raise invalid(f"{str(output)!r} is there already and can't be read: {error}") from error
    if _MARK not in text:
        raise invalid(f"{str(output)!r} is there already, and it was not {_MARK}")
    for statement in tree.body:
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        if statement.target.id == "DATA" and statement.value is not None:
            return _literal(output, statement.value)
    return {}


def _literal(output: Path, value: ast.expr) -> dict[str, Any]:
    try:
        found = ast.literal_eval(value)
    except ValueError as error:
        raise invalid(f"expected DATA in {str(output)!r} to be a plain literal: {error}") from error
    return found if isinstance(found, dict) else {}
