"""What the READMEs say is so: their programs run, their commands work, their diagram is the chart's."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest
from nats.aio.client import Client

from statewright.adapters.nats.server import find_binary
from statewright.statecharts import load_chart
from statewright.statecharts.definition import Send, walk_actions, walk_states
from statewright.statecharts.mermaid import mermaid

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "document_approval"
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE_README = (EXAMPLE / "README.md").read_text(encoding="utf-8")
CHART = load_chart(EXAMPLE / "chart.yaml")

STATEWRIGHT = f"{shlex.quote(sys.executable)} -m statewright.adapters.cli"
DOCUMENTED_URL = "nats://localhost:4222"
PATIENCE_S = 15.0


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language ("" for none), in order."""
    return [body for tag, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M) if tag == language]


def commands(text: str) -> list[str]:
    """The lines after `$` in the console blocks."""
    return [line[2:] for block in blocks(text, "console") for line in block.splitlines() if line.startswith("$ ")]


def run(command: str, folder: Path, *, url: str = DOCUMENTED_URL) -> str:
    """Run a command line as it is documented, with the server's address replaced; what it printed."""
    line = re.sub("^statewright ", f"{STATEWRIGHT} ", command).replace(DOCUMENTED_URL, url)
    line = re.sub("^python ", f"{shlex.quote(sys.executable)} ", line)
    done = subprocess.run(
        line, shell=True, cwd=folder, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def run_python(program: str, folder: Path, *, url: str = DOCUMENTED_URL) -> str:
    (folder / "program.py").write_text(program.replace(DOCUMENTED_URL, url))
    return run("python program.py", folder)


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("STATEWRIGHT_")}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder that looks as the repository does to the README's commands."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def test_the_first_program_prints_what_is_shown_every_time(checkout: Path) -> None:
    program, shown = blocks(README, "python")[0], blocks(README, "")[0]
    assert run_python(program, checkout) == shown
    again = run_python(program, checkout)
    assert again == shown.replace("recorded", "duplicate")


def test_the_chart_in_yaml_and_in_python_are_one(checkout: Path) -> None:
    (checkout / "leave.yaml").write_text(blocks(README, "yaml")[0])
    program = next(block for block in blocks(README, "python") if "leave_request = chart(" in block)
    assert run_python(program, checkout).strip() == load_chart(checkout / "leave.yaml").digest


def test_the_handler_registers(checkout: Path) -> None:
    program = next(block for block in blocks(README, "python") if "def register(" in block)
    (checkout / "mine.py").write_text(program)
    assert run_python("import mine; print(callable(mine.register))", checkout) == "True\n"


def test_the_workflow_of_steps_prints_what_is_shown(checkout: Path) -> None:
    program = next(block for block in blocks(README, "python") if "Workflow(" in block)
    assert run_python(program, checkout) in blocks(README, "")


@pytest.mark.parametrize("name", ["simulate", "check", "render"])
def test_chart_commands_work(checkout: Path, name: str) -> None:
    command = next(line for line in commands(README) if line.startswith(f"statewright {name} "))
    assert run(command, checkout) != ""


def test_the_diagram_is_the_charts() -> None:
    assert blocks(README, "mermaid") == [mermaid(CHART)]


def test_the_make_targets_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    documented = re.findall(r"^(?:\$ )?make (\w+)", README, re.M)
    assert {"demo", "test", "lint", "bench", "simulate"} == set(documented) <= set(targets)


@pytest.mark.parametrize("readme", [ROOT / "README.md", EXAMPLE / "README.md", ROOT / "CHANGELOG.md"])
def test_links_into_the_repository_lead_somewhere(readme: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", readme.read_text(encoding="utf-8"))
    assert [link for link in links if not (readme.parent / link).exists()] == []


def test_the_changelog_tells_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# The example's README


def test_the_examples_commands_work(tmp_path: Path) -> None:
    folder = tmp_path / "document_approval"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for command in commands(EXAMPLE_README):
        assert run(command, folder) != "", command


def test_the_example_documents_every_event_field_and_effect() -> None:
    definition = CHART.definition
    transitions = [*definition.transitions, *(one for state in walk_states(definition) for one in state.transitions)]
    own = {action.event for action in walk_actions(definition) if isinstance(action, Send)}
    events = {name for transition in transitions for name in transition.events} - own
    events = {name for name in events if not name.startswith(("done.", "error."))}
    rows = re.findall(r"^\| `([\w.]+)`", EXAMPLE_README, re.M)
    assert events | set(CHART.handler_names) <= set(rows)
    assert {subscription.subject for subscription in CHART.subscriptions} <= set(rows)
    undocumented = {field.name for field in definition.context if f"`{field.name}`" not in EXAMPLE_README}
    assert undocumented == set()


# Over NATS


@asynccontextmanager
async def running(*command: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that is stopped on the way out."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), PATIENCE_S)


async def until(condition: Callable[[], Awaitable[str]]) -> str:
    """The first answer that is not empty."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if answer := await condition():
                return answer
            await asyncio.sleep(0.01)


def url_in(folder: Path) -> str:
    """The address in the file that nats-server writes when it is ready; empty before."""
    for path in folder.glob("nats-server_*.ports"):
        if text := path.read_text():
            return str(msgspec.json.decode(text)["nats"][0])
    return ""


async def request(nc: Client, command: str) -> dict[str, object]:
    """Do what the `nats` program does for `nats request SUBJECT [-H key:value]... PAYLOAD`."""
    words = shlex.split(command)[2:]
    headers = dict(words[index + 1].split(":", 1) for index, word in enumerate(words) if word == "-H")
    subject, payload = words[0], words[-1]
    reply = await nc.request(subject, payload.encode(), headers=headers or None, timeout=PATIENCE_S)
    answer: dict[str, object] = msgspec.json.decode(reply.data)
    assert not isinstance(answer.get("error"), dict), f"{command}\n{answer}"
    return answer


@pytest.mark.integration
async def test_over_nats_as_documented(checkout: Path) -> None:
    lines = commands(README)
    serve = next(line for line in lines if line.startswith("statewright serve")).removesuffix("&")
    requests = [line for line in lines if line.startswith("nats request")]
    looking = [line for line in lines if re.search("^statewright (list|status|history|replay|metrics)", line)]
    program = next(block for block in blocks(README, "python") if "nats.connect" in block)
    assert (len(requests), len(looking)) == (3, 5)
    async with AsyncExitStack() as stack:
        server = (find_binary(), "-js", "-p", "-1", "-a", "127.0.0.1", "-sd", "js", "--ports_file_dir", ".")
        await stack.enter_async_context(running(*server, folder=checkout))
        url = await until(partial(asyncio.to_thread, url_in, checkout))
        words = shlex.split(serve.replace(DOCUMENTED_URL, url))[1:]
        engine = await stack.enter_async_context(
            running(sys.executable, "-m", "statewright.adapters.cli", *words, folder=checkout)
        )
        assert engine.stdout is not None
        assert b"serving document_approval" in await asyncio.wait_for(engine.stdout.readline(), PATIENCE_S)
        nc = await nats.connect(url)
        stack.push_async_callback(nc.close)
        assert (await request(nc, requests[0]))["id"] == "d-18"
        assert (await request(nc, requests[1]))["kind"] == "recorded"

        async def reviewer() -> str:
            row = await request(nc, requests[2])
            return str(msgspec.convert(row["context"], dict[str, Any])["reviewer"])

        await until(reviewer)
        assert await asyncio.to_thread(run_python, program, checkout, url=url) == "recorded\n"
        scheduling = next(line for line in lines if line.startswith("statewright schedule add"))
        assert "weekly: document_approval" in await asyncio.to_thread(run, scheduling, checkout)
        for line in looking:
            assert await asyncio.to_thread(run, line, checkout) != "", line
    assert run(looking[1], checkout) != ""
