"""The definition model: what a chart is, as data.

One frozen tree that every door (YAML, JSON, Python, SCXML) reads into and the compiler reads from.
Its JSON (`msgspec.json.encode`, defaults omitted) is canonical: the same chart through any door gives the same
bytes, hence the same digest. Document order is the order of the lists; nothing here depends on the order of
an object's keys except `Assign.values` and `data`, which keep theirs.

Values: wherever a `Json` value is to be evaluated (`values`, `data`, `output`), a string is a CEL expression, a
mapping or list is evaluated element by element, any other scalar is itself, and a mapping with the single key
`function` calls the registered Python function of that name with `(context, event)`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Json = Any
StateType = Literal["atomic", "compound", "parallel", "final", "history"]
CancelWhen = Literal["never", "on_exit"]
FinalStatus = Literal["completed", "failed", "cancelled"]
StepStatus = Literal[
    "pending", "running", "completed", "failed", "skipped", "cancelled", "compensated", "compensation_failed"
]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


class Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True, eq=False):
    """Base of all parts of a definition. Parts are compared by identity, so that each has its own place."""


class Action(Node, frozen=True, tag_field="type", tag=_snake):
    """Base of the actions; in JSON each carries its kind as `type`."""


class FunctionRef(Node, frozen=True):
    """A Python function from the chart's registry, by name."""

    function: str


Guard = str | FunctionRef
"""A CEL text of type bool, or a function `(context, event) -> bool`."""


class Assign(Action, frozen=True):
    """Set top-level context fields. All `values` see the context as it was before this action (SCXML 5.4).

    With dynamic expressions a key may also be a place inside a field: `order.lines[0]`.

    Instead of `values`, `function` names a Python function `(context, event) -> mapping of fields`.
    """

    values: dict[str, Json] = {}
    function: str = ""


class Raise(Action, frozen=True):
    """Put an event on the internal queue (SCXML 4.2). It is handled within this macrostep."""

    event: str
    data: Json = None


class Send(Action, frozen=True):
    """Send an event to this instance after `delay` (SCXML 6.2); without one, as the next external event.

    `id` names it for `cancel`. `eventexpr` computes the name; `delay` is a duration literal or a CEL text.
    `target` is another session: `#_parent`, `#_<invokeid>`, `#_scxml_<sessionid>`; `#_internal` is the internal queue.
    `processor` is SCXML's `type` of the send; `idlocation` is where a generated id is put.
    """

    event: str = ""
    eventexpr: str = ""
    data: Json = None
    delay: str = ""
    id: str = ""
    idlocation: str = ""
    target: str = ""
    targetexpr: str = ""
    processor: str = ""
    processorexpr: str = ""


class Cancel(Action, frozen=True):
    """Cancel the delayed send of this id (SCXML 6.3); `sendidexpr` computes the id."""

    sendid: str = ""
    sendidexpr: str = ""


class Retry(Node, frozen=True):
    """How an effect's failed attempts are made again: after `initial`, then each time `multiplier` times as long, never
    longer than `maximum` (durations).

    `jitter` is the part of a wait, 0 to 1, by up to which it is shortened, so that many that failed together don't come
    back together. `final` names errors that trying again can't help: the class of the exception or one of its bases
    (`ValueError`), or the code of a service's error (`409`).
    """

    attempts: Annotated[int, Meta(ge=1)] = 5
    initial: str = "1s"
    maximum: str = "60s"
    multiplier: Annotated[float, Meta(ge=1)] = 2.0
    jitter: Annotated[float, Meta(ge=0, le=1)] = 0.0
    final: tuple[str, ...] = ()


class Emit(Action, frozen=True):
    """Publish a message on the bus after the commit. `subjectexpr` computes the subject. The rest is as in perform."""

    subject: str = ""
    subjectexpr: str = ""
    data: Json = None
    retry: Retry | None = None
    timeout: str = ""
    cancel: CancelWhen = "never"


class Call(Action, frozen=True):
    """Call `method` of `service` after the commit; the result comes back as `done.effect.<service>.<method>`. The rest
    is as in perform."""

    service: str
    method: str
    data: Json = None
    retry: Retry | None = None
    timeout: str = ""
    heartbeat: str = ""
    cancel: CancelWhen = "never"


class Perform(Action, frozen=True):
    """Have the handler registered as `name` perform something after the commit.

    `timeout` is for one attempt, `heartbeat` the longest time between two signs of life from it. What is not said is up
    to the handler. With `cancel: on_exit` it is cancelled when the state in which it was asked for is left.
    """

    name: str
    data: Json = None
    retry: Retry | None = None
    timeout: str = ""
    heartbeat: str = ""
    cancel: CancelWhen = "never"


class RunStep(Action, frozen=True):
    """Have a step of a workflow performed after the commit: what it is, its definition says. `by` says who can, and is
    part of the effect's kind: `step.<by>`, else `step`. The rest is as in perform; the result comes back as
    `done.effect.<step>` or `error.effect.<step>`."""

    step: str
    by: str = ""
    retry: Retry | None = None
    timeout: str = ""
    heartbeat: str = ""
    cancel: CancelWhen = "never"


class Record(Action, frozen=True):
    """Say how a step of the instance stands. Of several records of one step in a macrostep the last one counts."""

    step: str
    status: StepStatus


class Log(Action, frozen=True):
    """Add a line to the step's log (SCXML 4.7)."""

    expr: str = ""
    label: str = ""


class Branch(Node, frozen=True):
    """One arm of an `If`: a guard and what to do if it is the first that holds."""

    guard: Guard
    actions: tuple[AnyAction, ...] = ()


class If(Action, frozen=True):
    """The first branch whose guard holds, else `otherwise` (SCXML 4.3)."""

    branches: tuple[Branch, ...]
    otherwise: tuple[AnyAction, ...] = ()


class Foreach(Action, frozen=True):
    """Run `actions` for each item of a copy of `array`, with `item` and `index` as fields (SCXML 4.6)."""

    array: str
    item: str
    index: str = ""
    actions: tuple[AnyAction, ...] = ()


class Script(Action, frozen=True):
    """Assignments `place = expression`, one a line or parted by `;`, in order (SCXML 5.8). They may make new fields."""

    source: str


class Block(Action, frozen=True):
    """Executable content that fails on its own: what comes after it is run all the same (several `<onentry>`)."""

    actions: tuple[AnyAction, ...] = ()


AnyAction = (
    Assign | Raise | Send | Cancel | Emit | Call | Perform | RunStep | Record | Log | If | Foreach | Script | Block
)


class Initial(Node, frozen=True):
    """Where a compound state begins, or what a history state without a record means (SCXML 3.6, 3.10)."""

    target: tuple[str, ...]
    actions: tuple[AnyAction, ...] = ()


class Invoke(Node, frozen=True):
    """A child that runs while its state is active (SCXML 6.4): one of `chart`, `src`, `srcexpr` and `contentexpr`.

    `id` names it, else `<state>.<number>` does; `idlocation` is where that id is put. `data` is a mapping of values for
    the fields that the child declares. `autoforward` passes on every external event. `finalize` runs on each event that
    comes from the child, before a transition is chosen. `type` is that of SCXML (`scxml` or its URI), and the default.
    """

    id: str = ""
    idlocation: str = ""
    type: str = ""
    typeexpr: str = ""
    chart: Definition | None = None
    src: str = ""
    srcexpr: str = ""
    contentexpr: str = ""
    data: dict[str, Json] = {}
    autoforward: bool = False
    finalize: tuple[AnyAction, ...] = ()


class Transition(Node, frozen=True):
    """One transition (SCXML 3.5). Neither `events` nor `delay`: it is eventless. No `target`: it is targetless.

    `delay`: it fires this long after its state was entered; transitions of one state with the same text share a timer.
    """

    events: tuple[str, ...] = ()
    delay: str = ""
    target: tuple[str, ...] = ()
    guard: Guard | None = None
    actions: tuple[AnyAction, ...] = ()
    internal: bool = False
    description: str = ""


class State(Node, frozen=True):
    """One state; its children in document order. `initial` of a history state is its default.

    `context` are fields that get their values when the state is entered for the first time (SCXML's late binding);
    until then they are null. `status` is how the instance ends with this final state, if it is one of the chart itself;
    if it has failed or was cancelled, the context's field `error` says why.
    """

    id: str
    type: StateType = "atomic"
    description: str = ""
    tags: tuple[str, ...] = ()
    meta: dict[str, Json] = {}
    context: tuple[Declaration, ...] = ()
    initial: Initial | None = None
    history: Literal["shallow", "deep"] = "shallow"
    entry: tuple[AnyAction, ...] = ()
    exit: tuple[AnyAction, ...] = ()
    invoke: tuple[Invoke, ...] = ()
    transitions: tuple[Transition, ...] = ()
    states: tuple[State, ...] = ()
    output: Json = None
    status: FinalStatus = "completed"


class Declaration(Node, frozen=True):
    """One context field. `type` is CEL's: int double string bool list(T) map(string, T) dyn, `?` for nullable.

    A field without a default must be given at the start, unless it is nullable (then it begins as null).
    With dynamic expressions `expr` computes its first value; should that fail, it is null and `error.execution` is
    raised.
    """

    name: str
    type: str = "dyn"
    default: Json | UnsetType = UNSET
    expr: str = ""
    description: str = ""


class Subscription(Node, frozen=True):
    """How messages on a foreign subject become events. Texts are CEL over `subject`, `headers` and `data`."""

    subject: str
    instance: str
    event: str = ""
    eventexpr: str = ""
    data: str = "data"
    id: str = ""


class Definition(Node, frozen=True):
    """A whole chart. `context` is in declared order; the chart itself is the root state."""

    name: str
    version: str = "1"
    description: str = ""
    expressions: Literal["strict", "dynamic"] = "strict"
    context: tuple[Declaration, ...] = ()
    subscribe: tuple[Subscription, ...] = ()
    initial: Initial | None = None
    entry: tuple[AnyAction, ...] = ()
    exit: tuple[AnyAction, ...] = ()
    transitions: tuple[Transition, ...] = ()
    states: tuple[State, ...] = ()
    meta: dict[str, Json] = {}


def walk_states(parent: Definition | State) -> Iterator[State]:
    """All states below `parent` in document order, without recursion (charts may be deep)."""
    stack = list(reversed(parent.states))
    while stack:
        state = stack.pop()
        yield state
        stack.extend(reversed(state.states))


def walk_invokes(definition: Definition) -> Iterator[tuple[State, int, Invoke]]:
    """All invokes of the chart in document order, each with its state and its place among that state's."""
    for state in walk_states(definition):
        for index, invoke in enumerate(state.invoke):
            yield state, index, invoke


def walk_actions(definition: Definition) -> Iterator[AnyAction]:
    """All actions of the chart in document order, those inside an action after it."""
    owners: list[Definition | State] = [definition, *walk_states(definition)]
    for owner in owners:
        yield from _nested(owner.entry)
        yield from _nested(owner.initial.actions if owner.initial else ())
        for invoke in owner.invoke if isinstance(owner, State) else ():
            yield from _nested(invoke.finalize)
        for transition in owner.transitions:
            yield from _nested(transition.actions)
        yield from _nested(owner.exit)


def _nested(actions: tuple[AnyAction, ...]) -> Iterator[AnyAction]:
    for action in actions:
        yield action
        if isinstance(action, If):
            for branch in action.branches:
                yield from _nested(branch.actions)
            yield from _nested(action.otherwise)
        elif isinstance(action, Foreach | Block):
            yield from _nested(action.actions)


def to_json(definition: Node) -> bytes:
    """The canonical JSON of a definition, or of a part of one."""
    return msgspec.json.encode(to_tree(definition))


def to_tree(value: Any) -> Any:
    """The tree as builtins without what equals its default (msgspec's own omission asks for the very same object)."""
    if isinstance(value, tuple):
        return [to_tree(item) for item in value]
    if not isinstance(value, Node):
        return value
    head, fields = _written(type(value))
    canonical: dict[str, Any] = dict(head)
    for name, default in fields:
        item = getattr(value, name)
        if item is not default and item is not UNSET and not (type(item) is type(default) and item == default):
            canonical[name] = to_tree(item)
    return canonical


@functools.cache
def _written(kind: type[Node]) -> tuple[dict[str, str], tuple[tuple[str, Any], ...]]:
    """(its tag, if it has one; its fields with their defaults)."""
    config = kind.__struct_config__
    fields = [
        (field.name, field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default)
        for field in msgspec.structs.fields(kind)
    ]
    return {config.tag_field: str(config.tag)} if config.tag_field else {}, tuple(fields)
