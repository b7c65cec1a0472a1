"""`statewright demo` as a user runs it: what it says, what it leaves behind, and how it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration

TIMEOUT_S = 60.0
PHASES = [
    *("serve", "approve", "publish", "refuse", "timer", "kill"),
    *("restart", "retry", "remind", "finish", "verify", "done"),
]


def demo(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The demo, started, with `folder` as the place for temporary files."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("STATEWRIGHT_")}
    return subprocess.Popen(
        [sys.executable, "-m", "statewright.adapters.cli", "demo", *arguments],
        env=inherited | {"TMPDIR": str(folder)} | environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, list[Any], str]:
    """(exit code, lines of JSON, what it complained of)."""
    with process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err


def phases(lines: list[Any]) -> dict[str, Any]:
    return {line["phase"]: line for line in lines if "phase" in line}


def processes_naming(text: str) -> Iterator[str]:
    """The command lines of running processes that mention `text`."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # It has just ended.
        if text in command:
            yield command


def test_it_shows_the_whole_and_leaves_nothing(tmp_path: Path) -> None:
    code, lines, err = ended(demo(tmp_path, "--json"))
    assert (code, err) == (0, "")
    assert list(phases(lines)) == PHASES
    facts = [line for line in lines if "sequence" in line and "type" in line]
    assert [fact["sequence"] for fact in facts] == list(range(1, len(facts) + 1))
    assert {"event_refused", "transition_taken", "instance_started"} <= {fact["type"] for fact in facts}
    rows = [line for line in lines if "configuration" in line]
    assert [row["status"] for row in rows[:3]] == ["completed"] * 3
    metrics = next(line for line in lines if "states" in line)
    assert (metrics["started"], metrics["completed"]) == (43, 3)
    assert list(tmp_path.iterdir()) == []
    assert list(processes_naming(str(tmp_path))) == []


def test_a_named_store_is_kept_and_can_be_used_again(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/kept.db"
    first = ended(demo(tmp_path, "--json", "--store", store))
    second = ended(demo(tmp_path, "--json", "--store", store))
    assert (first[0], first[2]) == (0, "")
    assert (second[0], second[2]) == (0, "")
    assert next(line for line in second[1] if "states" in line)["started"] == 2 * 43
    assert (tmp_path / "kept.db").is_file()
    assert not (tmp_path / "kept.db.endpoint").exists()


def test_stores_and_servers_of_the_environment_are_left_alone(tmp_path: Path) -> None:
    real = tmp_path / "real.db"
    environment = {"STATEWRIGHT_STORE": f"sqlite:///{real}", "STATEWRIGHT_NATS_URL": "nats://127.0.0.1:1"}
    code, _, err = ended(demo(tmp_path, "--json", **environment))
    assert (code, err) == (0, "")
    assert not real.exists()


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    code, lines, err = ended(demo(tmp_path, "--json", NATS_SERVER="/nowhere/nats-server"))
    assert code == 1
    assert lines == []
    assert err.startswith("statewright: the demo failed: ")
    assert "/nowhere/nats-server" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_reader_that_goes_away_ends_it(tmp_path: Path, arguments: list[str]) -> None:
    """As in `statewright demo | head -1`."""
    with demo(tmp_path, *arguments) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        err = process.stderr.read()
        assert (process.wait(TIMEOUT_S), err) == (0, "")
    assert list(tmp_path.iterdir()) == []
    assert list(processes_naming(str(tmp_path))) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_demo_takes_its_engine_along(tmp_path: Path, number: signal.Signals) -> None:
    process = demo(tmp_path, "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["phase"] == "serve"
    process.send_signal(number)
    code, _, err = ended(process)
    assert code == 128 + number
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    assert list(processes_naming(str(tmp_path))) == []
