"""The XState door: from a machine configuration, in a file or as a plain tree, to a `Chart`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from statewright.statecharts.chart import Chart
from statewright.statecharts.documents import DEPTH_MESSAGE, DOCUMENT_BYTES_MAX, read_document
from statewright.statecharts.errors import ChartError, ChartNotFound, Fault
from statewright.statecharts.places import Faults, Places
from statewright.statecharts.places import Path as Place
from statewright.statecharts.xstate.names import Meaning, Meanings
from statewright.statecharts.xstate.reader import read_xstate


def is_xstate(tree: Any, file_name: str = "") -> bool:
    """Whether a JSON tree is an XState configuration rather than a chart in our own form.

    It is if its file is called `*.xstate.json`, or if it has an `id` and no `name`: our own form always has a name, and
    never an id at the top.
    """
    return file_name.endswith(".xstate.json") or (isinstance(tree, Mapping) and "id" in tree and "name" not in tree)


def from_xstate(
    source: Mapping[str, Any] | Path,
    *,
    functions: Mapping[str, Meaning] | None = None,
    delays: Mapping[str, int | str] | None = None,
    children: Mapping[str, Chart] | None = None,
    types: Mapping[str, str] | None = None,
    name: str = "",
) -> Chart:
    """The chart of an XState v5 machine configuration: a plain tree, or the path of a JSON file.

    functions: what named guards and actions mean. A guard is a CEL text or a function `(context, event) -> bool`. An
    action is an assign: a mapping of fields to CEL texts, or a function `(context, event) -> mapping of fields`; any
    other action is performed by the handler of its name. Where `params` are given the function gets them third.
    delays: named delays, in milliseconds or as durations such as `24h`.
    children: the charts of invoked machines, by `src`; any other `src` is performed by the handler of that name.
    types: types of context fields that their first values don't tell, such as `double` for a 0.
    name: the chart's, if not the machine's id (or, without one, the file's name).

    Raises ChartError with all faults, each with its place; ChartNotFound if there is no such file.
    """
    meanings = Meanings(functions or {}, delays or {}, children or {}, types or {})
    if isinstance(source, Path):
        tree, lines = _read(source)
        return build(tree, meanings, name, lines, source)
    return build(source, meanings, name)


def build(
    tree: Any, meanings: Meanings, name: str = "", lines: Mapping[Place, int] | None = None, file: Path | None = None
) -> Chart:
    """The chart of a tree, with the line of each of its paths where it was read from a file. Raises ChartError."""
    faults = Faults(Places(lines))
    if file is not None and not (isinstance(tree, Mapping) and "id" in tree):
        name = name or file.name.removesuffix(".json").removesuffix(".xstate")
    try:
        definition, found = read_xstate(tree, faults, meanings, name)
        if definition is None:
            raise ChartError(faults.sorted())
        for child in meanings.children.values():
            found = {**child.functions, **found}
        return Chart(definition, found, faults=faults, folder=file.parent if file is not None else None)
    except RecursionError:
        raise ChartError([Fault(path="", message=DEPTH_MESSAGE)]) from None


def _read(path: Path) -> tuple[Any, Mapping[Place, int]]:
    try:
        with path.open("rb") as file:
            data = file.read(DOCUMENT_BYTES_MAX + 1)
    except OSError as error:
        raise ChartNotFound(str(path), f"it cannot be read: {error.strerror}") from error
    return read_document(data, is_json=True)
