"""Asks a limiter's server in a thread of its own, so that the worker's loop never waits for long.

While all is well, the loop waits for the answer: it comes within a millisecond. A server that can't be reached
holds up the jobs that are asked about, and nothing else: each is asked about again until there is an answer.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Event, Lock, Thread, current_thread
from typing import Any, Protocol
from weakref import WeakKeyDictionary, finalize

from steindamm.clock import monotonic
from steindamm.integrations.celery.waker import Waker
from steindamm.integrations.decisions import Decision, Fail, Unavailable
from steindamm.integrations.job_limits import Limiter

logger = logging.getLogger("steindamm.celery")

PATIENCE = 0.2
"""Seconds that the loop waits for an answer; after a late one it does not wait until one was in time again."""
FIRST_PAUSE, GROWTH, LONGEST_PAUSE = 0.01, 4.0, 1.0
"""Seconds between questions that failed before: what one limiter lacks must not keep others waiting for long."""
COMPLAIN_EVERY = 60.0
"""Seconds between warnings."""
IDLE = 30.0
"""Seconds without a question after which the thread ends."""


class Question(Protocol):
    """Something that a limiter decides."""

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits for the answer."""

    def ask(self) -> Decision:
        """Ask; called in any thread."""

    def answered(self, decision: Decision) -> None:
        """Hear of an answer that came late; called in the loop's thread."""


class Direct:
    """Asks where the caller is: the limiter is in this process's memory."""

    def ask(self, question: Question) -> Decision | None:
        """The answer."""
        return _answer_to(question)

    def tell(self, call: Callable[[], object]) -> None:
        """Make a call to the limiter that has no answer."""
        call()

    def finish(self, _: float) -> None:
        """Nothing is left to do."""


class Asker:
    """Asks one server.

    Parameters:
        waker: Brings late answers into the loop.
    """

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        self._new: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._failed: deque[_Asked] = deque()
        self._failures = 0
        self._next_try = self._next_complaint = 0.0
        self._is_prompt = True
        self._starting = Lock()
        self._thread: Thread | None = None

    @property
    def is_prompt(self) -> bool:
        """Whether the last answer was there soon."""
        return self._is_prompt

    def ask(self, question: Question) -> Decision | None:
        """The answer if it is there soon; else None, and the question hears of it when it is there."""
        asked = _Asked(question)
        self.tell(lambda: self._answer(asked))
        may_wait = self._is_prompt and current_thread() is not self._thread
        decision = asked.wait(PATIENCE if may_wait else 0.0)
        if decision is None:
            self._is_prompt = False
        return decision

    def tell(self, call: Callable[[], object]) -> None:
        """Make a call to the server that has no answer."""
        self._new.put(call)
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = Thread(target=self._run, name="steindamm-asker", daemon=True)
                    self._thread.start()

    def finish(self, patience: float) -> None:
        """Wait until all calls have been made, but no longer than so many seconds."""
        finished = Event()
        self.tell(finished.set)
        finished.wait(patience)

    def end(self) -> None:
        """Nobody will ask any more."""
        self._new.put(None)

    def _run(self) -> None:
        while (call := self._next()) is not None:
            try:
                call()
            except Exception:
                logger.exception("a call to a limiter failed")
            del call

    def _next(self) -> Callable[[], object] | None:
        """What is new comes first; what failed before comes when the pause is over."""
        while True:
            try:
                return self._new.get(timeout=max(0.0, self._next_try - monotonic()) if self._failed else IDLE)
            except Empty:
                if self._failed:
                    failed = self._failed.popleft()
                    return lambda: self._answer(failed)
            with self._starting:
                if self._new.empty():
                    self._thread = None
                    return None

    def _answer(self, asked: _Asked) -> None:
        if asked.is_late and not asked.question.is_wanted:
            return
        asked_at = monotonic()
        decision = _answer_to(asked.question)
        if isinstance(decision, Unavailable):
            self._fail(asked, decision)
            return
        self._failures = 0
        if not asked.give(decision):
            self._waker.call(lambda: asked.question.answered(decision))
        self._is_prompt = not self._failed and monotonic() < asked_at + PATIENCE

    def _fail(self, asked: _Asked, decision: Unavailable) -> None:
        asked.give_up()
        self._failed.append(asked)
        now = monotonic()
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * GROWTH**self._failures)
        self._next_try = now + pause * random.uniform(0.5, 1.0)  # noqa: S311
        self._failures = min(self._failures + 1, 10)
        if now >= self._next_complaint:
            self._next_complaint = now + COMPLAIN_EVERY
            logger.warning("%s; its jobs are held until it answers", decision.error)


class _Asked:
    """A question and its answer, which is given in time or late, and never both."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.is_late = False
        self._decision: Decision | None = None
        self._given = Lock()
        self._given.acquire()
        self._changing = Lock()

    def wait(self, patience: float) -> Decision | None:
        """The answer, if it is given within so many seconds; else it is late."""
        self._given.acquire(timeout=patience)
        with self._changing:
            self.is_late = self._decision is None
            return self._decision

    def give(self, decision: Decision) -> bool:
        """Give the answer to the one who waits; False if it is late."""
        with self._changing:
            if self.is_late:
                return False
            self._decision = decision
        self._given.release()
        return True

    def give_up(self) -> None:
        """Whoever waits need not wait any longer: the answer will be late."""
        with self._changing:
            if self.is_late:
                return
            self.is_late = True
        self._given.release()


class Askers:
    """Who asks which limiter.

    Parameters:
        waker: Brings late answers into the loop.
    """

    def __init__(self, waker: Waker) -> None:
        self._waker = waker
        self._of_link: WeakKeyDictionary[Any, Asker] = WeakKeyDictionary()

    def of(self, limiter: Limiter) -> Asker | Direct:
        """One for each connection to a server."""
        link = getattr(limiter.backend, "link", None)
        if link is None:
            return DIRECT
        asker = self._of_link.get(link)
        if asker is None:
            asker = self._of_link[link] = Asker(self._waker)
            finalize(link, asker.end)
        return asker

    def finish(self, patience: float) -> None:
        """Wait until all have made their calls, but no longer than so many seconds."""
        give_up = monotonic() + patience
        for asker in tuple(self._of_link.values()):
            asker.finish(max(0.0, give_up - monotonic()))


def _answer_to(question: Question) -> Decision:
    try:
        return question.ask()
    except Exception as error:  # noqa: BLE001
        return Fail(error)


DIRECT = Direct()
