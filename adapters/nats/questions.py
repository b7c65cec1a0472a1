"""Questions to whoever of a queue group takes them, asked again until somebody answers.

The server hands each to one worker, and goes on handing some to a worker that was stopped or is just dying, until it
notices. So what may be asked twice (it is recorded once by its id, or only reads) is asked again while there is no
answer, and sooner or later another worker has it. Invariants: the first answer counts; that nothing was recorded
(`busy`, `unavailable`, nobody there) is believed only when every worker that was asked has said so.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any, Generic

from nats.aio.msg import Msg
from nats.errors import NoRespondersError

from statewright.adapters.nats.connection import Connection
from statewright.adapters.nats.replies import A, decode_answer
from statewright.engine.errors import BusyError, UnavailableError

TIMES_MIN = 12
"""How often a question is asked at least, if nobody answers within its timeout."""
PAUSE_S_MAX = 0.5
"""After how long at the latest it is asked again."""
REPEATED_SHARE, REPEATED_RATE, REPEATED_BURST = 0.5, 50.0, 1_000.0
"""How many may be asked again: half as many as are asked, and 50 a second, at most 1,000 at once. So an engine that is
slow because it has too much to do is never given twice as much for it."""


class _Question(Generic[A]):
    """One that waits for its answer. open: how many of those who were asked have not said anything yet.
    is_nobody_there: whether that was so when it was asked last."""

    def __init__(
        self, subject: str, payload: bytes, headers: dict[str, str] | None, kind: type[A], answer: asyncio.Future[A]
    ) -> None:
        self.subject = subject
        self.payload = payload
        self.headers = headers
        self.kind = kind
        self.answer = answer
        self.open = 1
        self.is_nobody_there = False
        self.timer: asyncio.TimerHandle | None = None


class _Budget:
    """How many may be asked again."""

    def __init__(self) -> None:
        self._left = REPEATED_BURST
        self._at = 0.0

    def add(self, share: float) -> None:
        self._left = min(self._left + share, REPEATED_BURST)

    def has_one(self, now: float) -> bool:
        """Whether there is one more, which is then gone. now: seconds."""
        self.add((now - self._at) * REPEATED_RATE)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Questions:
    """Those of one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.nc.new_inbox()
        self._numbers = count()
        self._waiting: dict[str, _Question[Any]] = {}
        """By the subject of the answer."""
        self._budget = _Budget()
        self._opening = asyncio.Lock()
        self._is_open = False

    async def ask(
        self, subject: str, payload: bytes, headers: dict[str, str], kind: type[A], timeout_s: float, *, repeat: bool
    ) -> A:
        """The answer. repeat: it may be asked more than once.

        Raises the error in the answer, what the driver raises (`NoRespondersError` among it), and `TimeoutError`."""
        if not self._is_open:
            await self._open()
        loop = asyncio.get_running_loop()
        reply_to = f"{self._inbox}.{next(self._numbers)}"
        question: _Question[A] = _Question(subject, payload, headers or None, kind, loop.create_future())
        self._waiting[reply_to] = question
        self._budget.add(REPEATED_SHARE)
        try:
            async with asyncio.timeout(timeout_s):
                await self._connection.nc.publish(subject, payload, reply_to, headers or None)
                if repeat:
                    pause_s = min(timeout_s / TIMES_MIN, PAUSE_S_MAX)
                    question.timer = loop.call_later(pause_s, self._ask_again, reply_to, pause_s)
                answer: A = await question.answer
                return answer
        except TimeoutError:
            if question.is_nobody_there:
                raise NoRespondersError from None
            raise
        finally:
            del self._waiting[reply_to]
            if question.timer is not None:
                question.timer.cancel()

    async def _open(self) -> None:
        async with self._opening:
            if not self._is_open:
                await self._connection.nc.subscribe(f"{self._inbox}.*", cb=self._on_answer)
                self._is_open = True

    def _ask_again(self, reply_to: str, pause_s: float) -> None:
        question = self._waiting[reply_to]
        loop = asyncio.get_running_loop()
        if self._budget.has_one(loop.time()):
            question.open += 1
            self._connection.post(question.subject, question.payload, reply_to, question.headers)
        question.timer = loop.call_later(pause_s, self._ask_again, reply_to, pause_s)

    async def _on_answer(self, message: Msg) -> None:
        question = self._waiting.get(message.subject)
        if question is None or question.answer.done():
            return  # Somebody else was first.
        question.open -= 1
        nobody = not message.data and message.headers is not None and message.headers.get("Status") == "503"
        question.is_nobody_there = nobody
        try:
            if nobody:
                raise NoRespondersError
            question.answer.set_result(decode_answer(message.data, question.kind))
        except (BusyError, UnavailableError, NoRespondersError) as error:
            if not question.open:
                question.answer.set_exception(error)
        except Exception as error:
            question.answer.set_exception(error)
