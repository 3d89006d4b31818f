"""One asker at a semaphore, from its first request to its release."""

from __future__ import annotations

import logging
import math
import os
import re
import secrets
import socket
from collections.abc import Callable
from functools import partial
from itertools import count

from steindamm.checks import printable
from steindamm.clock import monotonic
from steindamm.permits import SlotPermit

logger = logging.getLogger("steindamm")
OPEN_FENCE = 1
"""The fencing number of a slot that the backend does not know of: below all that storage has seen."""
LONGEST_JOB = 100
"""Characters of a job's id that its ticket carries."""
HOST = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "-"


class _Process:
    """This process's name on the tickets; a forked child gets one of its own."""

    def __init__(self) -> None:
        self.begin()
        os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        self.label = f"{HOST}/{os.getpid()}"
        self.name = f"{self.label}/{secrets.token_hex(6)}"
        self.numbers = count(1)


PROCESS = _Process()


class Ticket(SlotPermit):
    """One asker, wherever it is known: in the line, to the one that renews, and, once it holds a slot, as the permit.

    Its asker, the one that hears of hand-overs and the one that renews may be three threads. Whoever is told
    first that it has a slot makes it a holder.

    Parameters:
        name: The semaphore.
        wake: Called, from any thread, when the ticket is handed a slot.
        job: For which job it asks, for people.

    Attributes:
        number: The place in line; 0 when it has none.
        fence: The fencing number of its lease; 0 when it has none.
        woken: Whether it was handed its slot by another one's release.
        gone: Whether its asker has given up, or given the slot back.
        doubts: Whether a hand-over that it hears of may be an old one, so that it has to ask.
        over: Whether its lease is known to have run out before it was renewed.
        asked_at: When it had to ask for more than a slot that was free, on this process's monotonic clock, in seconds.
        since: When it got its slot.
        good_until: Until when its lease, or presence, certainly lasts.
        due: When that is to be renewed.
        lapsed: Called once, from any thread, with the ticket, when its place in line has lapsed because the backend
            does not answer.
        given: What it has, or waits for, instead of a slot of its own.
    """

    cost = 1.0
    number = asked_at = since = 0.0
    fence = 0
    woken = gone = doubts = over = False
    good_until = due = math.inf
    wake: Callable[[], object] | None = None
    lapsed: Callable[[Ticket], object] | None = None
    given: Ticket | None = None
    job = ""
    _id = ""

    def __init__(self, name: str, wake: Callable[[], object] | None = None, job: str | None = None) -> None:
        self.name = name
        self.process = PROCESS.name
        if job is not None:
            self.job = printable(str(job), LONGEST_JOB)
        if wake is not None:
            self.wake = wake
            self.asked_at = monotonic()

    def __lt__(self, other: Ticket) -> bool:
        return self.id < other.id

    @property
    def id(self) -> str:
        """Unique among all processes: host, process, and for which job, so that people see who holds a slot."""
        if not self._id:
            job = f":{self.job}" if self.job else ""
            self._id = f"{self.process}:{next(PROCESS.numbers)}{job}"
        return self._id

    @property
    def is_ours(self) -> bool:
        """Whether this process asked for it; a forked child must not touch its parent's."""
        return self.process == PROCESS.name

    @property
    def lost(self) -> bool:
        """Whether somebody else may have the slot that it was given."""
        return self.over or not self.is_ours or (not self.gone and monotonic() > self.good_until)

    @property
    def waited(self) -> float:  # type: ignore[override]
        """Seconds until it got its slot."""
        return self.since - self.asked_at if self.asked_at else 0.0

    @property
    def age(self) -> float:
        """Seconds since it got its slot; 0 where it has not been told yet."""
        return monotonic() - self.since if self.since else 0.0

    @property
    def held_for(self) -> float:
        """Microseconds since it got its slot."""
        return (monotonic() - self.since) * 1e6

    @property
    def place(self) -> float:
        """The number with which it has to be in line; 0 where it has not."""
        return 0.0 if self.fence or self.gone else self.number

    def keep(self, asked_at: float, span: float) -> None:
        """What it was given at a request that was made at `asked_at` lasts for so many seconds."""
        self.good_until = asked_at + span
        self.due = asked_at + span / 3

    def keep_place(self, asked_at: float, span: float) -> None:
        """The same for a place in the line. Where it had lapsed before, a slot may have come and gone unheard."""
        self.doubts = self.doubts or monotonic() > self.good_until
        self.keep(asked_at, span)

    def ask_when_open(self, closed: float) -> None:
        """A semaphore that is closed for so many seconds is asked again when it opens."""
        if closed > 0:
            self.due = min(self.due, monotonic() + closed)

    def take(self, fence: int) -> bool:
        """Hold a slot from now on; False where it does already. Any number of its lease will do."""
        mine = object()
        first = vars(self).setdefault("_holds", mine) is mine
        if not self.fence:
            self.since = monotonic()
            self.fence = fence
        return first

    def lapse(self) -> None:
        """Its place in line has lapsed, and nobody can tell when it has one again."""
        lapsed, self.lapsed = self.lapsed, None
        if lapsed is None or self.gone:
            return
        try:
            lapsed(self)
        except Exception:
            logger.exception("a waiter could not be told that its place has lapsed")

    def hand_without_backend(self) -> bool:
        """Hold what its limiter's backend knows nothing of; False where that came too late."""
        self.good_until = self.due = math.inf
        return self.hand(OPEN_FENCE)

    def hears_truly(self) -> bool:
        """Whether a hand-over that it hears of is for the place that it has.

        Another thread may renew the place meanwhile, and notes a doubt before it notes the time.
        """
        good_until = self.good_until
        return monotonic() <= good_until and not self.doubts

    def hand(self, fence: int) -> bool:
        """Hold a slot, and wake the one who waits for it; False where that came too late, or to nobody.

        A process that was stopped for a while may hear of a slot that has long gone to somebody else: its
        next renewal tells it where it stands.
        """
        if self.gone or monotonic() > self.good_until or not self.take(fence):
            return False
        self.woken = True
        try:
            if self.wake is not None:
                self.wake()
        except Exception as error:  # noqa: BLE001
            logger.warning("a waiter could not be woken (%s); its slot goes to the next", type(error).__name__)
            self.gone = True
            self.due = 0.0
            return False
        return True


blank_ticket: Callable[[], Ticket] = partial(Ticket.__new__, Ticket)
"""One of which nothing is known, to be filled in: the call of its `__init__` would take longer than both."""
