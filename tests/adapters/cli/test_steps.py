"""Workflows from the command line: served from a file or from Python, started, their steps shown."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from statewright.adapters.nats.endpoint import find_endpoint
from tests.adapters.cli.conftest import Cli
from tests.adapters.cli.test_serve import TIMEOUT_S, served
from tests.adapters.plugins.distributions import install
from tests.engine.worlds import until

pytestmark = pytest.mark.integration

WORKFLOW = """\
id: docs
mode: parallel
steps:
  load: {function: load, parameters: {path: "${input.path}"}}
  words: {service: text, method: count, dependencies: [load], parameters: {text: "${steps.load.text}"}}
  images: {function: load, condition: "size(input.path) > 100"}
"""
STEPS = """\
from statewright.statecharts.workflows import Workflow

def load(path: str):
    return {"text": f"content of {path}"}

def upper(loaded):
    return loaded["text"].upper()

STEPS = {"load": load}
SHOUT = (
    Workflow("shout", mode="pipeline")
    .add_step(id="load", function=load, parameters={"path": "${input.path}"})
    .add_step(id="upper", function=upper)
)
"""


async def _ended(cli: Cli, execution: str) -> str:
    def status() -> str:
        return str(cli("status", execution, "--json").lines[0]["status"])

    async def is_over() -> bool:
        return await asyncio.to_thread(status) != "active"

    await until(is_over, f"{execution} to end")
    return await asyncio.to_thread(status)


async def test_a_workflow_is_served_with_functions_from_a_module_and_services_on_the_bus(
    cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "docs.yaml").write_text(WORKFLOW)
    (tmp_path / "steps.py").write_text(STEPS)
    with served("--chart", "docs.yaml", "--chart", "steps.py:SHOUT", "--handlers", "steps.py:STEPS") as ready:
        assert ready["unhandled"] == []
        endpoint = find_endpoint(tmp_path / "statewright.db.endpoint")
        assert endpoint is not None
        client = await nats.connect(endpoint.url, user=endpoint.user, password=endpoint.password, allow_reconnect=False)
        seen: list[dict[str, str]] = []

        async def count(message: Msg) -> None:
            seen.append(dict(message.headers or {}))
            await message.respond(json.dumps(len(json.loads(message.data)["text"].split())).encode())

        await client.subscribe("statewright.calls.text.count", cb=count)
        await client.flush()
        started = await asyncio.to_thread(cli, "start", "docs", "--id", "e-1", "--context", '{"input": {"path": "a"}}')
        assert started.code == 0, started.err
        reply = await client.request("statewright.start.shout", b'{"id": "e-2", "context": {"input": {"path": "b"}}}')
        assert json.loads(reply.data)["id"] == "e-2"
        assert [await _ended(cli, one) for one in ("e-1", "e-2")] == ["completed", "completed"]
        shown = await asyncio.to_thread(cli, "steps", "e-1", "--json")
        table = await asyncio.to_thread(cli, "steps", "e-2")
        await client.close()

    steps = {line["step"]: line for line in shown.lines}
    assert {step: line["status"] for step, line in steps.items()} == {
        "load": "completed",
        "words": "completed",
        "images": "skipped",
    }
    assert steps["words"]["data"] == 3
    assert (seen[0]["Statewright-Attempt"], seen[0]["Statewright-Effect-Id"][:4]) == ("1", "e-1-")
    assert "shout completed: 2 completed" in table.out
    assert '"CONTENT OF B"' in table.out


async def test_functions_that_are_not_there_are_said_and_waited_for(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "docs.yaml").write_text(WORKFLOW.replace("service: text, method: count", "function: count"))
    (tmp_path / "steps.py").write_text(STEPS.replace('{"load": load}', '{"load": load, "count": len}'))
    unknown = await asyncio.to_thread(
        cli, "start", "docs", "--id", "e-1", "--context", '{"input": {"path": "a"}}', "--chart", "docs.yaml"
    )
    assert unknown.code == 0, unknown.err
    shown = await asyncio.to_thread(cli, "steps", "e-1", "--json")
    assert {line["step"]: line["status"] for line in shown.lines}["words"] == "pending"
    with served() as ready:
        # Stored, but nobody performs its steps here.
        assert ready["unhandled"] == ["step.function.docs.count", "step.function.docs.load"]


def test_steps_of_what_is_no_execution(cli: Cli, started: Cli) -> None:
    chart = cli("steps", "d-17")
    assert (chart.code, chart.err) == (
        2,
        "statewright: 'd-17' is an instance of chart 'approval', not of a workflow of steps\n",
    )
    missing = cli("steps", "nobody")
    assert (missing.code, missing.err) == (2, "statewright: no execution 'nobody'\n")


def test_without_its_key_an_encrypted_store_still_says_how_steps_stand(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "docs.yaml").write_text(WORKFLOW)
    assert cli("keygen", "keys.txt").code == 0
    monkeypatch.setenv("STATEWRIGHT_CIPHER_KEY_FILE", "keys.txt")
    started = cli("start", "docs", "--id", "e-1", "--context", '{"input": {"path": "a"}}', "--chart", "docs.yaml")
    assert started.code == 0, started.err
    monkeypatch.delenv("STATEWRIGHT_CIPHER_KEY_FILE")
    shown = cli("steps", "e-1", "--json")
    assert (shown.code, [line["status"] for line in shown.lines]) == (0, ["running", "pending", "skipped"])
    assert "the store is encrypted" in shown.err


async def test_installed_plugins_that_are_named_perform_their_steps(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = {"served_greeter": "def greet(who: str) -> str:\n    return f'hello {who}'\n", "served_raising": "1 / 0"}
    install(tmp_path, "acme", "2.0", {"greeter": "served_greeter", "raising": "served_raising"}, modules)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    step = 'greet: {plugin: greeter, method: greet, parameters: {who: "${input.who}"}}'
    (tmp_path / "greeting.yaml").write_text(f"id: greeting\nsteps:\n  {step}\n")
    command = [sys.executable, "-m", "statewright.adapters.cli", "serve", "--plugin", "greter"]
    told = {"capture_output": True, "text": True, "timeout": TIMEOUT_S}
    unknown = await asyncio.to_thread(subprocess.run, command, **told)  # type: ignore[call-overload]
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "expected installed plugins (greeter, raising), got greter" in unknown.stderr
    with served("--chart", "greeting.yaml") as ready:
        assert ready["unhandled"] == ["step.plugin"]
    with served("--chart", "greeting.yaml", "--plugin", "greeter") as ready:
        assert ready["unhandled"] == []
        await asyncio.to_thread(cli, "start", "greeting", "--id", "g-1", "--context", '{"input": {"who": "ann"}}')
        assert await _ended(cli, "g-1") == "completed"
    assert (await asyncio.to_thread(cli, "steps", "g-1", "--json")).lines[0]["data"] == "hello ann"
