"""The command schema: what editors get."""

from __future__ import annotations

import json

from jsonschema import Draft7Validator

from statewright.statecharts.documents import read_document
from statewright.statecharts.schema import schema_json
from tests.adapters.cli.conftest import CHART, Cli


def test_schema_prints_the_published_schema(cli: Cli) -> None:
    result = cli("schema")
    assert (result.code, result.err) == (0, "")
    assert result.out == schema_json()


def test_schema_as_json_is_one_line(cli: Cli) -> None:
    result = cli("schema", "--json")
    assert result.code == 0
    assert result.lines == [json.loads(schema_json())]


def test_what_is_printed_validates_a_chart(cli: Cli) -> None:
    validator = Draft7Validator(json.loads(cli("schema").out))
    assert list(validator.iter_errors(read_document(CHART.encode())[0])) == []
    broken = read_document(CHART.replace("guard:", "gaurd:").encode())[0]
    assert [error.json_path for error in validator.iter_errors(broken)] == ["$.states.review.on.approve"]


def test_schema_takes_no_chart(cli: Cli) -> None:
    result = cli("schema", "chart.yaml")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
