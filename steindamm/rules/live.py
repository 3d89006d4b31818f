"""What is changed of a bucket while it runs, and the bucket's own clock.

Closing, slowing and another rate leave the bucket's arithmetic as it is: they change its clock. *Bucket time*
stands still while the bucket is closed, runs slower after the server that it guards has refused, and faster or
slower under another rate. So each turn that was given out moves by itself, the line keeps its order and is
spread as the rate has it, nobody books twice, and a wait in bucket time becomes one in real time only when it is told.

Slowed as in Chiu and Jain (1989): a refusal of the server takes a factor off the rate, and time adds to it, as
much each second, until it is whole again.

A bucket whose refills follow the calendar keeps the calendar's time. While it is closed, the time is that at which
it reopens.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steindamm.rules.bucket import BucketTerms

UNSET = -1.0
YEAR = 366 * 86_400e6
"""Microseconds that an override is kept after the bucket's last use."""
REMEMBERED = 60e6
"""Microseconds; turns that are further away are not believed to have been lost with a backend's memory."""


class Live:
    """What has been changed of a bucket.

    Parameters:
        changed: When the clock was last set, which tells one setting from another.
        time: The bucket time at which the clock was set.
        since: The moment from which it runs; ahead while the bucket is closed.
        span: Microseconds that it was closed for; 0 when that is over.
        share: Of its rate, what it had when the clock was set; at most 1.
        recovery: Microseconds in which the share grows by 1.
        cut_at: When the share was last cut.
        speed: The overriding rate as a multiple of the one that the code says.
        capacity, amount, step, anchor: Overriding terms, the step in bucket time; below 0 where there are none.
        set_at: When they were set.
        line, pace, grid: What a bucket on the calendar had when it was closed.
        born: When anything was changed first; 0 where the bucket is known to be older than any turn that is told of.
        recalled: The last turn that was put back into the line after the backend had lost its memory, in bucket time;
            infinite where it has not.
        note: Who set the overriding terms, and to what, for people.
    """

    __slots__ = (  # noqa: RUF023
        "changed", "time", "since", "span", "share", "recovery", "cut_at", "speed",
        "capacity", "amount", "step", "anchor", "set_at", "line", "pace", "grid",
        "born", "recalled", "note",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.changed = self.time = self.since = self.born = now
        self.span = self.recovery = self.set_at = self.line = self.pace = self.grid = 0.0
        self.share = self.speed = 1.0
        self.capacity = self.amount = self.step = self.anchor = UNSET
        self.cut_at = -math.inf
        self.recalled = math.inf
        self.note = b""

    @property
    def is_overridden(self) -> bool:
        """Whether there are overriding terms."""
        return self.capacity >= 0

    def recalls_for(self, now: float) -> float:
        """Microseconds for which there may still be sleepers with turns from before the backend lost its memory."""
        return 0.0 if self.recalled == math.inf else max(0.0, self.born + REMEMBERED - now)

    def terms(self, terms: BucketTerms) -> BucketTerms:
        """The terms in force."""
        if not self.is_overridden:
            return terms
        return terms._replace(capacity=self.capacity, amount=self.amount, step=self.step, anchor=self.anchor)


class Clock:
    """A bucket's clock at one moment.

    Parameters:
        live: What has been changed of the bucket; None for a bucket that goes by the backend's clock.
        now: The moment, in microseconds on the backend's clock.

    Attributes:
        time: The bucket time.
    """

    __slots__ = ("_live", "_now", "_ran", "time")

    def __init__(self, live: Live | None, now: float) -> None:
        self._live = live
        self._now = now
        self._ran = 0.0
        self.time = now
        if live is not None:
            _bear_set_back(live, now)
            self._ran = _run(live, now - live.since)
            self.time = live.time + self._ran

    @property
    def opens_in(self) -> float:
        """Microseconds that the bucket is closed for."""
        return 0.0 if self._live is None else max(0.0, self._live.since - self._now)

    @property
    def share(self) -> float:
        """What it has of its rate."""
        live = self._live
        if live is None or live.share == 1 or self._now >= live.since + _slow_for(live):
            return 1.0
        return live.share + max(0.0, self._now - live.since) / live.recovery

    @property
    def is_even(self) -> bool:
        """Whether the clock runs as the backend's does, and will."""
        live = self._live
        return live is None or (live.speed == 1 and self._now >= live.since + _slow_for(live))

    @property
    def slow_for(self) -> float:
        """Microseconds until the clock runs at its full rate."""
        live = self._live
        return 0.0 if live is None else max(0.0, live.since + _slow_for(live) - self._now)

    def real(self, wait: float) -> float:
        """The real time after which so much bucket time has passed."""
        live = self._live
        if live is None or wait == math.inf:
            return wait
        if wait <= 0:
            return self.opens_in
        return max(0.0, live.since - self._now + _time_to_run(live, self._ran + wait))

    def own(self, wait: float) -> float:
        """The bucket time that passes in a real one; below 0 where the bucket stays closed for longer."""
        live = self._live
        if live is None or wait == math.inf:
            return wait
        elapsed = self._now + wait - live.since
        return UNSET if wait < 0 or elapsed < 0 else _run(live, elapsed) - self._ran


def _bear_set_back(live: Live, now: float) -> None:
    """Where the backend's clock was set back, the bucket is closed for no longer than was meant."""
    if now < live.since - live.span:
        goes_by_backend = live.time == live.since
        live.since = now + live.span
        live.time = live.since if goes_by_backend else live.time
    if now >= live.since:
        live.span = 0.0
    live.cut_at = min(live.cut_at, now)


def _slow_for(live: Live) -> float:
    """How long, from when it was set, the clock runs slower."""
    return (1 - live.share) * live.recovery


def _run(live: Live, elapsed: float) -> float:
    """The bucket time that passes in so long after the clock was set."""
    if elapsed <= 0:
        return 0.0
    slow = _slow_for(live)
    if elapsed >= slow:
        return live.speed * (elapsed - slow * (1 - live.share) / 2)
    return live.speed * (elapsed * (live.share + elapsed / (2 * live.recovery)))


def _time_to_run(live: Live, run: float) -> float:
    """The inverse: how long after the clock was set so much bucket time has passed."""
    even = run / live.speed
    slow = _slow_for(live)
    if even >= slow * (1 + live.share) / 2:
        return even + slow * (1 - live.share) / 2
    return 2 * even / (live.share + math.sqrt(live.share * live.share + 2 * even / live.recovery))
