"""What an acquire returns."""

from __future__ import annotations

from typing import Any, NoReturn, Self

from steindamm.background import to_its_end
from steindamm.checks import checked_number
from steindamm.errors import AlreadySettledError, LimiterUnavailableError
from steindamm.rules.bucket import Request, What
from steindamm.settings import MOST_TOKENS


class Permit:
    """Leave to start one piece of work.

    Example:
        >>> from steindamm import SyncTokenBucket
        >>> with SyncTokenBucket("api, permitted", capacity=5)(2) as permit:
        ...     permit.name, permit.cost, permit.waited
        ('api, permitted', 2.0, 0.0)

    Attributes:
        name: The limiter that gave it.
        cost: Tokens taken.
        waited: Seconds between asking and the turn.
        without_backend: Whether it was given without asking the limiter's backend, see `on_unavailable`.
    """

    __slots__ = ("cost", "name", "waited")
    name: str
    cost: float
    waited: float
    without_backend = False

    @classmethod
    def of(cls, name: str, cost: float, waited: float = 0.0) -> Self:
        """A permit that says this.

        It is made blank and then filled in: the call of an `__init__` would take longer than both.
        """
        permit = cls()
        permit.name = name
        permit.cost = cost
        permit.waited = waited
        return permit

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.name!r}>"

    def void(self) -> bool:
        """Nothing comes of it; whether that is so, and what it stands for may go back."""
        return True


class TokenPermit(Permit):
    """Leave to start for which a token bucket took tokens. Once it is known how many it should have been, settle it."""

    __slots__ = ("_limiter",)
    _limiter: Any

    @classmethod
    def of(cls, name: str, cost: float, waited: float = 0.0, limiter: Any = None) -> Self:
        """A permit, to be settled with this limiter."""
        permit = super().of(name, cost, waited)
        permit._limiter = limiter
        return permit

    def void(self) -> bool:
        """It can't be settled any more; whether it was not yet."""
        is_open, self._limiter = self._limiter is not None, None
        return is_open

    def _settling(self, actual: float) -> Request:
        beyond = checked_number("actual", actual, most=MOST_TOKENS) - self.cost
        if self._limiter is None:
            raise AlreadySettledError(self.name)
        return Request(What.SETTLE, beyond)


class SyncTokenPermit(TokenPermit):
    """What a sync token bucket gives.

    Example:
        >>> from steindamm import SyncTokenBucket
        >>> SyncTokenBucket("api, acquired").acquire()
        <SyncTokenPermit of 'api, acquired'>
    """

    __slots__ = ()

    def settle(self, actual: float) -> None:
        """Correct the cost, once: tokens that were not used go back, those that were used beyond it are taken.

        Where the bucket does not have them it goes into debt, and those who come next wait for longer. A permit
        that is never settled keeps its cost.

        Example:
            >>> from steindamm import SyncTokenBucket
            >>> tokens = SyncTokenBucket(name="model", capacity=10_000, refill_amount=10_000, refill_frequency=60)
            >>> with tokens(1_000) as permit:
            ...     permit.settle(1_234)

        Parameters:
            actual: The tokens that it should have been.

        Raises:
            AlreadySettledError: This is the second time.
            ValueError: This is no number of tokens.
            LimiterUnavailableError: Redis did not answer; it may be tried again.
        """
        request, limiter = self._settling(actual), self._limiter
        self._limiter = None
        try:
            limiter.backend.ask(request)
        except LimiterUnavailableError as error:
            if not limiter.lets_go(error):
                self._limiter = limiter
                raise


class AsyncTokenPermit(TokenPermit):
    """What an async token bucket gives.

    Example:
        >>> import asyncio
        >>> from steindamm import AsyncTokenBucket
        >>> asyncio.run(AsyncTokenBucket("api, acquired by a task").acquire())
        <AsyncTokenPermit of 'api, acquired by a task'>
    """

    __slots__ = ()

    async def settle(self, actual: float) -> None:
        """Correct the cost, once: tokens that were not used go back, those that were used beyond it are taken.

        Where the bucket does not have them it goes into debt, and those who come next wait for longer. A permit
        that is never settled keeps its cost. A cancellation does not keep it from being settled.

        Example:
            >>> import asyncio
            >>> from steindamm import AsyncTokenBucket
            >>> tokens = AsyncTokenBucket(name="model", capacity=10_000, refill_amount=10_000, refill_frequency=60)
            >>> async def main():
            ...     async with tokens(1_000) as permit:
            ...         await permit.settle(1_234)
            >>> asyncio.run(main())

        Parameters:
            actual: The tokens that it should have been.

        Raises:
            AlreadySettledError: This is the second time.
            ValueError: This is no number of tokens.
            LimiterUnavailableError: Redis did not answer; it may be tried again.
        """
        request, limiter = self._settling(actual), self._limiter
        self._limiter = None
        try:
            await to_its_end(limiter.backend.ask(request))
        except LimiterUnavailableError as error:
            if not limiter.lets_go(error):
                self._limiter = limiter
                raise


class SlotPermit(Permit):
    """Leave to run while a slot is held.

    Example:
        >>> from steindamm import SyncSemaphore
        >>> with SyncSemaphore(name="writers", capacity=2) as permit:
        ...     permit.lost
        False

    Attributes:
        name: The semaphore that gave it.
        cost: Always 1.
        waited: Seconds between asking and the slot.
        fence: A number that only grows from one lease of this semaphore to the next (a fencing token): what
            you write to can refuse a smaller one than it has seen.
        lost: Whether the lease ran out because it could not be renewed: somebody else may hold the slot.
    """

    fence: int

    def __repr__(self) -> str:
        return f"<SlotPermit of {self.name!r}>"

    @property
    def lost(self) -> bool:
        """Whether the lease ran out because it could not be renewed: somebody else may hold the slot."""
        return False

    def settle(self, actual: float) -> NoReturn:
        """A slot has no cost that could be corrected."""
        raise TypeError("a semaphore's permit can't be settled: it stands for one slot")
