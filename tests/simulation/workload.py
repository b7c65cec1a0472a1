"""What those outside do in a run, drawn from the seed: start instances, send them events, each until it is answered."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from statewright.engine import Outcome, ScheduleRow, Started
from statewright.engine.cron import MINUTE_NS
from statewright.engine.errors import InvalidError
from statewright.engine.requests import ControlRequest, ExternalEvent, StartRequest
from statewright.engine.schedules import ScheduleRequest
from tests.simulation.charts import PLAYS, TALLY, Play
from tests.simulation.world import World

ACTIONS: tuple[Literal["pause", "resume", "cancel"], ...] = ("pause", "pause", "resume", "resume", "cancel")


class Workload:
    """`answers`: what was answered to each request that is recorded once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.answers: list[tuple[StartRequest | ExternalEvent, Any]] = []
        self.wrong: list[str] = []
        self.instance_ids: list[str] = []

    async def run(self) -> None:
        """Everything that is sent, answered."""
        rng = self._world.rng
        players = []
        for number in range(rng.randint(1, 4)):
            play = rng.choice(PLAYS)
            instance_id = f"i-{number}"
            self.instance_ids.append(instance_id)
            start = StartRequest(instance_id, play.chart.name, play.context(rng), actor="starter")
            players.append(self._play(play, start))
        if rng.random() < 0.15:
            players.append(self._schedule())
        await asyncio.gather(*players)

    async def _play(self, play: Play, start: StartRequest) -> None:
        """Start one instance, then send it events, several at a time."""
        world, rng = self._world, self._world.rng
        await self._ask(start)
        # Rarely so many that the instance is snapshotted.
        count = 110 if play.chart is TALLY and rng.random() < 0.05 else rng.randint(2, 9)
        at_once: list[asyncio.Task[None]] = []
        for number in range(count):
            request: ExternalEvent | ControlRequest
            if count < 100 and rng.random() < 0.12:
                action = rng.choice(ACTIONS)
                request = ControlRequest(start.instance_id, action, "drawn")
            else:
                name = rng.choice(play.events)
                request = ExternalEvent(start.instance_id, name, rng.randrange(6), f"e-{number}", "client", "ann")
            at_once.append(asyncio.ensure_future(self._ask(request)))
            if count < 100 and rng.random() < 0.6:
                await asyncio.sleep(world.delay_s(4.0))
        await asyncio.gather(*at_once)

    async def _schedule(self) -> None:
        """Recurring starts, for a few minutes. The clock may have leapt past the end before it is added."""
        rng = self._world.rng
        request = ScheduleRequest(
            definition=TALLY.name,
            cron="* * * * *",
            id="each-minute",
            context={"limit": 3},
            catch_up=rng.choice(("all", "all", "one", "none")),
            overlap=rng.choice(("allow", "allow", "skip")),
            end_at=self._world.clock.now() + rng.randint(2, 5) * MINUTE_NS,
        )
        answer = await self._world.ask(request)
        self._world.say(f"schedule is answered {answer}")
        if not isinstance(answer, ScheduleRow | InvalidError):
            self.wrong.append(f"{request} was answered {answer!r}")

    async def _ask(self, request: StartRequest | ExternalEvent | ControlRequest) -> None:
        answer = await self._world.ask(request)
        name = getattr(request, "name", getattr(request, "action", "start"))
        self._world.say(f"{request.instance_id} {name} is answered {answer}")
        if not isinstance(answer, Outcome | Started):
            self.wrong.append(f"{request} was answered {answer!r}")
        elif not isinstance(request, ControlRequest):
            self.answers.append((request, answer))

    async def resume_all(self) -> None:
        """Let every paused instance go on, children too."""
        for row in list(self._world.recorder._instances.values()):
            if row.status == "paused":
                await self._world.ask(ControlRequest(row.id, "resume", "at the end"))
