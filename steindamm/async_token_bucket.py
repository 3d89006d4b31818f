"""The token bucket for asyncio tasks. Its twin for threads is `steindamm.sync_token_bucket`."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any

from steindamm.answers import Answer
from steindamm.async_stand_ins import AsyncReplaceableBucket
from steindamm.backends.memory import MEMORY, AsyncMemoryBucket
from steindamm.background import in_background
from steindamm.changing import AsyncChanging
from steindamm.decorating import is_coroutine_function
from steindamm.errors import SteindammError
from steindamm.permits import AsyncTokenPermit
from steindamm.reservations import AsyncReservation
from steindamm.rules.bucket import Decision, Request, Verdict, What
from steindamm.rules.changes import NO_OVERRIDE, Change, Kind
from steindamm.sleepers import SECOND, AsyncSleeper
from steindamm.state import TokenBucketState
from steindamm.token_bucket import TokenBucket
from steindamm.turns import give_back_left_over_async, sleep_until_turn_async


class AsyncTokenBucket(AsyncChanging, TokenBucket):
    """A limit on starts per time, for asyncio; `steindamm.SyncTokenBucket` is its twin and explains the model.

    Example:
        >>> import asyncio
        >>> from steindamm import AsyncTokenBucket
        >>> limiter = AsyncTokenBucket(name="api", capacity=10, refill_frequency=0.1)
        >>> async def main():
        ...     async with limiter:
        ...         pass
        ...     async with limiter(5):
        ...         return "called"
        >>> asyncio.run(main())
        'called'

    Parameters:
        name: 1 to 200 bytes without braces and control characters.
        capacity: The most tokens it holds, above 0.
        refill_frequency: Seconds between refills; 0, together with `refill_amount`, for a quota that never refills.
        refill_amount: Tokens that arrive with each, at most `capacity`.
        initial_tokens: Tokens in a bucket that nobody has used, or that was idle for so long that it was
            forgotten; by default `capacity`.
        max_sleep: The longest sleep, in seconds, that an acquire accepts; 0 accepts any.
        expiry: Seconds that an unused bucket is remembered at least; it never is for less than until it is full.
        tokens_to_consume: The cost of one acquire in tokens; `limiter(5)` gives the limiter with another.
        window_start_time: A moment in the past that the refills are aligned with, for calendar windows.
        adapt: Whether, and how (see `Adapt`), the rate falls when the server says no, which `back_off` tells.
        group: A name in common with other limiters, which lays their keys into one slot of a cluster, so that
            `all_of` can ask them by one call. It is a part of what the limiter is shared by.
        on_unavailable: What to do where Redis does not answer: ``"raise"`` a `LimiterUnavailableError`, ``"allow"``
            everything, or the `AsyncLocalTokenBucket` that is asked instead. In memory that never happens.
        connection: An async redis-py client (standalone or cluster), a URL, or None for this process's memory.

    Raises:
        ValueError: A setting is wrong; the message names it and says what it must be.
        TypeError: A setting, or the connection, is of the wrong kind.
    """

    @classmethod
    def _chosen(cls, connection: Any) -> type[TokenBucket]:
        if cls is not AsyncTokenBucket:
            return cls
        return AsyncLocalTokenBucket if connection is None else AsyncRedisTokenBucket

    def _stand_in_kind(self) -> type[AsyncLocalTokenBucket]:
        return AsyncLocalTokenBucket

    async def acquire(self) -> AsyncTokenPermit:
        """Sleep until the turn, and return the permit.

        Raises:
            MaxSleepExceededError: The turn is more than `max_sleep` away; raised at once, nothing was taken.
            NoTokensAvailableError: The quota is spent.
            LimiterUnavailableError: Redis did not answer.
        """
        if self._cost == 0:
            return self.permit_for(0.0)
        decision = await self._backend.ask(self._take)
        slept = 0.0
        while decision.verdict is Verdict.BOOKED or (decision.verdict is Verdict.GRANTED and decision.wait > 0):
            sleeper = await self._sleep(decision, slept)
            slept += sleeper.slept
            if not sleeper.comes_back:
                break
            decision = await self._backend.ask(self._coming_back(sleeper, slept))
        else:
            if decision.verdict is not Verdict.GRANTED:
                raise self._refusal(decision)
        return self.permit_for(self._cost, slept)

    async def try_acquire(self) -> AsyncTokenPermit | None:
        """A permit if the tokens are there, else None. Never sleeps.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        if self._cost == 0:
            return self.permit_for(0.0)
        decision = await self._backend.ask(self._try)
        return self.permit_for(self._cost) if decision.verdict is Verdict.GRANTED else None

    async def reserve(self) -> AsyncReservation:
        """Take a turn and leave the waiting to the caller. Never sleeps.

        Example:
            >>> import asyncio
            >>> from steindamm import AsyncTokenBucket
            >>> asyncio.run(AsyncTokenBucket(name="soon", capacity=1).reserve()).delay
            0.0

        Raises:
            MaxSleepExceededError, NoTokensAvailableError, LimiterUnavailableError: As for `acquire`.
        """
        if self._cost == 0:
            return AsyncReservation(self.permit_for(0.0), 0.0)
        decision = await self._backend.ask(self._reserve)
        if decision.verdict is not Verdict.GRANTED:
            raise self._refusal(decision)
        permit = self.permit_for(self._cost, decision.wait / SECOND)
        gift = Request(What.GIVE_BACK, self._cost, turn=decision.turn)
        return AsyncReservation(permit, permit.waited, lambda: self._backend.ask(gift))

    async def ask(
        self, *, cost: float | None = None, accept: float = 0.0, horizon: float = 0.0, turn: float | None = None
    ) -> Answer:
        """Ask on behalf of a job, without sleeping: start, come back, or ask again; see `Answer`.

        Parameters:
            cost: Tokens; by default the limiter's own cost.
            accept: The longest wait for the start, in seconds.
            horizon: How far away, in seconds, a turn may be booked.
            turn: The turn that the job was told to come back with.
        """
        request = self.asking(cost, accept, horizon, turn)
        if request.cost == 0:
            return Answer(0.0, permit=self.permit_for(0.0))
        return self.answer(request, await self._backend.ask(request))

    async def give_back(self, answer: Answer) -> None:
        """Return the turn that an answer gave and nobody will use."""
        gift = self._gift(answer)
        if gift is not None:
            await self._backend.ask(gift)

    async def override(
        self,
        *,
        capacity: float | None = None,
        refill_amount: float | None = None,
        refill_frequency: float | None = None,
        by: str | None = None,
    ) -> None:
        """Put other settings in force than the code has, for all processes, from their next call on.

        An override replaces the one before; what is not named is as the code says. Whoever has a turn keeps it:
        at another rate the whole line moves slower, or faster. `state` tells what is in force, who set it and when.
        It holds until it is cleared, or the bucket was not used for a year.

        Example:
            >>> from steindamm import SyncTokenBucket
            >>> api = SyncTokenBucket(name="their api, overridden", capacity=100)
            >>> api.override(capacity=50, by="on call")
            >>> api.clear_override()

        Parameters:
            capacity, refill_amount, refill_frequency: As for the class.
            by: Who does it; by default this process.

        Raises:
            ValueError: The settings do not go together; the message says which, and what it must be.
            LimiterUnavailableError: Redis did not answer.
        """
        change = self._overriding(by, capacity=capacity, refill_amount=refill_amount, refill_frequency=refill_frequency)
        await self._backend.change(change)

    async def clear_override(self) -> None:
        """Put in force what the code says.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        await self._backend.change(Change(Kind.OVERRIDE, NO_OVERRIDE))

    async def state(self) -> TokenBucketState:
        """What can be seen of it now: tokens, the line, what is changed, counters. Looking changes nothing.

        Example:
            >>> import asyncio
            >>> from steindamm import AsyncTokenBucket
            >>> asyncio.run(AsyncTokenBucket("their async api, seen", capacity=10).state()).tokens
            10.0

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        seen: TokenBucketState = await self._backend.look()
        return seen

    def permit_for(self, cost: float, waited: float = 0.0) -> AsyncTokenPermit:
        """A permit for what was granted elsewhere: in another process, say, that asked on behalf of this one."""
        return AsyncTokenPermit.of(self.settings.name, cost, waited, self)

    async def _sleep(self, decision: Decision, slept: float) -> AsyncSleeper:
        turns = self._backend.turns
        sleeper = AsyncSleeper(decision, self._cost)
        try:
            if turns.join(sleeper):
                in_background(give_back_left_over_async(turns, self._backend.ask))
            out_of_reach = await sleep_until_turn_async(sleeper, turns, self._backend.ask, self._patience(slept))
            if out_of_reach is not None:
                raise self._refusal(out_of_reach)
            turns.leave(sleeper)
        except (asyncio.CancelledError, SteindammError):
            turns.let_go(sleeper)
            await asyncio.shield(in_background(give_back_left_over_async(turns, self._backend.ask)))
            raise
        except BaseException:
            turns.cancel(sleeper)
            raise
        return sleeper

    async def __aenter__(self) -> AsyncTokenPermit:
        return await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Tokens that were used do not come back."""

    def _decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isasyncgenfunction(function):
            raise TypeError(f"{function!r} is a generator, which nobody awaits: take its tokens by a block inside it")
        if not is_coroutine_function(function):
            raise TypeError(f"{function!r} is no coroutine function: decorate it with a SyncTokenBucket")

        @functools.wraps(function)
        async def limited(*args: Any, **kwargs: Any) -> Any:
            async with self:
                return await function(*args, **kwargs)

        return limited


class AsyncLocalTokenBucket(AsyncTokenBucket):
    """A token bucket in this process's memory; `AsyncTokenBucket` describes it."""

    async def acquire(self) -> AsyncTokenPermit:
        """Sleep until the turn, and return the permit; see `AsyncTokenBucket.acquire`."""
        if not self._backend.take_at_once(self._cost):
            return await super().acquire()
        permit = AsyncTokenPermit()
        permit.name = self._name
        permit.cost = self._cost
        permit.waited = 0.0
        permit._limiter = self
        return permit

    __aenter__ = acquire

    def _connect(self, connection: Any) -> None:
        if connection is not None:
            raise TypeError("connection must be None for a local limiter; an AsyncRedisTokenBucket takes one")
        self._backend = AsyncMemoryBucket(self.settings, MEMORY)


class AsyncRedisTokenBucket(AsyncReplaceableBucket, AsyncTokenBucket):
    """A token bucket in Redis, Valkey or Redis Cluster; `AsyncTokenBucket` describes it."""

    def _connect(self, connection: Any) -> None:
        from steindamm.backends.redis.bucket import async_buckets  # noqa: PLC0415

        self._buckets = async_buckets(connection, self.settings)

    @property
    def _backend(self) -> Any:
        return self._buckets.here()
