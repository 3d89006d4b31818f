"""One rule, two homes: the Lua on a real server decides as the Python does, whatever happens in whatever order."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise, product, starmap
from struct import Struct
from typing import Any, NamedTuple

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from support.histories import HISTORIES
from support.semaphores import LIVE, STATE, TEST_CLOCK, change_text, keys_of, script_text
from support.servers import Server

from steindamm.backends.redis.semaphore import REQUEST, TERMS
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
    opens_in,
)
from steindamm.rules.semaphore_changes import change

START = 1_700_000_000_000_000
"""Microseconds; a server's clock stands about there."""
SECOND = 1_000_000
LEASE = 60 * SECOND
PRESENCE = 6 * SECOND
SLOW = 3_000
"""Milliseconds that may pass between the script and the look at its keys."""
PROCESS = "proved"
ASKERS = [f"{PROCESS}-{number % 2}:{number}" for number in range(6)]
NUMBERS = count(1)


class Plan(NamedTuple):
    """One request, before the history has told what the numbers in it are.

    Parameters:
        earlier: Which of the numbers given out before it carries; None for none.
        off_by: What is added to that number: one that was made up.
    """

    what: What
    asker: str
    stay: Stay
    earlier: int | None
    off_by: float
    slack: float
    held: float


def entering() -> list[Plan]:
    numbers = [(None, 0.0), (None, 0.0), (0, 0.0), (1, 0.0), (0, 1.0), (0, 1e17), (0, -1e15)]
    return [
        Plan(What.ENTER, asker, stay, earlier, off_by, slack, 0.0)
        for asker, stay, (earlier, off_by), slack in product(ASKERS, Stay, numbers, [SECOND / 2, SECOND])
    ]


def others() -> list[Plan]:
    leaving = product([What.LEAVE], ASKERS, [Stay.NO], [None], [0.0], [0.0], [-1.0, 0.0, 1e4, SECOND / 3, 7e7, 1e15])
    giving_up = product([What.GIVE_UP], ASKERS, [Stay.NO], [None], [0.0], [0.0], [0.0])
    renewing = product([What.RENEW], ASKERS, [Stay.NO], [None, 0, 0, 1], [0.0], [0.0], [0.0])
    return [*starmap(Plan, leaving), *starmap(Plan, giving_up), *starmap(Plan, renewing)]


plans = st.sampled_from(entering()) | st.sampled_from(others())
moves = st.sampled_from(
    [0, 0, 1, 300_000, 2 * SECOND, PRESENCE, LEASE // 3, LEASE, 5 * LEASE, -1, -300_000, -LEASE, -3_600 * SECOND]
) | st.integers(-SECOND, LEASE)
capacities = st.sampled_from([None, None, None, None, 1, 2, 3])
closures = st.sampled_from([0, SECOND, PRESENCE, LEASE, -SECOND])
changes = st.one_of(
    *[st.none()] * 4,
    closures.map(lambda time: (Kind.CLOSE_FOR, time)),
    closures.map(lambda time: (Kind.CLOSE_UNTIL, time)),
    st.just((Kind.REOPEN, 0)),
    st.sampled_from([1, 2, 4, -1]).map(lambda capacity: (Kind.OVERRIDE, capacity)),
)
histories = st.lists(
    st.tuples(moves, capacities, changes, st.lists(plans, min_size=1, max_size=4)),
    min_size=1,
    max_size=12,
)


@dataclass
class Moment:
    """What was changed, then asked, at one time, and what the Python decided and then knew."""

    now: int
    terms: SemaphoreTerms
    change: Change | None
    requests: list[Request] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    handed: list[tuple[str, int]] = field(default_factory=list)
    meta: tuple[float, ...] = ()
    live: tuple[float, ...] = ()
    note: bytes = b""
    closed: float | None = None
    leases: dict[str, float] = field(default_factory=dict)
    listening: list[tuple[float, str]] = field(default_factory=list)
    away: list[tuple[float, str]] = field(default_factory=list)
    present: dict[str, float] = field(default_factory=dict)


History = list[tuple[int, int | None, tuple[Kind, int] | None, list[Plan]]]


def lived_in_python(capacity: int, history: History) -> list[Moment]:
    now, state = START, SemaphoreState()
    numbers: list[float] = []
    moments = []
    for move, lowered, planned_change, planned in history:
        now += move
        capacity = lowered or capacity
        moment = Moment(now, SemaphoreTerms(capacity, LEASE, PRESENCE), as_change(planned_change, now))
        if moment.change:
            handed = change(moment.terms, state, now, moment.change)
            moment.handed += [(waiter, int(fence)) for waiter, fence in handed]
        for plan in planned:
            request = as_request(plan, numbers)
            place, handed = decide(moment.terms, state, now, request)
            if place.standing:
                numbers.append(place.number)
            moment.requests.append(request)
            moment.places.append(place)
            moment.handed += [(waiter, int(fence)) for waiter, fence in handed]
        remember(moment, state)
        moments.append(moment)
    return moments


def as_change(planned: tuple[Kind, int] | None, now: int) -> Change | None:
    if planned is None:
        return None
    kind, number = planned
    if kind is Kind.CLOSE_UNTIL:
        return Change(kind, (now + number,))
    return Change(kind, () if kind is Kind.REOPEN else (number,), b"who and what" if kind is Kind.OVERRIDE else b"")


def as_request(plan: Plan, numbers: list[float]) -> Request:
    if plan.what is What.LEAVE:
        return Request(plan.what, plan.asker, plan.held)
    number = 0.0
    if plan.earlier is not None and numbers:
        number = numbers[-1 - plan.earlier % len(numbers)] + plan.off_by
    return Request(plan.what, plan.asker, number, plan.stay, plan.slack)


def remember(moment: Moment, state: SemaphoreState) -> None:
    moment.meta = tuple(
        float(number)
        for number in (
            state.capacity, len(state.leases), len(state.listening), len(state.present), state.earliest, state.fading,
            state.seen, state.fence, state.arrivals, state.mean,
            state.granted, state.deferred, state.refused, state.waited,
        )
    )  # fmt: skip
    if state.live:
        moment.live = (state.live.reopens, float(state.live.capacity), state.live.set_at)
        moment.note = state.live.note
        moment.closed = opens_in(state, moment.now)
    moment.leases = dict(state.leases)
    moment.listening, moment.away = list(state.listening), list(state.away)
    moment.present = {waiter: end for waiter, (end, _) in state.present.items()}


class LuaLife(NamedTuple):
    """What the server said and knew at one moment."""

    replies: list[int]
    packed: bytes
    leases: list[tuple[str, float]]
    listening: list[tuple[str, float]]
    away: list[tuple[str, float]]
    present: list[tuple[str, float]]
    lives: list[int]


class Heard:
    """What was handed over to all processes of the test, in order."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, decode_responses=True)
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.psubscribe(f"steindamm:{PROCESS}-*")
        self._pubsub.get_message(timeout=5)

    def until(self, mark: str) -> list[tuple[str, int]]:
        heard = []
        while True:
            message: Any = self._pubsub.get_message(timeout=5)
            assert message is not None, "the mark was not heard"
            if message["data"] == mark:
                return heard
            who, fence = message["data"].split(" ")
            if fence != "0":
                heard.append((who, int(fence)))

    def close(self) -> None:
        self._pubsub.close()
        self._client.close()


class Scripts(NamedTuple):
    """The hashes of the two scripts."""

    ask: str
    change: str


def lived_in_lua(admin: redis.Redis, scripts: Scripts, moments: list[Moment], mark: str) -> list[LuaLife]:
    keys = keys_of(f"history-{next(NUMBERS)}")
    with admin.pipeline(transaction=False) as pipeline:
        for moment in moments:
            requests = b"".join(REQUEST.pack(what, *rest) for what, _, *rest in moment.requests)
            askers = [request.asker for request in moment.requests]
            terms = TERMS.pack(*moment.terms, 1)
            if moment.change:
                kind, numbers, note = moment.change
                packed = Struct(f"<{len(numbers)}d").pack(*numbers)
                pipeline.evalsha(scripts.change, 7, *keys, moment.now, terms, kind, packed, note)
            pipeline.evalsha(scripts.ask, 7, *keys, moment.now, terms, requests, *askers)
            pipeline.get(keys[0])
            for key in keys[1:5]:
                pipeline.zrange(key, 0, -1, withscores=True)
            for key in keys:
                pipeline.pttl(key)
        pipeline.publish(f"steindamm:{PROCESS}-0", mark)
        pipeline.delete(*keys)
        replies = iter(pipeline.execute())
    lives = []
    for moment in moments:
        if moment.change:
            next(replies)
        lives.append(as_life([next(replies) for _ in range(2 + 4 + 6)]))
    return lives


def as_life(replies: list[Any]) -> LuaLife:
    sets = [[(member.decode(), score) for member, score in scored] for scored in replies[2:6]]
    return LuaLife(replies[0], replies[1], *sets, replies[6:])


@pytest.fixture(scope="module")
def scripts(valkey: Server) -> Scripts:
    load = valkey.admin.script_load
    return Scripts(str(load(script_text(TEST_CLOCK))), str(load(change_text(TEST_CLOCK))))


@pytest.fixture(scope="module")
def heard(valkey: Server) -> Iterator[Heard]:
    heard = Heard(valkey.url)
    yield heard
    heard.close()


def test_both_homes_of_the_rules_decide_alike(valkey: Server, scripts: Scripts, heard: Heard) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=HISTORIES)
    @given(capacity=st.integers(1, 3), history=histories)
    def prove(capacity: int, history: History) -> None:
        moments = lived_in_python(capacity, history)
        mark = f"mark-{next(NUMBERS)}"
        lives = lived_in_lua(valkey.admin, scripts, moments, mark)
        assert heard.until(mark) == [told for moment in moments for told in moment.handed]
        for moment, life in zip(moments, lives, strict=True):
            assert_they_agree(moment, life)
            assert not moment.leases.keys() & moment.present.keys(), "who holds a slot stands in line"
            assert all(number <= moment.meta[8] for number, _ in moment.listening + moment.away)
            assert_what_is_kept_lives_long_enough(moment, life)
        take_note(seen, moments)

    prove()
    assert min(seen.values()) > HISTORIES // 50, seen
    assert len(seen) == 11, seen


def enter(server: Server, scripts: Scripts, keys: list[str], now: int, asker: str, stay: Stay) -> None:
    request = REQUEST.pack(What.ENTER, 0, stay, SECOND)
    server.admin.evalsha(scripts.ask, 7, *keys, now, TERMS.pack(1, LEASE, PRESENCE, 1), request, asker)


def test_sets_that_are_made_anew_after_their_time_have_an_end(valkey: Server, scripts: Scripts) -> None:
    """All waiters have gone, and are counted still, for nobody has asked since."""
    keys = keys_of(f"history-{next(NUMBERS)}")
    for asker in ASKERS[:4]:
        enter(valkey, scripts, keys, START, asker, Stay.LISTENING)
    valkey.admin.delete(*keys[2:5])
    enter(valkey, scripts, keys, START + 3 * PRESENCE, ASKERS[4], Stay.AWAY)
    enter(valkey, scripts, keys, START + 3 * PRESENCE, ASKERS[5], Stay.LISTENING)
    assert all(valkey.admin.pttl(key) > 0 for key in keys[:5])
    valkey.admin.delete(*keys)


@pytest.mark.parametrize("evicted", [3, 4])
def test_one_who_goes_away_leaves_nothing_for_ever_where_a_set_was_evicted(
    valkey: Server, scripts: Scripts, evicted: int
) -> None:
    keys = keys_of(f"history-{next(NUMBERS)}")
    for asker in ASKERS[:4]:
        enter(valkey, scripts, keys, START, asker, Stay.AWAY)
    valkey.admin.delete(keys[evicted])
    enter(valkey, scripts, keys, START, ASKERS[4], Stay.AWAY)
    assert valkey.admin.pttl(keys[3]) > 0
    assert valkey.admin.pttl(keys[4]) > 0
    valkey.admin.delete(*keys)


def assert_they_agree(moment: Moment, life: LuaLife) -> None:
    closed = [] if moment.closed is None else [math.ceil(moment.closed)]
    assert life.replies == [number for place in moment.places for number in map(math.ceil, place[:3])] + closed
    assert STATE.unpack(life.packed[: STATE.size])[:14] == moment.meta
    assert life.packed[STATE.size :] == (LIVE.pack(*moment.live) + moment.note if moment.live else b"")
    assert dict(life.leases) == moment.leases
    assert life.listening == [(waiter, number) for number, waiter in moment.listening]
    assert life.away == [(waiter, number) for number, waiter in moment.away]
    assert dict(life.present) == moment.present


def assert_what_is_kept_lives_long_enough(moment: Moment, life: LuaLife) -> None:
    state, leases, listening, away, present, since = life.lives
    assert min(leases, listening, away, present, since) != -1, "a key that lives for ever"
    ends = {waiter: (end - moment.now) / 1_000 for waiter, end in {**moment.leases, **moment.present}.items()}
    assert state > max(ends.values(), default=LEASE / 1_000) - SLOW
    for holder in moment.leases:
        assert leases > ends[holder] - SLOW
    for line, lives in ((moment.listening, listening), (moment.away, away)):
        for _, waiter in line:
            assert min(lives, present) > ends[waiter] - SLOW


def take_note(seen: Counter[str], moments: list[Moment]) -> None:
    """What has happened in a history; one that gets nowhere proves nothing."""
    places = [place for moment in moments for place in moment.places]
    seen["held"] += any(place.standing is Standing.HOLDING for place in places)
    seen["waited"] += any(place.standing is Standing.WAITING for place in places)
    seen["refused"] += moments[-1].meta[12] > 0
    seen["handed over"] += any(moment.handed for moment in moments)
    seen["two at once"] += any(len(moment.leases) > 1 for moment in moments)
    seen["two in line"] += any(len(moment.present) > 1 for moment in moments)
    seen["set back"] += any(later.now < earlier.now for earlier, later in pairwise(moments))
    seen["closed"] += any(moment.closed for moment in moments)
    seen["opened"] += any(earlier.closed and not later.closed for earlier, later in pairwise(moments))
    seen["overridden"] += any(moment.live and moment.live[1] >= 0 for moment in moments)
    seen["above a lowered capacity"] += any(len(moment.leases) > moment.terms.capacity for moment in moments)
