"""A server that said "not now": what an error of a job tells about it, and for how long.

The answers of httpx, requests and aiohttp are read by their shape; none of these libraries is imported.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from steindamm.errors import Throttled, wrong_kind

logger = logging.getLogger("steindamm")

STATUSES = frozenset({429, 503})
"""Too many requests, and service unavailable: the answers that may say when to come back."""
UNTOLD_PAUSE = 1.0
"""Seconds to pause where the answer did not tell."""
LONGEST_PAUSE = 3_600.0
"""Seconds; an answer that asks for more is not believed."""
SECONDS = re.compile(r"\s*(\d{1,20})(?:\.\d*)?\s*", re.ASCII)

Reader = Callable[[Any], float | None]


def read_retry_after(error: Any, now: datetime | None = None) -> float | None:
    """Seconds to pause after an error that holds an answer of 429 or 503; None for any other error.

    Parameters:
        error: Of httpx or requests (``error.response``), or of aiohttp (``error.status``, ``error.headers``).
        now: The time, for an answer that names a date.
    """
    answer = getattr(error, "response", None)
    answer = error if answer is None else answer
    status = getattr(answer, "status_code", getattr(answer, "status", None))
    if status not in STATUSES:
        return None
    headers = getattr(answer, "headers", None) or {}
    value = headers.get("Retry-After", headers.get("retry-after"))
    return UNTOLD_PAUSE if value is None else _seconds(str(value), now or datetime.now(UTC))


def _seconds(value: str, now: datetime) -> float:
    """Both forms of the header: seconds, and a date."""
    if match := SECONDS.fullmatch(value):
        return float(match[1])
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        logger.warning("a Retry-After can't be read: %.40r; %g s are taken", value, UNTOLD_PAUSE)
        return UNTOLD_PAUSE
    return (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now.timestamp()


@dataclass(frozen=True)
class ThrottleOn:
    """The errors of jobs that mean "not now", each with what reads the pause from it.

    Example:
        >>> class Busy(Exception):
        ...     retry_in = 3
        >>> ThrottleOn.of({Busy: lambda busy: busy.retry_in}).pause(Busy())
        3.0
        >>> ThrottleOn.of(Busy).pause(ValueError()) is None
        True

    Parameters:
        readers: An error class, and what reads the seconds to pause from it, or None for one that means something else.
    """

    readers: tuple[tuple[type[Exception], Reader], ...] = ()

    @classmethod
    def of(cls, errors: Any) -> ThrottleOn:
        """From an error class, several, or a mapping of classes to readers; None for `Throttled` alone.

        Raises:
            TypeError: Something in it is no error class, or no function.
        """
        if errors is None:
            errors = {}
        elif not isinstance(errors, Mapping):
            several: Iterable[Any] = errors if isinstance(errors, (tuple, list, set, frozenset)) else (errors,)
            errors = dict.fromkeys(several, read_retry_after)
        for kind, reader in errors.items():
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                raise wrong_kind("throttle_on", "an error class, several, or a mapping of them to functions", kind)
            if not callable(reader):
                raise wrong_kind("throttle_on", "a mapping of error classes to functions", reader)
        return cls((*errors.items(), (Throttled, _told)))

    @property
    def kinds(self) -> tuple[type[Exception], ...]:
        """The classes of all these errors."""
        return tuple(kind for kind, _ in self.readers)

    def pause(self, error: Exception) -> float | None:
        """Seconds for which the limiter is to be closed after an error; None if it means something else."""
        for kind, reader in self.readers:
            if isinstance(error, kind):
                seconds = reader(error)
                if seconds is not None:
                    return _believable(seconds)
                if isinstance(error, Throttled):
                    return UNTOLD_PAUSE
        return None


def _told(error: Throttled) -> float | None:
    return error.retry_after


def _believable(seconds: Any) -> float:
    try:
        pause = float(seconds)
    except (TypeError, ValueError, OverflowError):
        pause = math.nan
    if math.isnan(pause):
        logger.warning("a pause can't be read: %.40r; %g s are taken", seconds, UNTOLD_PAUSE)
        return UNTOLD_PAUSE
    believed = min(max(pause, 0.0), LONGEST_PAUSE)
    if believed != pause:
        logger.warning("a pause of %g s is not believed; %g s are taken", pause, believed)
    return believed
