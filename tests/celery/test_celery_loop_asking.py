"""Asking from the worker's loop: on a loop of Celery's kind and a real server, without a worker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from chaos.proxy import Proxy
from kombu.asynchronous import Hub
from support.celery_workers import Farm

from steindamm import SyncLocalTokenBucket, SyncSemaphore, SyncTokenBucket
from steindamm.integrations.bookings import Booking
from steindamm.integrations.celery.asking import PATIENCE, Askers
from steindamm.integrations.celery.loop_asking import LoopAskers, goes_by_loop
from steindamm.integrations.celery.waker import Waker
from steindamm.integrations.decisions import Asking, Decision, Start, asking, decide
from steindamm.integrations.job_limits import JobLimit

LONG = 10.0


class Loop:
    """A loop, and what is asked from it."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.waker = Waker()
        self.threads = Askers(self.waker)
        self.askers = LoopAskers(self.threads, self.waker, self.hub.timer)
        self.waker.watch(self.hub)
        self.askers.watch(self.hub)

    def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + LONG
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            self.waker.turn()
            self.hub.run_once()

    def asked(self, limiter: Any) -> Question:
        """A question that went this way."""
        question = Question(limiter)
        assert self.askers.send(limiter, question)
        return question

    def connect(self, limiter: Any) -> None:
        """The first question has no connection yet, and the next makes one."""
        question = Question(limiter)
        assert not self.askers.send(limiter, question)
        self.until(lambda: self.askers.send(limiter, question))
        self.until(lambda: question.heard_of)


class Question:
    """What a job asks; it notes what it hears."""

    def __init__(self, limiter: Any) -> None:
        self.limit = JobLimit(limiter=limiter)
        self.claim = self.limit.claim((), {}, uuid.uuid4().hex)
        self.heard_of: list[Decision | None] = []
        self.is_wanted = True

    def asking(self) -> Asking:
        return asking(self.limit, self.claim, Booking(), accept=0.0)

    def ask(self) -> Decision:
        return decide(self.limit, self.claim, Booking(), accept=0.0)

    def heard(self, decision: Decision | None) -> None:
        self.heard_of.append(decision)

    answered = heard

    @property
    def is_granted(self) -> bool:
        return bool(self.heard_of) and isinstance(self.heard_of[-1], Start)


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.askers.finish(0.0)
    loop.hub.close()
    for end in loop.waker._ends:
        end.close()


@pytest.fixture
def network(farm: Farm) -> Iterator[Proxy]:
    with Proxy(farm.server.port) as network:
        yield network


def bucket(connection: Any, label: str, capacity: float = 1_000, **settings: Any) -> SyncTokenBucket:
    return SyncTokenBucket(label, capacity=capacity, refill_frequency=3_600, connection=connection, **settings)


def granted(limiter: SyncTokenBucket) -> int:
    return limiter.state().counters.granted


def test_questions_are_sent_at_once_and_heard_in_their_order(loop: Loop, farm: Farm, label: str) -> None:
    limiter = bucket(farm.server.url, label)
    loop.connect(limiter)
    before = granted(limiter)
    questions = [loop.asked(limiter) for _ in range(20)]
    assert not any(question.heard_of for question in questions)
    loop.until(lambda: questions[0].heard_of)
    loop.until(lambda: questions[-1].heard_of)
    assert all(question.is_granted for question in questions)
    assert granted(limiter) == before + 20


def test_who_is_refused_hears_of_his_turn(loop: Loop, farm: Farm, label: str) -> None:
    limiter = bucket(farm.server.url, label, capacity=1)
    loop.connect(limiter)
    question = loop.asked(limiter)
    loop.until(lambda: question.heard_of)
    assert question.heard_of[0].booking.turn > time.time()


def test_questions_on_a_connection_that_breaks_are_asked_by_the_thread(loop: Loop, network: Proxy, label: str) -> None:
    limiter = bucket(redis.Redis.from_url(network.url), label)
    loop.connect(limiter)
    network.loses = label.encode()
    questions = [loop.asked(limiter) for _ in range(3)]
    loop.until(lambda: all(question.is_granted for question in questions))
    loop.until(lambda: loop.askers.send(limiter, Question(limiter)))


def test_a_server_that_forgot_the_script_is_given_it_again(loop: Loop, farm: Farm, label: str) -> None:
    limiter = bucket(farm.server.url, label)
    loop.connect(limiter)
    farm.admin.script_flush()
    question = loop.asked(limiter)
    loop.until(lambda: question.heard_of)
    assert question.is_granted


def test_of_a_late_answer_is_heard_once_that_there_is_none_and_then_the_answer(
    loop: Loop, network: Proxy, label: str
) -> None:
    limiter = bucket(redis.Redis.from_url(network.url), label)
    loop.connect(limiter)
    network.delay = 1.5 * PATIENCE
    question = loop.asked(limiter)
    loop.until(lambda: question.heard_of)
    assert question.heard_of[0] is None
    assert not loop.askers.send(limiter, Question(limiter))
    loop.until(lambda: question.is_granted)


def test_a_connection_that_is_silent_is_given_up(
    loop: Loop, network: Proxy, label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steindamm.integrations.celery.loop_asking.LONGEST_WAIT", 2 * PATIENCE)
    limiter = bucket(redis.Redis.from_url(network.url, socket_timeout=PATIENCE), label)
    loop.connect(limiter)
    network.swallows = True
    question = loop.asked(limiter)
    loop.until(lambda: question.heard_of)
    network.swallows = False
    loop.until(lambda: question.is_granted)


def test_what_is_still_to_come_as_a_worker_ends_is_heard(loop: Loop, farm: Farm, label: str) -> None:
    limiter = bucket(farm.server.url, label)
    loop.connect(limiter)
    questions = [loop.asked(limiter) for _ in range(3)]
    loop.askers.finish(LONG)
    assert all(question.is_granted for question in questions)


def test_a_loop_that_began_anew_hears_the_answers(loop: Loop, farm: Farm, label: str) -> None:
    limiter = bucket(farm.server.url, label)
    loop.connect(limiter)
    question = loop.asked(limiter)
    loop.hub.reset()
    loop.hub.timer.clear()
    loop.waker.watch(loop.hub)
    loop.askers.watch(loop.hub)
    loop.until(lambda: question.is_granted)


def test_a_client_that_is_traced_and_what_has_a_stand_in_go_another_way(farm: Farm, label: str) -> None:
    client = redis.Redis.from_url(farm.server.url)
    assert goes_by_loop(bucket(client, label))
    assert not goes_by_loop(SyncSemaphore(label, connection=client))
    assert not goes_by_loop(SyncLocalTokenBucket(label))
    assert not goes_by_loop(bucket(client, label, on_unavailable="allow"))
    client.execute_command = lambda *_: None
    assert not goes_by_loop(bucket(client, label))


def test_jobs_that_are_asked_about_as_their_worker_ends_run_once(
    farm: Farm, network: Proxy, tmp_path: Path, label: str
) -> None:
    """Each of its pool slots has a job whose answer is on its way, as it always takes long."""
    slow = Farm(farm.server, tmp_path, network, task_default_queue=label)
    network.delay = PATIENCE / 4
    for number in range(20):
        slow.send("work", [label, "1000/s", 1], f"{label} {number}")
    for ends in (True, False):
        before = len(slow.journal("start", label))
        worker = slow.start(queue=label, concurrency=2)
        slow.wait_for("start", label, count=min(before + 8, 20))
        if ends:
            assert worker.end() == 0
    starts = slow.wait_for("start", label, count=20)
    slow.stop()
    assert len({start.job for start in starts}) == len(starts) == 20
