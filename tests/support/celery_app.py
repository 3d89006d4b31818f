"""The app of the test workers: its jobs write what they do, and when by the broker's clock, into a list there."""

from __future__ import annotations

import functools
import json
import os
import time
from typing import Any
from urllib.error import HTTPError

from celery import Celery, Task
from celery.signals import before_task_publish
from celery.worker.request import Request

from steindamm import SyncSemaphore, SyncTokenBucket, Throttled, current_permit
from steindamm.integrations.celery import RateLimitedTask
from support import refusing_api
from support.celery_bodies import BusyError, call_once_refused, do, pass_inside
from support.celery_limits import BROKER, LIMITS, bucket, journal, limit_of, limits, record, semaphore
from support.standing_still import LEASE, standing_still

SETTINGS = json.loads(os.environ["STEINDAMM_TEST_SETTINGS"])

app = Celery("tests", broker=BROKER, backend=BROKER)
app.conf.update(
    broker_connection_retry_on_startup=True,
    result_expires=600,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    task_annotations={"support.celery_app.annotated": {"limiter": SyncTokenBucket("annotated", initial_tokens=0)}},
)
app.conf.update(SETTINGS)


def route(name: str, args: Any, kwargs: Any, options: Any, **_: Any) -> None:
    """A router of somebody's own, which does not know the way of each job."""
    if "no way back" in args:
        raise LookupError("no such way")


app.conf.task_routes = (route,)


@app.task
def unlimited(label: str, seconds: float = 0) -> str:
    record("unlimited", label)
    time.sleep(seconds)
    return label


@app.task(bind=True, base=RateLimitedTask, limiter=limit_of, max_retries=1)
def work(self: Any, limit: Any, label: str, how: str = "return", seconds: float = 0) -> str:
    return do(self, label, how, seconds)


@app.task(bind=True, base=RateLimitedTask, limiter=limit_of, max_deferral=1.0)
def work_or_give_up(self: Any, limit: Any, label: str, how: str = "return", seconds: float = 0) -> str:
    return do(self, label, how, seconds)


@app.task(base=RateLimitedTask, limiter=limit_of)
def add(limit: Any, *numbers: int) -> int:
    record("added", str(numbers))
    return sum(numbers)


@app.task(base=RateLimitedTask, limiter=bucket("sums", "20/s", 1))
def add_up(numbers: list[int]) -> int:
    record("added", str(numbers))
    return sum(numbers)


@app.task
def note(*what: Any) -> None:
    """Called back by others: writes what it is given."""
    record("noted", str(what[-1]), *map(type_and_text, what[:-1]))


def type_and_text(value: Any) -> str:
    return f"{type(value).__name__}: {value}"


class UnpicklableError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__("one argument, not two")


def odd_limiter(kind: str, *_: Any) -> Any:
    if kind == "raises":
        raise LookupError("no such customer")
    if kind == "unpicklable":
        raise UnpicklableError("a", "b")
    if kind == "nonsense":
        return 42
    return bucket("odd", "1000/s", 50)


def odd_cost(_: str, cost: Any = 1) -> Any:
    if cost == "raises":
        raise LookupError("no such price")
    return cost


class Hooked(Task):
    """A base of somebody's own, with hooks, a call and a request class of its own."""

    class Request(Request):
        def on_accepted(self, *args: Any, **kwargs: Any) -> Any:
            record("accepted", self.args[1])
            return super().on_accepted(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        record("called", args[1])
        return self.run(*args, **kwargs)


class HookedFirst(Hooked, RateLimitedTask):
    abstract = True


class HookedLast(RateLimitedTask, Hooked):
    abstract = True


@app.task(base=HookedFirst, limiter=limit_of, bind=True)
def hooked_first(self: Any, limit: Any, label: str) -> str:
    return do(self, label, "return", 0)


@app.task(base=HookedLast, limiter=limit_of, bind=True)
def hooked_last(self: Any, limit: Any, label: str) -> str:
    return do(self, label, "return", 0)


@app.task(base=RateLimitedTask, limiter=limit_of, bind=True, Strategy="support.celery_app:plain_strategy")
def ungated(self: Any, limit: Any, label: str, how: str = "return", seconds: float = 0) -> str:
    return do(self, label, how, seconds)


def plain_strategy(task: Any, app: Celery, consumer: Any, **options: Any) -> Any:
    """A strategy of somebody's own, which knows no request class but Celery's."""
    from celery.worker.strategy import default

    task.Request = Request
    return default(task, app, consumer, **options)


class ByClass(RateLimitedTask):
    """A task that is a class."""

    name = "support.celery_app.by_class"
    limiter = staticmethod(limit_of)

    def run(self, limit: Any, label: str) -> str:
        return do(self, label, "return", 0)


class ByChildClass(ByClass):
    """One that adds to its parent's."""

    name = "support.celery_app.by_child_class"

    def run(self, limit: Any, label: str) -> str:
        return f"child of {super().run(limit, label)}"


app.register_task(ByClass())
app.register_task(ByChildClass())


@app.task(base=RateLimitedTask, bind=True, max_sleep=0)
def annotated(self: Any, label: str) -> str:
    return do(self, label, "return", 0)


class OddTask(RateLimitedTask):
    abstract = True
    limiter = staticmethod(odd_limiter)
    cost = staticmethod(odd_cost)

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        record("failed", str(args[0]), type_and_text(exc))


@app.task(base=OddTask)
def odd(kind: str, cost: Any = 1) -> str:
    record("odd", kind)
    return kind


@app.task(base=OddTask, autoretry_for=(LookupError,), max_retries=1, retry_backoff=False, default_retry_delay=0)
def odd_retried(kind: str, cost: Any = 1) -> str:
    record("odd", kind)
    return kind


BUSY = {BusyError: lambda error: error.args[0]}


class CallingTask(RateLimitedTask):
    abstract = True
    limiter = staticmethod(limit_of)
    max_retries = 0
    throttle_on = BUSY


@app.task(bind=True, base=CallingTask, autoretry_for=(Exception,))
def call_server(self: Any, limit: Any, label: str, how: str = "accept", pause: float = 1.0) -> str:
    errors = {"Throttled": Throttled(pause), "busy": BusyError(pause), "odd": BusyError(), "accept": None}
    errors["group"] = ExceptionGroup("calls", [BusyError(pause)])
    return call_once_refused(self, label, errors[how])


@app.task(bind=True, base=CallingTask, Strategy="support.celery_app:plain_strategy")
def call_server_ungated(self: Any, limit: Any, label: str, how: str = "accept", pause: float = 1.0) -> str:
    current_permit().settle(2)
    return call_once_refused(self, label, Throttled(pause) if how == "Throttled" else None)


@app.task(bind=True, base=RateLimitedTask, limiter=limit_of, max_deferral=1.0)
def call_server_or_give_up(self: Any, limit: Any, label: str, pause: float = 30.0) -> str:
    return call_once_refused(self, label, Throttled(pause))


@app.task(bind=True, base=RateLimitedTask, limiter=SyncTokenBucket("server, from memory", capacity=100))
def call_server_from_memory(self: Any, label: str, pause: float | None = None) -> str:
    return call_once_refused(self, label, None if pause is None else Throttled(pause))


@app.task(base=RateLimitedTask, limiter=limit_of, cost=lambda *_: 500)
def use_model(limit: Any, label: str, actual: float, of: str | None = None) -> str:
    permit = current_permit(of)
    permit.settle(actual)
    return f"{permit.name} {permit.cost:g}"


@app.task(base=RateLimitedTask, limiter=limit_of)
def show_fence(limit: Any) -> int:
    return current_permit().fence


@app.task(base=RateLimitedTask, limiter=SyncTokenBucket("model, in memory"))
def use_model_in_memory(actual: float) -> None:
    current_permit().settle(actual)


@functools.cache
def adapting(name: str) -> SyncTokenBucket:
    return SyncTokenBucket(name, connection=limits, **refusing_api.LIMIT)


def adapting_of(name: str, *_: Any) -> SyncTokenBucket:
    return adapting(name)


@app.task(bind=True, base=RateLimitedTask, limiter=adapting_of, throttle_on=HTTPError, max_retries=0)
def call_over_http(self: Any, name: str, url: str, job: int) -> None:
    refusing_api.call(url, job)
    record("answered", f"{name} {job}", self.request.retries)


@app.task(bind=True, base=RateLimitedTask, max_retries=0)
def refused_inside(self: Any, label: str, name: str, seconds: float = 0.5) -> str:
    return pass_inside(self, label, name, seconds)


@app.task(bind=True, base=RateLimitedTask, max_retries=0, autoretry_for=(Exception,))
def refused_and_retried(self: Any, label: str, name: str, seconds: float = 0.5) -> str:
    return pass_inside(self, label, name, seconds)


@app.task(bind=True, base=RateLimitedTask, max_deferral=1.0)
def refused_too_long(self: Any, label: str, name: str, seconds: float = 0.5) -> str:
    return pass_inside(self, label, name, seconds)


class OnlyOnce(RateLimitedTask):
    """A base of somebody's own, with jobs of which there must not be two with the same arguments."""

    abstract = True

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        if not journal.set(f"{self.name} {args}", 1, nx=True, ex=600):
            raise LookupError("there is one already")
        return super().apply_async(args, kwargs, **options)


@before_task_publish.connect
def trace(headers: dict[str, Any], **_: Any) -> None:
    """What traces jobs writes into each of a traced one's messages which trace it is part of: here, a worker's own."""
    if "trace" in headers:
        headers["trace"] = f"of worker {os.getpid()}"


@app.task(bind=True, base=RateLimitedTask, limiter=limit_of)
def show_trace(self: Any, limit: Any, label: str) -> str:
    if journal.incr(f"calls {label}") == 1:
        raise Throttled(0.1)
    return str(self.request.headers["trace"])


@app.task(bind=True, base=OnlyOnce, limiter=limit_of)
def only_once(self: Any, limit: Any, label: str) -> str:
    return call_once_refused(self, label, Throttled(0.1))


@app.task
def send_only_once(limit: Any, label: str) -> None:
    only_once.delay(limit, label)


@app.task(base=RateLimitedTask)
def refused_for(label: str, *pauses: float) -> str:
    """A server refuses the job's first calls, for so many seconds each."""
    calls = journal.incr(f"calls {label}")
    journal.expire(f"calls {label}", 600)
    if calls <= len(pauses):
        record("refused", label, calls)
        raise Throttled(pauses[calls - 1])
    return label


@app.task(bind=True, base=RateLimitedTask, limiter=SyncTokenBucket.from_rate("5/s", "local"))
def work_locally(self: Any, label: str) -> str:
    return do(self, label, "return", 0)


@app.task(bind=True, base=RateLimitedTask, limiter=SyncSemaphore("local", capacity=1))
def hold_locally(self: Any, label: str) -> str:
    return do(self, label, "sleep", 0.1)


quota = SyncTokenBucket("quota", capacity=2, refill_amount=0, refill_frequency=0, connection=limits)


@app.task(bind=True, base=RateLimitedTask, limiter=quota)
def within_quota(self: Any, label: str) -> str:
    return do(self, label, "return", 0)


api = SyncTokenBucket("api", capacity=5, refill_frequency=0.02, connection=limits)


@app.task(bind=True, base=RateLimitedTask, limiter=api, ignore_result=True)
def call_api(self: Any, job: int) -> None:
    record("call", str(job), self.request.retries)


optional = {
    "rate": SyncTokenBucket(
        "optional", capacity=1, refill_frequency=0.1, max_sleep=0, connection=limits, on_unavailable="allow"
    ),
    "slot": SyncSemaphore("optional", capacity=1, expiry=3, connection=limits, on_unavailable="allow"),
}


@app.task(bind=True, base=RateLimitedTask, limiter=lambda kind, *_: optional[kind])
def work_without(self: Any, kind: str, label: str, how: str = "return", seconds: float = 0) -> str:
    return do(self, label, how, seconds)


@app.task(base=RateLimitedTask, limiter=semaphore("three", 3), ignore_result=True)
def hold_slot(job: int, seconds: float = 0.1) -> None:
    record("in", str(job))
    time.sleep(seconds)
    record("out", str(job))


@app.task(base=RateLimitedTask, limiter=standing_still(semaphore("only", 1, LEASE), LIMITS), ignore_result=True)
def hold_only_slot() -> None:
    record("has the only slot", "")
