"""Schedules over NATS: the same answers and errors as in Python, for a client of ours and for any other."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from statewright.engine.errors import AlreadyExistsError, InvalidError, NotFoundError
from statewright.engine.schedules import ScheduleRequest
from statewright.projections.schedules import schedule_json
from statewright.statecharts.errors import StatewrightError
from tests.adapters.nats.support import raw, serving

pytestmark = pytest.mark.integration

DAILY = ScheduleRequest(definition="light", cron="0 9 * * *", tz="Europe/Zurich", context={"limit": 3}, id="daily")


async def test_a_schedule_from_adding_to_removing(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client):
        added = await client.schedule(DAILY)
        assert added == schedule_json((await engine.schedules())[0])
        assert (added["id"], added["context"], added["status"]) == ("daily", {"limit": 3}, "active")
        assert await client.schedule(DAILY) == added
        assert (await client.pause_schedule("daily"))["status"] == "paused"
        assert await client.resume_schedule("daily") == added
        assert (await client.unschedule("daily"))["id"] == "daily"
        assert await engine.schedules() == []
        unnamed = await client.schedule(msgspec.structs.replace(DAILY, id=None))
        assert unnamed["id"] == "light"


async def test_errors_come_as_what_they_are(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client):
        await client.schedule(DAILY)
        wrong: dict[type[StatewrightError], dict[str, object]] = {
            AlreadyExistsError: {"cron": "5 9 * * *"},
            NotFoundError: {"definition": "nothing"},
            InvalidError: {"tz": "Mars/Base"},
        }
        for error, fields in wrong.items():
            with pytest.raises(error):
                await client.schedule(msgspec.structs.replace(DAILY, **fields))
        with pytest.raises(NotFoundError, match="no schedule 'nobody'"):
            await client.unschedule("nobody")
        assert len(await engine.schedules()) == 1


async def test_a_client_that_knows_only_the_subject(tmp_path: Path) -> None:
    async with serving(tmp_path) as (engine, client), raw(client.connection.endpoint) as nc:

        async def asked(schedule_id: str, payload: bytes) -> dict[str, object]:
            reply = await nc.request(f"statewright.schedule.{schedule_id}", payload, timeout=5)
            answer: dict[str, object] = msgspec.json.decode(reply.data)
            return answer

        body = b'{"action": "add", "definition": "light", "cron": "0 9 * * MON", "context": {"limit": 1}}'
        assert (await asked("weekly", body))["tz"] == "UTC"
        for schedule_id, payload, said in (
            ("weekly", b"", "the schedule request"),
            ("weekly", b"{nonsense", "the schedule request"),
            ("weekly", b'{"action": "explode"}', "explode"),
            ("weekly", b'{"action": "add"}', "definition"),
            ("weekly", b'{"action": "remove", "soon": true}', "soon"),
            ("weekly", body[:-1] + b', "catch_up": "some"}', "catch_up"),
            ("we.ekly", b'{"action": "remove"}', "a schedule id"),
        ):
            error = (await asked(schedule_id, payload))["error"]
            assert isinstance(error, dict)
            assert (error["code"], said in error["message"]) == ("invalid", True), error
        assert (await asked("weekly", b'{"action": "remove"}'))["id"] == "weekly"
        assert await engine.schedules() == []
