"""What each field of a chart's written form means, in one sentence: the descriptions of the published JSON Schema.

Keyed by the definition's type and the field's name. A field without a text, or a text without a field, fails the
schema's generation, so this can neither lag behind the types nor outlive them.
"""

from __future__ import annotations

_ENTRY = "Actions to run when {} entered, in order."
_EXIT = "Actions to run when {} exited, in order."
_DATA = "Data that goes with it. Texts in it are CEL expressions; {function: name} calls a registered function."
_INITIAL = "The state, or states of parallel regions, that it begins with; the first child if omitted."
_TRANSITIONS = "Transitions in their full form, each with its event (or delay), target, guard and actions."
_EFFECT = {
    "retry": "How failed attempts are made again. The handler's own choice, or five attempts, if omitted.",
    "timeout": "How long one attempt may take: 30s, PT30S or milliseconds. The handler's own, or 5m, if omitted.",
    "heartbeat": "The longest time between two signs of life from an attempt: 10s, PT10S or milliseconds.",
    "cancel": "on_exit: it is cancelled when the state that is entered, or stayed in, is left. never: it goes on.",
}
_META = "Anything you like to keep with it; the engine does not look at it."

FIELDS: dict[str, dict[str, str]] = {
    "Definition": {
        "name": "The definition's name: 1 to 128 of A-Z a-z 0-9 _ -. Instances are started by it.",
        "version": "The version, a text or a whole number. The same name and version always mean the same content.",
        "description": "What the chart is for.",
        "expressions": "strict: expressions are type-checked when the chart is loaded. dynamic: as in SCXML documents.",
        "context": "The chart's data: fields with their types and defaults.",
        "subscribe": "Foreign subjects on the bus whose messages become events of instances.",
        "initial": _INITIAL,
        "entry": _ENTRY.format("the chart is"),
        "exit": _EXIT.format("the chart is"),
        "transitions": _TRANSITIONS,
        "states": "The top-level states, by id, in document order.",
        "meta": _META,
    },
    "State": {
        "id": "The state's id, unique in the chart. Not needed where states are a mapping: there the key is the id.",
        "type": "Worked out if omitted: compound with states, history with 'history', else atomic.",
        "description": "What the state means.",
        "tags": "Words to find the state by.",
        "meta": _META,
        "context": "Fields that get their values when the state is entered for the first time.",
        "initial": _INITIAL,
        "history": "Makes this a history state: shallow remembers the parent's active child, deep all below it.",
        "entry": _ENTRY.format("the state is"),
        "exit": _EXIT.format("the state is"),
        "invoke": "Children that run while the state is active.",
        "transitions": _TRANSITIONS,
        "states": "The states inside this one, by id, in document order.",
        "output": "The result that a final state gives to its parent, or to the chart.",
        "status": "How the instance ends with this final state of the chart; the context's field error says why.",
    },
    "Transition": {
        "events": "The events that it reacts to: names, prefixes such as error.*, or * for any.",
        "delay": "It fires this long after the state was entered: 24h, PT24H, milliseconds, or a CEL expression.",
        "target": "The state, or states of parallel regions, that it leads to. Without one it only acts.",
        "guard": "It is taken only if this holds: a CEL expression of type bool, or {function: name}.",
        "actions": "What it does, after the exits and before the entries.",
        "internal": "Do not leave the state if the targets are inside it.",
        "description": "What the transition means.",
    },
    "Initial": {
        "target": "The state, or states of parallel regions, to begin with.",
        "actions": "What to do on the way there.",
    },
    "Invoke": {
        "id": "The child's name, for done.invoke.<id> and for sending to it; else <state>.<number>.",
        "idlocation": "The context field in which a generated id is put.",
        "type": "SCXML's type of the child: scxml or its URI.",
        "typeexpr": "A CEL expression for the type.",
        "chart": "The child's chart itself.",
        "src": "The file of the child's chart, in this chart's folder.",
        "srcexpr": "A CEL expression for src.",
        "contentexpr": "A CEL expression whose value is the child's SCXML document.",
        "data": "Values for the fields that the child declares; texts are CEL expressions.",
        "autoforward": "Pass every external event on to the child.",
        "finalize": "Actions to run on each event that comes from the child, before transitions are chosen.",
    },
    "Declaration": {
        "name": "The field's name. Not needed where the context is a mapping: there the key is the name.",
        "type": "int, double, string, bool, dyn, list(T) or map(string, T); ? after it makes it nullable.",
        "default": "Its first value. Without one it must be given at the start, unless it is nullable.",
        "expr": "With dynamic expressions: computes its first value.",
        "description": "What the field holds.",
    },
    "Subscription": {
        "subject": "The subject to listen to; * and > are wildcards.",
        "instance": "A CEL expression over subject, headers and data: the id of the instance that a message is for.",
        "event": "The name of the event that a message becomes. Either this or eventexpr.",
        "eventexpr": "A CEL expression for the event's name.",
        "data": "A CEL expression for the event's data; the message's data if omitted.",
        "id": "A CEL expression for the event's id, by which duplicates are recognised.",
    },
    "FunctionRef": {"function": "The name of a registered Python function of (context, event)."},
    "Assign": {
        "values": "The fields to set, with their values; texts are CEL expressions.",
        "function": "Instead of values: the name of a function (context, event) that returns the fields to set.",
    },
    "Raise": {"event": "The event's name. It is handled within this macrostep.", "data": _DATA},
    "Send": {
        "event": "The event's name. Either this or eventexpr.",
        "eventexpr": "A CEL expression for the event's name.",
        "data": _DATA,
        "delay": "How long to wait: 24h, PT24H, milliseconds, or a CEL expression.",
        "id": "A name for 'cancel'.",
        "idlocation": "The context field in which a generated id is put.",
        "target": "Another session: #_parent, #_<invokeid>, #_scxml_<sessionid>; #_internal is the internal queue.",
        "targetexpr": "A CEL expression for the target.",
        "processor": "SCXML's type of the send.",
        "processorexpr": "A CEL expression for the processor.",
    },
    "Cancel": {
        "sendid": "The id of the send to cancel. Either this or sendidexpr.",
        "sendidexpr": "A CEL expression for the id.",
    },
    "Emit": {
        "subject": "The subject to publish on. Either this or subjectexpr.",
        "subjectexpr": "A CEL expression for the subject.",
        "data": _DATA,
        **{key: text for key, text in _EFFECT.items() if key != "heartbeat"},
    },
    "Call": {"service": "The service's name.", "method": "The method to call.", "data": _DATA, **_EFFECT},
    "Perform": {"name": "The name that the handler is registered under.", "data": _DATA, **_EFFECT},
    "RunStep": {
        "step": "The id of the step, as the chart's workflow has it.",
        "by": "Who can perform it; part of the effect's kind.",
        **_EFFECT,
    },
    "Record": {"step": "The id of the step.", "status": "How it stands from now on."},
    "Retry": {
        "attempts": "How many attempts there are in all.",
        "initial": "The wait before the second attempt: 1s, PT1S or milliseconds.",
        "maximum": "The longest wait: 60s, PT60S or milliseconds.",
        "multiplier": "How much longer each wait is than the one before.",
        "jitter": "The part of a wait by up to which it is shortened, 0 to 1.",
        "final": "Errors that trying again can't help: exceptions by their class, services' errors by their code.",
    },
    "Log": {"expr": "A CEL expression whose value is logged.", "label": "A word to log in front of it."},
    "If": {
        "branches": "Guards with their actions; the first whose guard holds is run.",
        "otherwise": "The actions to run if no guard holds.",
    },
    "Branch": {"guard": "A CEL expression of type bool, or {function: name}.", "actions": "What to do if it holds."},
    "Foreach": {
        "array": "A CEL expression for the list to go through.",
        "item": "The context field that holds each item in turn.",
        "index": "The context field that holds its number, from 0.",
        "actions": "What to do for each item.",
    },
    "Script": {"source": "Assignments 'place = expression', one a line or parted by ';'."},
    "Block": {"actions": "Actions that fail on their own: what comes after the block is run all the same."},
}

SHORT = {
    "on": "Transitions by event: a name, several names, a prefix such as error.*, or * for any.",
    "after": "Transitions by delay since the state was entered: 24h, PT24H, milliseconds, or a CEL expression.",
    "always": "Transitions without an event: taken as soon as their guard holds.",
    "event": "The event that it reacts to; several names are parted by spaces.",
    "target": "On a history state: what it means before its parent was ever left.",
    "actions": "On a history state: what to do on the way to its target.",
    "then": "What to do if the guard holds.",
    "else": "What to do if it does not.",
}
"""Fields that the written form has beyond the definition's types."""
