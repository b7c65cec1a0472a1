"""The engine embedded in a program: one approval from start to archive, in a database file beside its outbox."""

import asyncio
from pathlib import Path

from statewright.engine import Engine
from statewright.examples.document_approval.handlers import register
from statewright.statecharts import load_chart

CHART = load_chart(str(Path(__file__).with_name("chart.yaml")))


async def main(folder: Path) -> None:
    async with Engine.open(f"sqlite:///{folder}/approvals.db", charts=[CHART]) as engine:
        register(engine, folder)
        document = (await engine.start("document_approval", {"amount": 900, "title": "a new bench"})).id
        await engine.send(document, "submit", {"by": "ann"}, actor="ann")
        await reached(engine, document, "under_review")
        own = await engine.send(document, "approve", {"by": "ann"}, actor="ann")
        print(f"ann approves her own request: {own.kind}, {own.reason}")
        await engine.send(document, "approve", {"by": "bob"}, actor="bob")
        await reached(engine, document, "archived")
        for fact in await engine.history(document):
            print(fact.sequence, type(fact).__name__, getattr(fact, "entered", ""))


async def reached(engine: Engine, document: str, state: str) -> None:
    """Wait for what happens by itself: a handler's result arrives as an event of its own."""
    for _ in range(1_000):
        if f'"{state}"' in (await engine.status(document)).configuration:
            return
        await asyncio.sleep(0.01)
    raise TimeoutError(f"expected document '{document}' to reach '{state}'")


if __name__ == "__main__":
    asyncio.run(main(Path.cwd()))
