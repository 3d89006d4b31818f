"""The same workers on RabbitMQ."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import dramatiq
import pytest
from chaos.proxy import Proxy
from support.dramatiq_jobs import tight, until
from support.dramatiq_workers import Workers, most_in
from support.rabbitmq import RabbitMQ, rabbitmq_binary
from support.servers import Server

from steindamm.integrations.bookings import HEADER
from steindamm.integrations.dramatiq import RateLimitMiddleware

JOBS = 100


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    binary = rabbitmq_binary()
    if binary is None:
        pytest.skip("no rabbitmq-server, or no epmd, is installed")
    with RabbitMQ(binary, tmp_path_factory.mktemp("rabbitmq")) as rabbitmq:
        yield rabbitmq


def test_limited_jobs_keep_the_limit_use_it_and_hold_up_nobody(
    rabbitmq: RabbitMQ, valkey: Server, tmp_path: Path
) -> None:
    servers = {"broker": rabbitmq.url, "journal": valkey.url, "limits": valkey.url}
    with Workers(tmp_path, servers) as workers:
        for job in range(JOBS):
            workers.send("call_api", job)
        for job in range(5):
            workers.send("refused_twice", job)
        began = time.monotonic()
        while time.monotonic() < began + 1.5:
            workers.send("unlimited", time.time())
            time.sleep(0.1)
        workers.wait_for(lambda: len(workers.of("called")) >= JOBS, "end of the jobs")
        time.sleep(0.2)
        called = workers.of("called")
        assert sorted(int(line.says[0]) for line in called) == list(range(JOBS))
        times = [line.at for line in called]
        assert most_in(times, 1.0) <= 5 + 50 + 3
        assert max(times) - min(times) < 2 * (JOBS - 5) / 50
        assert len(workers.of("entered")) == 15
        ended = workers.ended("call_api")
        assert sum(1 + job.deferrals for job in ended) <= 2.1 * JOBS
        assert {job.retries for job in ended + workers.ended("refused_twice")} == {0}
        late = sorted(line.at - float(line.says[0]) for line in workers.of("unlimited"))
        assert late[len(late) // 2] < 0.5


def test_a_job_that_is_lost_on_its_way_back_to_the_queue_is_sent_again(rabbitmq: RabbitMQ) -> None:
    from dramatiq.brokers.rabbitmq import RabbitmqBroker

    ran: list[int] = []
    with Proxy(rabbitmq.port) as network:
        broker = RabbitmqBroker(url=rabbitmq.url.replace(str(rabbitmq.port), str(network.port)))
        broker.add_middleware(RateLimitMiddleware())

        @dramatiq.actor(broker=broker, queue_name="lossy", limiter=tight("lossy"), max_sleep=0)
        def job(number: int) -> None:
            ran.append(number)

        network.loses = HEADER.encode()
        for number in range(4):
            job.send(number)
        worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=20)
        worker.start()
        try:
            until(lambda: len(ran) == 4)
        finally:
            worker.stop()
            broker.close()
    assert not network.loses
    assert sorted(ran) == [0, 1, 2, 3]
