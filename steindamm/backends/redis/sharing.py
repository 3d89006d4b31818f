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
from enum import Enum, auto
from threading import Lock
from typing import Any, ClassVar, Generic, TypeVar
from weakref import WeakSet

from steindamm.background import in_background

Request = TypeVar("Request")
Answer = TypeVar("Answer")

MOST = 100
"""Requests in one call, so that a script never runs long."""


class _Stage(Enum):
    GATHERED = auto()
    CHOSEN = auto()
    SENT = auto()
    ANSWERED = auto()


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
        self._lock = Lock()
        self._under_way = False
        self._gathered: deque[_Waiting[Request, Answer]] = deque()

    @classmethod
    def after_fork(cls) -> None:
        """A child has none of its parent's calls under way."""
        for sharing in cls._all:
            sharing._forget()

    def ask(self, request: Request) -> Answer:
        """Ask, together with whoever asks at the same moment."""
        with self._lock:
            alone = not self._under_way
            if alone:
                self._under_way = True
            else:
                waiting: _Waiting[Request, Answer] = _Waiting(request)
                self._gathered.append(waiting)
        if not alone:
            return self._ask_together(waiting)
        try:
            return self._call([request])[0]
        finally:
            self._pass_on()

    def _ask_together(self, mine: _Waiting[Request, Answer]) -> Answer:
        try:
            mine.turn.acquire()
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
        batch = [mine]
        try:
            with self._lock:
                batch += (self._gathered.popleft() for _ in range(min(len(self._gathered), MOST - 1)))
                for waiting in batch:
                    waiting.stage = _Stage.SENT
            answers = self._call([waiting.request for waiting in batch])
        except Exception as error:  # noqa: BLE001
            self._answer(batch, [error] * len(batch))
        except BaseException:
            self._ask_again(batch[1:])
            raise
        else:
            self._answer(batch, answers)
        finally:
            self._pass_on()

    def _answer(self, batch: list[_Waiting[Request, Answer]], answers: Sequence[Answer | Exception]) -> None:
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
        for waiting in gone:
            self._take_back(waiting)

    def _ask_again(self, batch: list[_Waiting[Request, Answer]]) -> None:
        """The thread that made the call was interrupted: the others must not be."""
        with self._lock:
            for waiting in batch:
                waiting.stage = _Stage.GATHERED
            self._gathered.extendleft(waiting for waiting in reversed(batch) if not waiting.gone)

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
    """Shared calls of tasks: a task of its own makes them, so that a cancelled asker never cuts a call short.

    Parameters:
        call: Makes one call with several requests and returns as many answers.
        undo: Takes back what was answered to an asker that has gone.
    """

    def __init__(
        self,
        call: Callable[[list[Request]], Awaitable[list[Answer]]],
        undo: Callable[[Request, Answer], Coroutine[Any, Any, None]],
    ) -> None:
        self._call = call
        self._undo = undo
        self._gathered: deque[tuple[Request, asyncio.Future[Answer]]] = deque()
        self._caller: asyncio.Task[None] | None = None

    async def ask(self, request: Request) -> Answer:
        """Ask, together with whoever asks at the same moment."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._gathered.append((request, answer))
        if self._caller is None:
            self._caller = loop.create_task(self._make_calls())
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                in_background(self._undo(request, answer.result()))
            raise

    async def _make_calls(self) -> None:
        try:
            while self._gathered:
                await self._make_call()
        finally:
            self._caller = None

    async def _make_call(self) -> None:
        batch = [self._gathered.popleft() for _ in range(min(len(self._gathered), MOST))]
        batch = [(request, answer) for request, answer in batch if not answer.done()]
        if not batch:
            return
        try:
            answers = await self._call([request for request, _ in batch])
        except BaseException as error:
            for _, waiting in batch:
                if not waiting.done():
                    waiting.set_exception(error) if isinstance(error, Exception) else waiting.cancel()
            if not isinstance(error, Exception):
                raise
            return
        for (request, waiting), answer in zip(batch, answers, strict=True):
            if waiting.done():
                in_background(self._undo(request, answer))
            else:
                waiting.set_result(answer)
