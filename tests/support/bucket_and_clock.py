"""One token bucket and its clock, which the test sets."""

from __future__ import annotations

from steindamm.rules.bucket import ENDLESS, BucketState, BucketTerms, Decision, Request, Verdict, What
from steindamm.rules.changes import NO_OVERRIDE, Change, Kind, change, override_of
from steindamm.rules.deciding import decide

US = 1e6
HOUR = 3_600 * US


class Bucket:
    """A bucket and its clock, in microseconds."""

    def __init__(self, capacity=1.0, amount=1.0, step=US, initial=None, anchor=-1.0, keep=60 * US, now=0.0) -> None:
        self.terms = BucketTerms(capacity, amount, step, capacity if initial is None else initial, anchor, keep)
        self.now = now
        self.state = BucketState(self.terms, now)

    def ask(self, what: What, cost: float = 1.0, accept: float = ENDLESS, horizon=0.0, turn=0.0) -> Decision:
        return decide(self.terms, self.state, self.now, Request(what, cost, accept, horizon, turn))

    def take(self, cost: float = 1.0, accept: float = ENDLESS, horizon: float = 0.0) -> Decision:
        return self.ask(What.TAKE, cost, accept, horizon)

    def book(self, cost: float = 1.0, horizon: float = HOUR) -> Decision:
        return self.take(cost, 0.0, horizon)

    def come_back(self, turn: float, cost: float = 1.0, accept: float = US, horizon: float = HOUR) -> Decision:
        return self.ask(What.COME_BACK, cost, accept, horizon, turn)

    def look(self, turn: float) -> float:
        """Seconds until a turn."""
        return self.ask(What.LOOK, turn=turn).wait / US

    def settle(self, beyond: float) -> None:
        self.ask(What.SETTLE, beyond)

    def change(self, kind: Kind, *numbers: float) -> None:
        change(self.terms, self.state, self.now, Change(kind, numbers))

    def close(self, seconds: float) -> None:
        self.change(Kind.CLOSE_FOR, seconds * US)

    def reopen(self) -> None:
        self.change(Kind.REOPEN)

    def back_off(self, seconds: float, recovery: float, factor: float = 0.5, least: float = 1 / 32) -> None:
        self.change(Kind.BACK_OFF, seconds * US, factor, least, recovery * US)

    def override(self, **terms: float) -> None:
        self.change(Kind.OVERRIDE, *override_of(self.terms, self.terms._replace(**terms)))

    def clear_override(self) -> None:
        self.change(Kind.OVERRIDE, *NO_OVERRIDE)

    def at_once(self, cost: float = 1.0) -> bool:
        return self.take(cost, 0.0).verdict is Verdict.GRANTED

    def drained(self, cost: float = 1.0) -> int:
        """How many start now."""
        count = 0
        while self.at_once(cost):
            count += 1
        return count
