"""Callers that ask the same limiter at the same moment share a call.

While one call is under way, the next askers gather, and go together in the one after it, in their order.
A lone asker goes at once. An asker that is cancelled drops out; if its request has been sent already, what
it was given is handed to `undo`.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from copy import copy
from enum import Enum, auto
from threading import Lock, RLock
from typing import Any, ClassVar, Generic, TypeVar
from weakref import WeakSet

from steindamm.backends.redis.cut_short import rest_of
from steindamm.background import in_background
from steindamm.errors import SteindammError

Request = TypeVar("Request")
Answer = TypeVar("Answer")

MOST = 100
"""Requests in one call, so that a script never runs long."""
PATIENCE = 1.0
"""Seconds after which a thread that waits looks whether anybody makes a call at all."""


def _own(error: Exception) -> Exception:
    """One error for each asker: raised by several threads, the same one would mix up their tracebacks."""
    if not isinstance(error, SteindammError):
        return error
    own = copy(error)
    own.__cause__ = error.__cause__
    return own


class _Stage(Enum):
    GATHERED = auto()
    CHOSEN = auto()
    SENT = auto()
    ANSWERED = auto()


WAITS = frozenset({_Stage.GATHERED, _Stage.SENT})


class _Waiting(Generic[Request, Answer]):
    """A thread's request that waits for the call under way to end."""

    __slots__ = ("answer", "error", "gone", "request", "stage", "turn")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.turn = Lock()
        self.turn.acquire()
        self.stage = _Stage.GATHERED
        self.answer: Answer | None = None
        self.error: Exception | None = None
        self.gone = False


class SyncSharing(Generic[Request, Answer]):
    """Shared calls of threads: who finds no call under way makes one, then the first that gathered makes the next.

    A thread may be interrupted (by Ctrl-C, a signal's handler, a time limit) between any two steps, and so
    leave undone that it wakes the next. Those who wait find that out by the lock that each call holds.

    Parameters:
        call: Makes one call with several requests and returns as many answers.
        undo: Takes back what was answered to an asker that has gone.
    """

    _all: ClassVar[WeakSet[SyncSharing[Any, Any]]] = WeakSet()

    def __init__(self, call: Callable[[list[Request]], list[Answer]], undo: Callable[[Request, Answer], None]) -> None:
        self._call = call
        self._undo = undo
        self._forget()
        self._all.add(self)

    def _forget(self) -> None:
        self._lock = RLock()
        self._calling = RLock()
        self._under_way = False
        self._gathered: deque[_Waiting[Request, Answer]] = deque()

    @classmethod
    def after_fork(cls) -> None:
        """A child has none of its parent's calls under way."""
        for sharing in tuple(cls._all):
            sharing._forget()

    @property
    def is_interrupted(self) -> bool:
        """Whether this thread is in the middle of a call, as where the garbage collector interrupts it: it can't ask.

        The collector closes blocks that nobody holds any more, which then leave.
        """
        return self._lock._is_owned() or self._calling._is_owned()  # type: ignore[attr-defined, no-any-return]

    def ask(self, request: Request) -> Answer:
        """Ask, together with whoever asks at the same moment."""
        alone = False
        try:
            with self._lock:
                alone = not self._under_way
                if alone:
                    self._under_way = True
                else:
                    waiting: _Waiting[Request, Answer] = _Waiting(request)
                    self._gathered.append(waiting)
            if alone:
                with self._calling:
                    return self._call([request])[0]
        finally:
            if alone:
                self._pass_on()
        return self._ask_together(waiting)

    def _ask_together(self, mine: _Waiting[Request, Answer]) -> Answer:
        try:
            while not mine.turn.acquire(timeout=PATIENCE) and mine.stage in WAITS:
                self._look_after(mine)
            if mine.stage is _Stage.CHOSEN:
                self._lead(mine)
        except BaseException:
            self._drop_out(mine)
            raise
        if mine.error is not None:
            raise mine.error
        assert mine.answer is not None  # noqa: S101
        return mine.answer

    def _lead(self, mine: _Waiting[Request, Answer]) -> None:
        """Make the call for all that have gathered; `mine` is the first of them."""
        batch, gone = [mine], []
        try:
            with self._calling:
                self._choose(batch)
                try:
                    answers: Sequence[Answer | Exception] = self._call([waiting.request for waiting in batch])
                except Exception as error:  # noqa: BLE001
                    answers = [_own(error) for _ in batch]
                gone = self._answer(batch, answers)
        except BaseException:
            self._ask_again(batch[1:])
            raise
        finally:
            self._pass_on()
        for waiting in gone:
            self._take_back(waiting)

    def _choose(self, batch: list[_Waiting[Request, Answer]]) -> None:
        with self._lock:
            while self._gathered and len(batch) < MOST:
                batch.append(self._gathered.popleft())
            for waiting in batch:
                waiting.stage = _Stage.SENT

    def _answer(
        self, batch: list[_Waiting[Request, Answer]], answers: Sequence[Answer | Exception]
    ) -> list[_Waiting[Request, Answer]]:
        """Tell the askers; returns those that have gone meanwhile."""
        with self._lock:
            for waiting, answer in zip(batch, answers, strict=True):
                waiting.stage = _Stage.ANSWERED
                if isinstance(answer, Exception):
                    waiting.error = answer
                else:
                    waiting.answer = answer
            gone = [waiting for waiting in batch if waiting.gone]
        for waiting in batch[1:]:
            waiting.turn.release()
        return gone

    def _ask_again(self, batch: list[_Waiting[Request, Answer]]) -> None:
        """The thread that made the call was interrupted: the others must not be."""
        with self._lock:
            lost = [waiting for waiting in batch if waiting.stage is _Stage.SENT and not waiting.gone]
            for waiting in lost:
                waiting.stage = _Stage.GATHERED
            self._gathered.extendleft(reversed(lost))

    def _look_after(self, mine: _Waiting[Request, Answer]) -> None:
        """While no call is under way: a request that got lost gathers again, and somebody is chosen to call."""
        with self._calling, self._lock:
            if mine.stage in WAITS and mine not in self._gathered:
                mine.stage = _Stage.GATHERED
                self._gathered.appendleft(mine)
        self._pass_on()

    def _drop_out(self, mine: _Waiting[Request, Answer]) -> None:
        with self._lock:
            mine.gone = True
            stage = mine.stage
            if mine in self._gathered:
                self._gathered.remove(mine)
        if stage is _Stage.CHOSEN:
            self._pass_on()
        elif stage is _Stage.ANSWERED:
            self._take_back(mine)

    def _take_back(self, waiting: _Waiting[Request, Answer]) -> None:
        if waiting.answer is not None:
            with suppress(SteindammError):
                self._undo(waiting.request, waiting.answer)

    def _pass_on(self) -> None:
        with self._lock:
            if not self._gathered:
                self._under_way = False
                return
            following = self._gathered.popleft()
            following.stage = _Stage.CHOSEN
        following.turn.release()


os.register_at_fork(after_in_child=SyncSharing.after_fork)


class AsyncSharing(Generic[Request, Answer]):
    """Shared calls of the tasks of one event loop, on which it is made.

    A lone asker makes its call itself; where it is cancelled meanwhile, what it is still told is taken back. Calls of
    several are made by a task of its own, so that a cancelled asker never cuts one short. As long as there are several,
    it makes them all: one that comes just before the others would else go alone, time and again.

    Parameters:
        call: Makes one call with several requests; a cancellation of it carries the reply, see `rest_of`.
        read: Gives as many answers as a call's reply holds.
        undo: Takes back what was answered to an asker that has gone.
    """

    def __init__(
        self,
        call: Callable[[list[Request]], Awaitable[Any]],
        read: Callable[[Any], list[Answer]],
        undo: Callable[[Request, Answer], Coroutine[Any, Any, None]],
    ) -> None:
        self._call = call
        self._read = read
        self._undo = undo
        self._loop = asyncio.get_running_loop()
        self._gathered: deque[tuple[Request, asyncio.Future[Answer]]] = deque()
        self._caller: asyncio.Task[None] | None = None
        self._is_alone = False
        self._are_several = False

    async def ask(self, request: Request) -> Answer:
        """Ask, together with whoever asks at the same moment."""
        if not (self._is_alone or self._are_several or self._caller):
            return await self._ask_alone(request)
        answer: asyncio.Future[Answer] = self._loop.create_future()
        self._gathered.append((request, answer))
        self._start()
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                in_background(self._undo(request, answer.result()))
            raise

    async def _ask_alone(self, request: Request) -> Answer:
        self._is_alone = True
        try:
            reply = await self._call([request])
        except asyncio.CancelledError as cut:
            rest = rest_of(cut)
            if rest is None:
                self._alone_no_more()
            else:
                rest.add_done_callback(self._alone_no_more)
                in_background(self._take_back(request, rest))
            raise
        except BaseException:
            self._alone_no_more()
            raise
        self._alone_no_more()
        (answer,) = self._read(reply)
        return answer

    async def _take_back(self, request: Request, rest: Awaitable[Any]) -> None:
        """What comes of a failure, nobody is left to be told."""
        try:
            (answer,) = self._read(await rest)
        except Exception:  # noqa: BLE001
            return
        await self._undo(request, answer)

    def _alone_no_more(self, *_: object) -> None:
        self._is_alone = False
        if self._gathered:
            self._are_several = True
            self._start()

    def _start(self) -> None:
        if self._caller is None and not self._is_alone:
            self._caller = self._loop.create_task(self._make_calls())
            self._caller.add_done_callback(self._ended)

    def _ended(self, caller: asyncio.Task[None]) -> None:
        """Go on with those who have gathered, if somebody cancelled the task, be it before it had begun."""
        if self._caller is caller:
            self._caller = None
            if any(not answer.done() for _, answer in self._gathered):
                self._start()

    async def _make_calls(self) -> None:
        while batch := self._next_batch():
            await self._make_call(batch)
            self._are_several = len(batch) > 1 or bool(self._gathered)
        self._caller = None

    def _next_batch(self) -> list[tuple[Request, asyncio.Future[Answer]]]:
        batch: list[tuple[Request, asyncio.Future[Answer]]] = []
        while self._gathered and len(batch) < MOST:
            request, answer = self._gathered.popleft()
            if not answer.done():
                batch.append((request, answer))
        return batch

    async def _make_call(self, batch: list[tuple[Request, asyncio.Future[Answer]]]) -> None:
        try:
            answers = self._read(await self._call([request for request, _ in batch]))
        except asyncio.CancelledError:
            self._ask_again(batch)
            raise
        except Exception as error:  # noqa: BLE001
            for _, waiting in batch:
                if not waiting.done():
                    waiting.set_exception(_own(error))
            return
        for (request, waiting), answer in zip(batch, answers, strict=True):
            if waiting.done():
                in_background(self._undo(request, answer))
            else:
                waiting.set_result(answer)

    def _ask_again(self, batch: list[tuple[Request, asyncio.Future[Answer]]]) -> None:
        """Somebody cancelled the task that made the call: the askers were not, as long as they still wait."""
        self._gathered.extendleft(reversed([asked for asked in batch if not asked[1].done()]))
