"""What docs/plugins.md says is so: its programs run, its figures and tables are those."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
import pytest

from statewright.adapters.plugins import serving
from statewright.adapters.plugins.discovery import GROUP
from statewright.adapters.plugins.plugin import LIFECYCLE
from statewright.adapters.plugins.requests import _CODES
from statewright.engine.threads import CLOSING_S, THREADS_MAX
from tests.adapters.nats.support import eventually, raw, running_server, url_of
from tests.test_readme import ROOT, blocks

TEXT = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
PROGRAMS = blocks(TEXT, "python")


def program() -> dict[str, Any]:
    """The names of the first program, as a module has them."""
    names: dict[str, Any] = {"__name__": "page"}
    exec(PROGRAMS[0], names)
    return names


async def test_the_first_program_runs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "statewright.plugins")
    names = program()
    assert await names["main"]() == {"words": 6, "attempt": 1}
    assert '`await main()` is `{"words": 6, "attempt": 1}`' in TEXT
    assert caplog.messages == ["plugin reports goes without 'spell-checker': there is none"]


@pytest.mark.integration
async def test_the_second_program_serves(tmp_path: Path) -> None:
    names = program()
    exec(PROGRAMS[1], names)
    stop = asyncio.Event()
    async with running_server(tmp_path) as server, raw(server.endpoint) as nc:
        process = asyncio.create_task(names["serve"](url_of(server.endpoint), stop))

        async def is_there() -> bool:
            try:
                await nc.request("$SRV.PING.reports", timeout=20)
            except nats.errors.NoRespondersError:
                assert not process.done(), process
                return False
            return True

        await eventually(is_there, "the service")
        headers = {"Statewright-Attempt": "2"}
        reply = await nc.request("statewright.calls.reports.count", b'{"text": "a b"}', timeout=20, headers=headers)
        assert msgspec.json.decode(reply.data) == {"words": 2, "attempt": 2}
        stop.set()
        await process


def test_the_figures_are_those() -> None:
    assert f"at most {THREADS_MAX} at once (`threads_max`)" in TEXT
    assert f"At most {THREADS_MAX} calls are performed at once (`concurrency`)" in TEXT
    assert f"waited for {CLOSING_S:g} s, `closing_s`" in TEXT
    assert f"that answers within {serving.UNKNOWN_S:g} s" in TEXT
    assert f"more than {serving.WAITING_MAX:,} calls wait" in TEXT
    assert f'[project.entry-points."{GROUP}"]' in TEXT
    assert serving.INSTANCE_KEY in TEXT


def test_the_tables_are_those() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \| (?:first|next|when|last)", TEXT, re.MULTILINE)) == LIFECYCLE
    said = set(re.findall(r"^\| ([\d, ]+) \|", TEXT, re.MULTILINE))
    assert {code for each in said for code in each.split(", ")} == {code for _, code in _CODES} | {"500"}
