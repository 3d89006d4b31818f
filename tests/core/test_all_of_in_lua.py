"""Several limits at once, one rule in two homes: the Lua on a real server decides as the Python does."""

from __future__ import annotations

import math
from collections import Counter
from itertools import count, product, starmap
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.limits import Bucket, InLua, Limit, Scripts, Semaphore, as_reply, ask_all
from support.servers import Server

from steindamm.rules import bucket, semaphore
from steindamm.rules.all_of import Ask, Decision, Request, Verdict, What
from steindamm.rules.bucket import BucketTerms
from steindamm.rules.changes import NO_OVERRIDE, Change, Kind
from steindamm.rules.semaphore import SemaphoreTerms, Stay

HISTORIES = 300
START = 1_700_000_000_000_000
"""Microseconds; a server's clock stands about there."""
SECOND = 1_000_000
LEASE, PRESENCE = 60 * SECOND, 6 * SECOND
FOREVER = 9e15
ASKERS = [f"proved:{number}" for number in range(4)]
NUMBERS = count(1)
CHANGES_OF_SLOTS = [
    [lambda _: Change(Kind.REOPEN), lambda time: Change(Kind.CLOSE_FOR, (time,))],
    [lambda _: Change(Kind.OVERRIDE, (-1.0,)), lambda _: Change(Kind.OVERRIDE, (2.0,))],
]

bucket_terms = st.builds(
    lambda capacity, share, step, full, anchor: BucketTerms(
        capacity, 0.0 if step == 0 else max(1e-3, capacity * share), step, capacity * full, anchor, 60e6
    ),
    capacity=st.sampled_from([1.0, 2.5, 5.0, 100.0]),
    share=st.sampled_from([1.0, 0.5, 0.2, 1 / 3]),
    step=st.sampled_from([SECOND, SECOND, SECOND / 3, 3.7 * SECOND, 1e4, 0.0]),
    full=st.sampled_from([1.0, 1.0, 0.5, 0.0]),
    anchor=st.sampled_from([-1.0, -1.0, -1.0, 1e5]),
)
semaphore_terms = st.builds(SemaphoreTerms, st.integers(1, 3), st.just(LEASE), st.just(PRESENCE))
mixed = st.lists(bucket_terms | semaphore_terms, min_size=1, max_size=4)
lines_only = st.lists(
    st.builds(SemaphoreTerms, st.integers(1, 2), st.just(LEASE), st.just(PRESENCE)), min_size=2, max_size=3
)
limits_planned = mixed | mixed | lines_only


class PlannedAsk(NamedTuple):
    """What one limit is asked: a share of its capacity, with a turn that it gave before, or one that was made up."""

    cost: float
    earlier: int | None
    off_by: float
    asker: str


class Plan(NamedTuple):
    """One request to all limits; or to one of them, a change of it, or the end of a lease."""

    asks: list[PlannedAsk]
    accept: float
    horizon: float
    stay: Stay
    what: What


class Alone(NamedTuple):
    """What happens to one of the limits meanwhile."""

    limit: int
    what: int
    ask: PlannedAsk
    time: float


asks = st.sampled_from(
    list(starmap(PlannedAsk, product([0.2, 0.5, 1.0], [None, None, 0, 0, 1, 2], [0.0, 0.0, 3e5, -3e5], ASKERS)))
)
plans = st.builds(
    Plan,
    asks=st.lists(asks, min_size=4, max_size=4),
    accept=st.sampled_from([0.0, 0.0, 5e4, SECOND, math.inf]),
    horizon=st.sampled_from([0.0, SECOND, 30.0 * SECOND, 3_600.0 * SECOND]),
    stay=st.sampled_from([Stay.LISTENING, Stay.LISTENING, Stay.AWAY, Stay.NO]),
    what=st.sampled_from([What.TAKE] * 10 + [What.LOOK, What.GIVE_BACK, What.GIVE_BOOKINGS_BACK]),
)
alone = st.builds(
    Alone,
    limit=st.integers(0, 3),
    what=st.integers(0, 5),
    ask=asks,
    time=st.sampled_from([0.0, 3e5, SECOND, 20.0 * SECOND]),
)
moves = st.sampled_from(
    [0, 0, 1, 20_000, 300_000, SECOND, 2 * SECOND, 8 * SECOND, LEASE, -1, -300_000, -SECOND]
) | st.integers(-SECOND // 2, 5 * SECOND)
histories = st.lists(
    st.tuples(moves, st.lists(plans, min_size=1, max_size=3) | st.lists(plans, min_size=1, max_size=3) | alone),
    min_size=1,
    max_size=12,
)
History = list[tuple[int, "list[Plan] | Alone"]]


class Life:
    """A history as the Python lives it, and what the Lua is to say of it."""

    def __init__(self, terms: list[BucketTerms | SemaphoreTerms], valkey: Server, scripts: Scripts) -> None:
        self.limits: list[Limit] = [
            Bucket(each) if isinstance(each, BucketTerms) else Semaphore(each) for each in terms
        ]
        self.lua = InLua(valkey.admin, scripts, self.limits, f"all-of-{next(NUMBERS)}")
        self.given: list[list[float]] = [[] for _ in terms]
        self.expected: list[object] = []
        self.known: list[list[object]] = []
        self.decisions: list[Decision] = []

    def ask(self, now: int, requests: list[Request]) -> list[Decision]:
        decisions = [ask_all(self.limits, now, request) for request in requests]
        self.lua.ask_all(now, requests)
        self._note([number for decision in decisions for number in as_reply(decision)])
        self.decisions += decisions
        return decisions

    def ask_as_planned(self, now: int, plans: list[Plan]) -> None:
        for decision in self.ask(now, [self._request(plan) for plan in plans]):
            self._remember(decision.given)

    def _note(self, reply: object) -> None:
        """What the Lua is to say, and to know after it."""
        self.expected.append(reply)
        self.lua.read()
        self.known.append([limit.known() for limit in self.limits])

    def compare(self) -> None:
        replies = self.lua.end()
        size = 1 + sum(1 if limit.kind == "b" else 5 for limit in self.limits)
        for number, (expected, known) in enumerate(zip(self.expected, self.known, strict=True)):
            reply, *reading = replies[number * size : (number + 1) * size]
            if expected is not None:
                assert reply == expected
            assert self.lua.known(reading) == known

    def alone(self, now: int, what: Alone) -> None:
        index = what.limit % len(self.limits)
        limit = self.limits[index]
        if isinstance(limit, Semaphore) and what.what < 4:
            asking = semaphore.Request(semaphore.What(what.what), what.ask.asker, 0.0, Stay.LISTENING, 0.0)
            limit.ask(now, asking)
            self.lua.ask(index, now, asking)
        elif isinstance(limit, Semaphore):
            change = CHANGES_OF_SLOTS[what.what - 4][what.time > 0](what.time)
            limit.change(now, change)
            self.lua.change(index, now, change)
        elif what.what < 3:
            kind = [bucket.What.TAKE, bucket.What.GIVE_BACK, bucket.What.GIVE_BOOKING_BACK][what.what]
            cost, turn = self._cost_and_turn(index, what.ask)
            taking = bucket.Request(kind, cost, what.time, 0.0, turn)
            limit.ask(now, taking)
            self.lua.ask(index, now, taking)
        else:
            change = [
                Change(Kind.CLOSE_FOR, (what.time,)),
                Change(Kind.BACK_OFF, (what.time, 0.5, 1 / 32, 7e6)),
                Change(Kind.OVERRIDE, NO_OVERRIDE if what.time else (0.5, 0.5, float(SECOND), -1.0, 1.0)),
            ][what.what - 3]
            limit.change(now, change)
            self.lua.change(index, now, change)
        self._note(None)

    def _request(self, plan: Plan) -> Request:
        asks = []
        for index, (limit, ask) in enumerate(zip(self.limits, plan.asks, strict=False)):
            cost, turn = self._cost_and_turn(index, ask)
            asks.append(Ask(cost, turn) if limit.kind == "b" else Ask(0.0, turn, ask.asker))
        return Request(tuple(asks), plan.accept, plan.horizon, plan.stay, 0.0, plan.what)

    def _cost_and_turn(self, index: int, ask: PlannedAsk) -> tuple[float, float]:
        limit, given = self.limits[index], self.given[index]
        turn = 0.0
        if ask.earlier is not None and given:
            turn = given[-1 - ask.earlier % len(given)] + ask.off_by
        return (limit.terms.capacity * ask.cost if isinstance(limit, Bucket) else 0.0), max(0.0, turn)

    def _remember(self, given: tuple[float, ...]) -> None:
        for known, each in zip(self.given, given, strict=True):
            if 0 < each < FOREVER:
                known.append(math.ceil(each))


@pytest.fixture(scope="module")
def scripts(valkey: Server) -> Scripts:
    return Scripts.loaded(valkey.admin)


def test_both_homes_of_the_rules_decide_alike(valkey: Server, scripts: Scripts) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=HISTORIES)
    @given(terms=limits_planned, history=histories)
    def prove(terms: list[BucketTerms | SemaphoreTerms], history: History) -> None:
        life, now = Life(terms, valkey, scripts), START
        for move, what in history:
            now += move
            life.alone(now, what) if isinstance(what, Alone) else life.ask_as_planned(now, what)
        life.compare()
        take_note(seen, life.limits, life.decisions)

    prove()
    assert min(seen.values()) > 0, seen


def test_a_cost_above_a_lowered_capacity_is_refused_alike(valkey: Server, scripts: Scripts) -> None:
    terms = BucketTerms(5.0, 1.0, float(SECOND), 5.0, keep=60e6)
    life = Life([terms, terms], valkey, scripts)
    life.alone(START, Alone(1, 5, PlannedAsk(0, None, 0, ""), 0.0))
    (decision,) = life.ask(START, [Request((Ask(1.0), Ask(1.0)))])
    assert decision[:3] == (Verdict.TOO_MUCH, 1, math.inf)
    life.compare()


def test_a_slot_is_kept_alike_by_one_who_stands_in_the_larger_line_again(valkey: Server, scripts: Scripts) -> None:
    life = Life([SemaphoreTerms(1, LEASE, PRESENCE), SemaphoreTerms(2, LEASE, PRESENCE)], valkey, scripts)

    def alone(limit: int, what: semaphore.What, asker: str) -> None:
        life.alone(START, Alone(limit, int(what), PlannedAsk(0, None, 0, asker), 0.0))

    def ask(turns: tuple[float, float]) -> tuple[Verdict, int, float, tuple[float, ...]]:
        asks = (Ask(0.0, turns[0], "both:1"), Ask(0.0, turns[1], "both:2"))
        return life.ask(START, [Request(asks, stay=Stay.LISTENING)])[0][:4]

    for limit, asker in ((0, "a:1"), (1, "b:1"), (1, "b:2")):
        alone(limit, semaphore.What.ENTER, asker)
    _, which, _, (small, _) = ask((0.0, 0.0))
    assert which == 0
    alone(0, semaphore.What.LEAVE, "a:1")
    _, which, _, (kept, large) = ask((small, 0.0))
    assert (which, kept) == (1, 0.0)
    alone(0, semaphore.What.ENTER, "a:2")
    alone(1, semaphore.What.LEAVE, "b:1")
    _, which, _, (_, kept) = ask((small, large))
    assert (which, kept) == (0, 0.0)
    alone(1, semaphore.What.ENTER, "b:3")
    alone(0, semaphore.What.LEAVE, "a:2")
    _, which, _, (kept, again) = ask((small, large))
    assert which == 1
    assert kept > 0
    assert again == large
    alone(1, semaphore.What.LEAVE, "b:2")
    verdict, *_ = ask((small, large))
    assert verdict is Verdict.GRANTED
    life.compare()


def take_note(seen: Counter[str], limits: list[Limit], decisions: list[Decision]) -> None:
    """What has happened in a history; one that gets nowhere proves nothing."""
    kinds = [limit.kind for limit in limits]
    several = [decision for decision in decisions if len(decision.given) > 1]
    granted = [decision for decision in several if decision.verdict is Verdict.GRANTED]
    waiting = [decision for decision in several if decision.verdict is Verdict.WAITING]
    seen["refused"] += any(decision.verdict is Verdict.REFUSED for decision in several)
    seen["granted"] += bool(granted)
    seen["granted by both kinds"] += {"b", "s"} <= set(kinds) and bool(granted)
    seen["granted ahead"] += any(decision.wait > 0 for decision in granted)
    seen["waited for tokens"] += any(kinds[decision.which] == "b" for decision in waiting)
    seen["waited in line"] += any(kinds[decision.which] == "s" for decision in waiting)
