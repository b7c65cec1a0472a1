"""`health` for a container's probe: exit 0 or 1, nothing else, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.cli.conftest import Cli
from tests.adapters.cli.processes import server

pytestmark = pytest.mark.integration


def test_the_exit_code_says_whether_it_is_well(cli: Cli, tmp_path: Path) -> None:
    absent = cli("health")
    assert (absent.code, absent.out) == (1, "")
    assert "no engine serves sqlite:///statewright.db: start one with `statewright serve`" in absent.err
    assert cli("health", "--json").lines[0]["ready"] is False
    assert cli("health", "--live", "--json").lines[0]["status"] == "down"

    with server(tmp_path, "--chart", "chart.yaml", "--worker", "w-1") as running:
        assert running.ready["worker"] == "w-1"
        while (answer := cli("health", "--json")).code:  # The first look at the projections may still be under way.
            assert answer.lines[0]["worker"] == "w-1"
        assert {check["name"] for check in answer.lines[0]["checks"]} >= {"store", "doors", "projection metrics"}
        assert cli("health").out.splitlines()[:2] == ["worker w-1 is ready", "  store: ok"]
        assert cli("health", "--live", "--worker", "w-1").out == "worker w-1 answers\n"
        other = cli("health", "--worker", "w-2")
        assert (other.code, "an engine called 'w-2' does not serve it" in other.err) == (1, True)
        assert cli("metrics", "--signals").lines[0]["worker"] == "w-1"
        running.process.terminate()
        assert running.ended() == 0
    assert cli("metrics", "--signals").code == 2
