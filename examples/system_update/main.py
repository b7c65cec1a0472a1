"""Two systems are updated together or not at all: `python main.py [FOLDER] [--store URL]`."""

from pathlib import Path
from typing import Any

from statewright.engine.workflows import InvalidState, Orchestrator
from statewright.examples.command import run
from statewright.examples.system_update.steps import Updater
from statewright.examples.system_update.systems import EXACT, PAYMENTS, ROUNDED, is_as_before, set_up
from statewright.statecharts.workflows import load_workflow

WORKFLOW = load_workflow(Path(__file__).with_name("workflow.yaml"))
PATIENCE_S = 120


async def main(folder: Path, store: str) -> dict[str, Any]:
    """Returns what the two updates have come to."""
    set_up(folder)
    found = {}
    functions = Updater(folder).functions()
    async with Orchestrator.open(store, workflows=[WORKFLOW], functions=functions) as orchestrator:
        for release in (ROUNDED, EXACT):
            found[f"release {release}"] = await update(orchestrator, folder, release)
    return found


async def update(orchestrator: Orchestrator, folder: Path, release: int) -> dict[str, Any]:
    """Bring all systems to a release. All is asked for by ids that follow from the release, so that asked again, after
    a crash, it goes on where it was."""
    transaction = await orchestrator.begin_transaction("1h", id=f"release-{release}")
    executions = [f"{transaction}-{system}" for system in PAYMENTS]
    try:
        for system, execution in zip(PAYMENTS, executions, strict=True):
            given = {"system": system, "release": release}
            await orchestrator.execute("system_update", given, id=execution, transaction=transaction)
            await orchestrator.wait(execution, timeout=PATIENCE_S)
        await orchestrator.commit_transaction(transaction, timeout=PATIENCE_S)
        outcome = "committed"
    except InvalidState as error:
        outcome = str(error)
        await orchestrator.rollback_transaction(transaction, timeout=PATIENCE_S)  # Until all of it is undone.
    statuses = {execution: (await orchestrator.status(execution)).status for execution in executions}
    undone = await compensations(orchestrator, executions)
    print(f"{transaction}: {outcome}")
    for execution, status in statuses.items():
        print(f"    {execution}: {status}")
    found: dict[str, Any] = {"outcome": outcome, "statuses": statuses}
    if undone:
        found |= {"undone": undone, "as_before": is_as_before(folder)}
        print("    undone, in this order:", *undone, sep="\n        ")
        print(f"    byte for byte as before: {'yes' if found['as_before'] else 'NO'}")
    return found


async def compensations(orchestrator: Orchestrator, executions: list[str]) -> list[str]:
    """What was undone, in that order."""
    found = []
    for execution in executions:
        for step, result in (await orchestrator.step_results(execution)).items():
            if result.status in ("compensated", "compensation_failed"):
                found.append((result.ended_at, f"{execution} {step}"))
    return [undone for _, undone in sorted(found)]


if __name__ == "__main__":
    run(main, "Have two systems updated in a transaction: by a release that loses money, and by one that does not.")
