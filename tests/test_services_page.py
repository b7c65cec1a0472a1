"""What docs/services.md and docs/routing.md say is so: their programs run and print that, their tables are complete."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from statewright.adapters.nats.services import NatsServices
from statewright.adapters.services import Criteria, Services
from statewright.adapters.services.balancing import OVERLOAD, RELIEF, STRATEGIES
from statewright.adapters.services.events import ServiceEventKind
from statewright.adapters.services.members import HEALTH_TIMEOUT_S
from statewright.adapters.services.services import CHECK_EVERY_S, MISSES_MAX
from statewright.engine import services as conventions
from statewright.engine.routing import Router, Verdict, load_router
from statewright.engine.workflows import Orchestrator
from tests.adapters.nats.micro import JAVASCRIPT
from tests.adapters.nats.support import WAIT_S, running_server, url_of
from tests.adapters.services.asking import asking
from tests.test_readme import ROOT, blocks

SERVICES = (ROOT / "docs" / "services.md").read_text(encoding="utf-8")
ROUTING = (ROOT / "docs" / "routing.md").read_text(encoding="utf-8")


def printed(program: str) -> str:
    """What a block prints."""
    with contextlib.redirect_stdout(said := io.StringIO()):
        exec(program, {})
    return said.getvalue()


def test_the_program_with_a_local_service_runs(tmp_path: Path) -> None:
    program, expected = blocks(SERVICES, "python")[0], blocks(SERVICES, "text")[0]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == (expected, 0), done.stderr


def test_the_criteria_are_some() -> None:
    names: dict[str, Any] = {}
    exec("from statewright.statecharts.workflows import WorkflowStep\nstep = " + blocks(SERVICES, "python")[1], names)
    assert msgspec.convert(names["step"].metadata["criteria"], Criteria).latency_ms_max == 200


def test_the_tables_and_figures_are_those() -> None:
    assert set(re.findall(r"^\| `(\w+)`", SERVICES, re.MULTILINE)) == set(STRATEGIES)
    told = {kind for kind in get_args(ServiceEventKind) if f"`{kind}`" in SERVICES}
    assert told == set(get_args(ServiceEventKind))
    keys = {value for name, value in vars(conventions).items() if name.endswith("_KEY")}
    assert set(re.findall(r"^\| `(statewright-\w+)`", SERVICES, re.MULTILINE)) == keys
    assert (OVERLOAD, RELIEF, CHECK_EVERY_S, MISSES_MAX, HEALTH_TIMEOUT_S) == (0.9, 0.8, 5.0, 2, 2.0)
    assert set(re.findall(r"^\| `(\w+)`", ROUTING, re.MULTILINE)) == set(get_args(Verdict))


@pytest.mark.integration
async def test_the_service_in_javascript_answers(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (JAVASCRIPT / "node_modules" / "nats").is_dir():
        pytest.skip("node or npm's NATS client is not installed: make javascript")
    async with running_server(tmp_path) as server, await NatsServices.connect(server.endpoint) as bus:
        process = await asyncio.create_subprocess_exec(
            node,
            "--input-type=module",
            "--eval",
            _with_login(blocks(SERVICES, "javascript")[0]),
            cwd=JAVASCRIPT,
            env={"PATH": os.environ["PATH"], "NATS_URL": url_of(server.endpoint)},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(WAIT_S):
                assert await process.stdout.readline() == b"ready\n"
            async with Services(bus) as services:
                assert services.get("analyzer").interfaces == {"word-count"}
                assert await services.call(asking("word-count", "words", text="to be or not")) == {"words": 4}
                (instance,) = services.metrics("analyzer")[0].instances
                assert (instance.calls, instance.load) == (1, 0.1), "by a subject of its own"
        finally:
            process.kill()
            await process.wait()


def _with_login(program: str) -> str:
    """The tests' server asks for a login. npm's client takes none from a URL: it takes the digits that a password
    begins with for the port."""
    login = "const { username: user, password: pass, host } = new URL(process.env.NATS_URL);\n"
    return login + program.replace("connect({ servers: process.env.NATS_URL", "connect({ user, pass, servers: host")


def test_the_router_prints_what_it_decides() -> None:
    assert printed(blocks(ROUTING, "python")[0]) == blocks(ROUTING, "text")[0]


def test_the_router_in_a_file_is_one(tmp_path: Path) -> None:
    file = tmp_path / "mail.yaml"
    file.write_text(blocks(ROUTING, "yaml")[0])
    router = load_router(file)
    assert router.decide({"kind": "invoice", "amount": 1, "score": 0.7}).confidence == 0.7
    assert isinstance(Router.from_json(router.to_json()), Router)


@pytest.mark.parametrize(
    ("score", "step", "data"),
    [(0.9, "book", "booked by invoice"), (0.4, "look", "somebody has to look: no rule holds: the default")],
)
async def test_the_workflow_goes_where_the_router_says(tmp_path: Path, score: float, step: str, data: str) -> None:
    names: dict[str, Any] = {}
    program, workflow, *_ = blocks(ROUTING, "python")
    with contextlib.redirect_stdout(io.StringIO()):
        exec(program + workflow, names)
    url = f"sqlite:///{tmp_path / 'app.db'}"
    async with Orchestrator.open(url, workflows=[names["workflow"]]) as orchestrator:
        given = {"id": 7, "kind": "invoice", "amount": 300, "score": score}
        execution = await orchestrator.execute("letters", given)
        assert (await orchestrator.wait(execution, timeout=30)).status == "completed"
        results = await orchestrator.step_results(execution)
        assert results[step].data == data
        assert results["route"].data["confidence"] == (score if step == "book" else 0)
