"""Streams and consumers: made when they are missing, taken as they are when somebody else made them.

Invariant: nothing that exists is changed: an administrator's settings (replicas, limits, placement) stand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from nats.js import JetStreamContext, api
from nats.js.errors import BadRequestError, NotFoundError

from statewright.engine.errors import InvalidError, UnavailableError

REPLICAS = "STATEWRIGHT_NATS_REPLICAS"
"""Setting: on how many servers of a cluster the streams are kept that are made here."""
UNTIL_RECORDED = "statewright.until-recorded"
"""Marks a stream that the engine purges: one that an administrator made is never purged by us."""
EVENTS = api.StreamConfig(
    name="STATEWRIGHT_EVENTS",
    description="Events on their way to Statewright instances; removed once they are recorded.",
    subjects=["statewright.events.*"],
    metadata={UNTIL_RECORDED: "true"},
)
"""Not a work queue: that removes its messages one by one, flushing each time, which holds the door to a fifth of what
it does with one purge a second."""
HISTORY = api.StreamConfig(
    name="STATEWRIGHT_HISTORY",
    description="Every committed fact of every Statewright instance, in order.",
    subjects=["statewright.history.*.*"],
    persist_mode=api.PersistMode.ASYNC,
)
OWN_PREFIX = "statewright."


async def ensure_stream(js: JetStreamContext, config: api.StreamConfig) -> None:
    """Make the stream unless there is one of this name that takes these subjects. Raises `UnavailableError` if the one
    that exists takes others, and the driver's errors."""
    try:
        await js.add_stream(replicated(config))
    except BadRequestError as error:
        if error.err_code != 10058:  # Not "name already in use with a different configuration".
            raise
        taken = (await js.stream_info(config.name or "")).config.subjects or []
        for subject in config.subjects or []:
            if not any(covers(pattern, subject) for pattern in taken):
                raise UnavailableError(
                    f"expected stream {config.name} to take '{subject}', but it takes {', '.join(taken) or 'nothing'}"
                ) from error


def replicated(config: api.StreamConfig) -> api.StreamConfig:
    """A copy (the driver changes what it is given), with the replicas that are set. Raises `InvalidError`."""
    wanted = replicas(os.environ)
    if wanted == 1:
        return replace(config)
    # A replicated stream can't put off its flushes; it has the others to wait for anyway.
    return replace(config, num_replicas=wanted, persist_mode=None)


def replicas(environment: Mapping[str, str]) -> int:
    """What STATEWRIGHT_NATS_REPLICAS says. Raises `InvalidError` unless that is 1, 3 or 5."""
    wanted = environment.get(REPLICAS) or "1"
    if wanted not in ("1", "3", "5"):
        raise InvalidError(f"expected {REPLICAS} to be 1, 3 or 5, got {wanted[:20]!r}")
    return int(wanted)


async def ensure_consumer(js: JetStreamContext, stream: str, config: api.ConsumerConfig) -> None:
    """Make the durable consumer unless it exists."""
    try:
        await js.consumer_info(stream, config.durable_name or "")
    except NotFoundError:
        await js.add_consumer(stream, config)


async def purge_settled(js: JetStreamContext, stream: str, consumer: str) -> None:
    """Remove what `consumer` has settled, if the stream is marked for that."""
    info = await js.stream_info(stream)
    settled = (await js.consumer_info(stream, consumer)).ack_floor
    if (info.config.metadata or {}).get(UNTIL_RECORDED) and settled and settled.stream_seq >= info.state.first_seq:
        await js.purge_stream(stream, seq=settled.stream_seq + 1)


async def find_stream(js: JetStreamContext, subject: str) -> str | None:
    """The stream that takes everything published on `subject` (which may hold wildcards), if there is one."""
    try:
        name = await js.find_stream_name_by_subject(subject)
        taken = (await js.stream_info(name)).config.subjects or []
    except NotFoundError:
        return None
    return name if any(covers(pattern, subject) for pattern in taken) else None


def covers(pattern: str, subject: str) -> bool:
    """Whether every subject that matches `subject` matches `pattern` too (`*` is one word, a last `>` the rest)."""
    wanted = subject.split(".")
    words = pattern.split(".")
    for index, word in enumerate(words):
        if word == ">":
            return len(wanted) > index
        if index >= len(wanted) or wanted[index] == ">" or word not in ("*", wanted[index]):
            return False
    return len(wanted) == len(words)
