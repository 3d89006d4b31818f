"""Asks buckets from the worker's own loop: it sends a question, goes on, and hears the answer when it is there.

A thread that asks for the loop, and the loop's waiting for it, cost a job more than the question itself. So what is
usual goes this way: a bucket, on a server that answers. All else, and whatever fails here, goes the way of `asking`.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary, finalize

from redis.exceptions import RedisError, ResponseError

from steindamm.backends.redis.kept_connection import is_to_be_renewed, keeps_one, taking_from
from steindamm.clock import monotonic
from steindamm.errors import LimiterUnavailableError
from steindamm.integrations.celery.asking import PATIENCE, Asker, Askers, Question
from steindamm.integrations.celery.waker import Waker
from steindamm.integrations.decisions import Asking, Decision, decided
from steindamm.integrations.job_limits import Limiter
from steindamm.outages import RAISE
from steindamm.sync_token_bucket import SyncRedisTokenBucket

logger = logging.getLogger("steindamm.celery")

LONGEST_WAIT = 5.0
"""Seconds without an answer after which a connection is given up."""
FAILURES = (RedisError, OSError)


class LoopQuestion(Question, Protocol):
    """Something that a bucket decides."""

    def asking(self) -> Asking:
        """What it asks."""

    def heard(self, decision: Decision | None) -> None:
        """Hear the answer; None where it is not there yet, and comes later."""


class Sent(NamedTuple):
    """A question whose answer is still to come."""

    question: LoopQuestion
    asking: Asking
    at: float


class LoopAsker:
    """Asks one server.

    Parameters:
        pool: Connections to it.
        asker: Asks it in a thread.
        waker: Calls into the loop from other threads.
        timer: The loop's timer.
    """

    def __init__(self, pool: Any, asker: Asker, waker: Waker, timer: Any) -> None:
        self._pool = pool
        self._asker = asker
        self._waker = waker
        self._timer = timer
        self._hub: Any = None
        self._connection: Any = None
        self._is_known = self._is_connecting = self._is_late = self._is_looking = False
        self._sent: deque[Sent] = deque()

    def watch(self, hub: Any) -> None:
        """Hear answers in this loop from now on; one that began anew has forgotten what it watched and timed."""
        self._hub = hub
        self._is_looking = False
        if self._connection is not None:
            hub.add_reader(self._fd, self._hear)
            self._look_later()

    def sends(self, question: LoopQuestion) -> bool:
        """Whether a question is on its way; else it is to be asked otherwise."""
        if self._connection is None or self._is_late:
            self._connect_soon()
            return False
        asking = question.asking()
        if asking.request.cost == 0:
            return False
        connection, command = self._connection, asking.claim.limiter.backend.command(asking.request)
        try:
            connection.send_packed_command(connection.pack_command(*command), check_health=False)
        except FAILURES:
            self.lose()
            return False
        self._sent.append(Sent(question, asking, monotonic()))
        self._look_later()
        return True

    def finish(self, patience: float) -> None:
        """Hear what is still to come, but wait no longer than so many seconds."""
        give_up = monotonic() + patience
        while self._sent and self._connection is not None:
            self._hear(max(0.0, give_up - monotonic()))
            if monotonic() >= give_up:
                return

    def lose(self) -> None:
        """Give the connection up; those whose answers were to come over it are asked otherwise."""
        connection, self._connection = self._connection, None
        sent, self._sent = self._sent, deque()
        self._is_late = False
        if connection is not None:
            self._hub.remove_reader(self._fd)
            connection.disconnect()
            self._pool.release(connection)
        for each in sent:
            self._ask_otherwise(each.question)

    def _hear(self, patience: float = 0.0) -> None:
        """Read what there is, answers or the end of the connection, and only then tell who asked: they may ask anew."""
        connection, answered, is_broken = self._connection, [], not self._sent
        try:
            while self._sent and connection.can_read(patience):
                decision = self._read(self._sent[0].asking)
                answered.append((self._sent.popleft().question, decision))
        except FAILURES:
            is_broken = True
        self._is_late = self._is_late and bool(self._sent)
        if is_broken or (not self._sent and is_to_be_renewed(connection)):
            self.lose()
        for question, decision in answered:
            if decision is None:
                self._ask_otherwise(question)
            else:
                question.heard(decision)

    def _read(self, asking: Asking) -> Decision | None:
        """The next answer; None where the server could not give one."""
        try:
            return decided(asking, asking.claim.limiter.backend.answer(self._connection.read_response()))
        except (ResponseError, LimiterUnavailableError):
            return None

    def _ask_otherwise(self, question: LoopQuestion) -> None:
        if question.is_wanted:
            question.heard(self._asker.ask(question))

    def _look_later(self) -> None:
        if self._sent and not self._is_looking:
            self._is_looking = True
            self._timer.call_after(PATIENCE, self._look)

    def _look(self) -> None:
        """Let nobody wait for long: who has waited hears of it, and a connection that is silent is given up."""
        self._is_looking = False
        now = monotonic()
        if self._sent and now > self._sent[0].at + LONGEST_WAIT:
            self.lose()
        for sent in tuple(self._sent):
            if now > sent.at + PATIENCE:
                self._is_late = True
                sent.question.heard(None)
        self._look_later()

    def _connect_soon(self) -> None:
        """Have the thread connect, which may take long; not for a single question, nor while there are no answers."""
        if self._is_known and self._asker.is_prompt and not (self._connection or self._is_connecting):
            self._is_connecting = True
            self._hub.call_soon(self._asker.tell, self._connect)
        self._is_known = True

    def _connect(self) -> None:
        connection = None
        try:
            connection = taking_from(self._pool)()
        except FAILURES as error:
            logger.info("no connection for the worker's loop: %s", type(error).__name__)
        finally:
            self._waker.call(lambda: self._connected(connection))

    def _connected(self, connection: Any) -> None:
        self._is_connecting = False
        if connection is not None:
            self._connection, self._fd = connection, connection._sock.fileno()
            self._hub.add_reader(self._fd, self._hear)


class LoopAskers:
    """Who asks which bucket from the loop; nobody, in a worker that has none.

    Parameters:
        askers: Who asks in threads.
        waker: Calls into the loop from other threads.
        timer: The loop's timer.
    """

    def __init__(self, askers: Askers, waker: Waker, timer: Any) -> None:
        self._askers = askers
        self._waker = waker
        self._timer = timer
        self._hub: Any = None
        self._of_link: WeakKeyDictionary[Any, LoopAsker] = WeakKeyDictionary()

    def watch(self, hub: Any) -> None:
        """Hear answers in this loop from now on."""
        self._hub = hub
        for asker in tuple(self._of_link.values()):
            asker.watch(hub)

    def send(self, limiter: Limiter, question: LoopQuestion) -> bool:
        """Whether a question is on its way; else it is to be asked otherwise."""
        if self._hub is None or not goes_by_loop(limiter):
            return False
        link = limiter.backend.link
        return (self._of_link.get(link) or self._begin(link, limiter)).sends(question)

    def _begin(self, link: Any, limiter: Limiter) -> LoopAsker:
        thread: Any = self._askers.of(limiter)
        asker = self._of_link[link] = LoopAsker(link.client.connection_pool, thread, self._waker, self._timer)
        asker.watch(self._hub)
        finalize(link, self._waker.call, asker.lose)
        return asker

    def finish(self, patience: float) -> None:
        """Hear what is still to come, but wait no longer than so many seconds."""
        give_up = monotonic() + patience
        for asker in tuple(self._of_link.values()):
            asker.finish(max(0.0, give_up - monotonic()))


def goes_by_loop(limiter: Limiter) -> bool:
    """Whether it can be asked like this: a bucket, with nothing to stand in for it, whose client spares connections."""
    return (
        type(limiter) is SyncRedisTokenBucket
        and limiter.on_unavailable == RAISE
        and keeps_one(limiter.backend.link.client)
    )
