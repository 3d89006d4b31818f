"""Tasks of every make: with other bases, as classes, by annotation, for a whole app, and outside of workers."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, Task
from support.celery_workers import PATIENCE

from steindamm import LimiterUnavailableError, SyncTokenBucket
from steindamm.integrations.celery import RateLimitedTask

CLOSED = SyncTokenBucket("closed", initial_tokens=0, refill_amount=0, refill_frequency=0)
NOBODY_THERE = SyncTokenBucket("nowhere", connection="redis://127.0.0.1:1")


def limited(limiter: Any = CLOSED, **options: Any) -> Any:
    app = Celery("tasks")
    app.conf.task_always_eager = options.pop("eager", False)

    @app.task(base=RateLimitedTask, limiter=limiter, lazy=False, shared=False, **options)
    def double(number: int) -> int:
        return 2 * number

    return double


@pytest.mark.parametrize("limiter", [CLOSED, NOBODY_THERE])
def test_direct_calls_and_eager_jobs_run_like_plain_functions(limiter: SyncTokenBucket) -> None:
    double = limited(limiter)
    assert double(2) == 4
    assert double.run(3) == 6
    assert double.apply((4,)).get() == 8
    assert limited(limiter, eager=True).delay(5).get() == 10


def test_functions_of_the_arguments_are_not_called_where_nothing_is_limited() -> None:
    def fails(*_: object) -> None:
        raise LimiterUnavailableError("nobody", "asked")

    double = limited(fails)
    assert double(2) == 4
    assert double.apply((3,)).get() == 6


def test_an_eager_body_that_is_refused_fails_like_a_plain_function() -> None:
    app = Celery("eager")

    @app.task(base=RateLimitedTask, lazy=False, shared=False)
    def refused() -> None:
        CLOSED.acquire()

    with pytest.raises(Exception, match="its tokens are spent"):
        refused()
    with pytest.raises(Exception, match="its tokens are spent"):
        refused.apply(throw=True)


def test_the_task_class_of_an_app_makes_limited_tasks_and_spares_celerys_own() -> None:
    class Limited(RateLimitedTask):
        limiter = CLOSED

    app = Celery("whole", task_cls=Limited)

    @app.task(shared=False)
    def own() -> int:
        return 1

    app.finalize()
    assert isinstance(own, RateLimitedTask)
    assert own.job_limit.limiter is CLOSED
    assert app.tasks["celery.backend_cleanup"].job_limit.is_open


def test_an_annotation_sets_a_limit_and_a_wrong_one_is_refused() -> None:
    def make(**annotation: Any) -> Any:
        app = Celery("annotated")
        app.conf.task_annotations = {"*": annotation}

        @app.task(base=RateLimitedTask, lazy=False, shared=False)
        def annotated() -> None: ...

        return annotated

    limit = make(limiter=CLOSED, max_sleep=3).job_limit
    assert (limit.limiter, limit.max_sleep) == (CLOSED, 3)
    with pytest.raises(TypeError, match="limiter must be a limiter"):
        make(limiter="100/s")


def test_an_annotation_that_wraps_the_body_wraps_it_and_leaves_the_limit() -> None:
    calls = []

    def watched(run: Any) -> Any:
        def watching(*args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            return run(*args, **kwargs)

        return watching

    app = Celery("wrapped")
    app.conf.task_annotations = {"*": {"@run": watched}}

    @app.task(base=RateLimitedTask, lazy=False, shared=False)
    def double(number: int) -> int:
        return 2 * number

    assert double(2) == 4
    assert len(calls) == 1


def test_a_task_keeps_its_name_its_doc_and_its_checks_of_arguments() -> None:
    double = limited()
    assert double.name.endswith("double")
    assert double.run.__name__ == "double"
    with pytest.raises(TypeError):
        double.delay()


def test_a_base_of_ones_own_may_stand_on_either_side() -> None:
    class Own(Task):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return "own", super().__call__(*args, **kwargs)

    def one() -> int:
        return 1

    app = Celery("bases")
    for bases in ((Own, RateLimitedTask), (RateLimitedTask, Own)):
        base = type("Both", bases, {"abstract": True})
        assert app.task(base=base, lazy=False, shared=False, limiter=CLOSED, name=str(bases))(one)() == ("own", 1)


def test_a_class_whose_run_calls_its_parents_runs_both_once(farm: Any, label: str) -> None:
    limit = [label, "20/s", 1]
    jobs = [farm.send("by_child_class", limit, f"{label} {number}") for number in range(3)]
    assert [job.get(timeout=PATIENCE) for job in jobs] == [f"child of {label} {number}" for number in range(3)]
    assert len(farm.journal("start", label)) == 3


@pytest.mark.parametrize("task", ["hooked_first", "hooked_last", "by_class", "ungated"])
def test_tasks_of_every_make_are_held_to_their_limit(farm: Any, label: str, task: str) -> None:
    limit = [label, "4/s", 1]
    jobs = [farm.send(task, limit, f"{label} {number}") for number in range(4)]
    assert {job.get(timeout=PATIENCE) for job in jobs} == {f"{label} {number}" for number in range(4)}
    starts = [start.at for start in farm.journal("start", label)]
    assert len(starts) == 4
    assert max(starts) - min(starts) >= 3 / 4 * 0.9
    if task.startswith("hooked"):
        assert len(farm.journal("called", label)) == 4
        assert len(farm.wait_for("accepted", label, count=4)) == 4


def test_a_task_with_a_strategy_of_its_own_is_held_to_slots_in_its_pool_process(farm: Any, label: str) -> None:
    limit = [label, 1, 60.0]
    jobs = [farm.send("ungated", limit, f"{label} {number}", "sleep", 0.1) for number in range(3)]
    assert len({job.get(timeout=PATIENCE) for job in jobs}) == 3
    starts, ends = farm.journal("start", label), farm.journal("end", label)
    assert len(starts) == 3
    assert all(end.at <= start.at for end, start in zip(ends, starts[1:], strict=False))


def test_an_annotated_task_is_held_to_its_annotation(farm: Any, label: str) -> None:
    assert farm.send("annotated", label).get(timeout=PATIENCE) == label
    assert farm.says("limiter 'annotated'") == 1
