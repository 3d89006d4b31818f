"""The jobs of the test workers; they write what they do, and when by the server's clock, into a list in Redis."""

from __future__ import annotations

import json
import os
import time
from threading import local
from typing import Any

import dramatiq
import redis
from dramatiq import Broker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AgeLimit, GroupCallbacks, Middleware, TimeLimit
from dramatiq.rate_limits.backends import RedisBackend as RedisBarriers
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from steindamm import MaxSleepExceededError, SyncLocalTokenBucket, SyncSemaphore, SyncTokenBucket
from steindamm.integrations.dramatiq import RateLimitMiddleware
from support.standing_still import LEASE, standing_still

SERVERS = json.loads(os.environ["STEINDAMM_TEST_SERVERS"])
journal = redis.Redis.from_url(SERVERS["journal"])
limits = redis.Redis.from_url(SERVERS["limits"], socket_timeout=0.5, socket_connect_timeout=0.5)

RECORD = """
local time = redis.call('TIME')
redis.call('RPUSH', 'journal', cjson.encode({tonumber(time[1]) + tonumber(time[2]) / 1000000, unpack(ARGV)}))
redis.call('EXPIRE', 'journal', 600)
"""
ENTER = """
local running = redis.call('INCRBY', KEYS[1], ARGV[1])
local most = math.max(running, tonumber(redis.call('GET', KEYS[1] .. ':most') or 0))
redis.call('SET', KEYS[1] .. ':most', most, 'EX', 600)
redis.call('EXPIRE', KEYS[1], 600)
"""


def record(what: str, *more: object) -> None:
    """Write a line into the journal."""
    journal.eval(RECORD, 0, what, *map(str, more))


class QueueName(Middleware):
    """Tells the journal which queue a job is of while it runs."""

    def before_process_message(self, broker: Broker, message: Any) -> None:
        journaling.here.queue = message.queue_name


class Journal(Middleware):
    """Writes down when a worker is ready, and of each job that has run how often it was deferred and retried."""

    def __init__(self) -> None:
        self.here = local()

    def before_process_message(self, broker: Broker, message: Any) -> None:
        self.here.deferrals = (message.options.get("steindamm") or {}).get("deferrals", 0)

    def after_process_message(self, broker: Broker, message: Any, *, result: Any = None, exception: Any = None) -> None:
        if message.actor_name != "unlimited":
            job = message.args[0] if message.args else ""
            retries = message.options.get("retries", 0)
            record("ended", message.actor_name, job, self.here.deferrals, retries, self.here.queue)

    def after_worker_boot(self, broker: Broker, worker: Any) -> None:
        record("ready", os.getpid())


def make_broker() -> Broker:
    if SERVERS["broker"].startswith("amqp"):
        from dramatiq.brokers.rabbitmq import RabbitmqBroker

        return RabbitmqBroker(url=SERVERS["broker"])
    return RedisBroker(url=SERVERS["broker"], heartbeat_timeout=2_000, maintenance_chance=100_000)


broker = make_broker()
results = RedisBackend(client=journal)
journaling = Journal()
broker.add_middleware(journaling, before=AgeLimit)
broker.add_middleware(QueueName())
broker.add_middleware(Results(backend=results))
broker.add_middleware(GroupCallbacks(RedisBarriers(client=journal)))
broker.add_middleware(RateLimitMiddleware())
for middleware in broker.middleware:
    if isinstance(middleware, TimeLimit):
        middleware.manager.interval = 0.05
dramatiq.set_broker(broker)


def bucket(name: str, rate: str, capacity: float = 1) -> SyncTokenBucket:
    return SyncTokenBucket.from_rate(rate, name=name, capacity=capacity, connection=limits)


def slots(name: str, capacity: int, expiry: float = 60) -> SyncSemaphore:
    return SyncSemaphore(name, capacity=capacity, expiry=expiry, connection=limits)


@dramatiq.actor(limiter=bucket("api", "50/s", 5))
def call_api(job: int) -> None:
    record("called", job)


@dramatiq.actor(limiter=bucket("live", "50/s", 5))
def call_live(job: int) -> None:
    record("live", job)


@dramatiq.actor(limiter=bucket("outage", "20/s", 5))
def call_through_outage(job: int) -> None:
    record("called", job)


@dramatiq.actor
def unlimited(sent_at: float) -> None:
    record("unlimited", sent_at)


@dramatiq.actor(limiter=bucket("retrying", "50/s", 5), max_retries=1, min_backoff=10)
def fail_once(job: int) -> None:
    record("tried", job)
    if journal.hincrby("tries", str(job), 1) == 1:
        raise ValueError("its own reason")


@dramatiq.actor(limiter=bucket("failing", "10/s"), max_sleep=0, max_retries=0)
def fail(job: int) -> None:
    raise ValueError("its own reason")


@dramatiq.actor(max_retries=0, store_results=True)
def refused_twice(job: int) -> int:
    runs = journal.hincrby("runs", str(job), 1)
    record("entered", job)
    if runs < 3:
        raise MaxSleepExceededError("elsewhere", retry_after=0.1)
    return runs


@dramatiq.actor(limiter=slots("three", 3))
def hold_slot(job: int, seconds: float = 0.1) -> None:
    record("held", job)
    journal.eval(ENTER, 1, "three running", 1)
    time.sleep(seconds)
    journal.eval(ENTER, 1, "three running", -1)
    record("freed", job)


@dramatiq.actor(limiter=bucket("adding", "50/s"), max_sleep=0, store_results=True)
def add(a: int, b: int) -> int:
    return a + b


@dramatiq.actor
def finished() -> None:
    record("finished")


def wait_to_be_ended() -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        time.sleep(0.01)


@dramatiq.actor(limiter=lambda how, *_: slots(f"one {how}", 1, expiry=3), max_retries=0, notify_shutdown=True)
def end_somehow(how: str) -> None:
    record("holds", how, os.getpid())
    if how == "fails":
        raise ValueError(how)
    if how != "returns":
        wait_to_be_ended()


@dramatiq.actor(limiter=standing_still(slots("only", 1, LEASE), SERVERS["limits"]))
def hold_only_slot() -> None:
    record("has the only slot")


@dramatiq.actor(queue_name="local", limiter=SyncLocalTokenBucket("in memory", capacity=1))
def local_job() -> None:
    """Limited for each process by itself."""
