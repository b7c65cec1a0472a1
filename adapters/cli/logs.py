"""Logs: what the rooms tell the standard library's `logging`, rendered by structlog as JSON lines or for people.

Invariants: the ids of instances, events, effects and timers are fields, under the names in `IDS`, which the rooms pass
as `extra`; so the engine knows nothing of structlog, and a call below the level costs a comparison. No line shows
a credential, whoever wrote it.
"""

from __future__ import annotations

import logging
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict

from statewright.engine.redaction import redacted

IDS = ("instance", "event", "effect", "timer")
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("console", "json")
_QUIET = ("asyncio", "nats")
"""What others write below a warning is about their insides."""


def configure(level: str, form: str, stream: TextIO, worker: str = "") -> None:
    """Send everything from `level` on to `stream`, a line each. level: one of `LEVELS`; form: one of `FORMATS`."""
    pre_chain: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    rendering: list[Any]
    if form == "json":
        rendering = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]
    else:
        plain = structlog.dev.plain_traceback
        colors = stream.isatty()
        console = structlog.dev.ConsoleRenderer(
            colors=colors, event_key="message", timestamp_key="time", exception_formatter=plain, pad_event_to=0
        )
        rendering = [console]

    def named(_: Any, __: str, said: EventDict) -> EventDict:
        """structlog calls the message "event"; here that is the event's id."""
        record = said["_record"]
        fields = {name: value for name in IDS if (value := getattr(record, name, ""))}
        first = {"time": said.pop("time"), "level": said.pop("level"), "logger": said.pop("logger")}
        message = {"message": said.pop("event")} | ({"worker": worker} if worker and form == "json" else {})
        return {**first, **message, **fields, **said}

    handler = logging.StreamHandler(stream)
    processors = [named, structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering, _without_secrets]
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=processors, foreign_pre_chain=pre_chain))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    logging.captureWarnings(True)


def _json(line: EventDict, **_: Any) -> str:
    return msgspec.json.encode(line, enc_hook=str).decode()


def _without_secrets(_: Any, __: str, line: str) -> str:
    return redacted(line)
