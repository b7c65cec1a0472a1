"""The pipeline: load, validate, clean, transform, save. Each step gets what the one before has returned."""

from __future__ import annotations

from statewright.examples.data_pipeline import steps
from statewright.statecharts.workflows import Workflow

SCHEMA = {"number": "int", "customer": "text", "country": "text", "quantity": "int", "price": "float"}

pipeline = (
    Workflow("data_pipeline", mode="pipeline", timeout="10m", description="Orders from a CSV file into a database.")
    .add_step(id="load", function=steps.load, parameters={"folder": "${input.folder}", "source": "${input.source}"})
    .add_step(id="validate", function=steps.validate, parameters={"schema": SCHEMA})
    .add_step(id="clean", function=steps.clean)
    .add_step(id="transform", function=steps.transform)
    .add_step(id="save", function=steps.save, parameters={"database": "orders.db"})
)
