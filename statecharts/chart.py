"""`Chart`: a definition with all that follows from it; `load_chart` reads one from a file or a Python attribute."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from statewright.statecharts import definition as d
from statewright.statecharts.children import child_key
from statewright.statecharts.compiler import compile_definition
from statewright.statecharts.documents import DEPTH_MESSAGE, DOCUMENT_BYTES_MAX, read_document
from statewright.statecharts.errors import ChartError, ChartNotFound, Fault, StatewrightError
from statewright.statecharts.facts import StartChild
from statewright.statecharts.machine import ChartMachine
from statewright.statecharts.places import Faults, Places
from statewright.statecharts.reader import read_definition
from statewright.statecharts.scxml.reader import read_scxml
from statewright.statecharts.subscriptions import Subscription
from statewright.statecharts.transitions_reader import is_transitions, read_transitions

Functions = Mapping[str, Callable[..., Any]]
Machine = ChartMachine
SUFFIXES = (".yaml", ".yml", ".json", ".scxml")


class Chart:
    """A definition and its compiled machine. Immutable; one may serve any number of instances and threads.

    definition: the frozen tree. functions: name -> Python callable, those that the definition uses.
    machine: start, step, restore. subscriptions: compiled, of foreign subjects. places: where each part was written.
    warnings: what will fail when it is evaluated (dynamic expressions only). folder: where files that the chart names
    while it runs are looked up; None without a file. step_functions: of a chart that was compiled from a workflow, by
    name, the functions that it was built with, which perform its steps; no part of the definition.
    """

    def __init__(
        self,
        definition: d.Definition,
        functions: Functions | None = None,
        *,
        faults: Faults | None = None,
        folder: Path | None = None,
    ) -> None:
        """Validate and compile. Raises ChartError with all faults, a function that is not given among them.

        `faults` are those that a reader has found already, with the places that it has read from.
        """
        self.definition = definition
        faults = faults if faults is not None else Faults(Places.canonical(definition))
        self.places = faults.places
        compiled = compile_definition(definition, functions or {}, faults)
        self.machine: Machine = compiled.machine
        self.functions: Functions = dict(compiled.functions)
        self.subscriptions: tuple[Subscription, ...] = compiled.subscriptions
        self.warnings: tuple[Fault, ...] = compiled.warnings
        self.folder = folder
        self.step_functions: Functions = {}
        self._children: dict[str, Chart] = {}

    @classmethod
    def from_tree(
        cls,
        tree: Any,
        functions: Functions | None = None,
        lines: Mapping[tuple[str | int, ...], int] | None = None,
        *,
        folder: Path | None = None,
    ) -> Chart:
        """A chart from its written form as a plain tree (see `reader`). Raises ChartError with all faults."""
        faults = Faults(Places(lines))
        try:
            definition, found = read_definition(tree, faults)
        except RecursionError:
            raise ChartError([Fault(path="", message=DEPTH_MESSAGE)]) from None
        if definition is None:
            raise ChartError(faults.sorted())
        if folder is not None:
            _look_beside(folder, definition, faults)
        # Compiled even if the reader has found faults: the author gets all of them at once.
        return cls(definition, {**(functions or {}), **found}, faults=faults, folder=folder)

    @classmethod
    def from_scxml(
        cls, data: bytes, name: str = "chart", *, folder: Path | None = None, file: Path | None = None
    ) -> Chart:
        """A chart from an SCXML document. `name` is its name if the document gives none; files that it refers to are
        looked up in `folder`. Raises ChartError with all faults."""
        faults = Faults(Places())
        try:
            definition = read_scxml(data, faults, name=name, folder=folder, file=file)
            if definition is None:
                raise ChartError(faults.sorted())
            return cls(definition, faults=faults, folder=folder)
        except RecursionError:
            raise ChartError([Fault(path="", message=DEPTH_MESSAGE)]) from None

    @classmethod
    def from_transitions(
        cls,
        config: Any,
        functions: Functions | None = None,
        lines: Mapping[tuple[str | int, ...], int] | None = None,
        *,
        folder: Path | None = None,
        **options: Any,
    ) -> Chart:
        """A chart from a configuration of the `transitions` library; `options` are those of
        `transitions_form.from_transitions`. Raises ChartError with all faults."""
        faults, given = Faults(Places(lines)), functions or {}
        try:
            definition, found = read_transitions(config, faults, given, **options)
        except RecursionError:
            raise ChartError([Fault(path="", message=DEPTH_MESSAGE)]) from None
        if definition is None:
            raise ChartError(faults.sorted())
        return cls(definition, {**given, **found}, faults=faults, folder=folder)

    def child(self, request: StartChild) -> Chart:
        """The chart of a child that is to be started: the one in the definition, or in a file in the chart's folder, or
        in a text. Raises ChartError or ChartNotFound."""
        if request.src:
            if self.folder is None:
                raise ChartNotFound(request.src, f"chart {self.name!r} was read from no file that it could be beside")
            return _load_file(_beside(self.folder, request.src), self.functions)
        if request.content:
            return Chart.from_scxml(request.content.encode(), "child", folder=self.folder)
        found = self._children.get(request.key)
        if found is None:
            definitions = {child_key(s.id, index): i.chart for s, index, i in d.walk_invokes(self.definition)}
            definition = definitions.get(request.key)
            if definition is None:
                raise ChartNotFound(request.key, f"chart {self.name!r} invokes nothing there")
            found = self._children[request.key] = Chart(definition, self.functions, folder=self.folder)
        return found

    def children(self) -> Iterator[Chart]:
        """The charts that it says it invokes: those in the definition and those in files beside the chart's own. Raises
        ChartError, ChartNotFound."""
        for state, index, invoke in d.walk_invokes(self.definition):
            if invoke.chart is not None or (self.folder is not None and Path(invoke.src).suffix in SUFFIXES):
                yield self.child(StartChild(invoke.id, child_key(state.id, index), invoke.src))

    @classmethod
    def from_json(cls, data: bytes, functions: Functions | None = None) -> Chart:
        """The chart of a stored canonical JSON. Raises ChartError, also if a function it names is gone."""
        try:
            return cls(msgspec.json.decode(data, type=d.Definition), functions)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ChartError([Fault(path="", message=f"not a definition: {error}")]) from error

    def to_json(self) -> bytes:
        """The canonical JSON of the definition."""
        return self._json

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def version(self) -> str:
        return self.definition.version

    @cached_property
    def _json(self) -> bytes:
        return d.to_json(self.definition)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hex: the identity of the definition's content."""
        return hashlib.sha256(self._json).hexdigest()

    @cached_property
    def handler_names(self) -> tuple[str, ...]:
        """The names of the `perform` effects that the chart can request, in document order."""
        return tuple(dict.fromkeys(a.name for a in d.walk_actions(self.definition) if isinstance(a, d.Perform)))

    def __repr__(self) -> str:
        return f"<Chart {self.name} version {self.version} digest {self.digest[:12]}>"


def load_chart(source: str | Path, functions: Functions | None = None) -> Chart:
    """The chart in a `.yaml`, `.yml`, `.json` or `.scxml` file, or at `module:attribute` or `file.py:attribute`.

    A `.json` file with an `id` and no `name`, or called `*.xstate.json`, is an XState configuration (see `xstate`).
    `functions` are what a file's `{function: name}`, or XState's names, may refer to. Raises ChartError with every
    fault and its line, ChartNotFound if there is no such file, module or attribute.
    """
    text = str(source)
    _, colon, attribute = text.rpartition(":")
    if colon and attribute.isidentifier() and not Path(text).is_file():
        return _from_attribute(text)
    if Path(text).suffix not in SUFFIXES:
        raise ChartNotFound(text, "expected a .yaml, .yml, .json or .scxml file, module:attribute or file.py:attribute")
    return _load_file(Path(text), functions)


def _look_beside(folder: Path, definition: d.Definition, faults: Faults) -> None:
    """Add a fault for each child's file that is not there, or must not be read."""
    for _, _, invoke in d.walk_invokes(definition):
        if not Path(invoke.src).suffix:
            continue
        try:
            if not _beside(folder, invoke.src).is_file():
                faults.add(invoke, f"expected a file beside the chart, but there is no {invoke.src!r}", "src")
        except ChartNotFound as error:
            faults.add(invoke, str(error), "src")


def _beside(folder: Path, src: str) -> Path:
    """The file that a chart in `folder` names. Raises ChartNotFound if it is outside, or no chart's."""
    path = (folder / src.removeprefix("file:")).resolve()
    if not path.suffix:  # the name of a definition: without an engine to ask, the file that is called so
        found = [file for suffix in SUFFIXES if (file := path.with_suffix(suffix)).is_file()]
        if not found:
            raise ChartNotFound(
                src, "expected a definition that the engine has, or a file of that name beside the chart"
            )
        path = found[0]
    # Checked by name too: what a chart computes must never lead to a Python attribute.
    if not path.is_relative_to(folder.resolve()) or path.suffix not in SUFFIXES:
        raise ChartNotFound(src, f"expected a file in the chart's folder, one of {', '.join(SUFFIXES)}")
    return path


def _load_file(path: Path, functions: Functions | None) -> Chart:
    data = read_file(path)
    if path.suffix == ".scxml":
        return Chart.from_scxml(data, path.stem, folder=path.parent, file=path)
    tree, lines = read_document(data, is_json=path.suffix == ".json")
    if path.suffix == ".json":
        from statewright.statecharts import xstate  # which builds charts itself

        if xstate.is_xstate(tree, path.name):
            return xstate.build(tree, xstate.Meanings(functions or {}), lines=lines, file=path)
    if is_workflow(tree):
        from statewright.statecharts.workflows import Workflow  # which builds charts itself

        return Workflow.from_tree(tree, functions, lines).chart()
    if is_transitions(tree):
        name = None if tree.get("name") else re.sub(r"[^A-Za-z0-9_-]", "-", path.stem)[:128]
        return Chart.from_transitions(tree, functions, lines, name=name, folder=path.parent)
    return Chart.from_tree(tree, functions, lines, folder=path.parent)


def read_file(path: Path) -> bytes:
    """What is in the file, up to the bound of a document. Raises ChartNotFound."""
    text = str(path)
    try:
        with path.open("rb") as file:
            return file.read(DOCUMENT_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ChartNotFound(text, "there is no such file") from None
    except OSError as error:
        raise ChartNotFound(text, f"it cannot be read: {error.strerror}") from error


def is_workflow(tree: Any) -> bool:
    """Whether a document is a workflow, not a chart: it has steps, and no states."""
    return isinstance(tree, Mapping) and "steps" in tree and "states" not in tree


def load_attribute(source: str) -> Any:
    """The object at `module:attribute` or `file.py:attribute`. Raises ChartNotFound if there is none."""
    module_name, _, attribute = source.rpartition(":")
    module = _import_file(source, Path(module_name)) if module_name.endswith(".py") else _import(source, module_name)
    found = getattr(module, attribute, None)
    if found is None:
        raise ChartNotFound(source, f"{module_name} has no attribute {attribute!r}")
    return found


def _from_attribute(source: str) -> Chart:
    found = load_attribute(source)
    if isinstance(found, Chart):
        return found
    from statewright.statecharts.workflows import Workflow  # which builds charts itself

    if isinstance(found, Workflow):
        return found.chart()
    raise StatewrightError(f"expected a Chart or a Workflow at {source!r}, got {type(found).__name__}")


def _import(source: str, name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # the module is there; something that it imports is not
        raise ChartNotFound(source, f"there is no module {name!r}") from None
    except (ValueError, TypeError) as error:
        raise ChartNotFound(source, f"{name!r} is no module name: {error}") from None


def _import_file(source: str, path: Path) -> Any:
    if not path.is_file():
        raise ChartNotFound(source, f"there is no file {path}")
    # The name tells files of the same stem apart, and the same file is run once.
    name = f"_statewright_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
