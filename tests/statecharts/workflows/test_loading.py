"""Workflows from files and from Python: equal, and refused with the place of every fault."""

from __future__ import annotations

import ast
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from statewright.statecharts import ChartError, ChartNotFound, load_chart
from statewright.statecharts.check import check
from statewright.statecharts.workflows import InvalidWorkflow, OnError, Workflow, WorkflowStep, load_workflow
from statewright.statecharts.workflows.schema import schema_json, workflow_schema

YAML = """\
id: docs
name: Documents
version: 2
mode: conditional
timeout: 1h
concurrency: 4
metadata: {owner: ann}
steps:
  - id: load
    plugin: files
    method: read
    parameters: {path: "${input.path}"}
    rollback: {id: unload, plugin: files, method: remove, max_retries: 9}
    compensate_failure: true
  - id: words
    function: count
    dependencies: [load]
    condition: steps.load.rows > 3
    on_error: {action: skip, max_retries: 1, retry_delay: 5s}
  - id: images
    service: images
    method: find
    dependencies: load
    on_error: {fallback: guess}
  - {id: guess, function: guess}
  - {id: big, function: big}
  - {id: small, function: small}
  - {id: save, function: save, dependencies: [big, small], timeout: 5000, critical: false}
branches:
  - {step: load, condition: steps.load.rows > 100, then: [big], otherwise: small}
groups:
  - {name: both, steps: [words, images], merge: save, on_failure: partial, deadline: 10s}
"""


def count() -> None: ...


def guess() -> None: ...


def big() -> None: ...


def small() -> None: ...


def save() -> None: ...


def in_python() -> Workflow:
    return (
        Workflow(
            "docs",
            "Documents",
            version="2",
            mode="conditional",
            timeout="1h",
            concurrency=4,
            metadata={"owner": "ann"},
        )
        .add_step(
            WorkflowStep(
                "load", plugin="files", method="read", parameters={"path": "${input.path}"}, compensate_failure=True
            )
        )
        .add_step(
            id="words",
            function=count,
            condition="steps.load.rows > 3",
            on_error=OnError("skip", max_retries=1, retry_delay="5s"),
        )
        .add_step({"id": "images", "service": "images", "method": "find"}, on_error=OnError(fallback="guess"))
        .add_step(id="guess", function=guess)
        .add_step(id="big", function=big)
        .add_step(id="small", function=small)
        .add_step(id="save", function=save, timeout="5000ms", critical=False)
        .add_dependency("words", "load")
        .add_dependency("images", "load")
        .add_dependency("save", "big", "small")
        .add_conditional_branch("load", "steps.load.rows > 100", then=["big"], otherwise="small")
        .add_parallel_group("both", ["words", "images"], merge="save", on_failure="partial", deadline="10s")
        .add_rollback_step("load", id="unload", plugin="files", method="remove", max_retries=9)
    )


def test_yaml_json_and_python_mean_the_same(tmp_path: Path) -> None:
    path = tmp_path / "docs.yaml"
    path.write_text(YAML)
    loaded, built = load_workflow(path), in_python()
    assert json.loads(loaded.to_json()) == json.loads(built.to_json())
    assert loaded.chart().digest == built.chart().digest == load_chart(path).digest
    again = Workflow.from_json(built.to_json())
    assert again.chart().digest == built.chart().digest
    assert sorted(built.functions) == ["big", "count", "guess", "save", "small"]
    (tmp_path / "docs.json").write_bytes(built.to_json())
    assert load_chart(tmp_path / "docs.json").digest == built.chart().digest


def test_a_workflow_can_be_read_back_from_its_chart(tmp_path: Path) -> None:
    built = in_python()
    found = Workflow.of(built.definition())
    assert found is not None
    assert found.to_json() == built.to_json()
    path = tmp_path / "plain.yaml"
    path.write_text("name: plain\nstates: {a: {type: final}}\n")
    assert Workflow.of(load_chart(path).definition) is None


def test_load_chart_takes_a_workflow_from_a_module(tmp_path: Path) -> None:
    path = tmp_path / "flows.py"
    path.write_text(
        "from statewright.statecharts.workflows import Workflow\n"
        "flow = Workflow('flow').add_step(id='only', function=print)\nother = 5\n"
    )
    assert load_chart(f"{path}:flow").name == "flow"
    with pytest.raises(ChartError.__mro__[1], match="expected a Chart or a Workflow"):
        load_chart(f"{path}:other")
    with pytest.raises(ChartNotFound):
        load_workflow(tmp_path / "none.yaml")


def test_check_finds_nothing_and_knows_the_lines(tmp_path: Path) -> None:
    path = tmp_path / "docs.yaml"
    path.write_text(YAML)
    assert check(load_chart(path)) == []
    infos = check(load_chart(path), info=True)
    assert {fault.severity for fault in infos} <= {"info"}
    (asked,) = [fault for fault in infos if "'prepared'" in fault.message]
    assert asked.message == "state 'prepared' waits for 'workflow.commit', 'workflow.rollback', 'workflow.cancel' " + (
        "without a timeout"
    )


FAULTS = [
    ("id: docs", "id: my docs", "line 1, id: expected an id of 1 to 128"),
    ("mode: conditional", "mode: paralel", "did you mean 'parallel'?"),
    ("timeout: 1h", "timeout: soon", "line 5, timeout: expected a duration such as 30s"),
    ("concurrency: 4", "concurrency: 0", "line 6, concurrency: expected a whole number from 1 to 999999, got 0"),
    ("    method: read\n", "", "expected the method of the plugin in step 'load'"),
    ("    plugin: files\n", "    plugin: files\n    function: f\n", "got function and plugin"),
    ("{id: guess, function: guess}", "{id: guess, function: {}}", "expected a function or the name of one"),
    ("{id: guess, function: guess}", "{id: guess, function: 3}", "expected a function or the name of one"),
    (
        "condition: steps.load.rows > 3\n",
        "retry_delay: soon\n",
        "steps[1].retry_delay: expected a duration such as 30s",
    ),
    (
        "retry_delay: 5s",
        "retry_backoff: 0.5",
        "steps[1].on_error.retry_backoff: expected a number of at least 1, got 0.5",
    ),
    ("dependencies: [load]", "dependencies: [laod]", "line 17, steps[1].dependencies[0]: there is no step 'laod'"),
    ("dependencies: [load]", "dependencies: [words]", "step 'words' depends on itself"),
    ("steps.load.rows > 3", "steps.load.rows +", "steps[1].condition: bad condition"),
    ("steps.load.rows > 3", "stepz.load.rows > 3", "a condition sees input and steps"),
    ("steps.load.rows > 3", "size(steps) > 3", "expected each step by its id"),
    ("steps.load.rows > 3", "steps.lod.rows > 3", "there is no step 'lod'; did you mean 'load'?"),
    (
        "steps.load.rows > 3",
        "steps.save.rows > 3",
        "steps[1].condition: step 'save' is asked for, which need not be settled by then",
    ),
    ("${input.path}", "a-${steps.save.name}", "steps[0].parameters: step 'save' is asked for"),
    ('path: "${input.path}"', "p: [{cel: 'size(steps.lod)'}]", "there is no step 'lod'; did you mean 'load'?"),
    ("max_retries: 9", "parameters: {of: '${steps.laod}'}", "there is no step 'laod'; did you mean 'load'?"),
    ("steps.load.rows > 3", "\"'three'\"", "expected a condition of type bool, got string"),
    ("{action: skip, max_retries: 1", "{action: skp, max_retries: 1", "did you mean 'skip'?"),
    ("max_retries: 1,", "max_retries: -1,", "expected a whole number from 0 to 999999, got -1"),
    ("retry_delay: 5s", "retry_delay: 5x", "steps[1].on_error.retry_delay: expected a duration"),
    ("retry_delay: 5s", "retry_delay: 5m", "expected a maximum of at least the initial wait"),
    ("fallback: guess", "fallback: gess", "there is no step 'gess'"),
    ("{id: guess, function: guess}", "{id: guess, function: g, condition: 'true'}", "expected no condition of 'guess'"),
    ("{id: small,", "{id: big,", "line 27, steps[5].id: the id 'big' is given twice (the first is on line 26)"),
    ("id: unload", "id: load", "the id 'load' is given twice"),
    ("id: unload, plugin", "id: unload, condition: 'true', plugin", "expected no condition of a rollback step"),
    ("{id: small,", "{id: completed,", "expected a step id that the chart has no state of"),
    ("{id: small,", "{id: s.mall,", "expected a step id such as load_data"),
    ("critical: false", "criticl: false", "step 'save' has no 'criticl'; did you mean 'critical'?"),
    ("timeout: 5000", "timeout: never", "steps[6].timeout: expected a duration"),
    ("then: [big]", "then: [bg]", "branches[0].then: there is no step 'bg'"),
    ("then: [big]", "then: [small]", "branches[0].otherwise[0]: expected another step, got 'small', which is in the"),
    ("then: [big]", "then: [load]", "got 'load', which is the step before the branch"),
    ("method: read", "method: re ad", "steps[0].method: expected the name of a method, without blanks, * and >"),
    ("plugin: files", "plugin: 'fil*s'", "steps[0].plugin: expected the name of a plugin"),
    ("merge: save", "merge: words", "expected the merge step outside of the group"),
    ("name: both", "name: save", "the id 'save' is given twice"),
    ("on_failure: partial, ", "", "expected a deadline only with on_failure: partial"),
    ("[words, images]", "[words, images, words]", "is already in the group"),
    ("    parameters: {path", "    dependencies: [save]\n    parameters: {path", "go round in a circle: "),
]


@pytest.mark.parametrize(("old", "new", "message"), FAULTS)
def test_faults_have_their_places(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in YAML
    path = tmp_path / "docs.yaml"
    path.write_text(YAML.replace(old, new, 1))
    with pytest.raises(InvalidWorkflow) as caught:
        load_workflow(path)
    assert message in str(caught.value)
    assert all(fault.line for fault in caught.value.faults)


def test_a_circle_is_spelled_out() -> None:
    workflow = Workflow("round", mode="parallel")
    for step, needed in (("a", "c"), ("b", "a"), ("c", "b")):
        workflow.add_step(id=step, function=save, dependencies=[needed])
    with pytest.raises(InvalidWorkflow, match=r"circle: (a -> c -> b -> a|b -> a -> c -> b|c -> b -> a -> c) \(each"):
        workflow.validate()


def test_a_circle_and_what_is_not_there_are_found_beside_other_faults() -> None:
    workflow = Workflow("w", mode="parallel", timeout="soon")
    workflow.add_step(id="a", function=save, dependencies=["b"], condition="steps.x")
    workflow.add_step(id="b", function=save, dependencies=["a"], parameters={"rows": "${steps.y}"})
    with pytest.raises(InvalidWorkflow) as caught:
        workflow.validate()
    assert sorted(fault.path for fault in caught.value.faults if "circle" not in fault.message) == [
        "steps.a.condition", "steps.b.parameters", "timeout",
    ]  # fmt: skip
    assert len(caught.value.faults) == 4
    groups = {"groups": [{"name": "g", "steps": ["a", "b"], "merge": "a"}]}
    with pytest.raises(InvalidWorkflow) as caught:
        Workflow.from_json(
            {"id": "w", "mode": "parallel", "steps": {"a": {"function": "f"}, "b": {"function": "f"}}} | groups
        )
    assert [fault.path for fault in caught.value.faults] == ["groups[0].merge"]


def test_check_knows_the_functions_of_steps() -> None:
    workflow = Workflow("w").add_step(id="a", function=save).add_step(id="b", function="other")
    assert check(workflow.chart()) == []
    (fault,) = check(workflow.chart(), [])
    assert fault.message == "step 'b' has no function 'other'; those given are none"
    assert check(workflow.chart(), ["other"]) == []


def test_in_a_sequence_nothing_depends_on_what_comes_later() -> None:
    workflow = Workflow("w").add_step(id="a", function=save, dependencies=["b"]).add_step(id="b", function=save)
    with pytest.raises(InvalidWorkflow, match="'a' depends on 'b', which comes after it; in the mode sequential"):
        workflow.validate()


def test_what_is_not_there_is_refused_while_building() -> None:
    workflow = Workflow("w").add_step(id="a", function=save)
    with pytest.raises(InvalidWorkflow, match="there is no step 'b'; add it first"):
        workflow.add_dependency("b", "a")
    workflow.add_rollback_step("a", function=save)
    with pytest.raises(InvalidWorkflow, match="already has a rollback step"):
        workflow.add_rollback_step("a", function=save)
    with pytest.raises(InvalidWorkflow, match="expected at least one step"):
        Workflow("empty").validate()
    with pytest.raises(InvalidWorkflow, match="not valid JSON"):
        Workflow.from_json("{")
    with pytest.raises(InvalidWorkflow, match="expected a workflow, a mapping"):
        Workflow.from_json(None)  # type: ignore[arg-type]
    for tree in ([], None, {"steps": 5}, {"id": [], "steps": [5, {}]}, {"id": "x", "steps": {"a": 5}}):
        with pytest.raises(InvalidWorkflow):
            Workflow.from_tree(tree)


def test_the_published_schema_is_the_generated_one() -> None:
    path = Path(__file__).resolve().parents[3] / "statecharts" / "workflows" / "workflow.schema.json"
    assert path.read_text(encoding="utf-8") == schema_json()
    Draft7Validator.check_schema(workflow_schema())


def _tree(text: str) -> Any:
    from statewright.statecharts.documents import read_document

    return read_document(text.encode())[0]


def test_the_schema_accepts_what_the_reader_does() -> None:
    validator = Draft7Validator(workflow_schema())
    validator.validate(_tree(YAML))
    validator.validate(json.loads(in_python().to_json()))
    validator.validate({"id": "x", "steps": {"a": {"function": "f", "on_error": None, "timeout": None}}})


SHAPES = ("id: my", "paralel", "concurrency: 0", "criticl", "s.mall", "{id: completed", "skp", "plugin: files\n    f")


@pytest.mark.parametrize(("old", "new"), [(o, n) for o, n, _ in FAULTS if any(shape in n for shape in SHAPES)])
def test_the_schema_refuses_faults_of_shape(old: str, new: str) -> None:
    assert not Draft7Validator(workflow_schema()).is_valid(_tree(YAML.replace(old, new, 1)))


def test_the_model_is_all_that_the_reader_reads() -> None:
    """A field of the model that the reader forgets would be lost silently."""
    source = (Path(__file__).resolve().parents[3] / "statecharts" / "workflows" / "reader.py").read_text()
    given = {k.arg for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) for k in node.keywords}
    texts = {n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant)}
    from statewright.statecharts.workflows import model

    for kind in (model.WorkflowDefinition, model.WorkflowStep, model.OnError, model.Branch, model.ParallelGroup):
        assert set(kind.__struct_fields__) <= given | texts


def test_too_many_states_are_a_fault_of_the_workflow() -> None:
    workflow = Workflow("w", mode="parallel")
    for index in range(3_334):
        workflow.add_step(id=f"s{index}", function="f")
    with pytest.raises(InvalidWorkflow, match="workflow 'w' has 1 fault; states: expected at most 10000 states"):
        workflow.chart()


def test_what_is_no_step_or_list_of_steps_is_refused() -> None:
    workflow = Workflow("w").add_step(id="load", function="f")
    with pytest.raises(InvalidWorkflow, match="steps: expected a WorkflowStep or its fields, got 'load'"):
        workflow.add_step("load")  # type: ignore[arg-type]
    assert Workflow.from_json(workflow.to_json()).add_parallel_group("g", steps="load").groups[0].steps == ("load",)
    with pytest.raises(InvalidWorkflow, match=r"groups\[0\].steps: expected a text or a list of texts, got .*None"):
        workflow.add_parallel_group("g", steps=None).validate()  # type: ignore[arg-type]
    with pytest.raises(
        InvalidWorkflow, match=r"timeout: expected a duration such as 30s, PT30S or milliseconds, got dat"
    ):
        Workflow("w", timeout=timedelta(hours=1)).add_step(id="a", function="f").validate()  # type: ignore[arg-type]
