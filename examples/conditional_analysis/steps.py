"""The steps: they count, sample and analyse a CSV file of measurements.

All of them may be performed twice: they read what nobody changes, and write their files whole or not at all.
"""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

from statewright.engine.workflows import StepCall
from statewright.examples.files import note, write

COLUMN = "value"


def count_rows(folder: Path, source: str, call: StepCall) -> int:
    note(folder, call.effect_id, call.step)
    return len(_values(folder / source))


def take_sample(folder: Path, source: str, every: int, call: StepCall) -> str:
    """A table with each so many-th row; returns its name."""
    note(folder, call.effect_id, call.step)
    values = _values(folder / source)[::every]
    name = f"samples/{source}"
    write(folder / name, "\n".join([COLUMN, *map(str, values), ""]))
    return name


def analyse(folder: Path, source: str, call: StepCall) -> dict[str, float]:
    """The figures, to a thousandth."""
    note(folder, call.effect_id, call.step)
    values = _values(folder / source)
    figures = {
        "mean": statistics.fmean(values),
        "median": statistics.median(values),
        "deviation": statistics.pstdev(values),
    }
    return {"rows": len(values), **{name: round(figure, 3) for name, figure in figures.items()}}


def report(
    folder: Path, source: str, rows: int, figures: dict[str, float], is_estimated: bool, call: StepCall
) -> dict[str, object]:
    """What is known of the table, as a file."""
    note(folder, call.effect_id, call.step)
    found = {"rows": rows, "estimated": is_estimated, "figures": figures}
    write(folder / "reports" / f"{source}.json", json.dumps(found, indent=2, sort_keys=True))
    return found


def warn_of_spread(folder: Path, source: str, figures: dict[str, float], call: StepCall) -> str:
    """A note to whoever has measured."""
    note(folder, call.effect_id, call.step)
    text = f"{source}: the measurements deviate by {figures['deviation']} on the average"
    write(folder / "reports" / f"{source}.warning.txt", f"{text}\n")
    return text


def _values(path: Path) -> list[float]:
    with path.open(newline="", encoding="utf-8") as file:
        return [float(row[COLUMN]) for row in csv.DictReader(file)]


STEPS = {function.__name__: function for function in (count_rows, take_sample, analyse, report, warn_of_spread)}
"""By the names that `workflow.yaml` calls them."""
