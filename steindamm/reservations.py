"""Turns taken by those who wait elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from steindamm.permits import Permit


def _nothing_to_give_back() -> None:
    """A cost of 0 took nothing."""


class Reservation:
    """A turn: work may start `delay` seconds after it was reserved.

    Attributes:
        permit: What an acquire would have returned.
        delay: Seconds, counted from the reservation.
    """

    __slots__ = ("_cancelled", "delay", "permit")

    def __init__(self, permit: Permit, delay: float) -> None:
        self.permit = permit
        self.delay = delay
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {self.permit.name!r} in {self.delay:.3f} s>"

    def _is_first_cancel(self) -> bool:
        first, self._cancelled = not self._cancelled, True
        return first and self.permit.void()


class SyncReservation(Reservation):
    """A reservation at a sync limiter.

    Example:
        >>> from steindamm import SyncTokenBucket
        >>> turn = SyncTokenBucket("api, reserved", capacity=1).reserve()
        >>> turn.delay
        0.0
        >>> turn.cancel()
    """

    __slots__ = ("_give_back",)

    def __init__(self, permit: Permit, delay: float, give_back: Callable[[], object] = _nothing_to_give_back) -> None:
        super().__init__(permit, delay)
        self._give_back = give_back

    def cancel(self) -> None:
        """Give the turn, or the slot, back; a turn only if nobody has one after it.

        A second call does nothing, nor one after the permit was settled; a permit can't be settled after it.
        """
        if self._is_first_cancel():
            self._give_back()


async def _nothing_to_await() -> None:
    """A cost of 0 took nothing."""


class AsyncReservation(Reservation):
    """A reservation at an async limiter.

    Example:
        >>> import asyncio
        >>> from steindamm import AsyncTokenBucket
        >>> async def main():
        ...     turn = await AsyncTokenBucket("async api, reserved", capacity=1).reserve()
        ...     await turn.cancel()
        ...     return turn.delay
        >>> asyncio.run(main())
        0.0
    """

    __slots__ = ("_give_back",)

    def __init__(
        self, permit: Permit, delay: float, give_back: Callable[[], Awaitable[object]] = _nothing_to_await
    ) -> None:
        super().__init__(permit, delay)
        self._give_back = give_back

    async def cancel(self) -> None:
        """Give the turn, or the slot, back; a turn only if nobody has one after it.

        A second call does nothing, nor one after the permit was settled; a permit can't be settled after it.
        """
        if self._is_first_cancel():
            await self._give_back()
