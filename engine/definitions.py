"""Stored and pinned definitions: an instance steps with the definition that it was started with, for its whole life.

A definition's identity is (name, version, digest). It is stored before its first start; the same name and version
with another digest is refused. Compiled charts are kept by digest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import PurePath
from typing import Any

import msgspec

from statewright.engine.errors import AlreadyExistsError, NotFoundError, UnusableError
from statewright.engine.recorder import DefinitionRow, InstanceRecorder
from statewright.statecharts.chart import Chart
from statewright.statecharts.errors import ChartError
from statewright.statecharts.facts import StartChild

DERIVED = "derived_from"
"""The key in a definition's `meta` that says from which one it was derived (its version)."""


class Definitions:
    """The charts of one engine: those given in code, and those revived from the store."""

    def __init__(self, recorder: InstanceRecorder) -> None:
        self._recorder = recorder
        self._by_digest: dict[str, Chart] = {}
        self._newest: dict[str, Chart] = {}
        self._functions: dict[str, dict[str, Callable[..., Any]]] = {}
        self._withdrawn: set[str] = set()

    @property
    def newest(self) -> Mapping[str, Chart]:
        """By name, the chart that a start without a version takes."""
        return self._newest

    def register(self, charts: Iterable[Chart], *, store: bool) -> None:
        """Take `charts` (the last of a name is its newest). With `store`, write those that are new to the store.

        Raises `AlreadyExistsError` when a stored name and version has another digest.
        """
        for chart in charts:
            self.take(chart, store=store)
            self._newest[chart.name] = chart
            self._withdrawn.discard(chart.name)

    def withdraw(self, name: str) -> None:
        """Let nothing more be started of `name` here, until it is registered again. Its instances go on."""
        self._withdrawn.add(name)
        self._newest.pop(name, None)

    def take(self, chart: Chart, *, store: bool = True) -> Chart:
        """Take a chart, and those that it invokes, without making it the newest of its name. Raises as `register`."""
        if chart.digest in self._by_digest:
            return chart
        stored = self._recorder.select_definition(chart.name, chart.version)
        if stored is not None and stored.digest != chart.digest:
            raise AlreadyExistsError(
                f"definition '{chart.name}' version '{chart.version}' is stored with digest {stored.digest[:12]}, "
                f"the one given has {chart.digest[:12]}; give the changed chart a new version"
            )
        if stored is None and store:
            row = DefinitionRow(chart.name, chart.version, chart.digest, chart.to_json().decode())
            self._recorder.insert_definition(row)
        # By chart: two charts may each have a guard of the same name, and they are not the same guard.
        self._functions.setdefault(chart.name, {}).update(chart.functions)
        self._by_digest[chart.digest] = chart
        for child in chart.children():
            self.take(child, store=store)
        return chart

    def child(self, parent: Chart, request: StartChild) -> Chart:
        """The chart of a child that `parent` invokes. A `src` is the name of a definition, or a file beside the chart:
        when the parent itself comes from the store, the definition that is called as the file is.

        Raises `ChartError`, `NotFoundError`, `AlreadyExistsError`.
        """
        name = PurePath(request.src).stem
        if request.src and (parent.folder is None or name == request.src):
            return self.named(name, None)
        return parent.child(request)

    def revive_stored(self) -> None:
        """Make every stored name startable, at its last stored version unless a chart was given for it. One whose
        functions are not registered is passed over: it is an error when it is asked for, not before."""
        newest = {row.name: row for row in self._recorder.select_definitions() if not is_derived(row)}
        for name, row in newest.items():
            if name not in self._newest:
                with suppress(ChartError):
                    self._newest[name] = self._revive(row)

    def named(self, name: str, version: str | None) -> Chart:
        """The chart that a start of `name` takes. Raises `NotFoundError`, `UnusableError`."""
        newest = self._newest.get(name)
        if newest is not None and version in (None, newest.version):
            return newest
        if name in self._withdrawn:
            raise NotFoundError(f"definition '{name}' was unregistered here")
        row = self._last_stored(name) if version is None else self._recorder.select_definition(name, version)
        if row is not None:
            return self.pinned(name, row.version, row.digest)
        known = ", ".join(sorted(self._newest)) or "none"
        wanted = f"'{name}'" if version is None else f"'{name}' version '{version}'"
        raise NotFoundError(f"no definition {wanted}; there are: {known}")

    def _last_stored(self, name: str) -> DefinitionRow | None:
        rows = [row for row in self._recorder.select_definitions() if row.name == name and not is_derived(row)]
        return rows[-1] if rows else None

    def pinned(self, name: str, version: str, digest: str) -> Chart:
        """The very chart that an instance is pinned to. Raises `UnusableError` when it can't be compiled here."""
        chart = self._by_digest.get(digest)
        if chart is not None:
            return chart
        row = self._recorder.select_definition(name, version)
        if row is None or row.digest != digest:
            raise UnusableError(f"definition '{name}' version '{version}' ({digest[:12]}) is not in the store")
        try:
            return self._revive(row)
        except ChartError as error:
            raise UnusableError(f"definition '{name}' version '{version}' can't be used here: {error}") from error

    def _revive(self, row: DefinitionRow) -> Chart:
        chart = self._by_digest.get(row.digest)
        if chart is None:
            chart = Chart.from_json(row.json.encode(), self._functions.get(row.name, {}))
            self._by_digest[row.digest] = chart
        return chart


def is_derived(row: DefinitionRow) -> bool:
    """Whether it was made for one running instance, by changing what that ran: no start takes it unless that asks for
    it. Its version says so to people (`1+0a1b2c3d`), its `meta` for sure."""
    return "+" in row.version and DERIVED in msgspec.json.decode(row.json).get("meta", {})
