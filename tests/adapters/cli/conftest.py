"""The command line in this process: real charts, real stores, what is printed and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from statewright.adapters.cli.main import run

CHART = """\
name: approval
context: {amount: int, reviewer: {type: "string?"}}
initial: draft
states:
  draft: {on: {submit: review}}
  review:
    initial: first
    states:
      first: {entry: [notify], on: {next: second}, after: {24h: second}}
      second: {}
    on:
      approve:
        target: approved
        guard: context.amount < 100
        actions: [{assign: {reviewer: event.data.by}}]
      back: draft
  approved: {type: final}
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


Cli = Callable[..., Result]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line in a folder of its own, with `chart.yaml` in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("STATEWRIGHT_STORE", "STATEWRIGHT_NATS_URL", "STATEWRIGHT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "chart.yaml").write_text(CHART)

    def call(*arguments: str) -> Result:
        capfd.readouterr()
        code = run(list(arguments))
        return Result(code, *capfd.readouterr())

    return call


@pytest.fixture
def started(cli: Cli) -> Cli:
    """A store with instance d-17, in draft."""
    result = cli("start", "approval", "--id", "d-17", "--context", '{"amount": 90}', "--chart", "chart.yaml")
    assert result.code == 0, result.err
    return cli
