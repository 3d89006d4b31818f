"""Deciding on a request to a token bucket: by which rule, on which clock, and after what was lost.

The bucket's own rules are in `steindamm.rules.bucket`; they are asked in bucket time, see `steindamm.rules.live`.

A backend that loses its memory (a server that comes back empty) forgets the line, and would give its turns out again
beside those who sleep until theirs. The sleepers know. The first process that has any tells its last turn with what it
asks, and the line begins anew behind that one: all turns up to it stand. From then on the bucket goes by a clock that
was set anew, so that everybody who has a turn looks how far away it is, and whose turn is a later one takes the next.
"""

from __future__ import annotations

import math

from steindamm.rules.bucket import (
    DUST,
    ENDLESS,
    NEVER_BACK,
    ROUNDING,
    BucketState,
    BucketTerms,
    Decision,
    Request,
    Verdict,
    What,
    at,
    come_back,
    end_live,
    give_back,
    is_young,
    look,
    refill,
    settle,
    take,
    turn_of,
)
from steindamm.rules.live import REMEMBERED, Live


def decide(terms: BucketTerms, state: BucketState, now: float, request: Request) -> Decision:
    """Decide on one request of any kind; a gift is GRANTED if it was taken back.

    Who looks for a turn that is lost takes the next.
    """
    if request.what is What.TAKE and request.turn:
        recall(terms, state, now, request.turn)
    elif request.what is What.LOOK and is_lost(terms, state, request):
        request = Request(What.TAKE, request.cost, horizon=NEVER_BACK)
    if state.live is None:
        return _decide(terms, state, now, request)
    return _decide_in_bucket_time(terms, state, state.live, now, request)


def _decide(terms: BucketTerms, state: BucketState, now: float, request: Request) -> Decision:
    what, cost, accept, horizon, turn = request
    if what is What.TAKE:
        return take(terms, state, now, cost, accept, horizon)
    if what is What.COME_BACK:
        return come_back(terms, state, now, cost, accept, horizon, turn)
    if what is What.LOOK:
        return look(terms, state, now, turn)
    if what is What.SETTLE:
        settle(terms, state, now, cost)
        return Decision(Verdict.GRANTED, 0.0, 0.0)
    back = give_back(terms, state, now, cost, turn, booked=what is What.GIVE_BOOKING_BACK)
    return Decision(Verdict.GRANTED if back else Verdict.REFUSED, 0.0, 0.0)


def _decide_in_bucket_time(
    terms: BucketTerms, state: BucketState, live: Live, now: float, request: Request
) -> Decision:
    terms, clock = at(terms, state, now)
    if request.what is What.TAKE and request.cost > terms.capacity:
        state.refused += 1
        return Decision(Verdict.TOO_MUCH, ENDLESS, ENDLESS, live.changed)
    own = request._replace(accept=clock.own(request.accept), horizon=clock.own(request.horizon))
    verdict, wait, turn, _ = _decide(terms, state, clock.time, own)
    real = clock.real(wait)
    if verdict in (Verdict.GRANTED, Verdict.BOOKED) and request.what <= What.COME_BACK:
        state.waited += real - wait
    end_live(state, clock, now)
    return Decision(verdict, real, turn, live.changed)


def recall(terms: BucketTerms, state: BucketState, now: float, told: float) -> None:
    """Put turns that are outstanding back into the line of a bucket whose backend has lost its memory.

    Those who sleep know the turns. The first process that tells of any tells its last one, and all up to that one
    stand. In a bucket that is not young, a line that ends before them is one to which tokens were given back.
    """
    live, (terms, clock) = state.live, at(terms, state, now)
    told = min(told, clock.time + REMEMBERED)
    is_recalled = live is not None and live.recalled < ENDLESS
    if told <= clock.time or terms.step == 0 or is_recalled or not is_young(state):
        return
    refill(terms, state, clock.time)
    if turn_of(terms, state, state.line, clock.time) + ROUNDING < told:
        state.line = -math.floor((told - state.grid) / terms.step + DUST) * terms.amount
        state.pace = min(state.pace, state.line)
        state.live = live or Live(now)
        state.live.recalled = told


def is_lost(terms: BucketTerms, state: BucketState, looking: Request) -> bool:
    """Whether a turn was given out by a state that the backend has lost, and is not among those recalled.

    Its place in the line has been, or will be, given to somebody else.
    """
    live, known = state.live, looking.accept
    own = terms if live is None else live.terms(terms)
    if own.step == 0 or looking.cost > own.capacity:
        return False
    if live is None:
        return 0 < known < ENDLESS and is_young(state)
    return known < live.born and (known > 0 or looking.turn > live.recalled)
