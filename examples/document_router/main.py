"""Documents of an inbox go where rules say: `python main.py [FOLDER] [--store URL]`."""

import asyncio
from pathlib import Path
from typing import Any

from statewright.engine.workflows import Orchestrator
from statewright.examples.command import run
from statewright.examples.document_router.steps import INBOX, Office
from statewright.examples.files import write
from statewright.statecharts.workflows import load_workflow

WORKFLOW = load_workflow(Path(__file__).with_name("workflow.yaml"))
PATIENCE_S = 120

MAIL = {
    "bench": "kind: invoice\nsender: Oak & Sons\namount: 900\nlegible: 0.97\n\nA bench of oak.",
    "complaint": "kind: invoice\nsender: Mr. Holt\namount: 40\nlegible: 0.9\n\nI complain: this was paid already.",
    "crane": "kind: invoice\nsender: Heavy Ltd.\namount: 48000\nlegible: 0.99\n\nA crane, for a month.",
    "postcard": "sender: Ann\nlegible: 0.9\n\nGreetings from the lake.",
    "smudged": "kind: invoice\nsender: unknown\namount: 70\nlegible: 0.3\n\nSomething with coffee on it.",
}
"""What the postman brings, by the document's name."""


async def main(folder: Path, store: str) -> dict[str, Any]:
    """Returns the decisions, by document."""
    deliver(folder)
    async with Orchestrator.open(store, workflows=[WORKFLOW], functions=Office(folder).functions()) as orchestrator:
        # The id is the document's: whoever starts it again gets the execution that there is.
        for name in MAIL:
            await orchestrator.execute("document_router", {"document": name}, id=name)
        await asyncio.gather(*(orchestrator.wait(name, timeout=PATIENCE_S) for name in MAIL))
        # A decision is the result of a step, so it is recorded, with all that led to it.
        decisions = {name: (await orchestrator.step_result(name, "route")).data for name in MAIL}
    for name, decision in decisions.items():
        print(f"{name} -> {decision['target']} because {decision['reason']} (confidence {decision['confidence']:g})")
        for rule in decision["rules"]:
            print(f"    {rule['rule']:<14} {rule['verdict']} {rule.get('detail', '')}".rstrip())
    return decisions


def deliver(folder: Path) -> None:
    """Into the inbox with the mail that was not brought before."""
    for name, text in MAIL.items():
        if not list(folder.glob(f"filed/*/{name}")):
            write(folder / INBOX / name, text)


if __name__ == "__main__":
    run(main, "Have documents dealt with by whom rules decide for.")
