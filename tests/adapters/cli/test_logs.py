"""What a real server logs: a JSON line each, with the ids of what it is about as fields."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from statewright.adapters.cli.logs import configure
from statewright.adapters.nats.client import Client
from statewright.adapters.nats.endpoint import find_endpoint
from statewright.adapters.nats.server import EmbeddedServer
from tests.adapters.cli.processes import server
from tests.adapters.nats.support import url_of

CHART = """\
name: lamp
initial: "off"
states:
  "off": {on: {toggle: "on", wait: waiting}}
  "on": {entry: [{perform: glow}]}
  waiting: {after: {10ms: "off"}}
"""
HANDLERS = """\
from statewright.engine import PermanentError

def glow(call):
    raise PermanentError("the bulb at nats://ann:geheim@lamp is broken")

HANDLERS = {"glow": glow}
"""


@pytest.fixture
def restored() -> Iterator[None]:
    """The logging of the test run, put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.mark.integration
async def test_lines_carry_ids_as_fields_and_no_secrets(tmp_path: Path) -> None:
    (tmp_path / "chart.yaml").write_text(CHART)
    (tmp_path / "handlers.py").write_text(HANDLERS)
    bus = await EmbeddedServer.start(tmp_path / "bus")
    try:
        arguments = ("--chart", "chart.yaml", "--handlers", "handlers.py:HANDLERS", "--worker", "w-1")
        environment = {"STATEWRIGHT_NATS_URL": url_of(bus.endpoint)}
        with server(tmp_path, *arguments, level="debug", **environment) as running:
            endpoint = find_endpoint(tmp_path / "statewright.db.endpoint")
            assert endpoint is not None
            async with await Client.connect(endpoint) as client:
                await client.start("lamp", id="l-1")
                await client.send("l-1", "toggle", event_id="e-1")
                await client.start("lamp", id="l-3")
                await client.send("l-3", "wait")
                await client.publish("l-2", "toggle", event_id="e-2")
            parked = await asyncio.to_thread(running.until_said, "is parked as")
            failed = await asyncio.to_thread(running.until_said, "failed for good")
            result = await asyncio.to_thread(running.until_said, "has failed")
            fired = await asyncio.to_thread(running.until_said, "recorded transition_taken as sequence 3")
            running.process.terminate()
            assert running.ended() == 0
    finally:
        await bus.stop()

    by_event = {line["event"]: line for line in running.lines if "event" in line and line["level"] == "debug"}
    assert {key: by_event["e-1"][key] for key in ("level", "logger", "message", "worker", "instance")} == {
        "level": "debug",
        "logger": "statewright.engine",
        "message": "recorded transition_taken as sequence 2",
        "worker": "w-1",
        "instance": "l-1",
    }
    assert by_event["e-1"]["time"].endswith("Z")
    assert (parked["instance"], parked["event"], parked["level"]) == ("l-2", "e-2", "warning")
    assert (failed["instance"], failed["effect"], failed["level"]) == ("l-1", "l-1-2-0", "error")
    assert (result["instance"], result["level"]) == ("l-1", "error")
    assert (fired["instance"], fired["timer"]) == ("l-3", "after.waiting.0")
    assert "geheim" not in running.raw
    assert bus.endpoint.password not in running.raw


@pytest.mark.usefixtures("restored")
def test_for_people_it_is_a_line_with_the_ids_behind_it() -> None:
    stream = io.StringIO()
    configure("info", "console", stream)
    logging.getLogger("statewright.engine").debug("nothing")
    logging.getLogger("statewright.engine").warning("effect %s failed", "x-1", extra={"instance": "x", "effect": "x-1"})
    (line,) = stream.getvalue().splitlines()
    assert "effect x-1 failed" in line
    assert "instance=x" in line
    assert "effect=x-1" in line


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("form", ["console", "json"])
def test_an_exception_is_told_with_its_traceback(form: str) -> None:
    stream = io.StringIO()
    configure("info", form, stream)
    try:
        raise ValueError("postgresql://app:geheim@db is away")
    except ValueError:
        logging.getLogger("statewright.engine").exception("a batch failed", extra={"instance": "x"})
    said = stream.getvalue()
    assert "Traceback" in said
    assert "postgresql://***@db is away" in said
    assert "geheim" not in said
    assert form == "console" or len(said.splitlines()) == 1
