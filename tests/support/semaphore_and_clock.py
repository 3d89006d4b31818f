"""One semaphore and its clock, which the test sets."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from steindamm.rules.changes import Change, Kind
from steindamm.rules.semaphore import (
    Place,
    Request,
    SemaphoreState,
    SemaphoreTerms,
    Standing,
    Stay,
    What,
    decide,
)
from steindamm.rules.semaphore_changes import change
from steindamm.rules.semaphore_live import UNSET

SECOND = 1_000_000.0
LEASE = 60 * SECOND
PRESENCE = 6 * SECOND


class Semaphore:
    """A semaphore and its clock, in microseconds."""

    def __init__(self, capacity: int = 1, lease: float = LEASE, presence: float = PRESENCE) -> None:
        self.terms = SemaphoreTerms(capacity, lease, presence)
        self.state = SemaphoreState()
        self.now = 1_000 * SECOND
        self.handed: list[Hashable] = []
        self.fences: list[float] = []

    def ask(self, what: What, asker: Any, number: float = 0.0, stay: Stay = Stay.NO, slack: float = 0.0) -> Place:
        place, handed = decide(self.terms, self.state, self.now, Request(what, asker, number, stay, slack))
        for waiter, fence in handed:
            self.handed.append(waiter)
            self.fences.append(fence)
        if place.standing is Standing.HOLDING and what is not What.LEAVE:
            self.fences.append(place.number)
        return place

    def enter(self, asker: Any, stay: Stay = Stay.LISTENING, number: float = 0.0, slack: float = 0.0) -> Place:
        return self.ask(What.ENTER, asker, number, stay, slack)

    def leave(self, asker: Any, held: float = -1.0) -> Place:
        return self.ask(What.LEAVE, asker, held)

    def give_up(self, asker: Any) -> Place:
        return self.ask(What.GIVE_UP, asker)

    def renew(self, asker: Any, number: float = 0.0) -> Place:
        return self.ask(What.RENEW, asker, number)

    def with_capacity(self, capacity: int) -> None:
        self.terms = self.terms._replace(capacity=capacity)

    def change(self, kind: Kind, *numbers: float) -> None:
        self.handed += [waiter for waiter, _ in change(self.terms, self.state, self.now, Change(kind, numbers))]

    def close(self, seconds: float) -> None:
        self.change(Kind.CLOSE_FOR, seconds * SECOND)

    def reopen(self) -> None:
        self.change(Kind.REOPEN)

    def override(self, capacity: float) -> None:
        self.change(Kind.OVERRIDE, capacity)

    def clear_override(self) -> None:
        self.change(Kind.OVERRIDE, UNSET)

    @property
    def holders(self) -> set[Hashable]:
        return set(self.state.leases)
