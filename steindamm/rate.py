"""Limits as people say them: ``"100/m"``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from steindamm.checks import LONGEST_TIME, checked_number, checked_seconds
from steindamm.errors import wrong_kind
from steindamm.settings import SHORTEST_STEP

SECONDS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "minute", "minutes"), "m"),
    **dict.fromkeys(("h", "hour", "hours"), "h"),
    **dict.fromkeys(("d", "day", "days"), "d"),
}
SHAPE = re.compile(r"\s*(?P<amount>\d+(?:\.\d+)?)\s*/\s*(?P<count>\d+(?:\.\d+)?)?\s*(?P<unit>[a-z]+)\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rate:
    """So many tokens in so many seconds.

    Example:
        >>> from steindamm import Rate
        >>> Rate.parse("100/m")
        Rate(amount=100.0, period=60.0)
        >>> Rate.parse("5/s").spacing
        0.2

    Parameters:
        amount: Tokens that arrive in one period.
        period: Its length in seconds.
    """

    amount: float
    period: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "amount", checked_number("amount", self.amount, above=0))
        object.__setattr__(self, "period", checked_seconds("period", self.period, above=0))
        if not SHORTEST_STEP <= self.spacing <= LONGEST_TIME:
            raise ValueError("rate must be at most a million tokens a second, and at least one in ten years")

    @classmethod
    def parse(cls, text: str | Rate) -> Rate:
        """Read ``"<tokens>/<unit>"`` or ``"<tokens>/<count><unit>"``, as in ``"5/s"``, ``"100/15m"``, ``"1000/day"``.

        Parameters:
            text: The rate; one that is read already stays as it is.

        Raises:
            ValueError: The text is no rate; the message lists the units.
            TypeError: This is no text.
        """
        if isinstance(text, Rate):
            return text
        if not isinstance(text, str):
            raise wrong_kind("rate", 'a str such as "100/m"', text)
        match = SHAPE.fullmatch(text)
        unit = match and UNITS.get(match["unit"])
        if not match or not unit:
            raise ValueError(
                f'rate must read like "100/m" or "5/10s" with one of the units s, m, h, d, not {text[:40]!r}'
            )
        return cls(float(match["amount"]), float(match["count"] or 1) * SECONDS[unit])

    @property
    def spacing(self) -> float:
        """Seconds from one token to the next."""
        return self.period / self.amount
