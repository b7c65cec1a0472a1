"""A secret, everywhere that users can put one: what the tests of encryption look for."""

from __future__ import annotations

from statewright.adapters.encryption.keyring import IDENTITIES, new_entry
from statewright.engine import EffectCall
from statewright.engine.recorder import ParkedRow
from statewright.engine.schedules import ScheduleRequest
from statewright.statecharts import assign, chart, perform, state, to
from tests.engine.worlds import World

SECRET = "xyzzy-plugh"
KEPT = [new_entry(IDENTITIES)]
OLD, NEW = new_entry("old"), new_entry("new")

SAFE = chart(
    "safe",
    context={"note": {"type": "string", "default": ""}},
    initial="open",
    states=[
        state(
            "open",
            on={
                "write": to(actions=[assign(note="event.data.note"), perform("keep", {"it": "context.note"})]),
                "done.effect.keep": to(actions=[assign(note="event.data.kept")]),
                "error.effect.keep": to("open"),
            },
            after={"24h": to("open")},
        ),
    ],
)


def ring(*entries: str) -> str:
    return "\n".join([*entries, *KEPT])


async def fill(world: World, *, many: int = 1) -> None:
    """One instance with the secret in its context, events, ids, sources, effects, results, errors, heartbeats, and in
    a parked message and a schedule."""

    @world.engine.handler("keep")
    def keep(call: EffectCall) -> dict[str, str]:
        call.heartbeat(SECRET)
        if call.data["it"].endswith("fail"):
            raise ValueError(f"can't keep {SECRET}")
        return {"kept": call.data["it"]}

    await world.engine.start("safe", {"note": SECRET}, id="s", actor=SECRET)
    for number in range(many):
        note = {"note": f"{SECRET} {number}"}
        await world.engine.send("s", "write", note, event_id=f"{SECRET}-{number}", source=SECRET, actor=SECRET)
    await world.settle()
    await world.engine.send("s", "write", {"note": f"{SECRET} fail"}, event_id=f"{SECRET}-f")
    await world.settle()
    await world.engine.pause("s", reason=SECRET)
    await world.engine.send("s", "write", {"note": SECRET}, event_id=f"{SECRET}-paused")
    await world.engine.resume("s")
    await world.settle()
    await world.engine.park(ParkedRow("p", 1, "a.subject", SECRET, f'{{"who": "{SECRET}"}}', SECRET.encode()))
    yearly = ScheduleRequest(definition="safe", cron="0 9 1 1 *", context={"note": SECRET}, actor=SECRET)
    await world.engine.scheduling.add(yearly)
