"""One rule, two homes: the Lua on a real server decides as the Python does, whatever happens in whatever order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count, product, starmap
from struct import Struct
from typing import NamedTuple

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.buckets import STATE, TEST_CLOCK, script_text
from support.servers import Server

from steindamm.rules.bucket import BucketState, BucketTerms, Decision, Request, What, decide, kept_until

HISTORIES = 2_000
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


PLANS = list(
    starmap(
        Plan,
        product(
            [What.TAKE, What.COME_BACK, What.GIVE_BACK, What.GIVE_BOOKING_BACK],
            [1 / 3, 0.0, 0.1, 0.5, 0.7, 1.0],
            [0.0, 0.5, 1.0, 3.0, math.inf],
            [0.0, 2.0, 50.0, 1e6],
            [None, 0, 1, 2],
            [0.0, 1.0, -1.0, 30.0],
        ),
    )
)
plans = st.sampled_from(PLANS)
moves = st.sampled_from([0.0, 0.0, 1e-6, 0.3, 1.0, 2.0, 7.5, 1e4, -0.4, -1.0, -3.0]) | st.floats(-2.0, 5.0)
histories = st.lists(st.tuples(moves, st.lists(plans, min_size=1, max_size=3)), min_size=1, max_size=10)


@dataclass
class Moment:
    """What was asked at one time, and what the Python decided and then knew."""

    now: int
    requests: list[Request]
    decisions: list[Decision]
    state: tuple[float, ...]
    kept: float


def lived_in_python(terms: BucketTerms, history: list[tuple[float, list[Plan]]]) -> list[Moment]:
    now, state = START, None
    scale = terms.step or 1e6
    given: list[tuple[float, float]] = []
    moments = []
    for move, planned in history:
        now += int(move * scale)
        state = state or BucketState(terms, now)
        requests, decisions = [], []
        for plan in planned:
            request = as_request(plan, terms, scale, now, given)
            decision = decide(terms, state, now, request)
            if decision.turn < FOREVER:
                given.append((request.cost, math.ceil(decision.turn)))
            requests.append(request)
            decisions.append(decision)
        known = tuple(float(getattr(state, field)) for field in FIELDS)
        moments.append(Moment(now, requests, decisions, known, kept_until(terms, state, now)))
    return moments


FIELDS = ("line", "pace", "grid", "granted", "deferred", "refused", "waited")


def as_request(plan: Plan, terms: BucketTerms, scale: float, now: int, given: list[tuple[float, float]]) -> Request:
    cost, turn = terms.capacity * plan.cost, float(now)
    if plan.earlier is not None and given:
        cost, turn = given[-1 - plan.earlier % len(given)]
    turn = max(0.0, turn + plan.turn_off_by * scale)
    return Request(plan.what, cost, plan.accept * scale, plan.horizon * scale, turn)


def lived_in_lua(
    admin: redis.Redis, sha: str, terms: BucketTerms, moments: list[Moment]
) -> list[tuple[list[int], bytes, int]]:
    """For each moment the replies, the state and the key's time to live."""
    key = f"steindamm:{{history-{next(NUMBERS)}}}:bucket"
    packed_terms = TERMS.pack(*terms)
    with admin.pipeline(transaction=False) as pipeline:
        for moment in moments:
            requests = b"".join(REQUESTS.pack(*request) for request in moment.requests)
            pipeline.evalsha(sha, 1, key, packed_terms, requests, moment.now)
            pipeline.get(key)
            pipeline.pttl(key)
        pipeline.delete(key)
        replies = pipeline.execute()
    return list(zip(replies[0:-1:3], replies[1:-1:3], replies[2:-1:3], strict=True))


def as_reply(decision: Decision) -> list[int]:
    verdict, wait, turn, _ = decision
    if wait == math.inf:
        return [verdict, -1, -1]
    return [verdict, math.ceil(min(wait, FOREVER)), math.ceil(min(turn, FOREVER))]


@pytest.fixture(scope="module")
def sha(valkey: Server) -> str:
    return str(valkey.admin.script_load(script_text(TEST_CLOCK)))


@settings(max_examples=HISTORIES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(terms=bucket_terms(), history=histories)
def test_both_homes_of_the_rules_decide_alike(
    valkey: Server, sha: str, terms: BucketTerms, history: list[tuple[float, list[Plan]]]
) -> None:
    moments = lived_in_python(terms, history)
    for moment, (replies, state, ttl) in zip(moments, lived_in_lua(valkey.admin, sha, terms, moments), strict=True):
        assert replies == [number for decision in moment.decisions for number in as_reply(decision)]
        assert STATE.unpack(state) == moment.state
        lives = math.ceil(min(moment.kept - moment.now, FOREVER) / 1000) + 1
        assert lives - 10_000 < ttl <= lives
