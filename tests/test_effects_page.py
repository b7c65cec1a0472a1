"""What docs/effects.md says is so: its action is one, its handler can be registered, its defaults are those."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from statewright.engine import Engine, Retry
from statewright.engine.attempts import GRACE_NS
from statewright.engine.effects import ATTEMPT_TIMEOUT_NS
from statewright.engine.threads import CLOSING_S, THREADS_MAX
from statewright.statecharts import Chart
from statewright.statecharts.definition import Perform, walk_actions
from statewright.statecharts.documents import read_document
from tests.engine.worlds import until
from tests.test_readme import ROOT, blocks

TEXT = (ROOT / "docs" / "effects.md").read_text(encoding="utf-8")


def test_the_action_is_one() -> None:
    tree, _ = read_document(blocks(TEXT, "yaml")[0].encode())
    chart = Chart.from_tree({"name": "page", "context": {"amount": "int"}, "states": {"paying": tree}})
    (action,) = walk_actions(chart.definition)
    assert isinstance(action, Perform)
    assert action.retry is not None
    assert (action.retry.attempts, action.retry.final, action.cancel) == (
        5,
        ("ValueError", "PaymentDeclined"),
        "on_exit",
    )


async def test_the_handler_performs_it(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(blocks(TEXT, "python")[0], names)
    entry, _ = read_document(blocks(TEXT, "yaml")[0].encode())
    paying = {**entry, "on": {"done.effect.pay": "paid"}}
    chart = Chart.from_tree(
        {"name": "page", "context": {"amount": "int"}, "states": {"paying": paying, "paid": {"type": "final"}}}
    )
    async with Engine.open(f"sqlite:///{tmp_path / 'page.db'}", charts=[chart]) as engine:
        names["register"](engine)
        await engine.start("page", {"amount": 5}, id="p")

        async def is_paid() -> bool:
            return (await engine.status("p")).status == "completed"

        await until(is_paid, "the payment")
        assert (await engine.history("p"))[-1].trigger.data == {"receipt": "p-1-0"}
        (row,) = await engine.effects("p")
        assert row.details == '{"page":2}'


def test_the_figures_are_those() -> None:
    said = dict(re.findall(r"^\| `retry\.(\w+)` \|.*\| (\S+) \|$", TEXT, re.MULTILINE))
    default = msgspec.structs.asdict(Retry())
    assert said == {key: str(value).replace(".0", "") if value != () else "none" for key, value in default.items()}
    assert f"| {ATTEMPT_TIMEOUT_NS // 60_000_000_000}m;" in TEXT
    assert f"within the heartbeat and {GRACE_NS // 1_000_000_000} s" in TEXT
    assert f"At most {THREADS_MAX} such threads" in TEXT
    assert f"waits {CLOSING_S:g} s for them" in TEXT
