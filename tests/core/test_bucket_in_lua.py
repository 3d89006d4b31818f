"""One rule, two homes: the Lua on a real server decides as the Python does, whatever happens in whatever order."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import count, pairwise, product, starmap
from struct import Struct
from typing import NamedTuple

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from support.buckets import LIVE, LIVE_FIELDS, STATE, TEST_CLOCK, change_text, script_text
from support.histories import HISTORIES
from support.servers import Server

from steindamm.rules.bucket import BucketState, BucketTerms, Decision, Request, Verdict, What, kept_until
from steindamm.rules.changes import NO_OVERRIDE, Change, Kind, change, override_of
from steindamm.rules.deciding import decide

START = 1_700_000_000_000_000
"""Microseconds; a server's clock stands about there."""
FOREVER = 9e15
TERMS, REQUESTS = Struct("<6d"), Struct("<5d")
NUMBERS = count(1)

fractions = st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 0.7, 1.0]) | st.floats(0.0, 1.0)
steps = st.sampled_from([1.0, 1e6 / 3, 1e4, 1e6, 3.7e6, 3.6e9]) | st.floats(1.0, 1e8)


@st.composite
def bucket_terms(draw: st.DrawFn) -> BucketTerms:
    capacity = draw(st.sampled_from([1.0, 5.0, 0.5, 2.5, 10.0, 100.0, 1e9]) | st.floats(1e-6, 1e4))
    initial = capacity * draw(fractions)
    if draw(st.integers(0, 7)) == 0:
        return BucketTerms(capacity, 0.0, 0.0, initial, -1.0, 60e6)
    step = draw(steps)
    amount = max(1e-6, capacity * draw(fractions))
    anchor = draw(st.sampled_from([-1.0, -1.0, 0.0, step / 3]))
    return BucketTerms(capacity, amount, step, initial, anchor, 60e6)


class Plan(NamedTuple):
    """One request, before the history has told what the turns in it are."""

    what: What
    cost: float
    accept: float
    horizon: float
    earlier: int | None
    turn_off_by: float


COSTS = [1 / 3, 0.0, 0.1, 0.5, 0.7, 1.0]
TAKING = product(
    [What.TAKE, What.COME_BACK, What.GIVE_BACK, What.GIVE_BOOKING_BACK],
    COSTS,
    [0.0, 0.5, 1.0, 3.0, math.inf],
    [0.0, 2.0, 50.0, 1e6],
    [None, 0, 1, 2],
    [0.0, 1.0, -1.0, 30.0],
)
SETTLING = product([What.SETTLE], [*COSTS, *(-cost for cost in COSTS), 40.0], [0.0], [0.0], [None], [0.0])
LOOKING = product([What.LOOK], COSTS, [0.0, 1.0, math.inf], [0.0], [None, 0, 1], [0.0, 1.0, 5.0, 30.0])
plans = st.one_of(*(st.sampled_from(list(starmap(Plan, kind))) for kind in (TAKING, SETTLING, LOOKING)))
moves = st.sampled_from([0.0, 0.0, 1e-6, 0.3, 1.0, 2.0, 7.5, 60.0, 1e4, -0.4, -1.0, -3.0]) | st.floats(-2.0, 5.0)


class PlannedChange(NamedTuple):
    """One change, in the units of the bucket: steps, and multiples of its own terms."""

    kind: Kind
    time: float = 0.0
    capacity: float | None = None
    amount: float = 1.0
    step: float = 1.0

    def on(self, terms: BucketTerms, now: float) -> Change:
        scale = terms.step or 1e6
        if self.kind is Kind.CLOSE_FOR:
            return Change(self.kind, (self.time * scale,))
        if self.kind is Kind.CLOSE_UNTIL:
            return Change(self.kind, (now + self.time * scale,))
        if self.kind is Kind.BACK_OFF:
            return Change(self.kind, (max(0.0, self.time) * scale, 0.5, 1 / 32, (1 + abs(self.time)) * 7 * scale))
        if self.kind is Kind.REOPEN:
            return Change(self.kind)
        if self.capacity is None:
            return Change(self.kind, NO_OVERRIDE)
        return Change(self.kind, override_of(terms, self.overridden(terms)), b"who and what")

    def overridden(self, terms: BucketTerms) -> BucketTerms:
        assert self.capacity is not None
        return terms._replace(
            capacity=max(1e-6, terms.capacity * self.capacity),
            amount=terms.amount * self.amount,
            step=terms.step * self.step,
            anchor=terms.anchor if terms.anchor < 0 else terms.anchor * self.step,
        )


TIMES = [0.0, 0.1, 1.0, 2.0, 20.0, 1e4, -1.0]
CLOSING = list(starmap(PlannedChange, product([Kind.CLOSE_FOR, Kind.CLOSE_UNTIL], TIMES)))
BACKING_OFF = list(starmap(PlannedChange, product([Kind.BACK_OFF], TIMES)))
OVERRIDING = list(
    starmap(PlannedChange, product([Kind.OVERRIDE], [0.0], [0.3, 1.0, 2.5], [0.25, 1.0, 3.0], [1 / 3, 1.0, 10.0]))
)
ENDING = [PlannedChange(Kind.REOPEN), PlannedChange(Kind.OVERRIDE)]
changes = st.none() | st.one_of(*map(st.sampled_from, (CLOSING, BACKING_OFF, OVERRIDING, ENDING, ENDING)))
moments_planned = st.tuples(moves, changes, st.lists(plans, min_size=1, max_size=3))
histories = st.lists(moments_planned, min_size=1, max_size=10)
History = list[tuple[float, PlannedChange | None, list[Plan]]]


@dataclass
class Moment:
    """What was changed, then asked, at one time, and what the Python decided and then knew."""

    now: int
    change: Change | None
    requests: list[Request]
    decisions: list[Decision]
    state: tuple[float, ...]
    live: tuple[float, ...] | None
    note: bytes
    kept: float


def lived_in_python(terms: BucketTerms, history: History) -> list[Moment]:
    now, state = START, None
    given: list[tuple[float, float]] = []
    moments = []
    for move, planned_change, planned in history:
        now += int(move * (terms.step or 1e6))
        state = state or BucketState(terms, now)
        wanted = planned_change and planned_change.on(terms, now)
        if wanted:
            change(terms, state, now, wanted)
        requests, decisions = [], []
        for plan in planned:
            request = as_request(plan, terms, now, given)
            decision = decide(terms, state, now, request)
            if decision.turn < FOREVER:
                given.append((request.cost, math.ceil(decision.turn)))
            requests.append(request)
            decisions.append(decision)
        known = tuple(float(getattr(state, field)) for field in FIELDS)
        live = state.live and tuple(float(getattr(state.live, field)) for field in LIVE_FIELDS)
        note = state.live.note if state.live else b""
        kept = kept_until(terms, state, now)
        moments.append(Moment(now, wanted, requests, decisions, known, live, note, kept))
    return moments


FIELDS = ("line", "pace", "grid", "granted", "deferred", "refused", "waited")


def as_request(plan: Plan, terms: BucketTerms, now: float, given: list[tuple[float, float]]) -> Request:
    scale = terms.step or 1e6
    cost, turn = terms.capacity * plan.cost, float(now)
    if plan.earlier is not None and given:
        cost, turn = given[-1 - plan.earlier % len(given)]
    turn = max(0.0, turn + plan.turn_off_by * scale)
    return Request(plan.what, cost, plan.accept * scale, plan.horizon * scale, turn)


class LuaLife(NamedTuple):
    """What the server said and knew at one moment."""

    replies: list[int]
    packed: bytes
    lives: int


class Scripts(NamedTuple):
    """The hashes of the two scripts."""

    ask: str
    change: str


def lived_in_lua(admin: redis.Redis, scripts: Scripts, terms: BucketTerms, moments: list[Moment]) -> list[LuaLife]:
    key = f"steindamm:{{history-{next(NUMBERS)}}}:bucket"
    packed_terms = TERMS.pack(*terms)
    with admin.pipeline(transaction=False) as pipeline:
        for moment in moments:
            keys = 2, key, moment.now
            if moment.change:
                kind, numbers, note = moment.change
                packed = Struct(f"<{len(numbers)}d").pack(*numbers)
                pipeline.evalsha(scripts.change, *keys, packed_terms, kind, packed, note)
            requests = b"".join(REQUESTS.pack(*request) for request in moment.requests)
            pipeline.evalsha(scripts.ask, *keys, packed_terms, requests)
            pipeline.get(key)
            pipeline.pttl(key)
        pipeline.delete(key)
        replies = iter(pipeline.execute())
    lives = []
    for moment in moments:
        if moment.change:
            next(replies)
        lives.append(LuaLife(next(replies), next(replies), next(replies)))
    return lives


def as_reply(decision: Decision) -> list[int]:
    verdict, wait, turn, _ = decision
    if wait == math.inf:
        return [verdict, -1, -1]
    return [verdict, math.ceil(min(wait, FOREVER)), math.ceil(min(turn, FOREVER))]


@pytest.fixture(scope="module")
def scripts(valkey: Server) -> Scripts:
    load = valkey.admin.script_load
    return Scripts(str(load(script_text(TEST_CLOCK))), str(load(change_text(TEST_CLOCK))))


def test_both_homes_of_the_rules_decide_alike(valkey: Server, scripts: Scripts) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=HISTORIES)
    @given(terms=bucket_terms(), history=histories)
    def prove(terms: BucketTerms, history: History) -> None:
        moments = lived_in_python(terms, history)
        for moment, life in zip(moments, lived_in_lua(valkey.admin, scripts, terms, moments), strict=True):
            assert_they_agree(moment, life)
        take_note(seen, moments)

    prove()
    assert min(seen.values()) > HISTORIES // 50, seen
    assert len(seen) == 11, seen


def assert_they_agree(moment: Moment, life: LuaLife) -> None:
    changed = [] if moment.live is None else [int(moment.live[0])]
    assert life.replies == [number for decision in moment.decisions for number in as_reply(decision)] + changed
    assert STATE.unpack(life.packed[: STATE.size]) == moment.state
    if moment.live is None:
        assert len(life.packed) == STATE.size
    else:
        assert LIVE.unpack_from(life.packed, STATE.size) == moment.live
        assert life.packed[STATE.size + LIVE.size :] == moment.note
    lives = math.ceil(min(moment.kept - moment.now, FOREVER) / 1000) + 1
    assert lives - 10_000 < life.lives <= lives + 1


def take_note(seen: Counter[str], moments: list[Moment]) -> None:
    """What has happened in a history; one that gets nowhere proves nothing."""
    verdicts = {decision.verdict for moment in moments for decision in moment.decisions}
    lives = [dict(zip(LIVE_FIELDS, moment.live, strict=True)) if moment.live else None for moment in moments]
    seen["booked"] += Verdict.BOOKED in verdicts
    seen["early"] += Verdict.EARLY in verdicts
    seen["too much"] += Verdict.TOO_MUCH in verdicts
    seen["closed"] += any(live and live["since"] > moment.now for live, moment in zip(lives, moments, strict=True))
    seen["slowed"] += any(live and live["share"] < 1 for live in lives)
    seen["overridden"] += any(live and live["capacity"] >= 0 for live in lives)
    seen["another speed"] += any(live and live["speed"] != 1 for live in lives)
    seen["as ever again"] += any(earlier and not later for earlier, later in pairwise(lives))
    seen["recalled"] += any(live and live["recalled"] < math.inf for live in lives)
    seen["lost"] += any(
        request.what is What.LOOK and decision.verdict is Verdict.GRANTED
        for moment in moments
        for request, decision in zip(moment.requests, moment.decisions, strict=True)
    )
    seen["set back"] += any(later.now < earlier.now for earlier, later in pairwise(moments))
