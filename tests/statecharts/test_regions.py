"""Parallel states, history and completion."""

from __future__ import annotations

from tests.statecharts.behaviour import given

REGIONS = """
initial: p
states:
  p:
    type: parallel
    states:
      one: {initial: a, states: {a: {on: {go: b, out: off}}, b: {on: {end: end1}}, end1: {type: final}}}
      two: {initial: x, states: {x: {on: {go: y, out: z}}, y: {on: {end: end2}}, z: {}, end2: {type: final}}}
    on: {stop: off, done.state.p: finished}
  off: {}
  finished: {}
"""


def test_all_regions_are_entered_in_document_order() -> None:
    given(REGIONS).then("a", "x", entered=("p", "one", "a", "two", "x"))


def test_one_event_moves_every_region_that_handles_it() -> None:
    run = given(REGIONS).when("go").then("b", "y", exited=("x", "a"), entered=("b", "y"))
    assert [taken.source for taken in run.step.taken] == ["a", "x"]


def test_leaving_goes_inside_out_and_against_document_order() -> None:
    given(REGIONS).when("stop").then("off", exited=("x", "two", "a", "one", "p"))


def test_the_earlier_region_preempts_a_transition_that_would_leave_it() -> None:
    run = given(REGIONS).when("out").then("off")
    assert [taken.source for taken in run.step.taken] == ["a"]


def test_a_descendant_preempts_its_ancestor_even_if_that_was_selected_by_an_earlier_region() -> None:
    run = given(
        """
        states:
          p:
            type: parallel
            states:
              one: {states: {a: {}}}
              two: {states: {b: {on: {e: c}}, c: {}}}
            on: {e: off}
          off: {}
        """
    )
    run.when("e").then("a", "c")


def test_a_parallel_state_is_done_when_all_of_its_regions_are() -> None:
    run = given(REGIONS).when("go")
    run.when("end").then("finished", raised=("done.state.one", "done.state.two", "done.state.p"))


def test_one_finished_region_does_not_finish_the_parallel_state() -> None:
    run = given(
        """
        states:
          p:
            type: parallel
            states:
              one: {states: {a: {on: {e1: f1}}, f1: {type: final}}}
              two: {states: {b: {on: {e2: f2}}, f2: {type: final}}}
              three: {type: parallel, states: {inner: {states: {c: {on: {e3: f3}}, f3: {type: final}}}}}
            on: {done.state.p: all}
          all: {}
        """
    )
    run.when("e1").then("f1", "b", "c", raised=("done.state.one",))
    run.when("e3").then("f1", "b", "f3", raised=("done.state.inner", "done.state.three"))
    run.when("e2").then("all", raised=("done.state.two", "done.state.p"))


def test_several_targets_enter_several_regions() -> None:
    run = given(REGIONS.replace("off: {}", "off: {on: {resume: {target: [b, z]}}}")).when("stop")
    run.when("resume").then("b", "z", entered=("p", "one", "b", "two", "z"))


def test_done_state_carries_the_output_of_the_final_state() -> None:
    run = given(
        """
        context: {sum: {type: int, default: 0}}
        states:
          work:
            states:
              adding: {on: {add: {target: added}}}
              added: {type: final, output: {sum: event.data.n + 1, by: "'us'"}}
            on: {done.state.work: {target: rest, actions: [{assign: {sum: event.data.sum}}]}}
          rest: {}
        """
    )
    run.when("add", {"n": 4}).then("rest", context={"sum": 5})


def test_a_top_level_final_state_completes_the_chart() -> None:
    run = given(
        """
        context: {n: int}
        exit: [closed]
        states:
          a: {on: {end: done}, exit: [left_a]}
          done: {type: final, entry: [arrived], exit: [left_done], output: {n: context.n}}
        """,
        {"n": 3},
    )
    run.when("end").then(
        "done", status="completed", effects=["left_a", "arrived", "left_done", "closed"], exited=("a",)
    )
    assert run.step.output == {"n": 3}


HISTORY = """
initial: work
states:
  work:
    initial: first
    states:
      first: {on: {next: second}}
      second: {initial: s1, states: {s1: {on: {deeper: s2}}, s2: {}}}
      shallow: {history: shallow, target: first, actions: [fresh]}
      deep: {history: deep, target: second}
    on: {pause: paused}
  paused: {on: {resume: shallow, resume_deep: deep}}
"""


def test_history_without_a_record_takes_its_default_and_its_actions() -> None:
    run = given(HISTORY.replace("initial: work", "initial: paused", 1))
    run.when("resume").then("first", effects=["fresh"])
    given(HISTORY.replace("initial: work", "initial: paused", 1)).when("resume_deep").then("s1")


def test_shallow_history_restores_the_child_and_its_initial() -> None:
    run = given(HISTORY).when("next").when("deeper").then("s2")
    run.when("pause").then("paused")
    assert run.step.history == {"shallow": ("second",), "deep": ("s2",)}
    run.when("resume").then("s1", effects=[], entered=("work", "second", "s1"))


def test_deep_history_restores_the_leaves() -> None:
    given(HISTORY).when("next").when("deeper").when("pause").when("resume_deep").then("s2")


def test_only_history_that_changed_is_in_the_step() -> None:
    run = given(HISTORY).when("pause").when("resume")
    assert run.when("pause").step.history == {}
    assert run.step.snapshot.history == {"shallow": ("first",), "deep": ("first",)}


def test_history_in_a_parallel_state_restores_every_region() -> None:
    chart = REGIONS.replace("    states:\n      one", "    states:\n      last: {history: deep}\n      one")
    run = given(chart.replace("off: {}", "off: {on: {resume: last}}"))
    run.when("go").when("stop").then("off")
    run.when("resume").then("b", "y", entered=("p", "one", "b", "two", "y"))


def test_a_history_without_a_target_means_what_its_parent_begins_with() -> None:
    chart = "initial: b\nstates: {a: {initial: a2, states: {h: {history: shallow}, a1: {}, a2: {}}}, b: {on: {go: h}}}"
    given(chart).when("go").then("a2")
