"""Whether a nats-server keeps what it acknowledges: said once, loudly, where it can't be seen that it does.

JetStream acknowledges a message when it is written, and syncs it to the disk every two minutes unless the server's
configuration says `sync_interval: always`. An ordinary client can't see that setting: neither the INFO of the protocol
nor `$JS.API.INFO` nor a stream's own configuration tells. The server's monitoring port does (`/varz`), so that is asked
where STATEWRIGHT_NATS_MONITOR names it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import urllib.request

import msgspec

from statewright.engine.redaction import redacted

MONITOR = "STATEWRIGHT_NATS_MONITOR"
TIMEOUT_S = 2.0
_BYTES_MAX = 4 * 1024 * 1024

_LOG = logging.getLogger("statewright.nats")


class _Config(msgspec.Struct):
    sync_always: bool = False


class _JetStream(msgspec.Struct):
    config: _Config | None = None


class _Varz(msgspec.Struct):
    jetstream: _JetStream | None = None


async def warn_unless_durable(url: str) -> bool:
    """Whether the server at `url` is seen to sync what it acknowledges; if not, a warning says why and what to do."""
    monitor = os.environ.get(MONITOR, "")
    if not monitor:
        why = f"it can't be seen whether the nats-server at {url} does (its /varz tells, if {MONITOR} names it)"
    else:
        try:
            if await asyncio.to_thread(_syncs_always, monitor):
                return True
            why = f"the nats-server at {url} does not"
        except (OSError, ValueError, msgspec.DecodeError) as error:
            why = f"the monitoring port of the nats-server at {url} can't be read: {redacted(str(error))}"
    _LOG.warning(
        "what is published on statewright.events.* is as safe as the nats-server, which keeps what it acknowledges "
        "only with `jetstream { sync_interval: always }`: %s. Requests (statewright.send.*) are answered by the store "
        "and are safe either way. See docs/nats-cluster.md",
        why,
    )
    return False


def _syncs_always(monitor: str) -> bool:
    if not monitor.startswith(("http://", "https://")):
        raise ValueError(f"expected {MONITOR} to be an http:// or https:// URL")
    with urllib.request.urlopen(f"{monitor.rstrip('/')}/varz", timeout=TIMEOUT_S) as answer:
        found = msgspec.json.decode(answer.read(_BYTES_MAX), type=_Varz).jetstream
    return found is not None and found.config is not None and found.config.sync_always
