"""Connections to the broker break at the worst moments: no job is forgotten, none is sent back twice."""

from __future__ import annotations

import logging
import multiprocessing
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from chaos.proxy import Proxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Middleware, MiddlewareError, SkipMessage
from support.dramatiq_jobs import until
from support.servers import Server, valkey_binary

from steindamm import SyncTokenBucket
from steindamm.integrations.dramatiq import RateLimitMiddleware, deferral

JOBS = 40
CLOSED = 2.0
"""Seconds for which the limiter is closed: all jobs wait in the worker's memory, and none is on its way."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(valkey_binary(), tmp_path) as server:
        yield server


@pytest.fixture
def network(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def broker(network: Proxy) -> Iterator[RedisBroker]:
    broker = RedisBroker(url=network.url)
    broker.add_middleware(RateLimitMiddleware())
    yield broker
    broker.close()


@pytest.fixture
def closed() -> SyncTokenBucket:
    limiter = SyncTokenBucket(f"closed {uuid.uuid4()}", capacity=JOBS)
    limiter.close_for(CLOSED)
    return limiter


class Mending(logging.Handler):
    """Mends the network when a job can't go back to its queue."""

    def __init__(self, network: Proxy) -> None:
        super().__init__()
        self.network = network

    def emit(self, record: logging.LogRecord) -> None:
        self.network.cuts = self.network.cuts and "can't go back" not in record.getMessage()


def break_connection_of_waiting_jobs(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """Close all connections until the consumer of the delay queue was caught while it used its own."""

    def is_broken() -> bool:
        server.admin.client_kill_filter(_type="normal", skipme=True)
        return any("default.DQ" in record.name and "connection error" in record.message for record in caplog.records)

    with caplog.at_level(logging.CRITICAL, "dramatiq"):
        until(is_broken)


def test_jobs_that_wait_run_once_each_though_their_consumer_was_cut_off(
    server: Server, broker: RedisBroker, closed: SyncTokenBucket, caplog: pytest.LogCaptureFixture
) -> None:
    runs: Counter[int] = Counter()

    @dramatiq.actor(broker=broker, limiter=closed)
    def job(number: int) -> None:
        runs[number] += 1

    for number in range(JOBS):
        job.send(number)
    worker = dramatiq.Worker(broker, worker_threads=4, worker_timeout=20)
    worker.start()
    try:
        until(lambda: worker.consumers["default.DQ"].delay_queue.qsize() == JOBS)
        break_connection_of_waiting_jobs(server, caplog)
        until(lambda: len(runs) == JOBS)
    finally:
        worker.stop()
    assert set(runs.values()) == {1}


def test_messages_that_were_sent_to_a_worker_and_never_arrived_go_back(server: Server, broker: RedisBroker) -> None:
    runs: Counter[int] = Counter()

    @dramatiq.actor(broker=broker)
    def job(number: int) -> None:
        runs[number] += 1

    for number in range(JOBS):
        job.send(number)
    lost_on_their_way = broker.do_fetch("default", JOBS // 2)
    worker = dramatiq.Worker(broker, worker_threads=4, worker_timeout=20)
    worker.start()
    try:
        until(lambda: len(runs) == JOBS)
    finally:
        worker.stop()
    assert len(lost_on_their_way) == JOBS // 2
    assert set(runs.values()) == {1}
    assert server.admin.keys("dramatiq:__acks__*") == []


def test_a_job_is_not_sent_back_again_where_the_answer_alone_got_lost(
    server: Server, network: Proxy, broker: RedisBroker, closed: SyncTokenBucket
) -> None:
    @dramatiq.actor(broker=broker, limiter=closed)
    def job() -> None: ...

    job.send()
    (data,) = broker.do_fetch("default", 1)
    message: Any = dramatiq.MessageProxy(dramatiq.Message.decode(data))
    logger, mending = logging.getLogger("steindamm.dramatiq"), Mending(network)
    logger.addHandler(mending)
    network.cuts = True
    try:
        with pytest.raises(SkipMessage):
            broker.emit_before("process_message", message)
    finally:
        logger.removeHandler(mending)
    assert not network.cuts
    assert server.admin.llen("dramatiq:default.DQ") == 1


class Telling(logging.Handler):
    """Writes the log of a process into a list."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server

    def emit(self, record: logging.LogRecord) -> None:
        self.server.admin.rpush("said", record.getMessage())


def test_workers_that_were_forked_with_their_broker_leave_each_others_jobs_alone(
    server: Server, broker: RedisBroker
) -> None:
    @dramatiq.actor(broker=broker)
    def job(number: int) -> None:
        server.admin.rpush("ran", number)

    def work() -> None:
        logging.getLogger("steindamm.dramatiq").addHandler(Telling(server))
        worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=20)
        worker.start()
        is_over.wait(30)
        worker.stop()

    for number in range(JOBS):
        job.send(number)
    held_by_another = broker.do_fetch("default", JOBS // 2)
    forking = multiprocessing.get_context("fork")
    is_over = forking.Event()
    process = forking.Process(target=work, daemon=True)
    process.start()
    try:
        until(lambda: server.admin.llen("ran") >= JOBS - len(held_by_another))
        time.sleep(0.2)
    finally:
        is_over.set()
        process.join(30)
    assert server.admin.llen("ran") == JOBS - len(held_by_another)
    assert [b"was forked" in line for line in server.admin.lrange("said", 0, -1)] == [True]


def test_a_broker_is_consumed_as_before_when_its_worker_has_started(broker: RedisBroker) -> None:
    broker.declare_queue("other")
    sent = dramatiq.Message("other", "job", (), {}, {})
    broker.enqueue(sent)
    worker = dramatiq.Worker(broker, queues={"default"}, worker_threads=1, worker_timeout=20)
    worker.start()
    try:
        message = next(broker.consume("other", 1, 1_000))
    finally:
        worker.stop()
    assert message is not None
    assert message.message_id == sent.message_id


class NotConnectedError(MiddlewareError, ConnectionError):
    """Nothing was sent."""


class AwayOnce(Middleware):
    """Lets nothing be sent, once."""

    is_away = False

    def before_enqueue(self, *_: Any) -> None:
        if self.is_away:
            self.is_away = False
            raise NotConnectedError


def test_a_job_is_sent_back_again_where_nothing_was_sent(
    server: Server, broker: RedisBroker, closed: SyncTokenBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this thread has sent before is no proof."""
    monkeypatch.setattr(deferral, "AGAIN", 0.0)
    away = AwayOnce()
    broker.add_middleware(away, before=type(broker.middleware[0]))

    @dramatiq.actor(broker=broker, limiter=closed)
    def job() -> None: ...

    message: Any = dramatiq.MessageProxy(job.send())
    away.is_away = True
    with pytest.raises(SkipMessage):
        broker.emit_before("process_message", message)
    assert server.admin.llen("dramatiq:default.DQ") == 1
