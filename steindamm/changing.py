"""What can be changed of a limiter while it runs, for all who share it, at once.

The sync and the async half differ in nothing but the await.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from steindamm.checks import checked_moment, checked_number, checked_text
from steindamm.rules.changes import Change, Kind
from steindamm.sleepers import SECOND
from steindamm.tickets import PROCESS
from steindamm.undivided import Undivided

LONGEST_CLOSURE = 366 * 86_400.0
"""A year, in seconds."""
LONGEST_SIGNATURE = 200


class Changing(Undivided):
    """What the halves share: the changes, checked."""

    _backend: Any

    def _closing_for(self, seconds: float) -> Change:
        return Change(Kind.CLOSE_FOR, (checked_closure("seconds", seconds) * SECOND,))

    def _closing_until(self, moment: datetime) -> Change:
        until = checked_moment("moment", moment)
        if not 0 < until - time.time() <= LONGEST_CLOSURE:
            raise ValueError(f"moment must lie in the future, and less than a year ahead, not {moment}")
        return Change(Kind.CLOSE_UNTIL, (until * SECOND,))

    def _backing_off(self, retry_after: float) -> Change:
        """What does not slow down closes."""
        return self._closing_for(retry_after)


class SyncChanging(Changing):
    """The half for threads."""

    def close_for(self, seconds: float) -> None:
        """Let nobody start for so long, whoever shares the limiter; where it is closed for longer, it stays so.

        Those who wait, and whoever asks meanwhile, wait for so much longer (or are refused, beyond their
        `max_sleep`). All keep their turns: when the limiter opens, they start one after the other, at its rate.

        Example:
            >>> from steindamm import SyncTokenBucket
            >>> api = SyncTokenBucket(name="their api, closed", max_sleep=10)
            >>> api.close_for(60)
            >>> api.try_acquire() is None
            True
            >>> api.reopen()
            >>> api.try_acquire() is None
            False

        Parameters:
            seconds: At most a year.

        Raises:
            ValueError: This is no such time.
            LimiterUnavailableError: Redis did not answer.
        """
        self._backend.change(self._closing_for(seconds))

    def close_until(self, moment: datetime) -> None:
        """The same until a moment in the future, on the clock of the server.

        Example:
            >>> from datetime import UTC, datetime, timedelta
            >>> from steindamm import SyncTokenBucket
            >>> api = SyncTokenBucket(name="their api, closed until tomorrow", max_sleep=10)
            >>> api.close_until(datetime.now(UTC) + timedelta(days=1))
            >>> api.try_acquire() is None
            True

        Parameters:
            moment: At most a year ahead; one without a time zone is in this machine's.

        Raises:
            TypeError: This is no datetime.
            ValueError: It has passed, or is too far ahead.
            LimiterUnavailableError: Redis did not answer.
        """
        self._backend.change(self._closing_until(moment))

    def reopen(self) -> None:
        """Let those start from now on who may; the turns move up.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        self._backend.change(Change(Kind.REOPEN))

    def back_off(self, retry_after: float) -> None:
        """What to do when the server that the limiter guards has said: not now, come back in so many seconds.

        It closes for so long, and a token bucket with `adapt` goes on slower.

        Example:
            >>> from steindamm import SyncTokenBucket
            >>> api = SyncTokenBucket(name="their api, which said: not now", capacity=10, adapt=True)
            >>> api.back_off(retry_after=30)
            >>> api.state().closed_for > 29
            True

        Parameters:
            retry_after: Seconds, at most a year.

        Raises:
            ValueError: This is no such time.
            LimiterUnavailableError: Redis did not answer.
        """
        self._backend.change(self._backing_off(retry_after))


class AsyncChanging(Changing):
    """The half for tasks."""

    async def close_for(self, seconds: float) -> None:
        """Let nobody start for so long, whoever shares the limiter; where it is closed for longer, it stays so.

        Those who wait, and whoever asks meanwhile, wait for so much longer (or are refused, beyond their
        `max_sleep`). All keep their turns: when the limiter opens, they start one after the other, at its rate.

        Example:
            >>> import asyncio
            >>> from steindamm import AsyncTokenBucket
            >>> async def main():
            ...     api = AsyncTokenBucket(name="their async api, closed", max_sleep=10)
            ...     await api.close_for(60)
            ...     print(await api.try_acquire())
            >>> asyncio.run(main())
            None

        Parameters:
            seconds: At most a year.

        Raises:
            ValueError: This is no such time.
            LimiterUnavailableError: Redis did not answer.
        """
        await self._backend.change(self._closing_for(seconds))

    async def close_until(self, moment: datetime) -> None:
        """The same until a moment in the future, on the clock of the server.

        Example:
            >>> import asyncio
            >>> from datetime import UTC, datetime, timedelta
            >>> from steindamm import AsyncTokenBucket
            >>> async def main():
            ...     api = AsyncTokenBucket(name="their async api, closed until tomorrow", max_sleep=10)
            ...     await api.close_until(datetime.now(UTC) + timedelta(days=1))
            ...     print(await api.try_acquire())
            >>> asyncio.run(main())
            None

        Parameters:
            moment: At most a year ahead; one without a time zone is in this machine's.

        Raises:
            TypeError: This is no datetime.
            ValueError: It has passed, or is too far ahead.
            LimiterUnavailableError: Redis did not answer.
        """
        await self._backend.change(self._closing_until(moment))

    async def reopen(self) -> None:
        """Let those start from now on who may; the turns move up.

        Raises:
            LimiterUnavailableError: Redis did not answer.
        """
        await self._backend.change(Change(Kind.REOPEN))

    async def back_off(self, retry_after: float) -> None:
        """What to do when the server that the limiter guards has said: not now, come back in so many seconds.

        It closes for so long, and a token bucket with `adapt` goes on slower.

        Example:
            >>> import asyncio
            >>> from steindamm import AsyncTokenBucket
            >>> async def main():
            ...     api = AsyncTokenBucket(name="their async api, which said: not now", capacity=10, adapt=True)
            ...     await api.back_off(retry_after=30)
            ...     print((await api.state()).closed_for > 29)
            >>> asyncio.run(main())
            True

        Parameters:
            retry_after: Seconds, at most a year.

        Raises:
            ValueError: This is no such time.
            LimiterUnavailableError: Redis did not answer.
        """
        await self._backend.change(self._backing_off(retry_after))


def checked_closure(argument: str, seconds: float) -> float:
    """Seconds for which a limiter may be closed."""
    return checked_number(argument, seconds, most=LONGEST_CLOSURE)


def signed(by: str | None, settings: Mapping[str, float]) -> bytes:
    """Who overrides which settings, as it is kept beside the state: JSON, for people."""
    by = PROCESS.label if by is None else checked_text("by", by, LONGEST_SIGNATURE)
    return json.dumps({"by": by, "settings": dict(settings)}).encode()
