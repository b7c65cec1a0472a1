"""Reads a configuration of `transitions` (what `Machine(**config)` takes and `MarkupMachine.markup` gives) into a
`Definition`. What can't be carried over with its meaning is a fault.

States keep their order and, in each state, transitions theirs; those that are written inside a state come before those
written around it, as in `transitions`. Nothing that a name says is imported: a condition is a function that was given,
or a bool field of the context; a callback is a function that was given (it returns the fields to change), or a trigger
(its event is raised), or else the name of an effect, performed after the commit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from statewright.statecharts import definition as d
from statewright.statecharts.places import Faults, Path
from statewright.statecharts.reader import read_definition
from statewright.statecharts.transitions_states import ITSELF, Named, StatesReader, is_nested

_TRANSITION = ("trigger", "source", "dest", "conditions", "unless", "before", "after", "prepare")
"""The keys of a transition, in the order of its list form."""
_CARRIED = {"states", "initial", "transitions", "name", "before_state_change", "after_state_change", "on_final"}
_MODES = {"auto_transitions", "ordered_transitions"}
_MEANINGLESS = {
    *("model", "models", "model_attribute", "model_override", "send_event", "queued", "ignore_invalid_triggers"),
}
"""Of objects and calls, which a definition doesn't have: an instance always queues and records what it refuses."""
_REFUSED = {
    "prepare_event": "nothing runs before the guards; have the sender put what they need into the event's data",
    "finalize_event": "nothing runs after an event; every event is recorded, and projections follow the log",
    "on_exception": "nothing of yours that can raise runs in a transition; a failed effect is the event error.effect.*",
    "prepare": "nothing runs before the guards; have the sender put what they need into the event's data",
}
_OURS = {"version", "context"}
_TRIGGER = re.compile(r"[^\s.*]+(\.[^\s.*]+)*")


class Condition(NamedTuple):
    """One of a transition's `conditions`, or, `negated`, of its `unless`. No function: the field of this name."""

    name: str
    negated: bool
    function: Callable[..., Any] | None

    def holds(self, context: Any, event: Any) -> bool:
        value = self.function(context, event) if self.function is not None else context[self.name]
        if not isinstance(value, bool):
            raise TypeError(f"expected a bool from {self.name!r}, got {value!r}")
        return value is not self.negated


def is_transitions(tree: Any) -> bool:
    """Whether a document is a configuration of `transitions` and none of ours: in our lists every state is a mapping
    with an `id`, which theirs never has, and our transitions have no `trigger`."""
    if not isinstance(tree, Mapping) or not isinstance(tree.get("states"), list):
        return False
    states, transitions = tree["states"], tree.get("transitions")
    if any(isinstance(state, Mapping) and "id" in state for state in states):
        return False
    named = any(isinstance(state, str) or (isinstance(state, Mapping) and "name" in state) for state in states)
    listed = transitions if isinstance(transitions, list) else []
    return named or any(isinstance(item, list) or (isinstance(item, Mapping) and "trigger" in item) for item in listed)


def read_transitions(
    config: Any,
    faults: Faults,
    functions: Mapping[str, Callable[..., Any]],
    *,
    name: str | None = None,
    version: str | None = None,
    context: Any = None,
    separator: str = "_",
    nested: bool | None = None,
) -> tuple[d.Definition | None, dict[str, Callable[..., Any]]]:
    """The definition (None if there is nothing to read) and the functions that it needs beside those given.

    Its places go to `faults.places`, what is wrong to `faults`. See `from_transitions` for the rest.
    """
    if not isinstance(config, Mapping):
        faults.at((), "", f"expected a mapping with states and transitions, got {type(config).__name__}")
        return None, {}
    head = {
        "name": name if name is not None else config.get("name"),
        "version": version if version is not None else config.get("version", "1"),
        "context": context if context is not None else config.get("context"),
    }
    definition, _ = read_definition({key: value for key, value in head.items() if value is not None}, faults)
    assert definition is not None
    reader = _Reader(
        faults, separator, is_nested(config.get("states")) if nested is None else nested, functions, definition.context
    )
    return reader.chart(config, definition), reader.functions


class _Reader(StatesReader):
    def __init__(
        self,
        faults: Faults,
        separator: str,
        nested: bool,
        functions: Mapping[str, Callable[..., Any]],
        fields: tuple[d.Declaration, ...],
    ) -> None:
        super().__init__(faults, separator, nested)
        self.given = functions
        self.flags = {field.name for field in fields if field.type == "bool"}
        self.triggers: set[str] = set()
        self.longer: dict[str, str] = {}
        """For each trigger's beginnings up to a dot, that trigger."""
        self.automatic: dict[str, Named] = {}
        """The triggers that `transitions` makes by itself, whether they are wanted or not."""
        self.before: tuple[d.AnyAction, ...] = ()
        self.after: tuple[d.AnyAction, ...] = ()
        self.on_final: Any = None
        self.root_transitions: list[d.Transition] = []
        self.found: dict[Named, list[tuple[int, d.Transition]]] = {}
        """The transitions of each state, with the negative depth of where they are written: the innermost first."""

    def chart(self, config: Mapping[str, Any], head: d.Definition) -> d.Definition:
        self.known(config, _CARRIED | _MODES | _MEANINGLESS | set(_REFUSED) | _OURS, (), "a `transitions` machine")
        self._refuse(config, (), ("prepare_event", "finalize_event", "on_exception"))
        self.states(config.get("states"), ("states",), self.root)
        initial = self._machine_initial(config)
        self.give_ids()
        self._learn_triggers(config)
        self.before = self.callbacks(config.get("before_state_change"), ("before_state_change",))
        self.after = self.callbacks(config.get("after_state_change"), ("after_state_change",))
        self.on_final = config.get("on_final")
        # `markup` leaves out a dest of None, so that what it wrote may lack it.
        self._transitions(config.get("transitions"), ("transitions",), self.root, has_dest="models" not in config)
        for state in self.root.below():
            inner = (*state.path, "transitions")
            self._transitions(state.tree.get("transitions"), inner, state, has_dest="models" not in config)
        if config.get("ordered_transitions"):
            self._ordered(initial)
        if config.get("auto_transitions") is True:
            self._auto()
        self.state = ""
        begins = d.Initial(target=(initial.id,)) if initial is not None else None
        if begins is not None:
            self.places.put(begins, ("initial",), "")
        chart = msgspec.structs.replace(
            head,
            initial=begins,
            transitions=tuple(self.root_transitions),
            states=tuple(self._state(state) for state in self.root.children),
        )
        self.places.put(chart, (), "")
        return chart

    # -- the machine -------------------------------------------------------------------------------------------

    def _refuse(self, tree: Mapping[str, Any], path: Path, keys: tuple[str, ...]) -> None:
        for key in keys:
            if tree.get(key):
                self.fault((*path, key), f"{key!r} can't be carried over: {_REFUSED[key]}")

    def _machine_initial(self, config: Mapping[str, Any]) -> Named | None:
        """The state where the machine begins; without one `transitions` adds a state `initial`."""
        if "initial" not in config:
            found = self.root.child("initial") or self._new("initial", ("states",), self.root, {})
        else:
            given, path = config["initial"], ("initial",)
            if isinstance(given, list | tuple) and len(given) == 1:
                given = given[0]
            if given is None or isinstance(given, list | tuple):
                self.fault(path, f"expected one state where every instance begins, got {self.kind(given)}")
                return None
            resolved = self.resolve(given, path, self.root, "initial")
            if resolved is None:
                return None
            found = resolved
        found.enter()
        return found

    def _learn_triggers(self, config: Mapping[str, Any]) -> None:
        trees = [config, *(state.tree for state in self.root.below())]
        for tree in trees:
            for item, _ in self.items(tree.get("transitions"), ()):
                trigger = item[0] if isinstance(item, list | tuple) and item else None
                trigger = item.get("trigger") if isinstance(item, Mapping) else trigger
                if isinstance(trigger, str):
                    self.triggers.add(trigger)
                    self.longer |= {trigger[: dot.start()]: trigger for dot in re.finditer(r"\.", trigger)}
        if config.get("ordered_transitions"):
            self.triggers.add("next_state")
        attribute = config.get("model_attribute", "state")
        prefix = "to_" if self.nested or attribute == "state" else f"to_{attribute}_"
        self.automatic = {f"{prefix}{self.full_name(state)}": state for state in self.root.below()}
        if config.get("auto_transitions") is True:
            self.triggers |= set(self.automatic)

    def _auto(self) -> None:
        """`to_<state>` from everywhere; from inside a state around the target only what is inside that is left."""
        for trigger, target in self.automatic.items():
            target.enter()
            path = ("auto_transitions",)
            self.root_transitions.append(self._made(trigger, target, path))
            for around in target.line[1:-1]:
                if not any(state.parallel for state in target.line[1 : target.line.index(around) + 1]):
                    made = self._made(trigger, target, path, internal=True)
                    self.found.setdefault(around, []).append((0, made))

    def _made(self, trigger: str, target: Named, path: Path, *, internal: bool = False) -> d.Transition:
        actions = (*self.before, *self.after)
        made = d.Transition(events=(trigger,), target=(target.id,), actions=actions, internal=internal)
        self.places.put(made, path, "")
        return made

    def _ordered(self, initial: Named | None) -> None:
        """`next_state` from each state to the next and from the last to the first, beginning with the initial one."""
        path = ("ordered_transitions",)
        states = list(self.root.below()) if self.nested else self.root.children
        if len(states) < 2:
            self.fault(path, f"expected at least 2 states to put in order, got {len(states)}")
            return
        start = states.index(initial) if initial in states else 0
        states = states[start:] + states[:start]
        for source, target in zip(states, states[1:] + states[:1], strict=True):
            if not source.final:
                self._connect("next_state", source, target, path, 0, None, ())

    # -- transitions -------------------------------------------------------------------------------------------

    def _transitions(self, tree: Any, path: Path, scope: Named, *, has_dest: bool) -> None:
        self.state = scope.id
        if tree is not None and not isinstance(tree, list | tuple):
            self.fault(path, f"expected a list of transitions, got {self.kind(tree)}")
            return
        for item, place in self.items(tree, path):
            fields, places = self._parts(item, place, has_dest=has_dest)
            if fields is not None:
                self._transition(fields, places, place, scope)

    def _parts(self, item: Any, path: Path, *, has_dest: bool) -> tuple[dict[str, Any] | None, dict[str, Path]]:
        """The transition's fields by their names, and where each stands."""
        if isinstance(item, list | tuple):
            if not 3 <= len(item) <= len(_TRANSITION):
                self.fault(path, f"expected [trigger, source, dest] and at most 5 more, got {len(item)} items")
                return None, {}
            places = {key: (*path, index) for index, key in enumerate(_TRANSITION)}
            return dict(zip(_TRANSITION, item, strict=False)), places
        if not isinstance(item, Mapping):
            self.fault(path, f"expected a transition, a mapping or a list, got {self.kind(item)}")
            return None, {}
        self.known(item, {*_TRANSITION, "label"}, path, "a transition of `transitions`")
        needed = _TRANSITION[:3] if has_dest else _TRANSITION[:2]
        if missing := [key for key in needed if key not in item]:
            hint = " (null for an internal transition)" if "dest" in missing else ""
            self.fault(path, f"expected {', '.join(missing)} in the transition, which is missing{hint}")
            return None, {}
        return dict(item), {key: (*path, key) for key in _TRANSITION}

    def _transition(self, fields: Mapping[str, Any], places: Mapping[str, Path], path: Path, scope: Named) -> None:
        trigger, dest = fields["trigger"], fields.get("dest")
        if not isinstance(trigger, str) or not _TRIGGER.fullmatch(trigger):
            self.fault(places["trigger"], f"expected a trigger, a name without blanks and *, got {trigger!r}")
            return
        if (longer := self.longer.get(trigger)) is not None:
            message = (
                f"the event {longer!r} would pull the trigger {trigger!r} too, because a dot parts an event's name"
            )
            self.fault(places["trigger"], message)
        if fields.get("prepare"):
            self.fault(places["prepare"], f"'prepare' can't be carried over: {_REFUSED['prepare']}")
        guard = self._guard(fields, places)
        actions = (
            *self.before,
            *self.callbacks(fields.get("before"), places["before"]),
            *self.callbacks(fields.get("after"), places["after"]),
            *self.after,
        )
        label = fields.get("label") if isinstance(fields.get("label"), str) else ""
        target = None
        if dest is not None and dest != "=":
            target = self.resolve(dest, places["dest"], scope, "dest")
            if target is None:
                return
        for source in self._sources(fields["source"], places["source"], scope, dest):
            aim = source if dest == "=" else target
            depth = len(scope.line) - 1
            self._connect(trigger, source, aim, path, depth, guard, actions, places=places, description=label or "")

    def _sources(self, tree: Any, path: Path, scope: Named, dest: Any) -> list[Named]:
        if tree == "*":
            # Nothing leaves a final state, so it is not meant by "all".
            all_states = list(scope.below()) if dest == "=" and self.nested else scope.children
            return [state for state in all_states if not state.final]
        found = []
        for item, place in self.items(tree, path):
            source = self.resolve(item, place, scope, "source")
            if source is not None and source.final:
                self.fault(place, f"expected no transition from the final state {source.name!r}: it ends what it is in")
            elif source is not None:
                found.append(source)
        return found

    def _connect(
        self,
        trigger: str,
        source: Named,
        target: Named | None,
        path: Path,
        depth: int,
        guard: d.Guard | None,
        actions: tuple[d.AnyAction, ...],
        *,
        places: Mapping[str, Path] | None = None,
        description: str = "",
    ) -> None:
        """One transition from one source. `transitions` leaves what is inside the innermost state that is around both
        (the source itself, if the target is in it); where that would be one region only, SCXML can't say it."""
        internal = False
        if target is not None:
            around = next(state for state in source.line if state in target.line[1:])
            internal = around is source
            between = target.line[1 : target.line.index(around) + 1] if internal else [around]
            if (parallel := next((state for state in between if state.parallel), None)) is not None:
                where = places["dest"] if places else path
                self.fault(
                    where,
                    f"from {source.id!r} to {target.id!r} `transitions` changes one region of {parallel.id!r} alone; "
                    f"here that would leave all of them: put a transition between the states of that region",
                )
                return
            target.enter()
        if places is None:
            actions = (*self.before, *actions, *self.after)
        transition = d.Transition(
            events=(trigger,),
            target=(target.id,) if target is not None else (),
            guard=guard,
            actions=actions,
            internal=internal,
            description=description,
        )
        self.places.put(transition, path, source.id)
        self.found.setdefault(source, []).append((-depth, transition))

    def _guard(self, fields: Mapping[str, Any], places: Mapping[str, Path]) -> d.Guard | None:
        """All conditions hold and none of `unless`; as one expression or one function."""
        conditions = []
        for key, negated in (("conditions", False), ("unless", True)):
            for item, place in self.items(fields.get(key), places[key]):
                condition = self._condition(item, place, negated)
                if condition is not None:
                    conditions.append(condition)
        if not conditions:
            return None
        if all(condition.function is None for condition in conditions):
            return " && ".join(f"{'!' * c.negated}context.{c.name}" for c in conditions)
        text = " and ".join(f"{'not ' * c.negated}{c.name}" for c in conditions)
        if len(conditions) > 1 or conditions[0].negated:
            self.functions[text] = _all_of(tuple(conditions))
        return d.FunctionRef(function=text)

    def _condition(self, tree: Any, path: Path, negated: bool) -> Condition | None:
        if callable(tree):
            name = self._own(tree, path)
            return Condition(name, negated, tree) if name else None
        if not isinstance(tree, str):
            self.fault(path, f"expected a function or its name, got {self.kind(tree)}")
            return None
        if tree not in self.given and tree not in self.flags:
            self.fault(
                path, f"expected {tree!r} to be a function that is given, or a field of the context of type bool"
            )
            return None
        return Condition(tree, negated, self.given.get(tree))

    def _own(self, function: Callable[..., Any], path: Path) -> str:
        """The name of a function that stands in the configuration itself; empty if it has none."""
        name = self.function(function, path)
        if name not in self.functions:
            return ""
        if self.given.get(name, function) is not function:
            self.fault(path, f"expected one function named {name!r}, got two different ones")
        return name

    # -- states and callbacks ----------------------------------------------------------------------------------

    def callbacks(self, tree: Any, path: Path) -> tuple[d.AnyAction, ...]:
        actions = []
        for item, place in self.items(tree, path):
            action = self._callback(item, place)
            if action is not None:
                self.places.put(action, place, self.state)
                actions.append(action)
        return tuple(actions)

    def _callback(self, tree: Any, path: Path) -> d.AnyAction | None:
        if callable(tree):
            name = self._own(tree, path)
            return d.Assign(function=name) if name else None
        if not isinstance(tree, str):
            self.fault(path, f"expected a function or a name, got {self.kind(tree)}")
        elif tree in self.given:
            return d.Assign(function=tree)
        elif tree in self.triggers:
            return d.Raise(event=tree)
        elif tree in self.automatic:
            self.fault(path, f"{tree!r} is an automatic transition; say auto_transitions: true, or add a transition")
        elif not tree.isidentifier():
            self.fault(path, f"expected a name, which is never imported or evaluated, got {tree!r}")
        else:
            return d.Perform(name=tree, data="event.data")
        return None

    def _state(self, named: Named) -> d.State:
        self.state = named.id
        tree, path = named.tree, named.path
        on_enter = self.callbacks(tree.get("on_enter"), (*path, "on_enter"))
        ended = self._on_final(named)
        transitions = [t for _, t in sorted(self.found.get(named, ()), key=lambda pair: pair[0])]
        transitions += self._timeout(named)
        if named.children and ended:
            transitions.append(d.Transition(events=(f"done.state.{named.id}",), actions=ended))
            self.places.put(transitions[-1], (*path, "on_final"), named.id)
        on_exit = self.callbacks(tree.get("on_exit"), (*path, "on_exit"))
        tags = self.strings(tree.get("tags"), (*path, "tags"))
        label = self.text(tree, "label", path)
        states = [self._state(child) for child in named.children]
        begins = named.begins.id if named.begins is not None else ""
        if named.children and not named.parallel and not begins and named.entered:
            begins = f"{named.id}.{ITSELF}"
            states.insert(0, d.State(id=begins, description=f"in {named.id}, and in none of its states"))
            self.places.put(states[0], path, begins)
        initial = d.Initial(target=(begins,)) if begins else None
        if initial is not None:
            self.places.put(initial, (*path, "initial"), named.id)
        kind: d.StateType = "final" if named.final else "parallel" if named.parallel else "atomic"
        state = d.State(
            id=named.id,
            type="compound" if kind == "atomic" and states else kind,
            description=label,
            tags=tags,
            initial=initial,
            entry=(*on_enter, *(() if named.children else ended)),
            exit=on_exit,
            transitions=tuple(transitions),
            states=tuple(states),
        )
        self.places.put(state, path, named.id)
        return state

    def _on_final(self, named: Named) -> tuple[d.AnyAction, ...]:
        """What is done when the state ends: a final one when it is entered, another one when what is inside has
        ended."""
        if not named.final and not any(child.final for child in named.below()):
            return ()
        actions = self.callbacks(named.tree.get("on_final"), (*named.path, "on_final"))
        at_top = named.parent is self.root
        return (*actions, *self.callbacks(self.on_final, ("on_final",))) if at_top else actions

    def _timeout(self, named: Named) -> list[d.Transition]:
        tree, path = named.tree, (*named.path, "timeout")
        seconds = tree.get("timeout", 0)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 2**32:
            self.fault(path, f"expected a timeout in seconds, got {seconds!r}")
            return []
        if seconds == 0:
            return []
        if "on_timeout" not in tree:
            self.fault(path, "expected on_timeout beside timeout, which is missing")
        milliseconds = max(1, round(seconds * 1000))
        delay = f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"
        actions = self.callbacks(tree.get("on_timeout"), (*named.path, "on_timeout"))
        transition = d.Transition(delay=delay, actions=actions)
        self.places.put(transition, path, named.id)
        return [transition]


def _all_of(conditions: tuple[Condition, ...]) -> Callable[..., bool]:
    def holds(context: Any, event: Any) -> bool:
        return all(condition.holds(context, event) for condition in conditions)

    return holds
