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
from steindamm.rules.all_of import Ask, Decision, Request, Verdict
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
    just_look: bool


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
    just_look=st.sampled_from([False] * 7 + [True]),
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

    def __init__(self, terms: list[BucketTerms | SemaphoreTerms], lua: InLua, limits: list[Limit]) -> None:
        self.limits = limits
        self.lua = lua
        self.given: list[list[float]] = [[] for _ in limits]
        self.expected: list[object] = []
        self.decisions: list[Decision] = []

    def ask_all(self, now: int, plans: list[Plan]) -> None:
        requests = []
        for plan in plans:
            request = self._request(plan)
            decision = ask_all(self.limits, now, request)
            self._remember(decision.given)
            self.decisions.append(decision)
            requests.append(request)
        self.lua.ask_all(now, requests)
        self.expected.append([number for decision in self.decisions[-len(plans) :] for number in as_reply(decision)])

    def alone(self, now: int, what: Alone) -> None:
        index = what.limit % len(self.limits)
        limit = self.limits[index]
        if isinstance(limit, Semaphore):
            asking = semaphore.Request(semaphore.What(what.what % 4), what.ask.asker, 0.0, Stay.LISTENING, 0.0)
            limit.ask(now, asking)
            self.lua.ask(index, now, asking)
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
        self.expected.append(None)

    def _request(self, plan: Plan) -> Request:
        asks = []
        for index, (limit, ask) in enumerate(zip(self.limits, plan.asks, strict=False)):
            cost, turn = self._cost_and_turn(index, ask)
            asks.append(Ask(cost, turn) if limit.kind == "b" else Ask(0.0, turn, ask.asker))
        return Request(tuple(asks), plan.accept, plan.horizon, plan.stay, 0.0, plan.just_look)

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

    @settings(max_examples=HISTORIES, deadline=None)
    @given(terms=limits_planned, history=histories)
    def prove(terms: list[BucketTerms | SemaphoreTerms], history: History) -> None:
        limits: list[Limit] = [Bucket(each) if isinstance(each, BucketTerms) else Semaphore(each) for each in terms]
        life = Life(terms, InLua(valkey.admin, scripts, limits, f"all-of-{next(NUMBERS)}"), limits)
        now, knowns = START, []
        for move, what in history:
            now += move
            life.alone(now, what) if isinstance(what, Alone) else life.ask_all(now, what)
            life.lua.read()
            knowns.append([limit.known() for limit in limits])
        compare(life, knowns)
        take_note(seen, limits, life.decisions)

    prove()
    assert min(seen.values()) > 0, seen
    assert len(seen) == 9, seen


def compare(life: Life, knowns: list[list[object]]) -> None:
    replies = life.lua.end()
    size = 1 + sum(1 if limit.kind == "b" else 5 for limit in life.limits)
    for number, (expected, known) in enumerate(zip(life.expected, knowns, strict=True)):
        reply, *reading = replies[number * size : (number + 1) * size]
        if expected is not None:
            assert reply == expected
        assert life.lua.known(reading) == known


def take_note(seen: Counter[str], limits: list[Limit], decisions: list[Decision]) -> None:
    """What has happened in a history; one that gets nowhere proves nothing."""
    kinds = [limit.kind for limit in limits]
    for verdict in Verdict:
        seen[verdict.name] += any(decision.verdict is verdict for decision in decisions)
    several = [decision for decision in decisions if len(decision.given) > 1]
    seen["granted by several"] += any(decision.verdict is Verdict.GRANTED for decision in several)
    seen["granted by both kinds"] += {"b", "s"} <= set(kinds) and any(
        decision.verdict is Verdict.GRANTED for decision in several
    )
    seen["granted ahead"] += any(decision.verdict is Verdict.GRANTED and decision.wait > 0 for decision in several)
    waiting = [decision for decision in several if decision.verdict is Verdict.WAITING]
    seen["waited for tokens"] += any(kinds[decision.which] == "b" for decision in waiting)
    seen["waited in line"] += any(kinds[decision.which] == "s" for decision in waiting)
    seen["kept a slot"] += any(sum(map(bool, decision.given)) > 1 for decision in waiting)
