"""The same with RabbitMQ as the broker: jobs are held, go back, and come in their turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import pytest
from celery import Celery
from chaos.proxy import Proxy
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError
from support.celery_workers import PATIENCE, Farm
from support.rabbitmq import RabbitMQ, rabbitmq_binary

from steindamm import SyncTokenBucket
from steindamm.integrations.bookings import HEADER
from steindamm.integrations.celery.confirming import confirmed_producer

pytestmark = pytest.mark.skipif(
    rabbitmq_binary() is None or find_spec("pika") is None, reason="no RabbitMQ is installed, or no pika to see it with"
)


HELD = 24
QUORUM = {"task_default_queue_type": "quorum", "task_default_exchange": "quorum", "task_default_exchange_type": "topic"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    binary = rabbitmq_binary()
    assert binary
    with RabbitMQ(binary, tmp_path_factory.mktemp("rabbitmq")) as broker:
        yield broker


@pytest.fixture(scope="module")
def rabbits(make_farm: Callable[..., Farm], broker: RabbitMQ) -> Iterator[Farm]:
    """Two workers of a RabbitMQ."""
    farm = make_farm(broker_url=broker.url)
    for _ in range(2):
        farm.start(concurrency=2, ready=False)
    farm.wait_until_ready()
    yield farm
    farm.stop()


@pytest.fixture(scope="module")
def quorum(make_farm: Callable[..., Farm], broker: RabbitMQ) -> Iterator[Farm]:
    """A worker whose queue is a quorum queue: RabbitMQ itself delays what is to come later."""
    farm = make_farm(broker_url=broker.url, task_default_queue="quorum", **QUORUM)
    farm.start(queue="quorum", concurrency=2)
    yield farm
    farm.stop()


def test_a_retry_and_a_body_that_was_refused_keep_what_they_are(rabbits: Farm, label: str) -> None:
    assert rabbits.send("work", [label, "20/s", 1], label, "retry").get(timeout=PATIENCE) == label
    assert [start.more[0] for start in rabbits.journal("start", label)] == ["0", "1"]
    SyncTokenBucket(label, capacity=1, refill_frequency=0.5, connection=rabbits.limits.url).reserve()
    assert rabbits.send("refused_inside", label, label, 0.5).get(timeout=PATIENCE) == label
    assert [entry.more[0] for entry in rabbits.journal("entered", label)] == ["0", "0"]


def test_held_jobs_run_once_though_their_worker_ends(rabbits: Farm, label: str) -> None:
    for number in range(12):
        rabbits.send("work", [label, "5/s", 1], f"{label} {number}")
    rabbits.wait_for("start", label, count=3)
    assert rabbits.workers[0].end() == 0
    starts = rabbits.wait_for("start", label, count=12)
    assert len({start.job for start in starts}) == len(starts) == 12
    assert max(start.at for start in starts) - min(start.at for start in starts) >= 11 / 5 * 0.9


def test_a_job_that_is_lost_on_its_way_back_to_the_queue_is_sent_again(
    make_farm: Callable[..., Farm], broker: RabbitMQ, label: str
) -> None:
    with Proxy(broker.port) as network:
        farm = make_farm(broker_url=broker.url_at(network.port), task_default_queue="lossy")
        worker = farm.start(queue="lossy", concurrency=1)
        for number in range(6):
            farm.send("work", [label, "2/s", 1], f"{label} {number}")
        farm.wait_until_logged(f"limiter '{label}'", 5)
        network.loses = HEADER.encode()
        assert worker.end() == 0
        assert not network.loses
        farm.start(queue="lossy", concurrency=1)
        farm.wait_for("start", label, count=6)
        farm.stop()


def test_jobs_that_wait_keep_no_others_out_after_a_connection_was_lost(
    make_farm: Callable[..., Farm], broker: RabbitMQ, label: str
) -> None:
    """A worker that was cut off while a job ran fetches less for a time, and then Celery sets what it may fetch."""
    with Proxy(broker.port) as network:
        farm = make_farm(broker_url=broker.url_at(network.port), task_default_queue="cut")
        worker = farm.start(queue="cut", concurrency=2)
        farm.app.conf.broker_url = broker.url
        farm.send("unlimited", f"{label} long", 5.0)
        farm.wait_for("unlimited", f"{label} long")
        network.cuts = True
        farm.app.control.broadcast("ping")
        worker.wait_until_it_says("Temporarily reducing")
        network.cuts = False
        worker.wait_until_it_says("Connected to", 2)
        for _ in range(2):
            SyncTokenBucket.from_rate("2/s", name=label, capacity=1, connection=farm.limits.url).reserve()
        for number in range(HELD):
            farm.send("work", [label, "2/s", 1], f"{label} {number}")
        worker.wait_until_it_says("has been restored")
        farm.send("unlimited", label)
        farm.wait_for("unlimited", label, count=2)
        assert len(farm.journal("start", label)) < HELD / 2
        farm.wait_for("start", label, count=HELD)
        farm.stop()


def test_a_queue_that_is_full_refuses_a_job_that_goes_back_and_is_heard(broker: RabbitMQ) -> None:
    app = Celery("sender", broker=broker.url)
    full = Queue("full", Exchange(""), "full", queue_arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    with confirmed_producer(app) as producer:
        producer.publish("there is room", routing_key="full", declare=[full])
    with pytest.raises(OperationalError, match="full"), confirmed_producer(app) as producer:
        producer.publish("there is none", routing_key="full")


def test_a_job_goes_back_to_a_quorum_queue_time_and_again(quorum: Farm, label: str) -> None:
    """Its copy must not tell RabbitMQ where it has been: what comes there again is dropped."""
    job = quorum.send("refused_for", label, 0.3, 1.0, 3.0)
    assert job.get(timeout=PATIENCE) == label
    assert [entry.more[0] for entry in quorum.journal("refused", label)] == ["1", "2", "3"]


def test_jobs_that_wait_for_a_turn_keep_no_others_out_of_a_quorum_queues_worker(quorum: Farm, label: str) -> None:
    """It may never have more than a fixed number of jobs, so RabbitMQ keeps them until shortly before their turns."""
    for number in range(12):
        quorum.send("work", [label, "1/20s", 1], f"{label} {number}")
    quorum.wait_until_logged(f"limiter '{label}'", 8)
    quorum.send("unlimited", label)
    assert quorum.wait_for("unlimited", label)
