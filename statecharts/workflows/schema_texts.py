"""What each field of a workflow's written form means, in one sentence: the descriptions of its published JSON Schema,
and of the tables in the documentation.

A field without a text, or a text without a field, fails the schema's generation.
"""

from __future__ import annotations

_RETRIES = {
    "max_retries": "How often a failed attempt is made again.",
    "retry_delay": "The wait before the first retry: 1s, PT1S or milliseconds.",
    "retry_backoff": "How much longer each wait is than the one before.",
    "retry_delay_max": "The longest wait.",
}

FIELDS: dict[str, dict[str, str]] = {
    "WorkflowDefinition": {
        "id": "The workflow's id, and its chart's name: 1 to 128 of A-Z a-z 0-9 _ -.",
        "name": "A name for people.",
        "description": "What the workflow is for.",
        "version": "The version, a text or a whole number. The same id and version always mean the same content.",
        "mode": "sequential: the steps in their order. pipeline: so, too, and each gets the output of the one before. "
        "parallel: each step as soon as what it depends on is settled. conditional: so, too, and a step that depends "
        "on both sides of a branch runs after either.",
        "timeout": "How long all of it may take: 1h, PT1H or milliseconds. Without one it may take for ever.",
        "concurrency": "How many steps run at once. Without a number as many as can.",
        "steps": "The steps, in a list or by their ids.",
        "branches": "Which steps run depending on a condition.",
        "groups": "Steps that run at once, with a step that gets all their results.",
        "metadata": "Anything you like to keep with it.",
    },
    "WorkflowStep": {
        "id": "The step's id, unique in the workflow. Not needed where steps are a mapping: there the key is the id.",
        "name": "A name for people.",
        "description": "What the step does.",
        "plugin": "The plugin whose method performs it.",
        "service": "The service whose method performs it.",
        "function": "The name of the registered Python function that performs it.",
        "method": "The method of the plugin or service.",
        "parameters": "What it is called with. ${input.path} and ${steps.load.rows} stand for data; {cel: text} is an "
        "expression.",
        "dependencies": "The steps that have to be settled before it.",
        "join": "all: it is skipped if a step that it depends on was. any: only if all of them were.",
        "condition": "It is skipped unless this holds: CEL over input and steps.",
        "timeout": "How long one attempt may take: 30s, PT30S or milliseconds.",
        **_RETRIES,
        "critical": "false: if it fails the workflow goes on with a warning.",
        "on_error": "What happens when it has failed for good: abort, retry (with numbers of its own, then abort), "
        "skip, continue, or {fallback: step}.",
        "rollback": "The step that undoes it when the workflow does not complete.",
        "compensate_failure": "It is undone, too, if it has failed itself, or was cancelled while it ran.",
        "metadata": "Anything you like to keep with it; whoever performs the step sees it.",
    },
    "OnError": {
        "action": "abort, retry, skip, continue or fallback.",
        "fallback": "The step that is done in its place.",
        **{key: f"{text} The step's own number if omitted." for key, text in _RETRIES.items()},
    },
    "Branch": {
        "step": "The step after which the condition is asked.",
        "condition": "CEL over input and steps.",
        "then": "The steps that run if it holds, and are skipped if not.",
        "otherwise": "The steps that run if it does not hold.",
    },
    "ParallelGroup": {
        "name": "The group's name, which is no step's id.",
        "steps": "The steps that run at once.",
        "merge": "The step that comes after them and gets their results by id.",
        "on_failure": "cancel: if one fails, and its own policy is to abort, the others are cancelled and the workflow "
        "aborts. partial: what fails is left out.",
        "deadline": "With partial: after this time it goes on with what is there; the rest is cancelled.",
    },
}
