"""What those outside do in a run, drawn from the seed: start instances, send them events, put them elsewhere, each
until it is answered; and look after what is parked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal

import msgspec

from statewright.engine import Outcome, ScheduleRow, Started
from statewright.engine.cron import MINUTE_NS
from statewright.engine.errors import InvalidError, NotFoundError, UnusableError
from statewright.engine.events import RestoredStep
from statewright.engine.parking import Retried
from statewright.engine.recorder import ParkedRow
from statewright.engine.requests import CheckpointRequest, ControlRequest, ExternalEvent, StartRequest
from statewright.engine.schedules import ScheduleRequest
from statewright.statecharts.facts import StepRecord
from tests.simulation.charts import LATER, PLAYS, TALLY, Play
from tests.simulation.doors import AGAIN, Dropping, Modification, Parking, Recorded, Retrial
from tests.simulation.world import World

MOVES_MAX = 3
"""How often one tries to put an instance elsewhere that goes on meanwhile."""
STATUSES = ("pending", "running", "completed", "failed")
ACTIONS: tuple[Literal["pause", "resume", "cancel"], ...] = ("pause", "pause", "resume", "resume", "cancel")


class Workload:
    """`answers`: what was answered to each request that is recorded once; `moves`: to each that puts an instance
    elsewhere, or names where it is."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.answers: list[tuple[StartRequest | ExternalEvent, Any]] = []
        self.moves: list[tuple[Modification | CheckpointRequest, Outcome]] = []
        self.parked: list[Parking] = []
        """The events that were given to be parked."""
        self.dropped: set[str] = set()
        """The ids of what was to be dropped, if it was parked."""
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
        count = 110 if play.chart is TALLY and rng.random() < 0.05 else rng.randint(2, 8)
        at_once: list[asyncio.Task[None]] = []
        for number in range(count):
            at_once.append(asyncio.ensure_future(self._next(play, start.instance_id, number, is_long=count > 100)))
            if count < 100 and rng.random() < 0.6:
                await asyncio.sleep(world.delay_s(play.pause_s if world.workers == 1 else 4.0))
        await asyncio.gather(*at_once)

    def _next(self, play: Play, instance_id: str, number: int, *, is_long: bool) -> Coroutine[Any, Any, Any]:
        rng = self._world.rng
        drawn = 1.0 if is_long else rng.random()
        if drawn < 0.12:
            return self._ask(ControlRequest(instance_id, rng.choice(ACTIONS), "drawn"))
        if drawn < 0.15:
            return self._ask(CheckpointRequest(instance_id, f"c-{number}", "drawn"))
        if drawn < 0.25:
            return self._move(play, instance_id, number)
        return self._ask(
            ExternalEvent(instance_id, rng.choice(play.events), rng.randrange(6), f"e-{number}", "client", "ann")
        )

    async def _move(self, play: Play, instance_id: str, number: int) -> None:
        """Put it elsewhere; if it has gone on meanwhile look again, and decide anew."""
        for tried in range(MOVES_MAX):
            request = self._modification(play, instance_id, f"m-{number}-{tried}")
            answer = await self._ask(request)
            if not isinstance(answer, Outcome) or answer.sequence == request.expected_sequence:
                return

    def _modification(self, play: Play, instance_id: str, reason: str) -> Modification:
        """As one would ask for who looks at the instance now. Some are refused."""
        rng, row = self._world.rng, self._world.recorder._instances[instance_id]
        chart = LATER.get(play.chart.name) if rng.random() < 0.5 else None
        states, active = list(play.chart.machine.by_id), msgspec.json.decode(row.configuration)
        context = {"limit": 4, "seen": [7], "more": 0} if play.chart is TALLY and rng.random() < 0.3 else None
        steps = [StepRecord(step, rng.choice(STATUSES)) for step in ("one", "two") if rng.random() < 0.3]
        restored = [RestoredStep("one", "completed", row.sequence, row.started_at)] if rng.random() < 0.2 else []
        return Modification(
            instance_id,
            tuple(rng.sample(states, rng.choice((1, 1, 1, 2)))),
            row.sequence,
            chart,
            tuple(state for state in active if rng.random() < 0.6) if rng.random() < 0.4 else (),
            context,
            tuple(steps),
            tuple(restored),
            rng.random() < 0.5,
            reason,
        )

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

    async def _ask(self, request: Recorded | Modification) -> Any:
        answer = await self._world.ask(request)
        name = getattr(request, "name", getattr(request, "action", type(request).__name__))
        self._world.say(f"{request.instance_id} {name} is answered {answer}")
        if isinstance(request, ExternalEvent) and isinstance(answer, UnusableError):
            parking = Parking(request, str(answer))
            self.parked.append(parking)
            answer = await self._world.ask(parking)
            if not isinstance(answer, ParkedRow):
                self.wrong.append(f"{parking} was answered {answer!r}")
        elif not isinstance(answer, Outcome | Started):
            self.wrong.append(f"{request} was answered {answer!r}")
        elif isinstance(request, Modification | CheckpointRequest):
            assert isinstance(answer, Outcome)
            self.moves.append((request, answer))
        elif not isinstance(request, ControlRequest):
            self.answers.append((request, answer))
        return answer

    async def operate(self) -> None:
        """Look after what is parked, until all is healed."""
        while not self._world.faults.healed:
            await asyncio.sleep(self._world.rng.uniform(5.0, 60.0))
            await self.tend_parked()

    async def tend_parked(self) -> None:
        """Retry or drop, once, each thing that is parked; at the end nothing is dropped."""
        world = self._world
        for parked_id in list(world.recorder._parked):
            request: Retrial | Dropping = Retrial(parked_id)
            if not world.faults.healed and world.rng.random() < 0.3:
                request = Dropping(parked_id)
                self.dropped.add(parked_id)
            answer = await world.ask_once(request)
            world.say(f"{request} is answered {answer}")
            if answer is not None and not isinstance(answer, (Retried, ParkedRow, NotFoundError, *AGAIN)):
                self.wrong.append(f"{request} was answered {answer!r}")

    async def resume_all(self) -> None:
        """Let every paused instance go on, children too."""
        for row in list(self._world.recorder._instances.values()):
            if row.status == "paused":
                await self._world.ask(ControlRequest(row.id, "resume", "at the end"))
