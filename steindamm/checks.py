"""The checks of what callers pass in: each names the argument and says what it must be."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import SupportsFloat

from steindamm.errors import wrong_kind

LONGEST_NAME = 200
LONGEST_TIME = 10 * 366 * 86_400.0
"""Ten years in seconds: no wait, lease or period that is meant lasts longer."""
FORBIDDEN = re.compile("[{}\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Braces (a Redis key's share of the cluster hangs on them) and whatever could break out of a line of a log."""


def shown(number: float) -> str:
    """A number as a message shows it: short, and never rounded to its own bound."""
    return f"{number:.15g}"


def checked_name(name: object, argument: str = "name") -> str:
    """The name of a limiter, or of a group: 1 to 200 bytes of UTF-8 without braces and control characters."""
    if not isinstance(name, str):
        raise wrong_kind(argument, "a str", name)
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{argument} must be valid Unicode text") from None
    if not 0 < size <= LONGEST_NAME:
        raise ValueError(f"{argument} must be 1 to {LONGEST_NAME} bytes long, not {size}")
    if FORBIDDEN.search(name):
        raise ValueError(f"{argument} must not hold braces, line breaks or other control characters")
    return name


def checked_text(argument: str, value: object, longest: int) -> str:
    """One line of text, not empty."""
    if not isinstance(value, str):
        raise wrong_kind(argument, "a str", value)
    if not 0 < len(value) <= longest or not value.isprintable():
        raise ValueError(f"{argument} must be 1 to {longest} characters that can be printed")
    return value


def printable(text: str, longest: int) -> str:
    """What can be shown of a text from a stranger: one line, and not too long."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:longest])


def checked_number(
    argument: str, value: SupportsFloat, *, least: float = 0.0, above: float | None = None, most: float = math.inf
) -> float:
    """A finite number within its bounds, as a float."""
    number = value if type(value) is float else _as_float(argument, value)
    if not math.isfinite(number):
        raise ValueError(f"{argument} must be a finite number, not {number}")
    if above is not None and number <= above:
        raise ValueError(f"{argument} must be above {shown(above)}, not {shown(number)}")
    if number < least:
        raise ValueError(f"{argument} must be at least {shown(least)}, not {shown(number)}")
    if number > most:
        raise ValueError(f"{argument} must be at most {shown(most)}, not {shown(number)}")
    return number


def _as_float(argument: str, value: SupportsFloat) -> float:
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        raise wrong_kind(argument, "a number", value)
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan


def checked_seconds(argument: str, value: SupportsFloat, *, above: float | None = None) -> float:
    """A duration in seconds: finite, not negative, at most ten years."""
    return checked_number(argument, value, above=above, most=LONGEST_TIME)


def checked_slots(argument: str, value: object) -> int:
    """A whole number of slots, at least one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_kind(argument, "a whole number", value)
    if value != value or value in (math.inf, -math.inf) or value != int(value) or value < 1:  # noqa: PLR0124
        raise ValueError(f"{argument} must be a whole number of at least 1, not {value}")
    if value > 2**31:
        raise ValueError(f"{argument} must be at most {2**31}, not {value}")
    return int(value)


def checked_moment(argument: str, value: object) -> float:
    """A moment as seconds since the Unix epoch: clocks on walls tell some hours twice, and can't be compared."""
    if not isinstance(value, datetime):
        raise wrong_kind(argument, "a datetime", value)
    try:
        return value.timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{argument} must be a moment that the clock can tell, not {value}") from None
