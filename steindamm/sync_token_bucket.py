"""The token bucket for threads. Its twin for tasks is `steindamm.async_token_bucket`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any

from steindamm.answers import Answer
from steindamm.backends.memory import MEMORY, MemoryBucket
from steindamm.changing import SyncChanging
from steindamm.decorating import is_asynchronous
from steindamm.permits import SyncTokenPermit
from steindamm.reservations import SyncReservation
from steindamm.rules.bucket import Decision, Request, Verdict, What
from steindamm.rules.changes import NO_OVERRIDE, Change, Kind
from steindamm.sleepers import SECOND, SyncSleeper
from steindamm.state import TokenBucketState
from steindamm.sync_stand_ins import SyncReplaceableBucket
from steindamm.token_bucket import TokenBucket
from steindamm.turns import give_back_left_over, sleep_until_turn


class SyncTokenBucket(SyncChanging, TokenBucket):
    """A limit on starts per time, shared by all who use its name on the same backend.

    The bucket holds up to `capacity` tokens, and `refill_amount` tokens arrive every `refill_frequency`
    seconds. An acquire takes tokens; where there are too few it takes them in advance and sleeps until its
    own turn, which comes in the order of asking. No window of time ever holds more than `capacity` plus what
    was refilled in it. Calling the class gives a `SyncLocalTokenBucket` (this process's memory) without a
    connection, and a `SyncRedisTokenBucket` with one.

    Example:
        >>> from steindamm import SyncTokenBucket
        >>> limiter = SyncTokenBucket(name="api", capacity=10, refill_frequency=0.1)
        >>> with limiter:
        ...     pass
        >>> with limiter(5):
        ...     pass
        >>> @limiter
        ... def call():
        ...     return "called"
        >>> call()
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
            everything, or the `SyncLocalTokenBucket` that is asked instead. In memory that never happens.
        connection: A sync redis-py client (standalone or cluster), a URL, or None for this process's memory.

    Raises:
        ValueError: A setting is wrong; the message names it and says what it must be.
        TypeError: A setting, or the connection, is of the wrong kind.
    """

    @classmethod
    def _chosen(cls, connection: Any) -> type[TokenBucket]:
        if cls is not SyncTokenBucket:
            return cls
        return SyncLocalTokenBucket if connection is None else SyncRedisTokenBucket

    def _stand_in_kind(self) -> type[SyncLocalTokenBucket]:
        return SyncLocalTokenBucket

    def acquire(self) -> SyncTokenPermit:
        """Sleep until the turn, and return the permit.

        Raises:
            MaxSleepExceededError: The turn is more than `max_sleep` away; raised at once, nothing was taken.
            NoTokensAvailableError: The quota is spent.
            LimiterUnavailableError: Redis did not answer.
        """
        if self._cost == 0:
            return self.permit_for(0.0)
        decision = self._backend.ask(self._take)
        slept = 0.0
        while decision.verdict is Verdict.BOOKED or (decision.verdict is Verdict.GRANTED and decision.wait > 0):
            sleeper = self._sleep(decision, slept)
            slept += sleeper.slept
            if not sleeper.comes_back:
                break
            decision = self._backend.ask(self._coming_back(sleeper, slept))
        else:
            if decision.verdict is not Verdict.GRANTED:
                raise self._refusal(decision)
        return self.permit_for(self._cost, slept)

    def try_acquire(self) -> SyncTokenPermit | None:
        """A permit if the tokens are there, else None. Never sleeps.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        if self._cost == 0:
            return self.permit_for(0.0)
        decision = self._backend.ask(self._try)
        return self.permit_for(self._cost) if decision.verdict is Verdict.GRANTED else None

    def reserve(self) -> SyncReservation:
        """Take a turn and leave the waiting to the caller. Never sleeps.

        Example:
            >>> from steindamm import SyncTokenBucket
            >>> reservation = SyncTokenBucket(name="later", capacity=1).reserve()
            >>> reservation.delay
            0.0
            >>> reservation.cancel()

        Raises:
            MaxSleepExceededError, NoTokensAvailableError, LimiterUnavailableError: As for `acquire`.
        """
        if self._cost == 0:
            return SyncReservation(self.permit_for(0.0), 0.0)
        decision = self._backend.ask(self._reserve)
        if decision.verdict is not Verdict.GRANTED:
            raise self._refusal(decision)
        permit = self.permit_for(self._cost, decision.wait / SECOND)
        gift = Request(What.GIVE_BACK, self._cost, turn=decision.turn)
        return SyncReservation(permit, permit.waited, lambda: self._backend.ask(gift))

    def ask(
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
        return self.answer(request, self._backend.ask(request))

    def give_back(self, answer: Answer) -> None:
        """Return the turn that an answer gave and nobody will use."""
        gift = self._gift(answer)
        if gift is not None:
            self._backend.ask(gift)

    def override(
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
        self._backend.change(change)

    def clear_override(self) -> None:
        """Put in force what the code says.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        self._backend.change(Change(Kind.OVERRIDE, NO_OVERRIDE))

    def state(self) -> TokenBucketState:
        """What can be seen of it now: tokens, the line, what is changed, counters. Looking changes nothing.

        Example:
            >>> from steindamm import SyncTokenBucket
            >>> api = SyncTokenBucket("their api, seen", capacity=10)
            >>> with api(4):
            ...     api.state().tokens
            6.0

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        seen: TokenBucketState = self._backend.look()
        return seen

    def permit_for(self, cost: float, waited: float = 0.0) -> SyncTokenPermit:
        """A permit for what was granted elsewhere: in another process, say, that asked on behalf of this one."""
        return SyncTokenPermit.of(self.settings.name, cost, waited, self)

    def _sleep(self, decision: Decision, slept: float) -> SyncSleeper:
        turns = self._backend.turns
        sleeper = SyncSleeper(decision, self._cost)
        try:
            if turns.join(sleeper):
                give_back_left_over(turns, self._backend.ask)
            out_of_reach = sleep_until_turn(sleeper, turns, self._backend.ask, self._patience(slept))
            if out_of_reach is not None:
                raise self._refusal(out_of_reach)
            turns.leave(sleeper)
        except BaseException:
            turns.let_go(sleeper)
            give_back_left_over(turns, self._backend.ask)
            raise
        return sleeper

    def __enter__(self) -> SyncTokenPermit:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Tokens that were used do not come back."""

    def _decorated(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if is_asynchronous(function):
            raise TypeError(f"{function!r} is asynchronous: decorate it with an AsyncTokenBucket")

        @functools.wraps(function)
        def limited(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return limited


class SyncLocalTokenBucket(SyncTokenBucket):
    """A token bucket in this process's memory; `SyncTokenBucket` describes it."""

    def acquire(self) -> SyncTokenPermit:
        """Sleep until the turn, and return the permit; see `SyncTokenBucket.acquire`."""
        if not self._backend.take_at_once(self._cost):
            return super().acquire()
        permit = SyncTokenPermit()
        permit.name = self._name
        permit.cost = self._cost
        permit.waited = 0.0
        permit._limiter = self
        return permit

    __enter__ = acquire

    def _connect(self, connection: Any) -> None:
        if connection is not None:
            raise TypeError("connection must be None for a local limiter; a SyncRedisTokenBucket takes one")
        self._backend = MemoryBucket(self.settings, MEMORY)


class SyncRedisTokenBucket(SyncReplaceableBucket, SyncTokenBucket):
    """A token bucket in Redis, Valkey or Redis Cluster; `SyncTokenBucket` describes it."""

    def _connect(self, connection: Any) -> None:
        from steindamm.backends.redis.bucket import sync_bucket  # noqa: PLC0415

        self._backend = sync_bucket(connection, self.settings)
