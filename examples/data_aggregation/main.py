"""Quotes of five sources, of which one never answers, put together: `python main.py [FOLDER] [--store URL]`."""

import json
from pathlib import Path
from typing import Any

from statewright.engine.workflows import Orchestrator
from statewright.examples.command import run
from statewright.examples.data_aggregation.sources import opened
from statewright.examples.data_aggregation.steps import Aggregation
from statewright.statecharts.workflows import load_workflow

WORKFLOW = load_workflow(Path(__file__).with_name("workflow.yaml"))
PATIENCE_S = 120


async def main(folder: Path, store: str) -> dict[str, Any]:
    """Returns the report."""
    with opened(folder) as sources:
        functions = Aggregation(folder, sources).functions()
        async with Orchestrator.open(store, workflows=[WORKFLOW], functions=functions) as orchestrator:
            execution = await orchestrator.execute("data_aggregation", id="quotes")
            status = await orchestrator.wait(execution, timeout=PATIENCE_S)
            for step, result in (await orchestrator.step_results(execution)).items():
                print(f"{step:<11} {result.status:<10} {result.error}".rstrip())
    print(f"{status.workflow_id}: {status.status}, {status.completed_steps} of {status.total_steps} steps")
    report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    show(report)
    return report


def show(report: dict[str, Any]) -> None:
    print(f"without an answer: {', '.join(report['missing'])}")
    print(f"anybody has {', '.join(report['union'])}; all have {', '.join(report['intersection'])}")
    for article, best in report["merged"].items():
        of = report["statistics"][article]
        print(f"{article}: {best['cents']} from {best['from']}, median {of['median']} of {of['quotes']} quotes")


if __name__ == "__main__":
    run(main, "Have quotes of five sources put together, of which one never answers.")
